import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from learned_surrogates import boxes
from lib.detection_scoring import best_score, matched, scores
from lib.detector import (
    Detections,
    Detector,
    assigned,
    cell_centres,
    decoded,
    detect,
    load,
    save,
    smooth_l1,
)
from lib.scenes import SIZE, THINNEST, Scenes, inside, rendered

STUDY = Path(__file__).parents[2] / "examples" / "studies" / "post_tune_detector.py"


@pytest.fixture(scope="module")
def scenes():
    return Scenes("train", 0).batch(32)


def test_scenes_show_one_to_four_words_that_lie_apart_and_inside(scenes):
    images, words, present = scenes
    assert images.shape == (32, 1, SIZE, SIZE)
    assert images.min() >= 0
    assert images.max() <= 1
    assert present.sum(1).min() >= 1  # none in these scenes failed to find a place
    assert inside(words[present]).all()
    assert (words[present][:, 3] >= THINNEST).all()
    for one, other in itertools.combinations(range(words.shape[1]), 2):
        both = present[:, one] & present[:, other]
        assert (boxes.rotated_iou(words[both, one], words[both, other]) < 1e-6).all()


def test_a_word_is_where_its_box_is(scenes):
    """Within a box the image varies more than in as large a box beside it, mostly."""
    images, words, present = scenes
    at = torch.arange(SIZE) + 0.5
    more = []
    for image, box in zip(images, words[:, 0], strict=True):
        x, y, width, height, angle = box
        across, down = at - x, at[:, None] - y
        u = across * angle.cos() + down * angle.sin()
        v = down * angle.cos() - across * angle.sin()
        within = (2 * u.abs() < width) & (2 * v.abs() < height)
        around = (2 * u.abs() < width) & (2 * v.abs() > height) & (v.abs() < height)
        more.append(image[0][within].std() > image[0][around].std())
    assert sum(more) > 0.7 * present[:, 0].sum()


def test_the_same_seed_gives_the_same_scenes_and_splits_differ():
    first, again = rendered(Scenes("train", 1), 5), rendered(Scenes("train", 1), 5)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], rendered(Scenes("test", 1), 5)[0])


def test_every_word_has_a_cell_and_cells_count_where_no_other_part_of_a_word_is(scenes):
    _, words, present = scenes
    word, counts = assigned(words, present)
    for scene in range(len(words)):
        found = set(word[scene].tolist()) - {-1}
        assert found == set(present[scene].nonzero().flatten().tolist())
    assert counts[word >= 0].all()
    assert not counts.all()


def test_outputs_of_zero_are_typical_boxes_at_the_cells():
    found = decoded(torch.zeros(1, 1024, 5))[0]
    assert torch.equal(found[:, :2], cell_centres())
    assert torch.allclose(found[:, 2:], torch.tensor([50.0, 11.0, 0.0]))


def test_smooth_l1_is_zero_for_the_targets_alone_and_has_a_gradient():
    target = torch.tensor([[50.0, 40.0, 30.0, 10.0, 0.3]])
    assert smooth_l1(target, target) == 0
    pred = (target + 0.5).requires_grad_()
    smooth_l1(pred, target).backward()
    assert (pred.grad > 0).all()


def test_what_overlaps_a_better_detection_has_no_score():
    model = Detector().eval()
    found = detect(model, Scenes("validation", 0).batch(3)[0])
    assert found.boxes.shape == (3, 64, 5)
    for image in range(3):
        kept = found.boxes[image][found.scores[image] > 0]
        for one, other in itertools.combinations(range(len(kept)), 2):
            assert boxes.rotated_iou(kept[one], kept[other]) <= 0.1


def plainly_matched(overlap, threshold):
    hits = torch.zeros(overlap.shape[:2], dtype=torch.bool)
    for image in range(len(overlap)):
        taken = set()
        for rank in range(overlap.shape[1]):
            left = {w: overlap[image, rank, w].item() for w in range(overlap.shape[2])}
            left = {w: iou for w, iou in left.items() if w not in taken}
            best = max(left, key=left.__getitem__, default=None)
            if best is not None and left[best] >= threshold:
                hits[image, rank] = True
                taken.add(best)
    return hits


def test_each_word_is_hit_once_by_the_best_detection():
    overlap = torch.rand(20, 6, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(matched(overlap, 0.5), plainly_matched(overlap, 0.5))


def some_detections(seed):
    random = torch.Generator().manual_seed(seed)
    words = torch.tensor([[30.0, 30, 20, 8, 0.1], [90, 90, 30, 10, -0.4]]).expand(10, -1, -1)
    noise = torch.randn(10, 64, 5, generator=random) * torch.tensor([2.0, 1.0, 3.0, 1.0, 0.1])
    found = words.repeat_interleave(32, 1) + noise
    values = torch.rand(10, 64, generator=random).sort(1, descending=True).values
    present = torch.rand(10, 2, generator=random) > 0.3
    return Detections(found, values), words, present


def test_the_best_score_is_the_best_of_all():
    found, words, present = some_detections(0)

    def f1(least):
        return scores(found, words, present, least)["F1 at 0.5"]

    best = max(map(f1, found.scores.flatten().tolist()))
    assert f1(best_score(found, words, present)) == pytest.approx(best)


def test_perfect_detections_score_one():
    _, words, present = Scenes("test", 0).batch(8)
    found = Detections(words, present.float())
    result = scores(found, words, present, 0.5)
    assert all(value == pytest.approx(1, abs=1e-4) for value in result.values())
    none = scores(found, words, present, least_score=2.0)
    assert none["F1 at 0.5"] == none["recall at 0.7"] == 0
    assert none["mean IoU"] == pytest.approx(1, abs=1e-4)


def test_weights_are_saved_and_loaded(tmp_path):
    torch.manual_seed(0)
    model = Detector().eval()
    save(model, tmp_path / "detector.safetensors")
    again = load(tmp_path / "detector.safetensors")
    images = Scenes("test", 0).batch(2)[0]
    for one, other in zip(model(images), again(images), strict=True):
        assert torch.allclose(one, other, rtol=1e-2, atol=5e-2)


def test_the_study_compares_and_reports(tmp_path):
    losses = ["smooth L1", "exact IoU", "LS-IoU, local", "target's frame, local-global"]
    command = [sys.executable, STUDY, "--threads", "1", "--output", tmp_path]
    sizes = ["--steps", "4", "--warm-up", "8", "--test-scenes", "20", "--validation-scenes", "20"]
    subprocess.run([*command, *sizes, "--losses", *losses], check=True, capture_output=True)
    result = json.loads((tmp_path / "result.json").read_text())
    assert list(result["losses"]) == losses
    assert result["losses"]["exact IoU"]["runs"][0]["cosine"] == pytest.approx(1, abs=1e-4)
    assert result["checkpoint"]["test"]["mean IoU"] > 0.5
    for page in ("report.html", "surrogate.html"):
        assert "data:image/png" in (tmp_path / page).read_text()
