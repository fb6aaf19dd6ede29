"""The page that shows how the post-tuning of the detector went."""

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from matplotlib.patches import Polygon
from torch import Tensor

from learned_surrogates import boxes

from .detector import Detections
from .page import spread, write_page

# Okabe and Ito's colours, which differ for colour-blind readers too.
TRUTH, FOUND, MISSED = "#009E73", "#0072B2", "#D55E00"
COLOURS = [*(f"C{number}" for number in range(10)), "black", "gold"]
GOOD = 0.7
SCENES = 6
# Of the pictures, in inches.
WIDTH = 11
SPREAD = " Spread: standard deviation over the seeds."
#: What a learning rate is chosen by.
CHOICE = "mean IoU"
COLUMNS = ("recall", "precision", "F1")
CONTROL = "smooth L1"
DEFAULT = "target's frame, local-global"


def write_report(
    path: Path,
    result: dict[str, Any],
    test: tuple[Tensor, Tensor, Tensor],
    shown: Mapping[str, Detections],
) -> Path:
    """Writes the page.

    Args:
        path: the HTML file.
        result: the figures, as `post_tune_detector.py` writes them to result.json.
        test: images `(count, 1, height, width)` as uint8, boxes, and which of these are there.
        shown: detections in the first test scenes, by the loss that the detector was tuned with.
    """
    settings = result["settings"]
    pictures = [
        (
            "What they find",
            f"Test scenes. Green: the word's own box. Blue: a detection with an IoU of {GOOD} or "
            "more with a word; red: another one. From the first seed, scenes in which the last "
            "column's boxes differ most from the control's, for better or worse.",
            detections(result, test, shown),
        ),
        (
            "Mean IoU beside smooth L1",
            "Difference from the control of the same seed, in per cent of IoU: one point a seed, "
            "the line is the mean. Below: against the cosine of the loss's gradient with that of "
            "the exact IoU, at the checkpoint, with respect to the detector's weights.",
            gains(result),
        ),
    ]
    return write_page(
        path,
        title="Post-tuning a detector of rotated words on IoU",
        introduction=(
            "A detector, trained with classification plus smooth L1, was trained for "
            f"{settings['steps']} more steps with each of these losses of the boxes. All are "
            f"scored on {len(test[0])} scenes with words and fonts that no training ever showed."
        ),
        table=table(result),
        verdict=verdict(result),
        note=(
            "In per cent. Recall, precision, F1: a detection is right if its IoU with a word is "
            "at least 0.5 or 0.7. Mean IoU: over all words, of the best detection, whatever its "
            "score. Cosine: of the gradient with that of the exact IoU. Each loss has a learning "
            "rate of its own, the best on validation scenes of those tried; the defaults were so "
            "in our study." + SPREAD * (len(next(iter(result["losses"].values()))["runs"]) > 1)
        ),
        pictures=pictures,
        settings=settings,
    )


def table(result: dict[str, Any]) -> str:
    """The comparison as a Markdown table in per cent; mean and deviation over the seeds."""
    titles = [f"{name} at {at}" for at in ("0.5", "0.7") for name in COLUMNS] + ["mean IoU"]
    head = ["loss of the boxes", "rate", "cosine", *titles]
    checkpoint = [f"{100 * result['checkpoint']['test'][title]:.2f}" for title in titles]
    rows = [["checkpoint", "", "", *checkpoint]]
    for name, figures in result["losses"].items():
        runs = figures["runs"]
        cells = [spread([100 * run["test"][title] for run in runs], ".2f") for title in titles]
        cosine = spread([run["cosine"] for run in runs], ".3f")
        rows.append([name, f"{figures['rate']:g}", cosine, *cells])
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def verdict(result: dict[str, Any]) -> str:
    """Whether the default surrogate helped, against the control and the exact form."""
    losses = result["losses"]
    if not {CONTROL, DEFAULT} <= losses.keys():
        return "Without the control and the default surrogate there is no verdict."
    sentences = []
    surrogate = [run["test"][CHOICE] for run in losses[DEFAULT]["runs"]]
    for name in (CONTROL, "GWD", "KLD", "exact IoU"):
        if name in losses:
            other = [run["test"][CHOICE] for run in losses[name]["runs"]]
            gain = 100 * (statistics.mean(surrogate) - statistics.mean(other))
            better = sum(s > o for s, o in zip(surrogate, other, strict=True))
            sentences.append(f"{gain:+.2f} beside {name} (higher in {better} of {len(other)})")
    return f"Mean IoU of the surrogate in the target's frame: {', '.join(sentences)}."


def detections(
    result: dict[str, Any],
    test: tuple[Tensor, Tensor, Tensor],
    shown: Mapping[str, Detections],
) -> Figure:
    """Scenes, a row each, with what three detectors find."""
    losses = list(result["losses"])
    last = DEFAULT if DEFAULT in losses else losses[-1]
    columns = [name for name in dict.fromkeys(["checkpoint", CONTROL, last]) if name in shown]
    runs = {name: loss["runs"][0] for name, loss in result["losses"].items()}
    runs["checkpoint"] = result["checkpoint"]
    kept = {name: shown[name].scores >= runs[name]["test"]["least score"] for name in columns}
    images, words, present = test
    differs = [
        abs(
            _best(shown[columns[-1]], kept[columns[-1]], scene, words, present)
            - _best(shown[columns[-2]], kept[columns[-2]], scene, words, present)
        )
        for scene in range(len(shown[columns[0]].scores))
    ]
    chosen = torch.tensor(differs).argsort(descending=True)[:SCENES].tolist()
    height, width = images.shape[2:]
    tile = WIDTH / len(columns)
    figure = Figure(figsize=(WIDTH, len(chosen) * tile * height / width))
    for line, scene in enumerate(chosen):
        for place, name in enumerate(columns):
            axes = figure.add_subplot(len(chosen), len(columns), line * len(columns) + place + 1)
            axes.imshow(images[scene, 0], cmap="gray", vmin=0, vmax=255)
            axes.set_xticks([])
            axes.set_yticks([])
            if line == 0:
                axes.set_title(name, fontsize=10)
            truth = words[scene][present[scene]]
            draw(axes, truth, [TRUTH] * len(truth))
            found = shown[name].boxes[scene][kept[name][scene]]
            draw(axes, found, [FOUND if iou >= GOOD else MISSED for iou in _ious(found, truth)])
    figure.tight_layout()
    return figure


def draw(axes: Any, rectangles: Tensor, colours: list[str]) -> None:
    """Boxes `(count, 5)` on an image, whose first pixel's centre is at 0."""
    for (x, y, width, height, angle), colour in zip(rectangles, colours, strict=True):
        along = torch.stack([angle.cos(), angle.sin()])
        across = torch.stack([-angle.sin(), angle.cos()])
        signs = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]]) / 2
        points = signs[:, :1] * width * along + signs[:, 1:] * height * across
        points = points + torch.stack([x, y]) - 0.5
        axes.add_patch(Polygon(points.tolist(), fill=False, edgecolor=colour, linewidth=1.1))


def gains(result: dict[str, Any]) -> Figure:
    """Gains over the control, by loss and by cosine."""
    losses = result["losses"]
    figure = Figure(figsize=(9, 8))
    by_loss, by_cosine = figure.subplots(2, 1)
    control = losses.get(CONTROL, next(iter(losses.values())))["runs"]
    for place, (name, loss) in enumerate(losses.items()):
        gain = [
            100 * (run["test"]["mean IoU"] - other["test"]["mean IoU"])
            for run, other in zip(loss["runs"], control, strict=True)
        ]
        mean = statistics.mean(gain)
        cosine = statistics.mean(run["cosine"] for run in loss["runs"])
        # Points that lie on each other could not be named: the colour tells.
        colour = COLOURS[place % len(COLOURS)]
        by_loss.plot([place] * len(gain), gain, "o", color=colour, alpha=0.6)
        by_loss.plot([place - 0.3, place + 0.3], [mean, mean], color="black")
        by_cosine.plot(cosine, mean, "o", color=colour, label=name)
    by_loss.set_xticks(range(len(losses)), list(losses), rotation=25, ha="right", fontsize=8)
    by_cosine.set_xlabel("cosine with the gradient of the exact IoU")
    for axes in (by_loss, by_cosine):
        axes.axhline(0, color="gray", linewidth=0.8)
        axes.set_ylabel("mean IoU, difference")
    # Beside the points, not over them.
    by_cosine.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1))
    figure.tight_layout()
    return figure


def _ious(found: Tensor, truth: Tensor) -> list[float]:
    """The best IoU of each detection with any of the words."""
    if not len(found) or not len(truth):
        return [0.0] * len(found)
    one = found.repeat_interleave(len(truth), 0)
    return boxes.rotated_iou(one, truth.repeat(len(found), 1)).view(len(found), -1).amax(1).tolist()


def _best(found: Detections, kept: Tensor, scene: int, words: Tensor, present: Tensor) -> float:
    """Mean over a scene's words of the best IoU."""
    truth = words[scene][present[scene]]
    some = found.boxes[scene][kept[scene]]
    if not len(some) or not len(truth):
        return 0.0
    one = truth.repeat_interleave(len(some), 0)
    ious = boxes.rotated_iou(one, some.repeat(len(truth), 1)).view(len(truth), -1)
    return ious.amax(1).mean().item()
