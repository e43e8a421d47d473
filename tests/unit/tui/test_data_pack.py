"""``mla-tui data pack`` as a user types it."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path

import pytest

from tests.unit.data.packs import make_tokenizer, texts, write_files
from tui.cli.main import main

Capture = pytest.CaptureFixture[str]


def test_a_folder_is_packed_and_the_next_command_named(tmp_path: Path, capsys: Capture) -> None:
    write_files(
        tmp_path / "in",
        {**texts(59), "word.txt": "x" * 999, "bad.txt": b"\xff", "a b/again.txt": texts(1)["d0000.txt"]},
    )
    out = tmp_path / "out"
    assert main(["data", "pack", str(tmp_path / "in"), "--out", str(out), "--phase", "p", "--val", "10%"]) == 0
    printed, said = capsys.readouterr()
    head, train, val, vocabulary, *more = printed.splitlines()
    assert head == f"{out}/p"
    splits = json.loads((out / "p/dataset.json").read_text())["splits"]
    assert train.split()[:5] == ["train", f"{splits['train']['tokens']:,}", "tokens", *train.split()[3:5]]
    assert int(train.split()[3]) + int(val.split()[3]) == 60
    assert "<|endoftext|> (id 0) ends a document" in vocabulary
    assert "left out 1 duplicate: already there, byte for byte" in more
    assert f"skipped 1 document: not UTF-8 text ({tmp_path}/in/bad.txt)" in more
    assert f"-s data.root={out} -s data.phase=p" in more[-1]
    sampled = re.match("mla-tui: training a tokenizer of 512 ids on ([0-9,]+) characters of text, fewer than", said)
    assert sampled is not None
    assert int(sampled[1].replace(",", "")) - splits["train"]["bytes"] in (0, len(texts(1)["d0000.txt"]))
    assert main(["data", "pack", str(tmp_path / "in"), "--out", str(out), "--phase", "p", "--append"]) == 0
    assert "(+0 documents)" in capsys.readouterr().out
    packs = json.loads((out / "p/dataset.json").read_text())["packs"]
    assert [pack["options"]["val"] for pack in packs] == [0.1]


def test_rows_on_standard_input(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = "".join(json.dumps({"body": text}) + "\n" for text in texts(20).values())
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(rows.encode())))
    folder = make_tokenizer(tmp_path / "t" / "tokenizer.json").parent
    words = [
        "-",
        "--stdin",
        "jsonl",
        "--text-key",
        "body",
        "--tokenizer",
        str(folder),
        "--out",
        str(tmp_path),
        "--val=0",
    ]
    assert main(["data", "pack", *words]) == 0
    listed = json.loads((tmp_path / "phase1/sources.jsonl").read_text())
    assert (listed["path"], listed["documents"], listed["bytes"]) == ("-", 20, len(rows))
    assert "20 documents" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["nowhere"], 1, "nowhere: does not exist: name a file, a folder, a glob or - for standard input"),
        (["-", "-"], 2, "-: standard input can be read once"),
        (["a.txt", "--phase", "../up"], 2, "--phase '../up': use a name"),
        (["a.txt", "--text-key", ""], 2, "--text-key: is empty"),
        (["a.txt", "--workers", "0"], 2, "--workers: 0 is not in 1..64"),
        (["a.txt", "--train-tokenizer", "5"], 1, "--train-tokenizer: 5 is not in 257..1048576"),
        (["a.txt", "--tokenizer", "nothing"], 1, "--tokenizer: nothing is no file and no folder, nor a run"),
        (["a.txt", "--tokenizer", "."], 1, "tokenizer.json: does not exist: name a tokenizer.json, or train one"),
        (["a.txt", "--out", "a.txt"], 1, "a.txt/.phase1-packing: Not a directory: check --out"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_wrong_is_one_line(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, words: list[str], code: int, message: str
) -> None:
    monkeypatch.chdir(write_files(tmp_path, {"a.txt": "text"}))
    monkeypatch.setenv("MLA_TUI_HOME", str(tmp_path / "home"))
    assert main(["data", "pack", *words]) == code
    printed, said = capsys.readouterr()
    assert (printed, len(said.splitlines())) == ("", 1)
    assert message in said
    assert not (tmp_path / "data").exists() or not list((tmp_path / "data/shards").iterdir())


@pytest.mark.parametrize("value", ["60%", "-1", "nan", "x"])
def test_a_fraction_that_is_none_is_a_usage_error(value: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        main(["data", "pack", "a.txt", f"--val={value}"])
    assert "is not in 0%..50%, such as 0.5% or 0.005" in capsys.readouterr().err
