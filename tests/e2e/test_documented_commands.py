"""Runs the blocks of README and docs that are marked ``<!-- run -->``, page after page, as a user of a shell does.

They start from a folder of text, ``~/texts``. A function of the shell makes the runs small; nothing else is changed.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sysconfig
from pathlib import Path

from tests.documented import DOCUMENTS, ROOT, Block, blocks
from tests.e2e.conftest import MLA_TUI, Workspace

SMALL = """
mla-tui() {
  case "$1 $2" in
    "data pack") set -- "${@/#4096/512}" ;;
    "plan "*) set -- "$@" -s steps=4 ;;
    "launch "*) set -- "$@" -s steps=4 -s context=32 -s sequences=2 -s micro=2 -s val_sequences=2 -s save_every=4 ;;
    "sample "*) set -- "$@" -n 4 ;;
  esac
  command mla-tui "$@"
}
"""
FIRST = [ROOT / "README.md", ROOT / "docs" / "tutorial.md"]  # they make what the other pages take
PAGES = [*FIRST, *(path for path in DOCUMENTS if path not in FIRST)]


def run(block: Block, workspace: Workspace) -> dict[str, str]:
    """Type the commands of a block; the test fails at the line where one does."""
    printed = {}
    env = {**workspace.env, "HOME": str(workspace.root), "PATH": f"{MLA_TUI.parent}:{workspace.env['PATH']}"}
    for command in block.commands():
        argv = ["bash", "-euo", "pipefail", "-c", SMALL + command.text]
        done = subprocess.run(argv, env=env, cwd=workspace.root, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, f"{command.place}: {command.text}\n{done.stdout}\n{done.stderr}"
        printed[command.text] = done.stdout
    return printed


def test_every_marked_block_does_what_its_page_says(workspace: Workspace) -> None:
    root = workspace.root
    (root / "texts").mkdir()
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:60]:
        shutil.copy(path, root / "texts")
    (root / "texts" / "held-out.txt").write_text("def held_out():\n    return 'of no other file'\n" * 20)
    printed: dict[str, str] = {}
    for block in (block for path in PAGES for block in blocks(path) if block.runs):
        printed |= run(block, workspace)

    splits = json.loads((root / "data/shards/mine/dataset.json").read_text())["splits"]
    assert splits["train"]["documents"] + splits["val"]["documents"] == 61
    assert splits["val"]["documents"] > 0
    assert "train " in printed["mla-tui data pack ~/texts --phase mine --train-tokenizer 4096"]
    assert "data: " in printed["mla-tui plan -p cpu_demo -s phase=mine"]
    assert "finished" in printed["mla-tui watch mine"]
    assert printed["mla-tui sample mine --prompt 'def '"].startswith("def ")

    assert (root / "mine.gguf").read_bytes()[:4] == b"GGUF"
    assert json.loads((root / "mine-hf" / "config.json").read_text())["model_type"] == "deepseek_v3"
    assert "</html>" in (root / "report-mine.html").read_text()
    assert (root / "steps.csv").read_text().splitlines()[-1].startswith("4,")
    assert [*(root / "tb").rglob("events.out.tfevents.*")]
