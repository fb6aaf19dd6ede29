"""One page with pictures, to look at before believing a surrogate."""

import base64
import html
import io
import math
from pathlib import Path
from typing import Any

from .._core import Core
from .._fitted.core import ValueCore
from .._measured.core import MeasuredCore
from . import measured_pictures as measured, value_pictures as values
from .check import GradientCheck
from .plotting import Figure, Section, matplotlib

# Of an inch of a picture: less, and its words could not be read. Narrow screens scroll instead.
LEAST_PIXELS = 60
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse } td { padding: .1rem .8rem .1rem 0; vertical-align: top }
td:last-child { text-align: right; font-variant-numeric: tabular-nums }
figure { margin: 1.5rem 0; overflow-x: auto } img { max-width: 100% }
pre { background: #f4f4f4; padding: .8rem; overflow-x: auto } .verdict { font-weight: bold }
"""


def write_report(
    path: Path, core: Core, stats: dict[str, Any], description: str, check: GradientCheck | None
) -> None:
    """See `LearnedSurrogateLoss.report`."""
    if isinstance(core, MeasuredCore):
        sections, sentence = measured.sections(core), measured.verdict(core)
    else:
        assert isinstance(core, ValueCore)
        sections, sentence = values.sections(core), values.verdict(core)
    if check is not None:
        sections.append(("Gradient check", check.text, check.plot()))
        sentence += " " + check.verdict
    path.write_text(_page(stats, description, sections, sentence), encoding="utf-8")


def _page(stats: dict[str, Any], description: str, sections: list[Section], sentence: str) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(key)}</td><td>{_figure_text(value)}</td></tr>"
        for key, value in stats.items()
    )
    pictures = "".join(
        f'<h2>{title}</h2><p>{html.escape(text)}</p><figure><img alt="{title}" '
        f'style="min-width: {LEAST_PIXELS * figure.get_figwidth():.0f}px" '
        f'src="data:image/png;base64,{_png(figure)}"></figure>'
        for title, text, figure in sections
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Learned surrogate</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}</style><h1>How the loss does</h1>"
        f'<p class="verdict">{html.escape(sentence)}</p>{pictures}'
        f"<h2>Figures</h2><table>{rows}</table>"
        f"<h2>The loss</h2><pre>{html.escape(description)}</pre>"
    )


def _figure_text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if math.isnan(value):
        return "none"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _png(figure: Figure) -> str:
    """A figure as base64, for the page to hold."""
    buffer = io.BytesIO()
    with matplotlib.rc_context({"savefig.dpi": 110}):
        figure.savefig(buffer, format="png")
    return base64.b64encode(buffer.getvalue()).decode()
