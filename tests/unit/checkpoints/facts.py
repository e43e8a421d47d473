"""Changes what a checkpoint says of itself, so that its checksums still match."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Edit = Callable[[dict[str, Any]], Any]


def edit_facts(path: Path, edit: Edit) -> None:
    """Change ``trainer.json``, and its checksum with it."""
    content = json.loads((path / "trainer.json").read_text())
    edit(content)
    data = json.dumps(content).encode()
    (path / "trainer.json").write_bytes(data)
    entry = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    edit_manifest(path, lambda files: files.update({"trainer.json": entry}))


def edit_manifest(path: Path, edit: Edit) -> None:
    content = json.loads((path / "manifest.json").read_text())
    edit(content["files"])
    (path / "manifest.json").write_text(json.dumps(content))
