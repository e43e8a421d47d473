"""The built-in corpus: complete or absent, reproducible, with every document in one split only."""

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from data.corpus import build_corpus, split_of
from data.dataset import PackedBinDataset, Source
from data.pack.training import EOT
from data.shards import open_shards
from profiles.errors import UserError
from tui.cli.main import main

VOCAB = 300
GOLDEN_VAL = ["module_1.py", "module_35.py", "module_53.py"]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty small sources, each with its own name inside, and some that must be left out."""
    folder = tmp_path_factory.mktemp("source")
    for k in range(60):
        (folder / f"module_{k}.py").write_text(f"def function_{k}(value):\n    return value + {k}  # naïve\n" * 5)
    for skipped in ("test/test_x.py", "site-packages/pkg/x.py", "pkg/tests/x.py"):
        path = folder / skipped
        path.parent.mkdir(parents=True)
        path.write_text("skipped_source = True\n")
    (folder / "latin.py").write_bytes("name = 'é'".encode("latin-1"))
    (folder / "empty.py").write_text("")
    return folder


@pytest.fixture(scope="module")
def corpus(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_corpus(tmp_path_factory.mktemp("shards"), vocab_size=VOCAB, source=source)


def documents(corpus: Path, split: str) -> list[str]:
    shards = open_shards(corpus.parent, "phase1", split, VOCAB)
    ids = shards.read(0, 0, shards.tokens)
    tokenizer = Tokenizer.from_file(str(corpus / "tokenizer.json"))
    assert ids[-1] == tokenizer.token_to_id(EOT)
    return [tokenizer.decode(part[part != 0].tolist()) for part in np.split(ids, np.flatnonzero(ids == 0) + 1)[:-1]]


def test_every_file_is_in_one_split_and_decodes_to_its_text(source: Path, corpus: Path) -> None:
    train, val = documents(corpus, "train"), documents(corpus, "val")
    expected = {p.read_text() for p in source.glob("module_*.py")}
    assert set(train) | set(val) == expected
    assert not set(train) & set(val)
    assert len(train) + len(val) == 60
    assert train and val


def test_the_split_of_a_file_never_changes() -> None:
    assert split_of("ast.py") == "train"
    assert [name for name in (f"module_{k}.py" for k in range(60)) if split_of(name) == "val"] == GOLDEN_VAL


def test_dataset_json_describes_the_corpus(corpus: Path) -> None:
    manifest = json.loads((corpus / "dataset.json").read_text())
    train = open_shards(corpus.parent, "phase1", "train", VOCAB)
    assert manifest["vocab_size"] == VOCAB
    assert manifest["dtype"] == train.shards[0].dtype.name
    assert manifest["splits"]["train"]["tokens"] == train.tokens
    assert manifest["splits"]["train"]["bytes"] > train.tokens
    assert manifest["eot_id"] == 0
    assert set(manifest["sha256"]) == {"tokenizer.json", "train/phase1-train-000.bin", "val/phase1-val-000.bin"}


def test_a_model_can_train_on_it(corpus: Path) -> None:
    data = PackedBinDataset((Source("", 1.0, open_shards(corpus.parent, "phase1", "train", VOCAB)),), 32, VOCAB, seed=1)
    batch, _ = data.read_batch(data.initial_cursor(), 4)
    assert batch.shape == (4, 33)


def test_a_second_build_is_identical_and_an_existing_one_is_kept(source: Path, corpus: Path, tmp_path: Path) -> None:
    other = build_corpus(tmp_path / "deep/shards", vocab_size=VOCAB, source=source)
    assert (other / "dataset.json").read_bytes() == (corpus / "dataset.json").read_bytes()
    before = (other / "dataset.json").stat()
    progress: list[str] = []
    assert build_corpus(other.parent, vocab_size=VOCAB, source=tmp_path / "gone", report=progress.append) == other
    assert progress == [f"{other}: already built"]
    assert (other / "dataset.json").stat() == before


def refused(root: Path, source: Path, vocab: int = VOCAB) -> str:
    with pytest.raises(UserError) as caught:
        build_corpus(root, vocab_size=vocab, source=source)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_existing_files_are_never_replaced(source: Path, corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "phase1").mkdir()
    (tmp_path / "phase1/mine.bin").write_bytes(b"ab")
    assert "exists and is not the built-in corpus" in refused(tmp_path, source)
    assert [p.name for p in tmp_path.rglob("*")] == ["phase1", "mine.bin"]
    assert "vocabulary of 300, not 310" in refused(corpus.parent, source, 310)


def test_a_damaged_corpus_is_detected(source: Path, tmp_path: Path) -> None:
    shard = build_corpus(tmp_path, vocab_size=VOCAB, source=source) / "val/phase1-val-000.bin"
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    assert f"{shard}: is missing or its checksum differs" in refused(tmp_path, source)


def test_an_empty_directory_is_filled(source: Path, tmp_path: Path) -> None:
    (tmp_path / "phase1").mkdir()
    assert (build_corpus(tmp_path, vocab_size=VOCAB, source=source) / "dataset.json").exists()


def test_too_little_text_leaves_nothing(source: Path, tmp_path: Path) -> None:
    assert "vocab_size: 4096 is more than BPE finds in the sources" in refused(tmp_path, source, 4096)
    assert "vocab_size: 256 is not in" in refused(tmp_path, source, 256)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no .py file for the train split" in refused(tmp_path, empty)
    assert [p.name for p in tmp_path.iterdir()] == ["empty"]


def test_a_root_that_cannot_be_written(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot write the corpus (Not a directory)" in refused(tmp_path / "file", source)


def test_a_full_disk_leaves_nothing(source: Path, tmp_path: Path) -> None:
    """A file size limit stands in for a full disk."""
    code = (
        "import resource, sys; from pathlib import Path; from data.corpus import build_corpus\n"
        "from profiles.errors import UserError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
        "try: build_corpus(Path(sys.argv[1]), vocab_size=300, source=Path(sys.argv[2]))\n"
        "except UserError as error: sys.exit(str(error))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), str(source)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert (
        done.stderr
        == f"{tmp_path}/phase1: cannot write the corpus (File too large): free some space or choose another directory\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_the_command(capsys: pytest.CaptureFixture[str], corpus: Path) -> None:
    assert main(["data", "demo", "--out", str(corpus.parent), "--vocab", str(VOCAB)]) == 0
    assert capsys.readouterr().out == f"{corpus}\n"
    assert main(["data", "demo", "--out", str(corpus.parent), "--vocab", "5"]) == 1
    assert "vocab_size: 5 is not in" in capsys.readouterr().err


def test_the_standard_library_has_enough_files() -> None:
    names = [n for n in os.listdir(sysconfig.get_path("stdlib")) if n.endswith(".py")]
    assert {split_of(name) for name in names} == {"train", "val"}
