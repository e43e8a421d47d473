"""mla-tui data verify: a clean data set passes, and each damage is one line that names the file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data.shard_file import HEADER_BYTES, write_shard
from tests.unit.data.packs import EOT, make_tokenizer, pack_into, texts, write_files
from tui.cli.main import main


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("verify")
    tokenizer = make_tokenizer(root / "tokenizer.json")
    return pack_into(root / "out", write_files(root / "text", texts(60)), tokenizer=tokenizer).target


@pytest.fixture
def phase(packed: Path, tmp_path: Path) -> Path:
    return shutil.copytree(packed, tmp_path / "shards/p")


@pytest.fixture
def imported(packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """The same shards without checksums; the files themselves are in ``tmp_path/ids``."""
    for split in ("train", "val"):
        shutil.copytree(packed / split, tmp_path / "ids" / split)
    options = ["--out", str(tmp_path), "--tokenizer", str(packed / "tokenizer.json"), "--eot", EOT]
    assert main(["data", "import", str(tmp_path / "ids"), "--phase", "web", *options]) == 0
    capsys.readouterr()
    return tmp_path / "web"


@pytest.fixture
def problems(capsys: pytest.CaptureFixture[str]) -> Callable[..., list[str]]:
    def verify(what: Path | str) -> list[str]:
        code = main(["data", "verify", str(what)])
        lines = capsys.readouterr().err.splitlines()
        assert code == bool(lines)
        return lines

    return verify


def ids_of(path: Path) -> np.ndarray[tuple[int], np.dtype[np.uint16]]:
    return np.fromfile(path, "<u2", offset=HEADER_BYTES)


def first(folder: Path) -> Path:
    return next(iter(sorted(folder.glob("*.bin"))))


def overwrite(path: Path, offset: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(content)


def test_a_packed_set_passes(phase: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = json.loads((phase / "dataset.json").read_text())
    assert main(["data", "verify", str(phase)]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert f"{phase}: 2 shards, " in said.out
    assert f"{len(manifest['sha256'])} checksums, ids below {manifest['vocab_size']} (dataset.json)" in said.out
    assert f"{manifest['splits']['val']['documents']} documents of val not in train" in said.out

    assert main(["data", "verify", str(phase.parent), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    splits = manifest["splits"].values()
    assert (found["problems"], found["tokens"]) == ([], sum(split["tokens"] for split in splits))


def test_an_imported_set_passes(imported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "verify", str(imported)]) == 0
    assert "sizes, 1 checksum, ids below" in capsys.readouterr().out


def damage_id(phase: Path) -> tuple[Path, str]:
    path = first(phase / "train")
    overwrite(path, HEADER_BYTES + 2 * 5, np.uint16(60_000).tobytes())
    return path, "token 5 is id 60000, outside the vocabulary of "


def damage_size(phase: Path) -> tuple[Path, str]:
    path = first(phase / "train")
    path.write_bytes(path.read_bytes()[:-2])
    return path, "the header says "


def damage_byte(phase: Path) -> tuple[Path, str]:
    path = first(phase / "val")
    before = path.read_bytes()[HEADER_BYTES]
    overwrite(path, HEADER_BYTES, bytes([before ^ 1]))
    return path, "its SHA-256 is not that in dataset.json"


def damage_tokenizer(phase: Path) -> tuple[Path, str]:
    path = phase / "tokenizer.json"
    path.write_text(path.read_text() + "\n")
    return path, "put back the one that packed the data"


def damage_missing(phase: Path) -> tuple[Path, str]:
    path = first(phase / "val")
    path.unlink()
    return path, "is missing; dataset.json lists it"


def damage_added(phase: Path) -> tuple[Path, str]:
    write_shard(phase / "train/z.bin", np.full(100, 7, np.uint16))
    return phase / "dataset.json", "splits.train.tokens is "


def damage_count(phase: Path) -> tuple[Path, str]:
    path = phase / "dataset.json"
    content = json.loads(path.read_text())
    content["splits"]["val"]["bytes"] *= 10
    path.write_text(json.dumps(content))
    return path, "which cannot be: for "


DAMAGE = (damage_count, damage_id, damage_size, damage_byte, damage_tokenizer, damage_missing, damage_added)


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_damage_is_one_line(
    phase: Path, problems: Callable[..., list[str]], damage: Callable[[Path], tuple[Path, str]]
) -> None:
    path, says = damage(phase)
    (line,) = problems(phase)
    assert line.startswith(f"mla-tui: {path}: ")
    assert says in line


def test_a_wrong_id_without_checksums(imported: Path, problems: Callable[..., list[str]]) -> None:
    overwrite(first(imported / "val"), HEADER_BYTES + 2 * 9, np.uint16(50_000).tobytes())
    (line,) = problems(imported)
    assert "token 9 is id 50000, outside the vocabulary of" in line
    assert "dataset.json: pack it again" in line


def test_a_document_and_a_shard_of_val_in_train(imported: Path, problems: Callable[..., list[str]]) -> None:
    end = json.loads((imported / "dataset.json").read_text())["eot_id"]
    train, val = first(imported / "train").resolve(), first(imported / "val").resolve()
    ids, others = ids_of(train), ids_of(val)
    document = others[: int(np.argmax(others == end)) + 1]
    place = int(np.argmax(ids == end)) + 1
    write_shard(train, np.concatenate([ids[:place], document, ids[place:]]))
    found = problems(imported)
    assert "1 of " in found[-1]
    assert f"is also in train, that at token 0 in {imported}/train/" in found[-1]
    assert f" at token {place}: pack both" in found[-1]
    assert all("splits.train." in line for line in found[:-1])

    shutil.copy(val, train)
    same = f"{first(imported / 'val')}: is the same as {first(imported / 'train')}, "
    assert any(same in line for line in problems(imported))


def test_documents_are_found_across_blocks_and_types(
    tmp_path: Path, problems: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first id of a document may be its end of text, and train may have wider ids than val."""
    monkeypatch.setattr("data.verify._BLOCK_BYTES", 64)
    rng = np.random.default_rng(0)
    documents = [rng.integers(1, 500, size) for size in rng.integers(1, 90, 60)]
    for split, some, dtype in (("train", documents[:55], "<u4"), ("val", documents[50:], "<u2")):
        (tmp_path / split).mkdir()
        ids = np.concatenate([part for document in some for part in ([0], document)])
        write_shard(tmp_path / split / "a.bin", ids.astype(dtype))
    (tmp_path / "dataset.json").write_text('{"eot_id": 0, "vocab_size": 500}')
    (line,) = problems(tmp_path)
    assert "5 of 10 documents of val are also in train" in line


def test_profiles_and_mixtures(packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("web", "code"):
        shutil.copytree(packed, tmp_path / name)
        (tmp_path / name / "dataset.json").unlink()
    profile = tmp_path / "mix.toml"
    data = f'extends = "cpu_demo"\n[data]\nroot = "{tmp_path}"\n[data.sources]\nweb = 0.7\ncode = 0.3\n'
    profile.write_text(data)
    assert main(["data", "verify", str(profile)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[0] for line in lines] == [str(tmp_path / "code"), str(tmp_path / "web")]
    assert all(f"ids below 4,096 (the model of {profile})" in line for line in lines)

    overwrite(first(tmp_path / "code/train"), HEADER_BYTES, np.uint16(4096).tobytes())
    assert main(["data", "verify", str(profile)]) == 1
    assert f"id 4096, outside the vocabulary of 4096 of the model of {profile}" in capsys.readouterr().err


def test_what_is_no_phase(phase: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for what in (phase / "train", first(phase / "train")):
        assert main(["data", "verify", str(what)]) == 1
        assert f"name {phase}" in capsys.readouterr().err
    assert main(["data", "verify", str(phase / "gone")]) == 1
    assert "gone: does not exist: name a phase" in capsys.readouterr().err
    assert main(["data", "verify", "gone"]) == 2
    assert "nor a run" in capsys.readouterr().err
