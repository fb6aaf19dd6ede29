"""One HTML page with a table, a verdict and pictures, all in one file."""

import base64
import io
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jinja2
import matplotlib
from matplotlib.figure import Figure

# Of an inch of a picture: less, and its words could not be read. Narrow screens scroll instead.
LEAST_PIXELS = 60
PAGE = jinja2.Template(
    """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0 }
td, th { padding: .3rem .8rem; border-bottom: 1px solid #ccc; text-align: right }
td:first-child, th:first-child { text-align: left }
.wide { overflow-x: auto } img { max-width: 100% }
@media (max-width: 30rem) { td, th { padding: .3rem .35rem; font-size: .85rem } }
.verdict { font-weight: bold } small { color: #555 }
</style>
<h1>{{ title }}</h1>
<p>{{ introduction }}</p>
<div class="wide"><table>
{% for row in rows %}{% set tag = "th" if loop.first else "td" %}
<tr>{% for cell in row %}<{{ tag }}>{{ cell }}</{{ tag }}>{% endfor %}</tr>
{% endfor %}</table></div>
<p class="verdict">{{ verdict }}</p>
<p><small>{{ note }}</small></p>
{% for title, text, image, least in pictures %}<h2>{{ title }}</h2><p>{{ text }}</p>
<div class="wide"><img alt="{{ title }}" style="min-width: {{ least }}px"
src="data:image/png;base64,{{ image }}"></div>{% endfor %}
<h2>Settings</h2>
<div class="wide"><table>
{% for key, value in settings.items() %}<tr><td>{{ key }}</td><td>{{ value }}</td></tr>
{% endfor %}</table></div>
""",
    autoescape=True,
)


def write_page(
    path: Path,
    *,
    title: str,
    introduction: str,
    table: str,
    verdict: str,
    note: str,
    pictures: Iterable[tuple[str, str, Figure]],
    settings: dict[str, Any],
) -> Path:
    """Writes the page.

    Args:
        path: the HTML file.
        title: of the page.
        introduction: a paragraph.
        table: in Markdown, with a line below its head.
        verdict: a sentence.
        note: what the columns are.
        pictures: title, text and figure each.
        settings: shown at the end.
    """
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    page = PAGE.render(
        title=title,
        introduction=introduction,
        rows=[rows[0], *rows[2:]],
        verdict=verdict,
        note=note,
        pictures=[
            (name, text, _png(figure), round(LEAST_PIXELS * figure.get_figwidth()))
            for name, text, figure in pictures
        ],
        settings=settings,
    )
    path.write_text(page, encoding="utf-8")
    return path


def _png(figure: Figure) -> str:
    """A figure as base64, for the page to hold."""
    buffer = io.BytesIO()
    with matplotlib.rc_context({"savefig.dpi": 110}):
        figure.savefig(buffer, format="png", bbox_inches="tight")
    return base64.b64encode(buffer.getvalue()).decode()


def spread(values: list[float], form: str) -> str:
    """Mean, and standard deviation if there are several and they differ."""
    mean = format(statistics.mean(values), form)
    if len(set(values)) == 1:
        return mean
    return f"{mean} ± {format(statistics.stdev(values), form)}"
