"""The five commands of README's "Use your own text", on a folder of this Python's sources."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sysconfig
from pathlib import Path

from tests.e2e.conftest import Workspace

README = Path(__file__).parents[2] / "README.md"
_SMALL = ("steps=4", "context=32", "sequences=2", "micro=2", "val_sequences=2", "save_every=4")
TINY = {
    "plan": ("-s", "steps=4"),
    "launch": tuple(word for override in _SMALL for word in ("-s", override)),
    "sample": ("-n", "4"),
}


def test_from_a_folder_of_text_to_a_sample(workspace: Workspace) -> None:
    texts = workspace.root / "texts"
    texts.mkdir()
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:60]:
        shutil.copy(path, texts)
    section = README.read_text().split("## Use your own text")[1].split("\n## ")[0]
    commands = re.findall(r"^    mla-tui (.*)$", section, re.MULTILINE)
    assert [command.split()[0] for command in commands] == ["data", "plan", "launch", "watch", "sample"]
    outputs = []
    for command in commands:
        words = shlex.split(command.replace("~/texts", str(texts)).replace("4096", "512"))
        outputs.append(workspace.run(*words, *TINY.get(words[0], ())).stdout)
    assert "train " in outputs[0]
    manifest = json.loads((workspace.root / "data/shards/mine/dataset.json").read_text())
    splits = manifest["splits"]
    assert splits["train"]["documents"] + splits["val"]["documents"] == 60
    assert splits["val"]["documents"] > 0
    assert "data: " in outputs[1]
    assert "finished" in outputs[3]
    assert outputs[4].startswith("def ")
