"""An SVG picture that reads on light and dark screens, and on a phone's.

It brings its own background, so that it can be read on whatever page it is shown. 400 units wide, a
phone shows it at nearly full size.
"""

from pathlib import Path
from xml.sax.saxutils import escape

# Okabe and Ito's colours, which differ for colour-blind readers too; lighter ones on dark.
LIGHT = {
    "paper": "#ffffff",
    "ink": "#1f2328",
    "faint": "#d0d7de",
    "grey": "#59636e",
    "blue": "#0072b2",
    "orange": "#d55e00",
    "green": "#00805d",
    "soft": "#eef4f9",
}
DARK = {
    "paper": "#161b22",
    "ink": "#e6edf3",
    "faint": "#3d444d",
    "grey": "#a3adb8",
    "blue": "#6cb9ee",
    "orange": "#f5914d",
    "green": "#3ccfa4",
    "soft": "#22303d",
}
WIDTH = 400


def _colours(of: dict[str, str]) -> str:
    return " ".join(
        f".fill-{name} {{ fill: {value} }} .line-{name} {{ stroke: {value} }}"
        for name, value in of.items()
    )


STYLE = (
    "text { font-family: system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif } "
    f"{_colours(LIGHT)} @media (prefers-color-scheme: dark) {{ {_colours(DARK)} }}"
)


class Picture:
    """Shapes in the order in which they are drawn; coordinates are in units, from the top left.

    Args:
        title: what the picture shows, for those who cannot see it.
        height: in units, of which there are 400 across.
    """

    def __init__(self, title: str, height: float):
        self.title, self.height = title, height
        self.shapes: list[str] = []
        self.box(0.5, 0.5, WIDTH - 1, height - 1, fill="paper", line="faint", round=8)

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        *,
        fill: str,
        line: str | None = None,
        round: float = 0,
        turn: float = 0,
        opacity: float = 1,
    ) -> None:
        """A rectangle, turned by so many degrees about its centre."""
        stroke = f' class="fill-{fill} line-{line}"' if line else f' class="fill-{fill}"'
        turned = (
            f' transform="rotate({turn:g} {x + width / 2:g} {y + height / 2:g})"' if turn else ""
        )
        self.shapes.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{round:g}" '
            f'fill-opacity="{opacity:g}"{stroke}{turned}/>'
        )

    def line(
        self,
        *points: tuple[float, float],
        colour: str = "ink",
        width: float = 1.5,
        arrow: bool = False,
        dashed: bool = False,
    ) -> None:
        """A line through points; with an arrow's head at the last."""
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        dashes = ' stroke-dasharray="4 3"' if dashed else ""
        self.shapes.append(
            f'<polyline points="{path}" fill="none" class="line-{colour}" '
            f'stroke-width="{width:g}"{dashes}/>'
        )
        if arrow:
            self._head(points[-2], points[-1], colour)

    def _head(self, before: tuple[float, float], at: tuple[float, float], colour: str) -> None:
        along = (at[0] - before[0], at[1] - before[1])
        length = (along[0] ** 2 + along[1] ** 2) ** 0.5
        x, y = along[0] / length, along[1] / length
        back = (at[0] - 8 * x, at[1] - 8 * y)
        sides = (
            (back[0] - 4.5 * y, back[1] + 4.5 * x),
            (back[0] + 4.5 * y, back[1] - 4.5 * x),
        )
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py in (at, *sides))
        self.shapes.append(f'<polygon points="{path}" class="fill-{colour}"/>')

    def dot(self, x: float, y: float, *, colour: str = "ink", radius: float = 4) -> None:
        self.shapes.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" class="fill-{colour}"/>'
        )

    def text(
        self,
        x: float,
        y: float,
        words: str,
        *,
        size: float = 12.5,
        colour: str = "ink",
        bold: bool = False,
        anchor: str = "start",
    ) -> None:
        """One line of words; `anchor` is "start", "middle" or "end"."""
        weight = ' font-weight="600"' if bold else ""
        self.shapes.append(
            f'<text x="{x:g}" y="{y:g}" font-size="{size:g}" text-anchor="{anchor}" '
            f'class="fill-{colour}"{weight}>{escape(words)}</text>'
        )

    def write(self, file: Path) -> None:
        file.write_text(
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {self.height:g}" '
            f'role="img" aria-label="{escape(self.title)}">\n<title>{escape(self.title)}</title>\n'
            f"<style>{STYLE}</style>\n" + "\n".join(self.shapes) + "\n</svg>\n",
            encoding="utf-8",
        )
