"""What a launch refuses although it would train, and what it says of data that it cannot look at as a whole."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, models

from tests.unit.train.tiny_runs import NANO, write_shards
from tui.cli.main import main


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The options of a run with a vocabulary of 256."""
    monkeypatch.setenv("MLA_TUI_HOME", str(tmp_path / "home"))
    write_shards(tmp_path / "shards")
    keys = (*NANO, f"data.root={tmp_path / 'shards'}", f"train.out={tmp_path / 'out'}")
    return ["-p", "cpu_demo", *(word for key in keys for word in ("-s", key))]


def tokenizer(file: Path, ids: list[int], special: str = "") -> None:
    made = Tokenizer(models.WordLevel({f"w{id}": id for id in ids}, unk_token=f"w{ids[0]}"))
    if special:
        made.add_special_tokens([AddedToken(special)])
    made.save(str(file))


@pytest.mark.parametrize(("command", "code"), [("launch", 1), ("train", 1), ("plan", 0)])
@pytest.mark.parametrize(
    ("ids", "special", "highest"),
    [
        (list(range(400)), "", 399),
        (list(range(256)), "<|endoftext|>", 256),  # the one that is forgotten most often
        ([0, 1, 64_999], "", 64_999),  # few tokens, and a high id
    ],
)
def test_a_tokenizer_beyond_the_vocabulary_is_refused_before_the_launch(
    command: str,
    code: int,
    ids: list[int],
    special: str,
    highest: int,
    settings: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "shards" / "phase1" / "tokenizer.json"
    tokenizer(file, ids, special)
    assert main([command, *settings]) == code
    assert capsys.readouterr().err == (
        f"mla-tui: {file}: has ids up to {highest}, model.vocab_size is 256; use -s model.vocab_size={highest + 1} or"
        " more, or replace it with the one that packed the data\n"
    )
    assert not (tmp_path / "home" / "runs").exists() and not (tmp_path / "out").exists()


def test_a_damaged_tokenizer_is_refused_before_the_launch(
    settings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "shards" / "phase1" / "tokenizer.json").write_text("{")
    assert main(["launch", *settings]) == 1
    err = capsys.readouterr().err
    assert "tokenizer.json: is not a valid tokenizer" in err and err.count("\n") == 1


def test_a_launch_says_how_much_of_large_data_it_looked_at(
    settings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.preflight._SECONDS_FOR_IDS", 1e-9)
    monkeypatch.setattr("engine.runs.launch.ensure_supervisor", lambda run: None)
    (tmp_path / "shards" / "phase1" / "train" / "large.bin").write_bytes(bytes(16 << 20))
    assert main(["launch", *settings]) == 0
    assert re.search(
        r"^mla-tui: data: looked at \d+\.\d% of the ids, all within", capsys.readouterr().err, re.MULTILINE
    )
