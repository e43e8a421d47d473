"""What is imported or exported is there completely or not at all, wherever its process is killed or gets an error."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data.importing import ImportOptions, import_phase
from data.new_folder import building
from engine.train.models.publish import publish_dir, publish_file
from tests.unit.disk_faults import fault_at


def _import(target: Path) -> None:
    source = target.parents[2] / "source"
    import_phase(source, target, ImportOptions(dtype=np.dtype(np.uint16)), lambda line: None)


def _export(target: Path) -> None:
    def write(folder: Path) -> None:
        for name in ("config.json", "model.safetensors"):
            (folder / name).write_text("{}")

    publish_dir(target, write)


def _export_file(target: Path) -> None:
    def write(file: Path) -> None:
        file.write_text("GGUF")

    publish_file(target, write)


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.mark.parametrize("error", [0, errno.EIO])
@pytest.mark.parametrize("make", [_import, _export, _export_file])
def test_what_was_not_finished_goes_with_the_next_attempt(
    tmp_path: Path, make: Callable[[Path], None], error: int
) -> None:
    (tmp_path / "source").mkdir()
    np.arange(9, dtype=np.uint16).tofile(tmp_path / "source" / "train.bin")
    make(tmp_path / "whole" / "a" / "p[1]")
    whole = names(tmp_path / "whole" / "a")
    for number in range(1, 30):
        target = tmp_path / str(number) / "a" / "p[1]"
        if not fault_at(number, lambda target=target: make(target), error)[0]:  # type: ignore[misc]
            break
        if target.exists():
            assert set(whole) <= set(names(target.parent))
        else:
            if error:
                assert not target.parent.exists() or not names(target.parent)
            make(target)
            left = {name for name in names(target.parent) if name not in whole}
            assert not {name for name in left if "/" in name}  # an empty folder may be too new to be locked
            assert all(path.is_dir() or not path.stat().st_size for path in map(target.parent.joinpath, left))
    assert number > 4


def test_what_another_process_still_makes_is_left_to_it(tmp_path: Path) -> None:
    with building(tmp_path / "p", folder=True) as theirs:
        (theirs / "file").write_text("")
        _export(tmp_path / "p")
        assert (theirs / "file").exists()
    assert names(tmp_path) == ["p", "p/config.json", "p/model.safetensors"]
