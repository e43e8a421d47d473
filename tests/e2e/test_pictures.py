"""What makes the pictures of README and docs: one small picture each, where tmux or a Chromium is at hand."""

from __future__ import annotations

import re
import shutil
import struct
from pathlib import Path
from xml.etree import ElementTree

import pytest

from scripts import pictures, report_pictures
from scripts.browser import find_browser, open_browser
from tests.e2e.conftest import Run, Terminals


@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
def test_a_screen_becomes_a_picture(reference: Run, terminals: Terminals, tmp_path: Path) -> None:
    terminal = terminals(reference.workspace)
    terminal.open(size=pictures.SIZE)
    terminal.wait_text(r"reference|nano")
    file = tmp_path / "home.svg"
    pictures.save(terminal, file, str(reference.workspace.home))
    root = ElementTree.parse(file).getroot()
    assert root.get("viewBox") == "0 0 840 540"
    assert "mla-tui" in "".join(root.itertext()) and "nano" in "".join(root.itertext())


@pytest.mark.skipif(find_browser() is None, reason="no Chromium is installed (Debian: chromium-headless-shell)")
def test_a_report_shows_values_under_the_pointer_in_a_real_browser(reference: Run, tmp_path: Path) -> None:
    file, picture, browser = tmp_path / "report.html", tmp_path / "report.png", find_browser()
    assert browser is not None
    reference.workspace.run("report", reference.id, "-o", file)
    with open_browser(browser) as page:
        report_pictures.take(page, file, 390, "dark", picture)
        loss = report_pictures.check_values(page, 0)
        page.open(file, 1280, "light")
        assert report_pictures.check_values(page, 0) == loss
    assert re.fullmatch(r"step 1\d\d +loss [\d.]+ val [\d.]+", loss)
    start, size = picture.read_bytes()[:8], struct.unpack(">II", picture.read_bytes()[16:24])
    assert start == b"\x89PNG\r\n\x1a\n" and size[0] == 390 and size[1] > 1000


def test_without_a_browser_it_says_which_it_looks_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match="report-pictures: no browser: none of chromium-headless-shell"):
        report_pictures.main(tmp_path)
