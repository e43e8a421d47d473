"""Makes a phase of token files that lie elsewhere: a folder of links to them, with what is known of their ids.

The files stay where they are and as they are. Links rather than a list of files, because every program can follow
them, and a file that is gone is named by its own path.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data.id_check import check_block
from data.new_folder import new_folder
from data.pack.vocabulary import TOKENIZER_JSON, load_vocabulary
from data.phase_folders import phase_above
from data.shard_file import BareIds
from data.shards import DATASET_JSON, ShardSet, read_shards
from data.split_files import folders_below, split_of_name, token_files
from data.tokenizer import same_ids
from profiles.errors import UserError
from profiles.printable import counted

_SPLITS = ("train", "val")
_BESIDE = (".index", ".metadata")  # after the whole name, as datatrove names its index
_BLOCK_TOKENS = 1 << 22


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """``val``: a pattern for the names, below the source, of files that are for validation.

    ``tokenizer``: the file that made the ids; ``eot``: its token that ends a document, if it is none of the usual ones;
    ``dtype``: the type of ids that do not say it.
    """

    val: str = ""
    tokenizer: Path | None = None
    eot: str | None = None
    dtype: np.dtype[Any] | None = None


def import_phase(source: Path, target: Path, options: ImportOptions, report: Callable[[str], object]) -> None:
    """Make the phase ``target`` of the token files in and below ``source``; ``report`` gets lines about them.

    All ids are read once, so that a wrong one is found now. Raise ``UserError`` if there are no files for training,
    a file is none of token ids, an id is outside the vocabulary of the tokenizer, or the target exists.
    """
    source, target = Path(os.path.abspath(source)), Path(os.path.abspath(target))
    if os.path.lexists(target):
        raise UserError(f"{target}: exists; choose another --phase, or move it away")
    splits = _splits(source, options.val)
    _check_tokenizers(source, splits)
    manifest: dict[str, Any] = {"sources": [{"path": str(source)}], "splits": {}}
    vocab_size, tokenizer = 0, b""
    if options.tokenizer:
        vocabulary = load_vocabulary(options.tokenizer, options.eot)
        vocab_size, tokenizer = vocabulary.size, vocabulary.content
        about = {"file": TOKENIZER_JSON, "sha256": vocabulary.sha256, "pattern": vocabulary.pattern}
        manifest |= {"tokenizer": about, "vocab_size": vocab_size}
        manifest |= {"eot_id": vocabulary.eot_id, "eot": vocabulary.eot}
    elif options.eot:
        raise UserError(f"--eot {options.eot}: needs --tokenizer, which has its id")
    bare: set[str] = set()
    for split, names in splits.items():
        files = [source / name if source.is_dir() else source for name in names]
        opened = ShardSet(read_shards(files, BareIds(options.dtype, vocab_size)))
        shards = opened.shards
        highest = max(_highest(opened, k, vocab_size) for k in range(len(shards)))
        bare |= {shard.dtype.name for shard in shards if shard.format == "bare"}
        counts = [shard.documents for shard in shards]
        known = None if None in counts else sum(count or 0 for count in counts)
        manifest["splits"][split] = {"tokens": opened.tokens} | ({"documents": known} if known is not None else {})
        formats = ", ".join(sorted({f"{shard.format} {shard.dtype.name}" for shard in shards}))
        number = f"{len(shards)} file{'s' if len(shards) > 1 else ''}"
        report(f"{split}: {number}, {opened.tokens} tokens, highest id {highest} ({formats})")
    if len(bare) > 1:
        raise UserError(f"{source}: its files have different types ({', '.join(sorted(bare))}): import them apart")
    manifest |= {"dtype": bare.pop()} if bare else {}
    _write(source, target, splits, manifest, tokenizer)


def _splits(source: Path, val: str) -> dict[str, list[str]]:
    """Return the names below ``source`` of the files of each split. Raise ``UserError`` where none is for training."""
    if os.path.isdir(source):
        found = [path for folder in folders_below(source) for path in token_files(folder)]
        names = [path.relative_to(source).as_posix() for path in found]
    elif os.path.exists(source):
        names = [source.name]
    else:
        raise UserError(f"{source}: does not exist: name a token file or a folder of them")
    splits: dict[str, list[str]] = {split: [] for split in _SPLITS}
    for name in names:
        named = next(filter(None, (split_of_name(part, source.name) for part in name.split("/"))), "train")
        named = "val" if val and (name == val or fnmatch(name, val)) else named
        splits.setdefault(named, []).append(name)
    if not names:
        raise UserError(f"{source}: holds no token file (.bin, .npy, .ds): name the folder that does")
    if val and not splits["val"]:
        raise UserError(f"--val {val}: no token file below {source} has such a name; the first is {names[0]}")
    if not splits["train"]:
        raise UserError(
            f"{source}: holds {counted(len(names), 'token file')}, none of them for training by their names"
            f"{' and --val' if val else ''}: name the folder that holds those for training too"
        )
    return {split: splits[split] for split in _SPLITS if splits[split]}


def _check_tokenizers(source: Path, splits: dict[str, list[str]]) -> None:
    """Raise ``UserError`` where files lie in phases with different tokenizers."""
    if not source.is_dir():
        return
    phases = sorted({phase_above(source / name) for names in splits.values() for name in names})
    known = [phase for phase in phases if (phase / TOKENIZER_JSON).is_file()]
    for other in known[1:]:
        files = known[0] / TOKENIZER_JSON, other / TOKENIZER_JSON
        if not (same_ids(*files) or same_ids(*reversed(files))):  # one may have tokens that were added
            raise UserError(
                f"{known[0]} and {other} have different tokenizers ({TOKENIZER_JSON}), so their ids mean other"
                " texts: import one of them"
            )


def _highest(opened: ShardSet, index: int, vocab_size: int) -> int:
    """Return the highest id of a file. Raise ``UserError`` for one below 0 or outside the vocabulary (0: unknown)."""
    shard, highest = opened.shards[index], 0
    for start in range(0, shard.tokens, _BLOCK_TOKENS):
        ids: npt.NDArray[Any] = opened.read(index, start, min(_BLOCK_TOKENS, shard.tokens - start))
        check_block(shard, start, ids, vocab_size or 1 << 32)
        highest = max(highest, int(ids.max()))
    return highest


def _write(
    source: Path,
    target: Path,
    splits: dict[str, list[str]],
    manifest: dict[str, Any],
    tokenizer: bytes,
) -> None:
    above = source if source.is_dir() else source.parent
    try:
        with new_folder(target) as building:
            for split, names in splits.items():
                (building / split).mkdir()
                for link, path in _links(above, names).items():
                    (building / split / link).symlink_to(path)
            if tokenizer:
                (building / TOKENIZER_JSON).write_bytes(tokenizer)
            (building / DATASET_JSON).write_text(json.dumps(manifest, indent=2) + "\n")
    except OSError as error:
        raise UserError(f"{target}: cannot be written ({error.strerror}): choose another --out") from error


def _links(above: Path, names: list[str]) -> dict[str, Path]:
    """Return the names of the links to files, and to the index beside each, which begins as its file does."""
    links: dict[str, Path] = {}
    for name in names:
        file, folder = above / name, name[: name.rfind("/") + 1].replace("/", "-")
        beside = (file.with_suffix(".idx"), *(file.with_name(file.name + end) for end in _BESIDE))
        paths = (file, *filter(Path.exists, beside))
        for number in count(1):  # a/b.bin and a-b.bin may lie in one source
            prefix = folder if number == 1 else f"{number}-{folder}"
            found = {prefix + path.name: path for path in paths}
            if all(links.get(link, path) == path for link, path in found.items()):
                links |= found
                break
    return links
