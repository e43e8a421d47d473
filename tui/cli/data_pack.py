"""``mla-tui data pack``: turns text files into token shards that a run reads."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from profiles.errors import SpecError, UserError
from profiles.printable import counted, one_line
from tui.cli.command_parser import Subparsers, add_command
from tui.cli.progress_line import ProgressLine
from tui.text.format import count, duration, exact, size

if TYPE_CHECKING:
    from data.pack.packing import Packed
    from data.pack.request import Request

_SUFFIXES = {"k": 10**3, "m": 10**6, "b": 10**9, "g": 10**9}
_MOST_WORKERS = 64


def register(subparsers: Subparsers) -> None:
    help = "turn text files into token shards that a run reads"
    parser = add_command(subparsers, "pack", help, "mla-tui data pack ~/texts --out data/shards --phase mine")
    help = "a text, code, .jsonl, .csv or .parquet file (also .gz, .zst), a folder, a glob, or - for standard input"
    parser.add_argument("sources", nargs="+", metavar="SRC", help=help)
    parser.add_argument("--out", default="data/shards", metavar="DIR", help="a run's data.root (default %(default)s)")
    parser.add_argument("--phase", default="phase1", help="a run's data.phase (default %(default)s)")
    which = parser.add_mutually_exclusive_group()
    help = "a tokenizer.json, a folder that has one, or a run"
    which.add_argument("--tokenizer", metavar="FILE|DIR|RUN", help=help)
    help = "train a tokenizer of N ids on a sample of the text (the default; of 32768 ids, or fewer for little text)"
    which.add_argument("--train-tokenizer", type=_count, metavar="N", help=help)
    help = "how many documents are for validation (default: about 1 MB of text, 0.5%% to 5%%; --append: as before)"
    parser.add_argument("--val", type=_fraction, metavar="PERCENT", help=help)
    help = "tokens of a shard (default 100M)"
    parser.add_argument("--shard-tokens", type=_count, default=100_000_000, metavar="N", help=help)
    help = "the field or column of a row that is its text (default %(default)s)"
    parser.add_argument("--text-key", default="text", metavar="NAME", help=help)
    help = "cut text files into documents where this stands, e.g. '<|endoftext|>'; \\n is a new line"
    parser.add_argument("--separator", type=_separator, metavar="TEXT", help=help)
    help = "leave out documents that are this much alike, such as 0.8, by MinHash; the first is kept (extra: neardup)"
    parser.add_argument("--near-duplicates", type=_similarity, metavar="0.5..0.95", help=help)
    help = "the token that ends a document, where the tokenizer has none of the usual ones"
    parser.add_argument("--eot", metavar="TOKEN", help=help)
    parser.add_argument("--append", action="store_true", help="add documents that are not there yet to a packed phase")
    help = "what standard input is: txt, jsonl, csv (default %(default)s)"
    parser.add_argument("--stdin", choices=("txt", "jsonl", "csv"), default="txt", help=help)
    help = "tokenizers is slower, and what fastokens is checked against (default %(default)s)"
    parser.add_argument("--encoder", choices=("fastokens", "tokenizers"), default="fastokens", help=help)
    help = "threads (default: one for each core); the result is the same with any number"
    parser.add_argument("--workers", type=int, metavar="N", help=help)
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    request = _request(args)
    # Read when the encoders load.
    os.environ.setdefault("RAYON_NUM_THREADS", str(request.workers))
    from data.pack.packing import pack

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    report = _Progress()
    try:
        packed = pack(request, report)
    except KeyboardInterrupt:
        report.clear()
        print("mla-tui: stopped; the same command goes on from here", file=sys.stderr)
        return 130
    finally:
        report.clear()
    print("\n".join(_summary(request, packed)))
    return 0


def _request(args: argparse.Namespace) -> Request:
    """Return what the arguments ask for. Raises ``SpecError`` and ``UserError``."""
    from data.pack.request import STDIN, Request
    from data.pack.training import check_size
    from profiles.names import check_name
    from profiles.paths import expand_output

    if args.sources.count(STDIN) > 1:
        raise SpecError("-: standard input can be read once; name it once")
    if args.text_key == "":
        raise SpecError("--text-key: is empty; name a field")
    if args.workers is not None and not 1 <= args.workers <= _MOST_WORKERS:
        raise SpecError(f"--workers: {args.workers} is not in 1..{_MOST_WORKERS}")
    if args.train_tokenizer is not None:
        check_size(args.train_tokenizer)
    return Request(
        sources=tuple(args.sources),
        out=expand_output(args.out, "--out"),
        phase=check_name("--phase", args.phase),
        tokenizer=_tokenizer(args.tokenizer) if args.tokenizer is not None else None,
        train_tokenizer=args.train_tokenizer,
        val=args.val,
        shard_tokens=args.shard_tokens,
        text_key=args.text_key,
        separator=args.separator,
        eot=args.eot,
        stdin_format=args.stdin,
        encoder=args.encoder,
        append=args.append,
        near_duplicates=args.near_duplicates,
        workers=args.workers or min(os.cpu_count() or 1, _MOST_WORKERS),
    )


def _tokenizer(text: str) -> Path:
    """Return the tokenizer.json that a file, a folder or a run names. Raises ``UserError``."""
    from data.pack.vocabulary import TOKENIZER_JSON
    from profiles.paths import expand

    path = expand(text, "--tokenizer")
    if os.path.isdir(path):
        return path / TOKENIZER_JSON
    if os.path.lexists(path):
        return path
    from engine.runs.store import RunStore

    try:
        spec = RunStore().find(text).spec()
    except UserError as error:
        raise UserError(f"--tokenizer: {text} is no file and no folder, nor a run: {error}") from None
    return expand(spec.data.root, "data.root") / spec.data.phase / TOKENIZER_JSON


def _count(text: str) -> int:
    """Parse ``100M``."""
    number, suffix = (text[:-1], text[-1].lower()) if text[-1:].lower() in _SUFFIXES else (text, "")
    try:
        value = float(number.replace("_", "")) * _SUFFIXES.get(suffix, 1)
    except ValueError:
        value = 0.5
    if not (1 <= value < 2**53 and value == int(value)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a count from 1 up, such as 32768 or 100M")
    return int(value)


def _fraction(text: str) -> float:
    """Parse ``0.5%`` or ``0.005``."""
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 0.5:
        raise argparse.ArgumentTypeError(f"{text!r} is not in 0%..50%, such as 0.5% or 0.005")
    return value


def _similarity(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.5 <= value <= 0.95:
        raise argparse.ArgumentTypeError(f"{text!r} is not in 0.5..0.95")
    return value


def _separator(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("is empty")
    return text.replace("\\n", "\n").replace("\\t", "\t")


class _Progress:
    """Shows how far a pack is."""

    def __init__(self) -> None:
        self._line = ProgressLine()
        self._started: float | None = None  # of the packing itself

    def stage(self, text: str) -> None:
        self._line.text(text)

    def note(self, text: str) -> None:
        self.clear()
        print(one_line(f"mla-tui: {text}"), file=sys.stderr, flush=True)

    def progress(self, read: int, total: int, tokens: int, done: int) -> None:
        if self._started is None:
            self._started = time.monotonic()
            self._tokens_before = tokens if done else 0
            self._line = ProgressLine()  # its time begins now: after no time at all there is no speed
        if not self._line.due():
            return
        seconds = max(time.monotonic() - self._started, 1e-3)
        speed = (read - done) / seconds
        left = duration((total - read) / speed) if speed else "–"
        text = (
            f"{count(tokens)} tokens  {speed / 1e6:.1f} MB/s"
            f"  {count((tokens - self._tokens_before) / seconds)} tokens/s  {left} left"
        )
        self._line.bar(read / total if total else 1.0, text)

    def clear(self) -> None:
        self._line.clear()


def _summary(request: Request, packed: Packed) -> list[str]:
    """Return what was packed, what was left out, and the next command."""
    progress, manifest = packed.progress, packed.manifest
    lines = [str(packed.target)]
    for split, entry in manifest["splits"].items():
        added = progress.shards[split]
        plus = f"  (+{counted(added.documents, 'document')})" if request.append else ""
        ratio = f"  {entry['bytes_per_token']:.2f} bytes a token" if entry["tokens"] else ""
        totals = (
            f"{counted(entry['tokens'], 'token')}  {counted(entry['documents'], 'document')}  {size(entry['bytes'])}"
        )
        lines.append(f"{split:<10} {totals}{ratio}{plus}")
    eot = one_line(manifest["eot"])
    end = f"{eot} (id {manifest['eot_id']}) ends a document"
    lines.append(f"vocabulary {exact(manifest['vocab_size'])}, {manifest['dtype']}, {end}")
    if progress.duplicates:
        lines.append(f"left out {counted(progress.duplicates, 'duplicate')}: already there, byte for byte")
    if progress.near_duplicates:
        alike = f"about {request.near_duplicates:.0%} or more alike"
        lines.append(f"left out {counted(progress.near_duplicates, 'near-duplicate')}: {alike} to a document before")
    lines += map(one_line, progress.skipped.lines())
    if progress.faults:
        lines.append(f"could not read {counted(progress.faults, 'file')}, or not to the end; see sources.jsonl")
    if not manifest["splits"]["val"]["documents"]:
        lines.append(
            "no document fell into val: pack with a larger --val, cut files into documents with --separator,"
            " or train with -s val_every=0"
        )
    where = f"-s data.root={shlex.quote(str(request.out))} -s data.phase={shlex.quote(request.phase)}"
    lines.append(f"to train on it: {where}, and a model of vocab_size={manifest['vocab_size']} or more")
    return lines
