"""Formats of token files and of what lies beside them, for ``test_parsed_files.py``: headers, indexes, tokenizers."""

from __future__ import annotations

import copy
import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from data.dtypes import UINT16
from data.index_files import MEGATRON_MAGIC
from data.inspect import inspect_path
from data.pack.encoder import Encoder
from data.pack.vocabulary import load_vocabulary
from data.shard_file import shard_header
from data.shards import open_shards
from data.summary import dataset_summary
from data.text_bytes import bytes_per_token_of
from data.verify import verify_phase
from tests.unit.mutants import Dump, Format, dump_json
from tui.app.state.packs import packed_phases

VOCABULARY = 300


def formats(root: Path, tokenizer: dict[str, Any]) -> dict[str, Format]:
    """Write a valid file of every format below ``root``; ``tokenizer`` is the content of a valid ``tokenizer.json``."""
    ids = np.arange(64, dtype="<u2")
    return {
        **_headers(root, ids),
        **_indexes(root, ids),
        "described": _described(root, ids, tokenizer),
        "vocabulary": _vocabulary(root / "tokenizer.json", tokenizer),
    }


def _read_all(root: Path, phase: str) -> Callable[[], Any]:
    """Return what reads the files of a phase as every command that takes data does; its problems are messages."""

    def read() -> list[str]:
        summary = dataset_summary(root, phase, VOCABULARY, 8, validates=False)
        verified = verify_phase(root / phase, VOCABULARY, "mla-tiny", lambda *_: None)
        problems = [*summary["problems"], *verified.problems]
        json.dumps(summary)
        if not summary["problems"]:
            entries = inspect_path(root / phase, VOCABULARY, 8)
            json.dumps(entries)
            problems += [line for entry in entries for line in entry["problems"]]
            shards = open_shards(root, phase, "train", VOCABULARY)
            shards.read(0, 0, shards.shards[0].tokens)
            bytes_per_token_of(root / phase, "train", shards)
        return problems

    return read


def _file(path: Path, ids: bytes) -> Path:
    path.parent.mkdir(parents=True)
    path.write_bytes(ids)
    return path


def _filled(layout: str, values: list[Any]) -> bytes:
    """Pack ``values``; one that does not fit its field becomes 0, and a list of the wrong length another length."""
    packed = b""
    for code, value in zip(layout, values, strict=False):
        try:
            packed += struct.pack(f"<{code}", value)
        except (struct.error, TypeError, OverflowError):
            packed += struct.pack(f"<{code}", 0)
    return packed


def _numbers(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _headers(root: Path, ids: np.ndarray[Any, Any]) -> dict[str, Format]:
    llm_c, numpy = root / "llmc" / "train" / "a.bin", root / "npy" / "train" / "a.npy"
    header = np.frombuffer(shard_header(UINT16, len(ids)), "<i4").tolist()
    described = {"descr": "<u2", "fortran_order": False, "shape": [len(ids)]}

    def dump_llm_c(content: Any) -> bytes:
        values = _numbers(content.get("header") if isinstance(content, dict) else content)
        return _filled("i" * len(values), values) + bytes(1024 - 4 * len(header)) + ids.tobytes()

    def dump_numpy(content: Any) -> bytes:
        """Write the header as Python would, so that a field of another type is one of Python's."""
        shape = content.get("shape") if isinstance(content, dict) else None
        shown = {**content, "shape": tuple(shape)} if isinstance(shape, list) else content
        text = f"{shown!r}\n".encode("latin-1", "replace")
        return b"\x93NUMPY\x01\0" + min(len(text), 65535).to_bytes(2, "little") + text + ids.tobytes()

    found = {
        "llm.c": Format(_file(llm_c, b""), {"header": header}, dump_llm_c, _read_all(root, "llmc"), messages=True),
        "npy": Format(_file(numpy, b""), described, dump_numpy, _read_all(root, "npy"), messages=True),
    }
    return found


def _indexes(root: Path, ids: np.ndarray[Any, Any]) -> dict[str, Format]:
    megatron = _file(root / "megatron" / "train" / "a.bin", ids.tobytes()).with_suffix(".idx")
    tokens = _file(root / "datatrove" / "train" / "a.ds", ids.tobytes())
    _file(root / "metadata" / "train" / "a.ds", ids.tobytes())
    ends = {"ends": [16, 40, 64]}
    metadata = root / "metadata" / "train" / "a.ds.metadata"
    metadata.with_name("a.ds.index").write_bytes(_filled("QQQ", ends["ends"]))

    def dump_megatron(content: Any) -> bytes:
        content = content if isinstance(content, dict) else {}
        lengths, starts, last = (_numbers(content.get(key)) for key in ("lengths", "starts", "documents"))
        counts = [content.get("sequences"), content.get("ends")]
        head = MEGATRON_MAGIC + b"\0" + _filled("QBQQ", [content.get("version"), content.get("code"), *counts])
        parts = [_filled("i" * len(lengths), lengths), _filled("q" * len(starts), starts)]
        return b"".join([head, *parts, _filled("q" * len(last), last)])

    def dump_ends(content: Any) -> bytes:
        values = _numbers(content.get("ends") if isinstance(content, dict) else content)
        return _filled("Q" * len(values), values)

    def dump_metadata(content: Any) -> bytes:
        lines = content.values() if isinstance(content, dict) else [content]
        return "\n".join(str(line) for line in lines).encode("utf-8", "surrogatepass")

    valid: dict[str, Any] = {"version": 1, "code": 8, "sequences": 3, "ends": 4}
    valid |= {"lengths": [16, 24, 24], "starts": [0, 32, 80], "documents": [0, 1, 2, 3]}
    lines = {"tokenizer": "gpt2|2", "tokens": "64", "size": "64 T"}
    return {
        "megatron": Format(megatron, valid, dump_megatron, _read_all(root, "megatron"), messages=True),
        "datatrove": Format(
            tokens.with_name("a.ds.index"), ends, dump_ends, _read_all(root, "datatrove"), messages=True
        ),
        "metadata": Format(metadata, lines, dump_metadata, _read_all(root, "metadata"), messages=True),
    }


def _described(root: Path, ids: np.ndarray[Any, Any], tokenizer: dict[str, Any]) -> Format:
    """``dataset.json`` with all that is known of the data, as the commands that show and verify data read it."""
    phase = root / "described"
    for split in ("train", "val"):
        _file(phase / split / "a.bin", shard_header(UINT16, len(ids)) + ids.tobytes())
    (phase / "tokenizer.json").write_text(json.dumps(tokenizer))
    files = {path.relative_to(phase).as_posix(): path for path in (*phase.rglob("*.bin"), phase / "tokenizer.json")}
    counts = {"documents": 3, "tokens": len(ids), "bytes": 100, "bytes_per_token": 1.5}
    manifest = {
        **{"vocab_size": VOCABULARY, "dtype": "uint16", "eot_id": 27, "eot": "<|endoftext|>", "kind": "text"},
        "splits": {"train": dict(counts), "val": dict(counts)},
        "sources": [{"path": "texts", "files": 3, "bytes": 90, "documents": 3}],
        "sha256": {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()},
    }
    read = _read_all(root, "described")

    def show() -> list[str]:
        packed_phases(root)
        return list(read())

    return Format(phase / "dataset.json", manifest, dump_json, show, messages=True)


def _vocabulary(path: Path, tokenizer: dict[str, Any]) -> Format:
    """``tokenizer.json`` as a pack reads it: by tokenizers, fastokens, and for its end-of-text token and pattern."""
    split = {"type": "Split", "pattern": {"Regex": r"\p{L}+|\s+"}, "behavior": "Isolated", "invert": False}
    content = copy.deepcopy(tokenizer)
    bytes_of = content["pre_tokenizer"] | {"use_regex": False}
    content["model"]["vocab"] |= {"Ġ": 28}
    content["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, bytes_of]}
    dump: Dump = dump_json

    def read() -> Any:
        encoder = Encoder(load_vocabulary(path))
        encoder.check("ab cab<|endoftext|> xyz", "a.txt")
        return encoder.encode(["ab cab", ""])

    return Format(path, content, dump, read)
