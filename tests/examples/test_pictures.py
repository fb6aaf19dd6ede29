"""The pictures of the docs are those of the committed results."""

import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parents[2]
STATIC = ROOT / "docs" / "_static"


def test_pictures_are_those_of_the_committed_results(tmp_path):
    subprocess.run(
        [sys.executable, str(ROOT / "docs" / "pictures"), "--to", str(tmp_path)], check=True
    )
    drawn = {file.name: file.read_text() for file in tmp_path.glob("*.svg")}
    assert drawn == {file.name: file.read_text() for file in STATIC.glob("*.svg")}
    assert len(drawn) == 13


def test_pictures_are_shown_have_a_description_and_read_in_the_dark():
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    shown = "".join(page.read_text() for page in pages)
    for file in STATIC.glob("*.svg"):
        assert f"_static/{file.name}" in shown
        root = ElementTree.fromstring(file.read_text())
        assert root.get("aria-label")
        assert "prefers-color-scheme: dark" in file.read_text()
        # Smaller, and words could not be read on a phone, which shows 400 units in about 360.
        sizes = [float(size) for size in re.findall(r'font-size="([\d.]+)"', file.read_text())]
        assert min(sizes) >= 11


def test_the_chart_shows_what_the_results_say():
    chart = ElementTree.fromstring((STATIC / "gains.svg").read_text())
    columns = [
        float(shape.get("height"))
        for shape in chart.iter("{http://www.w3.org/2000/svg}rect")
        if shape.get("width") == "9"
    ]
    assert len(columns) == 2 + 30
    # A problem's columns are 1.9 units a per cent; its means are those of docs/any-metric.md.
    page = (ROOT / "docs" / "any-metric.md").read_text()
    lines = [[cell.strip(" *") for cell in line.split("|")] for line in page.splitlines()]
    head = next(line for line in lines if "proxy continued" in line)
    row = next(line for line in lines if line[1:] and "off by more than one, of 5" in line[1])
    proxy, package = (
        float(row[head.index(name)].split(" ")[0].strip("*"))
        for name in ("proxy continued", "package, 2")
    )
    assert abs(max(columns) / 1.9 - 100 * (1 - package / proxy)) < 0.5


def test_the_readmes_figures_are_those_of_the_pages():
    readme = (ROOT / "README.md").read_text()
    page = (ROOT / "docs" / "when-it-helps.md").read_text()
    figures = re.findall(r"\d\.\d{4} ± \d\.\d{4}", readme)
    assert len(figures) == 4
    assert all(figure in page for figure in figures)
    study = (ROOT / "docs" / "any-metric.md").read_text()
    change = r"-(\d+) % in the geometric mean, lower in (\d+) of .*, at worst \+([\d.]+) %"
    proxy, trick = (
        [round(float(figure)) for figure in re.search(f"{control}: {change}", study).groups()]
        for control in ("against the proxy", "obvious trick")
    )
    for text in (readme, (ROOT / "docs" / "index.md").read_text()):
        words = " ".join(text.split())
        assert re.search(f"{proxy[0]} % .*in the geometric mean, lower in {proxy[1]}, at", words)
        assert re.search(f"at worst {proxy[2]} % (higher|above)", words)
        assert re.search(f"{trick[0]} % .*{trick[2]} % (higher at|above)", words)
