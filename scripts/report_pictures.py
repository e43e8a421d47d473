"""Makes the pictures of a report (``make report-pictures``), as a real Chromium shows it on a phone and on a desktop.

python -m scripts.report_pictures FOLDER
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from scripts.browser import BROWSERS, Page, find_browser, open_browser
from scripts.demo_home import DemoHome, demo_home, wait_for

WIDTHS = (390, 1280)  # pixels
SCHEMES = ("light", "dark")


def main(folder: Path) -> None:
    browser = find_browser()
    if browser is None:
        sys.exit(f"report-pictures: no browser: none of {', '.join(BROWSERS)} is installed")
    folder.mkdir(parents=True, exist_ok=True)
    with demo_home() as demo, tempfile.TemporaryDirectory() as pages, open_browser(browser) as page:
        report = Path(pages) / "report.html"
        write_report(demo, report)
        for width in WIDTHS:
            for scheme in SCHEMES:
                take(page, report, width, scheme, folder / f"report-{width}-{scheme}.png")


def write_report(demo: DemoHome, file: Path) -> None:
    """Write the report of two runs, of which the second was edited while it lived."""
    demo.launch("first", "steps=150", "lr=3e-3")
    demo.run("watch", "first")
    demo.launch("second", "steps=150", "lr=6e-3")
    wait_for("step 60", lambda: (json.loads(demo.run("status", "second", "--json"))["step"] or 0) >= 60)
    demo.run("set", "second", "micro=2", "lr_scale=0.5")
    demo.run("watch", "second")
    demo.run("report", "first", "second", "-o", str(file))


def take(page: Page, report: Path, width: int, scheme: str, picture: Path) -> None:
    """Write the picture of a whole report, ``width`` pixels wide, once it has shown values under the pointer."""
    page.open(report, width, scheme)
    assert page.run("document.documentElement.scrollWidth") <= width, f"the page is wider than {width} pixels"
    for number in range(page.run("document.querySelectorAll('figure').length")):
        check_values(page, number)
    picture.write_bytes(page.picture())
    print(f"{picture}: {picture.stat().st_size / 1024:.0f} KB", file=sys.stderr)


def check_values(page: Page, number: int) -> str:
    """Move the mouse over a chart, and return the values that it then shows; beside it, it shows its legend again."""
    figure = f"document.querySelectorAll('figure')[{number}]"
    text = f"{figure}.querySelector('output').textContent"
    legend = str(page.run(text))
    box = page.run(
        f"(({{x, y, width, height}}) => [x, y, width, height])({figure}.querySelector('svg').getBoundingClientRect())"
    )
    x, y, width, height = box
    page.move_mouse(x + width / 2, y + height / 2)
    values = str(page.run(text))
    assert values.startswith("step ") and values != legend, f"chart {number} shows no values: {values!r}"
    assert page.run(f"getComputedStyle({figure}.querySelector('.pointer')).visibility") == "visible"
    page.move_mouse(0, 0)
    assert page.run(text) == legend, f"chart {number} does not show its legend again"
    return values


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m scripts.report_pictures FOLDER")
    main(Path(sys.argv[1]))
