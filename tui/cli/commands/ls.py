"""``mla-tui ls``: lists the runs, newest first."""

from __future__ import annotations

import argparse
import sys

from engine.events.phases import CUT_OFF, is_active
from engine.events.status import Summary
from engine.host.struct_json import to_dict
from profiles.printable import brief, one_line
from tui.cli.command_parser import Subparsers, add_command
from tui.text.format import fixed
from tui.text.run_text import describe_cut_off, phase_name, resumes_at


def register(subparsers: Subparsers) -> None:
    parser = add_command(subparsers, "ls", "list runs, newest first", "mla-tui ls --filter 'loss<4 tag:moe'")
    help = "only runs for which every word holds: loss<4 lr>=1e-3 step=90 tag:NAME phase:ended name:X, or letters"
    parser.add_argument("--filter", metavar="WORDS", default="", help=help)
    parser.add_argument("--json", action="store_true", help="print JSON, for each run what status prints")
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    from engine.events.run_dir import DISK_FULL, is_on_other_host
    from engine.runs.store import RunStore
    from tui.app.state.run_filter import parse_filter

    store, matches = RunStore(), parse_filter(args.filter)
    every = store.summaries()
    summaries = [summary for summary in every if matches(summary)]
    if args.json:
        import json

        print(json.dumps([to_dict(summary) for summary in summaries], indent=1))
        return 0
    for line in store.foreign_entries():
        print(line, file=sys.stderr)
    if every and not summaries:
        print(f"no runs match {brief(args.filter)}; mla-tui ls shows all {len(every)}", file=sys.stderr)
        return 0
    if not summaries:
        print("no runs yet; start one with: mla-tui launch", file=sys.stderr)
        return 0
    width = max(len(str(s.id)) for s in summaries)
    phase = max(10, *(len(phase_name(s)) for s in summaries))
    print(f"{'id':<{width}}  {'phase':<{phase}} {'step':>15} {'loss':>8} {'val':>8} {'tok/s':>9}  name")
    for s in summaries:
        step = f"{s.step or 0}/{s.steps or '?'}"
        loss, val = fixed(s.loss, 4), fixed(s.val_loss, 4)
        speed = fixed(s.tok_s, 0)
        name = s.name if s.name and s.name != s.id else ""
        if is_on_other_host(s):
            name += f"  {s.reason if is_active(s.phase) else f'on {s.host}'}"
        elif DISK_FULL in (s.reason or ""):  # its numbers are those of before
            name += f"  {s.reason}"
        if (at := resumes_at(s)) is not None:
            name += f"  resumes at step {at}"
        name += "".join(f"  #{tag}" for tag in s.tags) + (f"  {s.note}" if s.note else "")
        name += f"  ({s.damage})" if s.damage else ""
        row = f"{s.id:<{width}}  {phase_name(s):<{phase}} {step:>15} {loss:>8} {val:>8} {speed:>9}"
        print(f"{row}  {one_line(name)}".rstrip())
    _print_resume_hint(summaries)
    return 0


def _print_resume_hint(summaries: list[Summary]) -> None:
    """Print how to resume the runs that were cut off."""
    if description := describe_cut_off(summaries):
        cut = [s.id for s in summaries if s.phase == CUT_OFF]
        command = f"resume {cut[0]}" if len(cut) == 1 else "resume --cut-off (or one: mla-tui resume RUN)"
        print(f"{description}; resume with: mla-tui {command}", file=sys.stderr)
