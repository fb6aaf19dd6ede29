"""Charts of what the loss gains."""

from drawing import Picture
from results import Figure, figure_of, own_metrics, recognisers, table

COLOURS = ("blue", "orange", "green")


def gains() -> Picture:
    """Every measured case as a column, against the usual loss for as many more steps."""
    picture = Picture(
        "Error after 600 steps with the loss, against 600 more steps of the usual one", 368
    )
    top, unit = 64, 1.9  # of a per cent

    def column(x: float, figure: Figure, colour: str) -> None:
        change = 100 * (figure.mean - 1)
        picture.box(
            x, top + unit * (-max(0.0, change)), 9, unit * max(0.6, abs(change)), fill=colour
        )
        ends = [top - unit * (change + sign * 100 * figure.spread) for sign in (-1, 1)]
        picture.line((x + 4.5, ends[0]), (x + 4.5, ends[1]), width=1.2)

    picture.text(14, 24, "Change of the error, in per cent", size=13.5, bold=True)
    picture.text(
        14, 42, "0: the usual loss for as many more steps; down is better", size=12, colour="grey"
    )
    for change in (0, -25, -50, -75, -100):
        y = top - unit * change
        picture.line((40, y), (392, y), colour="ink" if change == 0 else "faint", width=1)
        picture.text(36, y + 4, str(change), size=11.5, colour="grey", anchor="end")
    x = 44.0
    heads = recognisers()
    for figures in heads.values():
        control, mine = figures["new fonts"]
        column(x, Figure(mine.mean / control.mean, mine.spread / control.mean), "grey")
        x += 10
    x += 14
    kinds = own_metrics()
    for colour, figures in zip(COLOURS, kinds.values()):
        for figure in sorted(figures):
            column(x, figure, colour)
            x += 10
        x += 5
    y = 280
    picture.box(14, y - 9, 10, 10, fill="grey")
    picture.text(29, y, "text recognisers, 40 % of labels wrong: edit distance", size=12)
    for colour, (kind, figures) in zip(COLOURS, kinds.items()):
        y += 17
        picture.box(14, y - 9, 10, 10, fill=colour)
        picture.text(29, y, f"{len(figures)} metrics of {kind}", size=12)
    picture.text(14, y + 21, "The five longest: some training labels are wrong.", size=12)
    return picture


def text_recognisers() -> Picture:
    """The recognisers' errors with the proxy and with the loss."""
    heads = recognisers()
    picture = Picture("Errors of the recognisers after 600 steps", 94 + 104 * len(heads))
    picture.text(14, 24, "Edit distance a word, lower is better", size=13.5, bold=True)
    about = "600 steps, wrong labels, 5 seeds \u00b1 standard deviation"
    picture.text(14, 42, about, size=12, colour="grey")
    for x, colour, name in ((14, "grey", "usual loss"), (104, "blue", "with the edit distance")):
        picture.box(x, 54, 10, 10, fill=colour, opacity=0.45)
        picture.text(x + 15, 63, name, size=12)
    y, left, unit = 90.0, 104, 270 / 0.8
    for name, fonts in heads.items():
        picture.text(14, y, name, bold=True)
        y += 8
        for kind, pair in fonts.items():
            picture.text(14, y + 20, kind, size=12, colour="grey")
            for figure, colour in zip(pair, ("grey", "blue")):
                picture.box(left, y, unit * figure.mean, 17, fill=colour, opacity=0.45)
                ends = [left + unit * (figure.mean + sign * figure.spread) for sign in (-1, 1)]
                picture.line((ends[0], y + 8.5), (ends[1], y + 8.5), width=2)
                picture.text(left + 6, y + 13, f"{figure.mean:.4f}", size=12)
                if colour == "blue":
                    change = 100 * (figure.mean / pair[0].mean - 1)
                    words = f"{change:+.1f} %".replace("-", "\u2212")
                    picture.text(left + 68, y + 13, words, size=12, bold=True)
                y += 18
            y += 6
        y += 22
    return picture


def _dots(
    title: str,
    about: str,
    lines: dict[str, dict[str, Figure]],
    *,
    ticks: range,
    reference: float | None = None,
) -> Picture:
    """A line a name, a dot with its spread a series; at the reference, a rule."""
    series = list(dict.fromkeys(name for figures in lines.values() for name in figures))
    several = len(series) > 1
    top = 62 + 20 * several
    bottom = top + 26 * len(lines)
    picture = Picture(title, bottom + 36)
    picture.text(14, 24, title, size=13.5, bold=True)
    picture.text(14, 42, about, size=12, colour="grey")
    first, last = ticks[0], ticks[-1]

    def place(value: float) -> float:
        return 172 + 206 * (value - first) / (last - first)

    for tick in ticks:
        picture.line((place(tick), top - 8), (place(tick), bottom), colour="faint", width=1)
        picture.text(place(tick), bottom + 18, str(tick), size=12, colour="grey", anchor="middle")
    if reference is not None:
        picture.line((place(reference), top - 8), (place(reference), bottom), dashed=True)
    colours = dict(zip(series, ("grey", "blue", "orange")))
    for number, name in enumerate(series if several else ()):
        picture.dot(20 + 220 * number, 59, colour=colours[name])
        picture.text(30 + 220 * number, 63, name, size=12)
    for number, (name, figures) in enumerate(lines.items()):
        y = top + 26 * number + 10
        picture.text(14, y + 4, name, size=12)
        for one, (mean, spread) in figures.items():
            colour = colours[one] if several else "blue"
            at = y + 6 * series.index(one) - 3 * several
            ends = place(mean - spread), place(mean + spread)
            picture.line((ends[0], at), (ends[1], at), colour=colour, width=2)
            picture.dot(place(mean), at, colour=colour)
    return picture


def detector() -> Picture:
    """Mean IoU of the detectors."""
    rows = table("boxes.md", "| loss of the boxes |")
    lines = {
        row[0].replace("surrogate in the", "surrogate,"): {"": figure_of(row[1])} for row in rows
    }
    published = lines.pop("LS-IoU as published")[""]
    off = f"LS-IoU, {published.mean:.0f} \u00b1 {published.spread:.0f}"
    return _dots(
        "Mean IoU in per cent, higher is better",
        f"5 seeds; dashed: smooth L1; off the chart: {off}",
        lines,
        ticks=range(73, 77),
        reference=lines["smooth L1"][""].mean,
    )


def digit_masks() -> Picture:
    """IoU of the digits' masks."""
    rows = table("segmentation.md", "| loss | IoU of images |")
    lines = {
        row[0]
        .replace("the same, threshold chosen on validation", "its threshold moved")
        .replace("logits over 0.18 deviations", "scaled"): {"": figure_of(row[1])}
        for row in rows
    }
    return _dots(
        "IoU of images in per cent, higher is better",
        "150 steps, 3 seeds; dashed: cross-entropy, continued",
        lines,
        ticks=range(50, 70, 5),
        reference=lines["cross-entropy, continued"][""].mean,
    )


def word_retrieval() -> Picture:
    """Recall@1 over the contrastive loss."""
    rows = [row for row in table("retrieval.md", "| batch | loss |") if row[3]]
    lines = {
        f"{loss.replace('the same with', 'SiMix,')}, {batch}": {"": figure_of(gain)}
        for batch, loss, _, gain in rows
    }
    return _dots(
        "Recall@1 over SupCon continued, in points",
        "loss and batch size; 150 steps, 3 seeds",
        lines,
        ticks=range(-8, 6, 2),
        reference=0,
    )


def digits() -> Picture:
    """Accuracy of ESupCon beside cross-entropy."""
    rows = table("classification.md", "| | cross-entropy |")
    lines = {
        row[0]: {"cross-entropy, twice the steps": figure_of(row[2]), "ESupCon": figure_of(row[6])}
        for row in rows
    }
    return _dots(
        "Accuracy in per cent, higher is better",
        "digits, 300 steps from scratch, 3 seeds",
        lines,
        ticks=range(80, 105, 5),
    )
