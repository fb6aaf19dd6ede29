"""The study of masks: its scores, and that its runs can be read again."""

import pytest
import torch
from scipy.ndimage import binary_dilation, binary_erosion, generate_binary_structure

from benchmarks import digit_masks
from lib import runs


def outline_f1(said, true):
    """Of one mask, by SciPy."""
    cross = generate_binary_structure(2, 1)
    outlines = [mask & ~binary_erosion(mask, cross) for mask in (said, true)]
    near = [binary_dilation(outline, cross) for outline in outlines]
    precision = (outlines[0] & near[1]).sum() / outlines[0].sum()
    recall = (outlines[1] & near[0]).sum() / outlines[1].sum()
    return 2 * precision * recall / (precision + recall)


def test_the_outline_s_f1_is_that_of_scipy_s_outlines():
    random = torch.Generator().manual_seed(0)
    said = torch.rand(6, 1, 12, 12, generator=random) < 0.6
    true = torch.rand(6, 1, 12, 12, generator=random) < 0.7
    each = [outline_f1(*pair) for pair in zip(said[:, 0].numpy(), true[:, 0].numpy(), strict=True)]
    found = 1 - digit_masks.outline_error(said[:, 0], true[:, 0])
    assert found.tolist() == pytest.approx(each, abs=1e-6)
    scored = digit_masks.scores(said.float() - 0.5, true.float())["F1 of the outline"]
    assert scored == pytest.approx(100 * sum(each) / 6, abs=1e-4)


def test_runs_take_the_place_of_those_that_they_repeat(monkeypatch, tmp_path, capsys):
    masks = (torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0)) < 0.4).float()
    tiny = dict.fromkeys(("train", "validation", "test"), (masks + 0.1, masks))
    results = tmp_path / "runs.json"
    monkeypatch.setattr(digit_masks, "splits", lambda *_: tiny)
    losses = [digit_masks.CONTROL, "1 - soft IoU", "outline, Masks()"]
    sizes = ["--seeds", "2", "--before", "2", "--steps", "2"]
    monkeypatch.setattr(
        "sys.argv", ["digit_masks", *sizes, "--results", str(results), "--losses", *losses]
    )
    digit_masks.main()
    once = runs.read(results)
    digit_masks.main()
    assert runs.read(results) == once
    tuned = [run for run in once if run["loss"] == "1 - soft IoU"]
    assert [run["seed"] for run in tuned] == [0, 0, 1]  # the second at the first's best rate
    assert len(once) == 2 + 3 * 3 + 2 * 3  # of checkpoints, three losses, and two thresholds
    assert capsys.readouterr().out.count("\n") == 2 * (2 + 1 + 3 + 2)


def test_a_moved_threshold_is_the_best_one():
    torch.manual_seed(0)
    model, images = digit_masks.Net(), torch.randn(20, 1, 8, 8)
    before = digit_masks.logits_of(model, (images, None))
    masks = (before > before.quantile(0.8)).float()
    digit_masks.move_threshold(model, (images, masks))
    after = digit_masks.logits_of(model, (images, masks))
    best = digit_masks.best_thresholds(before, masks)["IoU of images"]
    torch.testing.assert_close(after, before - best)
    tried = [digit_masks.scores(before - step / 4, masks) for step in range(-16, 5)]
    assert digit_masks.scores(after, masks)["IoU of images"] == pytest.approx(
        max(each["IoU of images"] for each in tried)
    )
