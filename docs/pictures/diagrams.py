"""Pictures of how it works."""

import math

from drawing import Picture


def how_it_works() -> Picture:
    """Prediction, draws, metric, surrogate, gradient."""
    picture = Picture(
        "Your model's prediction is varied into a few draws; your metric scores each; from the "
        "scores comes a gradient; a surrogate that learns from the scores makes it quieter",
        322,
    )

    def room(x: float, y: float, width: float, name: str, *lines: str, colour: str) -> None:
        picture.box(x, y, width, 70, fill="soft", line=colour, round=8)
        picture.text(x + width / 2, y + 24, name, size=14.5, bold=True, anchor="middle")
        for number, line in enumerate(lines):
            place = x + width / 2, y + 43 + 15 * number
            picture.text(*place, line, size=12, colour="grey", anchor="middle")

    room(14, 18, 130, "Your model", "any network", colour="grey")
    room(236, 18, 150, "A few draws", "prediction ± noise, or", "readings of a text", colour="blue")
    room(236, 130, 150, "Your metric", "any function, scores", "each of the draws", colour="grey")
    room(14, 130, 130, "Gradient", "towards the draws", "that score better", colour="blue")
    room(
        60,
        242,
        280,
        "Surrogate",
        "a small model of your metric,",
        "fitted while you train",
        colour="orange",
    )
    picture.line((144, 53), (234, 53), arrow=True)
    picture.text(189, 46, "prediction", size=12, anchor="middle")
    picture.line((311, 88), (311, 128), arrow=True)
    picture.line((236, 165), (146, 165), arrow=True)
    picture.text(191, 158, "scores", size=12, anchor="middle")
    picture.line((79, 130), (79, 90), arrow=True)
    picture.text(86, 114, "trains", size=12)
    picture.line((300, 200), (300, 240), arrow=True, colour="orange")
    picture.text(307, 224, "learns", size=12)
    picture.line((100, 242), (100, 202), arrow=True, colour="orange")
    picture.text(107, 226, "takes noise out", size=12)
    return picture


def smoothing() -> Picture:
    """A step of a metric, and its mean under noise."""
    picture = Picture("The mean of a stepped metric under noise is smooth, and has a slope", 230)
    width = 0.67

    def mean(x: float) -> float:
        inside = math.erf((1 - x) / width / 2**0.5) - math.erf((-1 - x) / width / 2**0.5)
        return 1 - inside / 2

    def place(x: float, value: float) -> tuple[float, float]:
        return 200 + 62 * x, 172 - 110 * value

    picture.line(place(-2.9, 0), place(2.9, 0), colour="faint")
    steps = [(-2.9, 1), (-1, 1), (-1, 0), (1, 0), (1, 1), (2.9, 1)]
    picture.line(*(place(*step) for step in steps), colour="grey", width=2)
    curve = [place(x / 20, mean(x / 20)) for x in range(-58, 59)]
    picture.line(*curve, colour="blue", width=2.5)
    z = 1.35
    slope = (mean(z + 0.01) - mean(z - 0.01)) / 0.02
    picture.line(
        place(z + 0.45, mean(z) + 0.45 * slope),
        place(z - 0.6, mean(z) - 0.6 * slope),
        colour="orange",
        width=2.5,
        arrow=True,
    )
    picture.dot(*place(z, mean(z)), colour="blue")
    for draw, value in ((z - width, 0), (z + width, 1)):
        picture.dot(*place(draw, value), colour="orange", radius=5)
    picture.text(14, 24, "the metric: 1 if off by more than one", colour="grey")
    picture.text(14, 42, "its mean under noise, with a slope", colour="blue")
    picture.text(386, 42, "a pair of draws", colour="orange", anchor="end")
    for x in (-2, -1, 0, 1, 2):
        picture.text(place(x, 0)[0], 190, f"{x:+d}" if x else "0", size=12, anchor="middle")
    picture.text(200, 214, "prediction - target", anchor="middle")
    return picture


def handing_over() -> Picture:
    """Who trains the model, over the steps."""
    picture = Picture("The base loss trains the model first, then the metric does", 214)
    rows = (
        ("edit distances of text", 0.5, "half of the characters are right"),
        ("all other metrics", 0.0, "its signal is spent, or leads away"),
    )
    for number, (name, share, until) in enumerate(rows):
        y = 34 + 82 * number
        picture.text(14, y - 8, name, bold=True)
        picture.box(14, y, 120, 36, fill="grey", opacity=0.35)
        picture.box(134, y, 252, 36, fill="blue", opacity=0.3)
        if share:
            picture.box(134, y + 18, 252, 18, fill="grey", opacity=0.5)
        picture.text(74, y + 22, "base loss", size=12, anchor="middle")
        words = "metric, and half of the base loss" if share else "metric"
        picture.text(260, y + (13 if share else 22), words, size=12, anchor="middle")
        picture.line((134, y - 3), (134, y + 44), colour="orange", width=2)
        picture.text(140, y + 50, f"once {until}", size=12, colour="orange")
    picture.line((14, 190), (386, 190), arrow=True, colour="grey")
    picture.text(386, 206, "steps", size=12, colour="grey", anchor="end")
    return picture


def workers() -> Picture:
    """A slow metric, in the call and beside it."""
    picture = Picture(
        "In the call, the metric holds up each step; with workers it runs beside", 262
    )

    def step(x: float, y: float, number: int) -> None:
        picture.box(x, y, 30, 24, fill="blue", opacity=0.3)
        picture.text(x + 15, y + 16, str(number), size=12, anchor="middle")

    def metric(x: float, y: float, number: int) -> None:
        picture.box(x, y, 118, 24, fill="orange", opacity=0.3)
        picture.text(x + 59, y + 16, f"metric of {number}", size=12, anchor="middle")

    picture.text(14, 24, "In the call", bold=True)
    for number in range(1, 3):
        step(14 + 152 * (number - 1), 34, number)
        metric(46 + 152 * (number - 1), 34, number)
    step(318, 34, 3)
    picture.text(14, 92, "With workers", bold=True)
    for number in range(1, 12):
        step(14 + 32 * (number - 1), 102, number)
    for number in range(1, 5):
        x, y = 45 + 32 * (number - 1), 134 + 26 * (number - 1)
        metric(x, y, number)
    picture.line((166, 144), (191, 144), (191, 128), arrow=True, colour="green")
    picture.text(206, 148, "values: learned from at call 6", size=12, colour="green")
    picture.line((14, 244), (386, 244), arrow=True, colour="grey")
    picture.text(386, 238, "time", size=12, colour="grey", anchor="end")
    return picture


def target_frame() -> Picture:
    """Two boxes in an image, and the prediction as its target sees it."""
    picture = Picture("The prediction in its image, and in the frame of its target", 212)
    picture.text(14, 26, "in the image", bold=True)
    picture.box(14, 38, 176, 130, fill="soft")
    picture.box(42, 82, 112, 40, fill="grey", line="grey", turn=-28, opacity=0.2)
    picture.box(60, 76, 104, 52, fill="blue", line="blue", turn=-16, opacity=0.2)
    picture.line((200, 104), (222, 104), arrow=True)
    picture.text(232, 26, "as the target sees it", bold=True)
    picture.box(232, 38, 154, 130, fill="soft")
    picture.box(253, 78, 112, 50, fill="grey", line="grey", opacity=0.2)
    picture.box(263, 71, 104, 64, fill="blue", line="blue", turn=12, opacity=0.2)
    picture.line((239, 103), (379, 103), colour="grey", width=1)
    picture.line((309, 45), (309, 161), colour="grey", width=1)
    picture.text(14, 192, "target", colour="grey")
    picture.text(58, 192, "prediction", colour="blue")
    picture.text(386, 192, "place, size, turn are gone", anchor="end")
    return picture


def readings() -> Picture:
    """A recogniser's outputs, and texts drawn from them."""
    picture = Picture("Texts are drawn from the model's outputs, and the metric scores each", 226)
    outputs = (
        (("c", 0.8), ("e", 0.2)),
        (("a", 0.6), ("o", 0.4)),
        (("t", 0.9), ("l", 0.1)),
    )
    picture.text(14, 26, "outputs", bold=True)
    for place, position in enumerate(outputs):
        for line, (character, share) in enumerate(position):
            x, y = 14 + 62 * place, 40 + 26 * line
            picture.box(x, y, 50, 20, fill="soft")
            picture.box(x, y, 50 * share, 20, fill="blue", opacity=0.35)
            picture.text(x + 6, y + 15, character, size=13)
            picture.text(x + 46, y + 15, f"{share:g}", size=11, colour="grey", anchor="end")
    picture.line((196, 64), (224, 64), arrow=True)
    picture.text(234, 26, "draws", bold=True)
    picture.text(386, 26, "your metric", bold=True, anchor="end")
    for line, (text, error) in enumerate((("cat", 0), ("cot", 1), ("cat", 0), ("eot", 2))):
        y = 50 + 24 * line
        picture.text(234, y, text, size=14)
        picture.text(386, y, str(error), size=14, anchor="end")
        picture.line((268, y - 5), (362, y - 5), colour="faint")
    picture.text(14, 116, "target: cat", colour="grey")
    picture.line((14, 142), (386, 142), colour="faint")
    picture.text(14, 164, "An edit distance: the mean over all texts is", size=12.5)
    picture.text(14, 181, "known in closed form. Nothing is drawn.", size=12.5)
    picture.text(14, 206, "Any other metric: four draws, as above.", size=12.5)
    return picture


def rooms() -> Picture:
    """One call through the rooms of the package."""
    picture = Picture(
        "A call goes from the loss to a task that reads it, to one of two cores that draws, asks "
        "the oracle, which has the metric evaluated, and comes back as a gradient; learning, state "
        "and diagnosis lie below",
        420,
    )

    def room(
        x: float, y: float, width: float, height: float, name: str, *lines: str, colour: str
    ) -> None:
        picture.box(x, y, width, height, fill="soft", line=colour, round=8)
        picture.text(x + width / 2, y + 20, name, size=13, bold=True, anchor="middle")
        for number, line in enumerate(lines):
            place = x + width / 2, y + 37 + 15 * number
            picture.text(*place, line, size=11.5, colour="grey", anchor="middle")

    room(110, 14, 180, 48, "_loss", "the call, and its gradient", colour="blue")
    room(14, 100, 116, 64, "_task", "reads, decodes:", "text, boxes, yours", colour="grey")
    room(150, 100, 236, 142, "_core", colour="blue")
    room(
        160,
        126,
        104,
        106,
        "_measured",
        "draws around",
        "predictions,",
        "the gradient",
        "told by them",
        colour="blue",
    )
    room(
        272,
        126,
        104,
        106,
        "_fitted",
        "a surrogate of",
        "values, which",
        "is followed:",
        "LS, FEDS",
        colour="orange",
    )
    room(14, 274, 116, 64, "_metric", "the user's, called", "and checked", colour="grey")
    room(
        150,
        274,
        236,
        64,
        "_evaluation",
        "asks: now or later, on part of a batch,",
        "in the call or by workers",
        colour="green",
    )
    for x, name, line in (
        (14, "_learning", "replay, fit, sync"),
        (142, "_state", "what is saved"),
        (270, "_diagnosis", "check, report"),
    ):
        room(x, 362, 116, 44, name, line, colour="grey")
    picture.line((150, 62), (90, 98), arrow=True)
    picture.text(72, 84, "arguments", size=11.5, anchor="middle")
    picture.line((130, 132), (148, 132), arrow=True)
    picture.line((240, 98), (240, 64), arrow=True)
    picture.text(246, 84, "gradient", size=11.5)
    picture.line((210, 242), (210, 272), arrow=True)
    picture.text(204, 262, "draws", size=11.5, anchor="end")
    picture.line((320, 272), (320, 244), arrow=True)
    picture.text(326, 262, "values", size=11.5)
    picture.line((150, 306), (132, 306), arrow=True)
    return picture
