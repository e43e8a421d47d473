"""Packs that are killed, stopped by a full disk, repeated or added to."""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import zstandard

from data.pack.journal import StateFolder
from profiles.errors import UserError
from tests.unit.data.packs import Notes, contents, documents, make_tokenizer, pack_into, texts, write_files
from tui.cli.main import main

# Forks a process that packs for each line it reads, which is faster than to start Python each time. Batches of little
# text, and a commit after each, give a small pack many moments to be killed at: some time after a number of commits, or
# before a number of files and folders are removed once the data is there.
PACKER = """
import os, signal, sys, threading
from pathlib import Path
from data.pack import batches, packing
from tests.unit.data.packs import pack_into
batches.BATCH_BYTES, packing._COMMIT_SECONDS, packing._COMMIT_SHARE = 200, 0, 0
commit = packing._Packing._commit
for line in sys.stdin:
    out, tokenizer, source, commits, delay, removals = line.split()
    left, kept = int(commits), int(removals)
    def counted(self, merger):
        global left
        commit(self, merger)
        left -= 1
        if not left:
            threading.Timer(float(delay), os.kill, (os.getpid(), signal.SIGKILL)).start()
    def removed(event, arguments):
        global kept
        if event in ("os.remove", "os.rmdir") and Path(out, "p", "dataset.json").exists():
            kept -= 1
            if not kept:
                os.kill(os.getpid(), signal.SIGKILL)
    pid = os.fork()
    if not pid:
        packing._Packing._commit = counted
        sys.addaudithook(removed)
        pack_into(Path(out), source, tokenizer=Path(tokenizer), shard_tokens=2000, workers=2)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tokenizer(tmp_path_factory.mktemp("tokenizer") / "tokenizer.json")


class Packer:
    """Starts packs, each in a process that may be killed."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", PACKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(
        self, out: Path, tokenizer: Path, source: Path, commits: int = 0, delay: float = 0.0, removals: int = 0
    ) -> int:
        """Pack, in a process that is killed ``delay`` seconds after so many commits; return its exit code.

        Or in one that is killed where it would remove a file or a folder, the one of number ``removals``.
        """
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(f"{out} {tokenizer} {source} {commits} {delay} {removals}\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


def test_a_pack_that_is_killed_again_and_again_ends_with_the_same_bytes(tmp_path: Path, tokenizer: Path) -> None:
    rows = "".join(json.dumps({"text": f"row {number} " * 9}) + "\n" for number in range(200))
    more: dict[str, str | bytes] = {"rows.jsonl": rows, "bad.txt": b"\xff", "none.txt.gz": b"no"}
    source = write_files(tmp_path / "in", {**texts(200), **more})
    packer, out, rng = Packer(), tmp_path / "killed", random.Random(int(os.environ.get("MLA_TUI_SEED", "0")))
    assert packer.run(tmp_path / "whole", tokenizer, source) == 0
    progress = out / ".p-packing" / "progress.json"
    seen = []
    while packer.run(out, tokenizer, source, rng.randint(1, 25), rng.uniform(0, 0.01)):
        if not progress.exists():  # killed when it was done
            break
        seen.append(json.loads(progress.read_text())["position"])
        assert not (out / "p" / "dataset.json").exists() or json.loads(progress.read_text())["complete"]
    packer.close()
    assert len(seen) > 2
    assert seen == sorted(seen)
    assert contents(out) == contents(tmp_path / "whole")
    assert {path.name for path in out.iterdir()} <= {"p", ".p-packing"}
    assert not (out / ".p-packing").exists() or not os.listdir(out / ".p-packing")


def test_a_pack_that_is_killed_while_it_clears_up_is_done(tmp_path: Path, tokenizer: Path) -> None:
    """It was published by then; what is left of its state is in nobody's way."""
    source, more = write_files(tmp_path / "in", texts(9)), write_files(tmp_path / "more", texts(60, 1))
    packer, removals, codes = Packer(), 0, []
    whole = contents(pack_into(tmp_path / "whole", source, tokenizer=tokenizer, shard_tokens=2000).target)
    while removals := removals + 1:
        out = tmp_path / str(removals)
        codes.append(packer.run(out, tokenizer, source, removals=removals))
        assert contents(out / "p") == whole
        if codes[-1] == 0:
            break
        if removals % 2:
            with contextlib.suppress(UserError):  # "exists", where it could not be known that this one was killed
                pack_into(out, source, tokenizer=tokenizer, shard_tokens=2000)
            assert [path.name for path in out.iterdir()] == ["p"]
        unfinished = (out / ".p-packing/progress.json").exists() and (out / ".p-packing/request.json").exists()
        if not unfinished:
            assert pack_into(out, more, append=True, shard_tokens=2000).progress.documents
            assert [path.name for path in out.iterdir()] == ["p"]
    packer.close()
    assert len(codes) > 3


def test_added_documents_leave_the_others_and_their_shards_alone(tmp_path: Path, tokenizer: Path) -> None:
    first, second = texts(60), texts(60, 1)
    pack_into(tmp_path / "out", write_files(tmp_path / "a", first), tokenizer=tokenizer, shard_tokens=400)
    before = contents(tmp_path / "out")
    old = json.loads((tmp_path / "out/p/dataset.json").read_text())
    both = write_files(tmp_path / "b", {**first, **{f"new-{name}": text for name, text in second.items()}})
    packed = pack_into(tmp_path / "out", both, append=True, shard_tokens=400)
    assert packed.progress.duplicates == len(first)
    after = contents(tmp_path / "out")
    changed = {"p/dataset.json", "p/documents.blake2b", "p/sources.jsonl"}
    assert {name: after[name] for name in before if name not in changed} == {
        name: before[name] for name in before if name not in changed
    }
    alone = pack_into(tmp_path / "alone", both, tokenizer=tokenizer, shard_tokens=400)
    for split in ("train", "val"):
        assert sorted(documents(packed, split)) == sorted(documents(alone, split)), split
    manifest = packed.manifest
    assert manifest["sha256"] == {name[2:]: sha256 for name, sha256 in after.items() if name != "p/dataset.json"}
    assert [each["path"] for each in manifest["sources"]] == [str(tmp_path / "a"), str(both)]
    assert manifest["splits"]["train"]["documents"] > old["splits"]["train"]["documents"]
    again = pack_into(tmp_path / "out", both, append=True)
    assert (again.progress.documents, again.progress.duplicates) == (0, 120)
    assert contents(tmp_path / "out") == after


def test_more_than_a_thousand_shards_are_read_in_the_order_they_were_written(tokenizer: Path) -> None:
    """In memory where there is such a folder: each shard is synced."""
    lines = [f"{number}" for number in range(1010)]
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as name:
        folder = Path(name)
        for part, rows in {"a": lines[:990], "b": lines[990:]}.items():
            write_files(folder, {f"{part}.jsonl": "".join(f'{{"text": "{row}"}}\n' for row in rows)})
            source, add = folder / f"{part}.jsonl", part == "b"
            packed = pack_into(folder / "out", source, tokenizer=tokenizer, val=0, shard_tokens=1, append=add)
        assert len(list((packed.target / "train").iterdir())) == len(lines)
        assert documents(packed) == lines


def test_an_append_that_is_interrupted_while_it_is_published_is_finished(
    tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("whole", "broken"):
        pack_into(tmp_path / name, write_files(tmp_path / "a", texts(9)), tokenizer=tokenizer)
    added = write_files(tmp_path / "b", texts(60, 1))
    pack_into(tmp_path / "whole", added, append=True, shard_tokens=300)
    rename, left = Path.rename, 3

    def fail_later(path: Path, target: Path) -> Path:
        nonlocal left
        left -= 1
        if not left:
            raise KeyboardInterrupt
        return rename(path, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "rename", fail_later)
        pack_into(tmp_path / "broken", added, append=True, shard_tokens=300)
    assert contents(tmp_path / "broken") != contents(tmp_path / "whole")
    with pytest.raises(
        UserError, match="an unfinished pack with other sources lies there: repeat its command to go on"
    ):
        pack_into(tmp_path / "broken", tmp_path / "a", append=True, shard_tokens=300)
    pack_into(tmp_path / "broken", added, append=True, shard_tokens=300)
    assert contents(tmp_path / "broken") == contents(tmp_path / "whole")


def test_a_full_disk_keeps_what_is_finished(tmp_path: Path, tokenizer: Path) -> None:
    """A limit on the size of a file stands in for a full disk."""
    text = {f"{number}.txt": f"{number} " + "def word return " * 25_000 for number in range(12)}
    source = write_files(tmp_path / "in", text)
    whole = contents(pack_into(tmp_path / "whole", source, tokenizer=tokenizer).target)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = (tmp_path / "whole/p/train/p-train-000.bin").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size - 1000, limits[1]))
    try:
        with pytest.raises(UserError, match=r"File too large: free some space .* the same command goes on"):
            pack_into(tmp_path / "out", source, tokenizer=tokenizer)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".p-packing"]
    assert contents(pack_into(tmp_path / "out", source, tokenizer=tokenizer).target) == whole


def interrupted(out: Path, tokenizer: Path, source: Path) -> None:
    """Begin a pack and end it before its first batch."""

    class Interrupt(Notes):
        def progress(self, read: int, total: int, tokens: int, done: int) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack_into(out, source, tokenizer=tokenizer, report=Interrupt())
    assert (out / ".p-packing").is_dir()


def test_another_pack_does_not_go_on_with_an_unfinished_one(tmp_path: Path, tokenizer: Path) -> None:
    out, source = tmp_path / "out", write_files(tmp_path / "in", texts(9))
    interrupted(out, tokenizer, source)
    remedy = "repeat its command to go on, or remove the folder to begin again"
    with pytest.raises(UserError, match=rf"packing: an unfinished pack with other --val lies there: {remedy}"):
        pack_into(out, source, tokenizer=tokenizer, val=0.2)
    write_files(source, {"more.txt": "more"})
    with pytest.raises(UserError, match="an unfinished pack with other files lies there: put them back to go on, or"):
        pack_into(out, source, tokenizer=tokenizer)
    (source / "more.txt").unlink()
    progress = out / ".p-packing" / "progress.json"
    whole = progress.read_text()
    progress.write_text(whole.replace('"documents": 0', '"documents": -1'))
    with pytest.raises(UserError, match=r"progress\.json: is damaged: remove its folder to begin again"):
        pack_into(out, source, tokenizer=tokenizer)
    progress.write_text(whole)
    request = progress.with_name("request.json")
    asked = request.read_text()
    request.unlink()
    with pytest.raises(UserError, match=r"request\.json: is missing: remove its folder to begin again"):
        pack_into(out, source, tokenizer=tokenizer)
    request.write_text(asked)
    assert len(documents(pack_into(out, source, tokenizer=tokenizer, val=0.1))) > 0


def test_two_packs_into_one_target_do_not_mix(tmp_path: Path, tokenizer: Path) -> None:
    source = write_files(tmp_path / "in", texts(3))
    other = StateFolder(tmp_path / "out" / ".p-packing")
    with pytest.raises(UserError, match="another process packs there now: wait for it, or choose another --phase"):
        pack_into(tmp_path / "out", source, tokenizer=tokenizer)
    other.close()
    pack_into(tmp_path / "out", source, tokenizer=tokenizer)
    with pytest.raises(UserError, match="out/p: exists: add documents to it with --append, or choose another --phase"):
        pack_into(tmp_path / "out", source, tokenizer=tokenizer)


def test_what_is_refused_leaves_nothing_behind(tmp_path: Path, tokenizer: Path) -> None:
    source = write_files(tmp_path / "in", {"a.txt": b"\xff", "b.txt": ""})
    (tmp_path / "there").mkdir()
    for out in (tmp_path / "a" / "b" / "out", tmp_path / "there"):
        with pytest.raises(UserError, match=r"nothing could be packed: skipped 1 document: empty .* not UTF-8"):
            pack_into(out, source, tokenizer=tokenizer)
    with pytest.raises(UserError, match=r"nowhere: does not exist: name a file, a folder, a glob or -"):
        pack_into(tmp_path / "out", tmp_path / "nowhere", tokenizer=tokenizer)
    with pytest.raises(UserError, match=r"/in: is --out, whose files are not packed: choose another --out"):
        pack_into(source, source, tokenizer=tokenizer)
    for command in (["pack", str(source)], ["demo"]):
        too_long = ["--out", str(tmp_path / "out" / "below"), "--phase", "\u5b57" * 90]  # 270 bytes
        assert main(["data", *command, *too_long]) == 1
    with pytest.raises(UserError, match=r"empty .*; skipped 1 document: not UTF-8 .*; no text to train a tokenizer on"):
        pack_into(tmp_path / "out", source)
    write_files(source, {"c.jsonl": '{"content": "a"}\n{}', "d.csv": "content\na"})
    column = r"has no column 'text'; name one with --text-key: 'content'"
    other = rf"{column}; .*: without text under --text-key 'text' \(.*/c.jsonl\); no"
    with pytest.raises(UserError, match=other):
        pack_into(tmp_path / "out", source)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(UserError, match=r"/fifo: is a FIFO, not a regular file; no text to train a tokenizer on"):
        pack_into(tmp_path / "out", tmp_path / "fifo")
    with pytest.raises(UserError, match=r"--append: .* holds no data that data pack wrote"):
        pack_into(tmp_path / "out", source, append=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fifo", "in", "there"]
    assert not list((tmp_path / "there").iterdir())


@pytest.mark.faults
@pytest.mark.timeout(1800)
def test_memory_stays_below_1_gb_whatever_the_files_are(tmp_path: Path, tokenizer: Path) -> None:
    """Texts and rows of nearly 64 MiB, words of 8 MiB, much small text, tiny rows, and 2 GB behind two kilobytes.

    One text has a token for each byte, of four bytes each.
    """
    line = "def word return the value of it\n"
    content = json.loads(tokenizer.read_text())
    unused = {f"<unused{number}>": number for number in range(400, 70_000)}
    content["model"]["vocab"] |= unused
    wide = write_files(tmp_path, {"wide.json": json.dumps(content)}) / "wide.json"
    (tmp_path / "in").mkdir()
    for number in range(4):
        (tmp_path / "in" / f"{number}.txt").write_text(f"{number}\n" + line * ((60 << 20) // len(line)) + "😀")
    (tmp_path / "in" / "bytes.txt").write_text("éü " * (12 << 20))
    for number in range(4):
        word = "".join(random.Random(number).choices("abcdefgh", k=(8 << 20) - 1))
        (tmp_path / "in" / f"word{number}.txt").write_text(word)
    with (tmp_path / "in" / "rows.jsonl").open("w") as file:
        for number in range(4):
            text = f"{number}\n" + line * ((50 << 20) // len(line)) + "😀"
            file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
        for number in range(100_000):
            file.write(json.dumps({"text": f"{number} {line * 20}"}) + "\n")
    with (tmp_path / "in" / "tiny.jsonl").open("w") as file:
        file.writelines(f'{{"text":"{number}"}}\n' for number in range(1_000_000))
    with zstandard.open(tmp_path / "in" / "bomb.txt.zst", "wb") as bomb:
        for _ in range(2048):
            bomb.write(bytes(1 << 20).replace(b"\0", b"a"))
    words = ["data", "pack", tmp_path / "in", "--tokenizer", wide, "--out", tmp_path / "out", "--workers", 4]
    process = subprocess.Popen([sys.executable, "-m", "tui.cli", *map(str, words)], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert usage.ru_maxrss < 1_000_000  # KiB
