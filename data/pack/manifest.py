"""Makes ``dataset.json``: what a data set holds, and all that is needed to make it again."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from data.pack.journal import Progress
from data.pack.request import Request
from data.pack.shard_writer import ShardState
from data.pack.vocabulary import TOKENIZER_JSON, Vocabulary

KIND = "text"
_LIBRARIES = ("fastokens", "tokenizers")
_MINHASH = ("rensa",)


def make_manifest(
    request: Request, vocabulary: Vocabulary, progress: Progress, before: dict[str, Any], hashes: dict[str, str]
) -> dict[str, Any]:
    """Return the content of ``dataset.json``.

    ``before`` is that of the data set which the pack adds to, or empty. ``hashes`` are the SHA-256 of new files that
    are not shards.
    """
    shards = {
        f"{split}/{name}": sha256 for split, state in progress.shards.items() for name, sha256 in state.closed.items()
    }
    return {
        "kind": KIND,
        "tokenizer": {"file": TOKENIZER_JSON, "sha256": vocabulary.sha256, "pattern": vocabulary.pattern},
        "vocab_size": vocabulary.size,
        "dtype": vocabulary.dtype.name,
        "eot_id": vocabulary.eot_id,
        "eot": vocabulary.eot,
        "splits": {
            split: _split(state, before.get("splits", {}).get(split, {})) for split, state in progress.shards.items()
        },
        "sources": [
            *before.get("sources", ()),
            *({"path": path, **counts} for path, counts in zip(request.sources, progress.given, strict=True)),
        ],
        "packs": [*before.get("packs", ()), _pack(request, progress)],
        "sha256": {**before.get("sha256", {}), **hashes, **shards},
    }


def library_versions(request: Request) -> dict[str, str]:
    """Return the versions of the libraries that decide which ids a text gets, and which documents are left out."""
    return {library: version(library) for library in _LIBRARIES + (_MINHASH if request.near_duplicates else ())}


def _split(state: ShardState, before: dict[str, int]) -> dict[str, Any]:
    counts = {key: before.get(key, 0) + getattr(state, key) for key in ("documents", "tokens", "bytes")}
    return {**counts, "bytes_per_token": round(counts["bytes"] / counts["tokens"], 4) if counts["tokens"] else None}


def _pack(request: Request, progress: Progress) -> dict[str, Any]:
    """Return what one pack was asked for and what it left out."""
    return {
        "sources": list(request.sources),
        "options": {
            "val": request.fraction,
            "shard_tokens": request.shard_tokens,
            "text_key": request.text_key,
            "separator": request.separator,
            "stdin": request.stdin_format,
            "encoder": request.encoder,
            "near_duplicates": request.near_duplicates,
        },
        "versions": library_versions(request),
        "documents": progress.documents,
        "duplicates": progress.duplicates,
        "near_duplicates": progress.near_duplicates,
        "unreadable_files": progress.faults,
        "skipped": progress.skipped.to_dict(),
    }
