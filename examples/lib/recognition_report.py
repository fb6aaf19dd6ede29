"""The page that shows how a post-tuning went: pictures in one HTML file."""

import math
import statistics
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from torch import Tensor

from .page import spread, write_page

# Okabe and Ito's colours, which differ for colour-blind readers too.
COLOURS = {"control": "#0072B2", "surrogate": "#D55E00"}
NAMES = {"control: proxy loss": "control", "LearnedSurrogateLoss": "surrogate"}
SAMPLES = 24
PENALTY = " Right: the gradient penalty, before its weight."
WARM_UP = " The dashed line is the end of the warm-up; the model moves behind it."
DRAWS = (
    " The surrogate stands for the mean over draws, which is above 0 wherever the model is not "
    "sure."
)
SPREAD = "Spread: standard deviation over the seeds."


def write_report(
    path: Path,
    result: dict[str, Any],
    test: tuple[Tensor, list[str]],
) -> Path:
    """Writes the page.

    Args:
        path: the HTML file.
        result: the figures, as `post_tune_recogniser.py` writes them to result.json.
        test: images `(count, 1, height, width)` and their labels.
    """
    first, settings = result["surrogate"]["runs"][0], result["settings"]
    pictures = [
        (
            "What they read",
            "Test images on which the three models disagree, in the order of the split; wrong "
            "readings are red. From the first seed.",
            samples(result, test),
        ),
        (
            "Validation, over the steps",
            "Total edit distance on validation words, one line a seed.",
            validation(result),
        ),
    ]
    if first.get("followed"):
        pictures += of_a_fitted_surrogate(first, settings["draws"])
    drawn = {"None": ""}.get(settings["draws"], f", draws: {settings['draws']}")
    return write_page(
        path,
        title="Post-tuning a text recogniser on edit distance",
        introduction=(
            f"A recogniser ({settings['head']} head), trained with its proxy loss, was trained for "
            f"{settings['steps']} more steps: with the proxy loss (the control), and with "
            f'LearnedSurrogateLoss (surrogate "{settings["surrogate"]}"{drawn}). Share of training '
            f"labels with errors, such as typing errors: {settings['label_noise']}. All read "
            f"{len(test[1])} images of words and fonts that no training ever showed, whose labels "
            "are right. surrogate.html shows how the loss itself did."
        ),
        table=table(result),
        verdict=verdict(result),
        note=(
            "accuracy: words without an error. NED: mean of 1 - edit distance / longer length. "
            "TED: total edit distance, lower is better. Each loss has a learning rate of its own, "
            "the best on validation words of those tried; the defaults were so in our study. "
            + SPREAD
            * (len(result["surrogate"]["runs"]) > 1)
        ),
        pictures=pictures,
        settings=settings,
    )


def table(result: dict[str, Any]) -> str:
    """The comparison as a Markdown table; mean and standard deviation over the seeds."""
    rows = [
        "| test split | learning rate | accuracy | NED | TED |",
        "|---|---|---|---|---|",
        "| checkpoint | | {accuracy:.2%} | {NED:.4f} | {TED:.0f} |".format(**result["checkpoint"]),
    ]
    for name, key in NAMES.items():
        runs = [run["test"] for run in result[key]["runs"]]
        cells = [
            spread([run[score] for run in runs], form)
            for score, form in (("accuracy", ".2%"), ("NED", ".4f"), ("TED", ".0f"))
        ]
        rows.append(f"| {name} | {result[key]['rate']:g} | {' | '.join(cells)} |")
    return "\n".join(rows)


def verdict(result: dict[str, Any]) -> str:
    """Whether the surrogate helped, against the control, seed by seed."""
    control, surrogate = (
        [run["test"]["TED"] for run in result[key]["runs"]] for key in NAMES.values()
    )
    change = statistics.mean(surrogate) / statistics.mean(control) - 1
    better = sum(s < c for s, c in zip(surrogate, control, strict=True))
    seeds = (
        f"It is lower in {better} of {len(control)} seeds."
        if len(control) > 1
        else "This is one seed: see --seeds."
    )
    if change < 0:
        return f"The TED after LearnedSurrogateLoss is {-change:.1%} below the control's. {seeds}"
    return (
        f"LearnedSurrogateLoss did not help: its TED is {change:.1%} above that of as many further "
        f"steps with the proxy loss. {seeds}"
    )


def of_a_fitted_surrogate(run: dict[str, Any], draws: str) -> list[tuple[str, str, Figure]]:
    """Pictures of a surrogate that was fitted to the metric's values."""
    return [
        (
            "How well the surrogate fits",
            "The surrogate's error on predictions that it was not yet fitted to, mean of "
            "|surrogate - edit distance|."
            + PENALTY * _penalised(run["followed"])
            + WARM_UP * bool(_warm_up(run["followed"]))
            + " surrogate.html shows more of the surrogate.",
            fit(run["followed"]),
        ),
        (
            "Surrogate against edit distance",
            "Each point is a validation word, read by the tuned model (spread sideways a little). "
            "On the line, the surrogate is right; dotted: within 0.25, the band that the filter "
            "of FEDS keeps." + DRAWS * (draws not in ("0", "None")),
            agreement(run["held out"]),
        ),
    ]


def samples(result: dict[str, Any], test: tuple[Tensor, list[str]]) -> Figure:
    """Images with what each model reads, where they disagree."""
    readings = {
        "checkpoint": result["checkpoint"]["reads"],
        "control": result["control"]["runs"][0]["test"]["reads"],
        "surrogate": result["surrogate"]["runs"][0]["test"]["reads"],
    }
    images, labels = test
    candidates = range(len(readings["checkpoint"]))
    differ = [i for i in candidates if len({reads[i] for reads in readings.values()}) > 1]
    chosen = (differ + [i for i in candidates if i not in differ])[:SAMPLES]
    columns = 4
    lines = -(-len(chosen) // columns)
    figure = Figure(figsize=(11, 1.55 * lines))
    for place, index in enumerate(chosen):
        axes = figure.add_subplot(lines, columns, place + 1)
        axes.imshow(images[index, 0], cmap="gray", vmin=0, vmax=1)
        axes.set_title(labels[index], fontsize=9, fontweight="bold", pad=3)
        axes.set_axis_off()
        for line, (name, reads) in enumerate(readings.items()):
            colour = "black" if reads[index] == labels[index] else "#C00000"
            text = f"{name}: {reads[index]}"
            place_of_line = (0, -0.22 - 0.3 * line)
            axes.text(*place_of_line, text, transform=axes.transAxes, fontsize=8, color=colour)
    figure.tight_layout(h_pad=2.2)
    return figure


def validation(result: dict[str, Any]) -> Figure:
    """Total edit distance over the steps."""
    figure = Figure(figsize=(5.9, 3.5))
    axes = figure.add_subplot()
    for name, colour in COLOURS.items():
        for seed, run in enumerate(result[name]["runs"]):
            points = run["validation over steps"]
            steps, ted = zip(*[(point["step"], point["TED"]) for point in points], strict=True)
            axes.plot(steps, ted, ".-", color=colour, label=name if seed == 0 else None)
    axes.set(xlabel="step", ylabel="TED, validation")
    axes.legend()
    figure.tight_layout()
    return figure


def fit(followed: list[dict[str, Any]]) -> Figure:
    """Error and penalty over the surrogate's updates: LS, figure 2."""
    figure = Figure(figsize=(11, 3.5) if _penalised(followed) else (5.9, 3.5))
    updates = [stats["updates"] for stats in followed]
    warm_up = _warm_up(followed)
    labels = {"surrogate/mae": "mean |surrogate - metric|", "penalty": "gradient penalty"}
    shown = {k: v for k, v in labels.items() if k != "penalty" or _penalised(followed)}
    for place, (key, label) in enumerate(shown.items()):
        axes = figure.add_subplot(1, len(shown), place + 1)
        values = [stats[key] for stats in followed]
        axes.plot(updates, values, color=COLOURS["surrogate"])
        if warm_up:
            axes.axvline(warm_up[-1], color="gray", linestyle="--", linewidth=1)
        axes.set(xlabel="surrogate updates", ylabel=label)
        axes.set_ylim(0, 1.1 * max(value for value in values if not math.isnan(value)))
    figure.tight_layout()
    return figure


def _penalised(followed: list[dict[str, Any]]) -> bool:
    """Whether there was a gradient penalty."""
    return not math.isnan(followed[-1]["penalty"])


def _warm_up(followed: list[dict[str, Any]]) -> list[int]:
    """The surrogate's updates within the warm-up."""
    return [stats["updates"] for stats in followed if stats["step"] == 0]


def agreement(held_out: dict[str, list[float]]) -> Figure:
    """Surrogate against metric: thesis, figure 4.4."""
    figure = Figure(figsize=(5.9, 5))
    axes = figure.add_subplot()
    metric, surrogate = held_out["metric"], held_out["surrogate"]
    # Edit distances are whole numbers: points would lie on each other. Spread by index, not chance.
    sideways = [value + 0.3 * ((7 * i) % 11 / 10 - 0.5) for i, value in enumerate(metric)]
    axes.scatter(sideways, surrogate, s=8, alpha=0.4, color=COLOURS["surrogate"], linewidths=0)
    most = max([1.0, *metric, *surrogate])
    axes.plot([0, most], [0, most], color="black", linewidth=1)
    for offset in (-0.25, 0.25):
        axes.plot([0, most], [offset, most + offset], "k:", linewidth=1)
    axes.set(xlabel="edit distance", ylabel="surrogate", ylim=(min(0, *surrogate), most))
    figure.tight_layout()
    return figure
