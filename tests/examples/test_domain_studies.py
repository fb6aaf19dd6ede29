"""The studies of retrieval, classification and segmentation: their data, and their rival."""

import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.metrics import average_precision_score

from benchmarks import digit_classification, digit_masks, vowel_classification, word_retrieval
from lib import contrastive, digit_scenes


def test_the_smooth_average_precision_nears_the_real_one():
    random = torch.Generator().manual_seed(0)
    embeddings = torch.randn(24, 5, generator=random)
    labels = torch.arange(24) % 6
    unit = torch.nn.functional.normalize(embeddings)
    others = ~torch.eye(24, dtype=torch.bool)
    precisions = [
        average_precision_score((labels == labels[q])[others[q]], (unit @ unit[q])[others[q]])
        for q in range(24)
    ]
    loss = word_retrieval.smooth_ap(embeddings, labels, tau=1e-6)
    assert loss.item() == pytest.approx(1 - sum(precisions) / 24, abs=1e-5)


def test_pictures_of_words():
    images = word_retrieval.pictures("validation", 3, 2, seed=0)
    assert images.shape == (3, 2, 1, 24, 96)
    assert (images.amax((2, 3, 4)) > 0.5).all()
    assert word_retrieval.make_model()(images[:, 0]).shape == (3, 64)


@pytest.mark.parametrize("setting", digit_classification.SETTINGS)
def test_settings_change_the_training_digits_alone(setting):
    plain, changed = (
        digit_classification.SETTINGS[name].splits(1) for name in ("800 samples", setting)
    )
    for split in ("validation", "test"):
        for one, other in zip(plain[split], changed[split], strict=True):
            assert torch.equal(one, other)
    images, labels = changed["train"]
    if "wrong" in setting:
        share = (labels != plain["train"][1]).float().mean().item()
        assert share == pytest.approx(int(setting.split()[0]) / 100, abs=0.05)
    elif "tenth" in setting:
        assert (labels >= 5).float().mean() < 0.15
    else:
        assert len(images) == int(setting.split()[0])


def test_views_are_moved_by_up_to_a_pixel():
    dot = torch.full((400, 8, 8), -0.6)
    dot[:, 4, 4] = 10.0
    seen = digit_classification.view(dot, torch.Generator().manual_seed(0)).view(-1, 8, 8)
    places = seen.flatten(1).argmax(1)
    found = set(zip((places // 8).tolist(), (places % 8).tolist(), strict=True))
    assert found == {(row, column) for row in (3, 4, 5) for column in (3, 4, 5)}


def test_every_method_of_the_digits_learns_a_step():
    problem = digit_classification.SETTINGS["50 samples"]
    images, labels = problem.splits(0)["train"]
    for make, _ in contrastive.METHODS.values():
        model = make(problem)
        model.loss(images.flatten(1), labels).backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
        assert 0 <= model.accuracy(images.flatten(1), labels) <= 100


def test_features_of_utterances_do_not_see_what_is_behind_their_end():
    torch.manual_seed(0)
    net = vowel_classification.Backbone()
    short = torch.randn(2, 13, 29)
    short[:, -1] = 0.0
    short[:, -1, :10] = 1.0
    short = short * short[:, -1:]
    assert torch.allclose(net(short), net(torch.nn.functional.pad(short, (0, 5))), atol=1e-6)
    views = vowel_classification.view(short, torch.Generator().manual_seed(0))
    assert set(views[:, -1].unique().tolist()) == {0.0, 1.0}
    assert not views[:, :, 10:].any()


def test_a_share_of_scenes_has_the_mask_of_the_one_before():
    images, masks = torch.zeros(400, 1, 2, 2), torch.arange(400.0).view(-1, 1, 1, 1)
    same, changed = digit_scenes.with_wrong((images, masks), 0.3)
    assert same is images
    wrong = (changed != masks).flatten()
    assert 0.2 < wrong.float().mean() < 0.4
    assert torch.equal(changed[wrong], (masks[wrong] - 1) % 400)


def test_scenes_have_a_digit_and_its_mask():
    digits = torch.from_numpy(load_digits().images[:50]).float() / 16
    images, masks = digit_scenes.scenes(digits, 20, seed=0)
    assert images.shape == masks.shape == (20, 1, 32, 32)
    areas = masks.sum((1, 2, 3))
    assert (areas > 10).all()
    assert set(masks.unique().tolist()) == {0.0, 1.0}
    assert images[masks > 0].mean() > images[masks == 0].mean() + 0.3
    assert digit_scenes.Net()(images).shape == masks.shape
    # Logits of 0.5 in the mask and -2 elsewhere: any threshold between them is as good.
    for moved, least, beyond in ((-2, -2, 0.5), (0.4, 0.5, 1.1)):
        found = digit_masks.best_thresholds(2.5 * masks + moved, masks)
        assert all(least <= threshold < beyond for threshold in found.values())
    perfect = digit_masks.scores(2 * masks - 1, masks)
    assert set(perfect.values()) == {100.0}
