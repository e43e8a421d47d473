"""``mla-tui data verify``: reads all shards of a data set once and checks them."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from profiles.errors import UserError
from profiles.printable import counted, one_line
from tui.cli.command_parser import Subparsers, add_command
from tui.cli.profile_or_run import find_profile_or_run
from tui.cli.progress_line import ProgressLine
from tui.text.format import count, exact, size

if TYPE_CHECKING:
    from data.verify import Verified


def register(subparsers: Subparsers) -> None:
    help = "read all shards once: sizes, checksums, ids, counts, and whether val is also in train"
    parser = add_command(subparsers, "verify", help, "mla-tui data verify data/shards/phase1")
    help = "a phase or a folder of phases, a profile, or a run's name, a unique part of its id, or latest"
    parser.add_argument("what", metavar="PATH|PROFILE|RUN", help=help)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    from data.verify import verify_phase

    folders, vocab_size, model = _phases(args.what)
    found, line = [], ProgressLine()
    try:
        for folder in folders:

            def report(read: int, total: int, name: str = folder.name) -> None:
                if line.due():
                    line.bar(read / total if total else 1.0, f"{size(read)} of {size(total)}  {name}")

            found.append(verify_phase(folder, vocab_size, model, report))
    finally:
        line.clear()
    if args.json:
        print(json.dumps([asdict(one) for one in found], indent=1))
    for one in found:
        for problem in one.problems:
            print(one_line(f"mla-tui: {problem}"), file=sys.stderr)
        if not args.json:
            print(_summary(one))
    return 1 if any(one.problems for one in found) else 0


def _phases(what: str) -> tuple[list[Path], int, str]:
    """Return the folders that an argument names, and the vocabulary and name of the model. Raises ``UserError``."""
    from data.phase_folders import phases_in
    from data.splits import phases_of
    from profiles import registry
    from profiles.paths import expand

    if what not in registry.names() and not what.endswith(".toml") and os.path.lexists(expand(what, "PATH")):
        return phases_in(Path(os.path.abspath(expand(what, "PATH")))), 0, ""
    if "/" in what and not what.endswith(".toml"):
        raise UserError(f"{what}: does not exist: name a phase, a folder of phases, a profile or a run")
    spec, _ = find_profile_or_run(what)
    folders = list(phases_of(spec).values())
    for folder in folders:
        if not os.path.isdir(folder):
            raise UserError(f"{folder}: is no folder; {what} reads its data there: pack or import it")
    return folders, spec.model.config.vocab_size, f"the model of {what}"


def _summary(one: Verified) -> str:
    """Return a line that says what was checked, and how fast."""
    checksums = f"{exact(one.checksums)} checksum{'' if one.checksums == 1 else 's'}"
    checks = ["sizes", checksums if one.checksums else "no checksums are recorded"]
    if one.vocab_size:
        checks.append(f"ids below {exact(one.vocab_size)} ({one.vocabulary_from})")
    else:
        checks.append("ids not below 0 (nothing says the vocabulary)")
    if one.documents:
        apart = "not in train" if not one.problems else "looked for in train"
        checks.append(f"{counted(one.documents, 'document')} of val {apart}")
        if one.left_out:
            checks.append(f"{exact(one.left_out)} more left out")
    elif one.eot_id is None:
        checks.append("documents not compared (no eot_id in dataset.json)")
    problems = f"{exact(len(one.problems))} problem{'s' if len(one.problems) > 1 else ''}; " if one.problems else ""
    speed = f"{size(one.bytes)} in {one.seconds:.2f} s, {size(one.bytes / max(one.seconds, 1e-6))}/s"
    number = f"{exact(one.shards)} shard{'' if one.shards == 1 else 's'}"
    return one_line(f"{one.folder}: {problems}{number}, {count(one.tokens)} tokens: {', '.join(checks)}; {speed}")
