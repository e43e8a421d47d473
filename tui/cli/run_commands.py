"""Commands about runs that exist: list, look, follow, ask."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any, BinaryIO

from engine.events.run_dir import RunDir, is_on_other_host
from engine.events.summary import CUT_OFF, ENDED
from engine.runs.store import RunStore
from profiles.errors import SpecError, UserError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

HELD_PATIENCE = 2.0  # seconds
ANSWER_PATIENCE = 60.0  # a step on a small card takes tens of seconds


def home(args: argparse.Namespace) -> int:
    if args.version:
        from engine.host.version import package_version

        print(f"mla-tui {package_version()}")
        return 0
    from tui.app.app import run_app

    return run_app(RunStore(), read_only=args.read_only, low_bandwidth=args.low_bandwidth)


def attach(args: argparse.Namespace) -> int:
    run_dir = RunStore().find(args.run)
    if not args.read_only:
        _revive(run_dir)
    _tell_skew(run_dir)
    from tui.app.app import run_app

    return run_app(RunStore(), run_dir.id, read_only=args.read_only, low_bandwidth=args.low_bandwidth)


def ls(args: argparse.Namespace) -> int:
    store = RunStore()
    summaries = store.summaries()
    if args.json:
        print(json.dumps(summaries, indent=1))
        return 0
    for line in store.foreign_entries():
        print(line, file=sys.stderr)
    if not summaries:
        print("no runs yet; start one with: mla-tui launch", file=sys.stderr)
        return 0
    width = max(len(str(s["id"])) for s in summaries)
    print(f"{'id':<{width}}  {'phase':<10} {'step':>15} {'loss':>8} {'val':>8} {'tok/s':>9}  name")
    for s in summaries:
        step = f"{s['step'] or 0}/{s['steps'] or '?'}"
        loss, val, speed = _short(s["loss"], 4), _short(s["val_loss"], 4), _short(s["tok_s"], 0)
        name = s["name"] if s["name"] != s["id"] else ""
        name += f"  on host {s['host']}" if is_on_other_host(s) else ""
        print(f"{s['id']:<{width}}  {s['phase']:<10} {step:>15} {loss:>8} {val:>8} {speed:>9}  {name}".rstrip())
    _offer(summaries)
    return 0


def _offer(summaries: list[dict[str, Any]]) -> None:
    """Say how runs that were cut off go on."""
    from tui.text.event_text import cut_off

    if said := cut_off(summaries):
        cut = [s["id"] for s in summaries if s["phase"] == CUT_OFF]
        way = f"resume {cut[0]}" if len(cut) == 1 else "resume --cut-off (or one: mla-tui resume RUN)"
        print(f"{said}; on from the last checkpoint with: mla-tui {way}", file=sys.stderr)


def status(args: argparse.Namespace) -> int:
    run_dir = RunStore().find(args.run)
    summary = run_dir.summary()
    if summary["supervisor"]["alive"]:
        _tell_skew(run_dir)
    if args.json:
        print(json.dumps(summary, indent=1))
        return 0
    for key, value in summary.items():
        if key in ("supervisor", "trainer"):
            value = f"pid {value['pid']}, {'alive' if value['alive'] else 'not running'}" if value["pid"] else None
        elif key in ("started", "ended") and value:
            value = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(value))
        print(f"{key:<12} {'–' if value in (None, '') else value}")
    return 0


def logs(args: argparse.Namespace) -> int:
    run_dir = RunStore().find(args.run)
    try:
        with open(run_dir.console_path, "rb") as file:
            while True:
                over = not args.follow or run_dir.summary()["phase"] in (*ENDED, CUT_OFF)
                _print_rotated(run_dir, file)
                while chunk := file.read(1 << 16):
                    sys.stdout.buffer.write(chunk)
                sys.stdout.flush()
                if over:
                    return 0
                time.sleep(0.3)
    except FileNotFoundError:
        print(f"mla-tui: run {run_dir.id}: its console is empty", file=sys.stderr)
        return 0


def _print_rotated(run_dir: RunDir, file: BinaryIO) -> None:
    """Where the console was rotated under us, what we had not read yet stands in the copy; then go on from nothing."""
    place = file.tell()
    if os.fstat(file.fileno()).st_size >= place:
        return
    file.seek(0)
    try:
        with open(run_dir.console_path.with_name("console.log.1"), "rb") as copy:
            copy.seek(place)
            sys.stdout.buffer.write(copy.read())
    except OSError:
        pass


def watch(args: argparse.Namespace) -> int:
    """Follow the log; ends with the run: 0 where it finished or was stopped, 1 where it failed."""
    run_dir = RunStore().find(args.run)
    if not args.no_follow:
        _revive(run_dir)
        if is_on_other_host(state := run_dir.state()):
            print(f"{run_dir.id} is on host {state['host']}; what it writes here is shown as it comes", file=sys.stderr)
        _tell_skew(run_dir)
    if args.json:
        _follow(run_dir, args.start, args.no_follow, lambda record: print(json.dumps(record), flush=True))
    else:
        show = LineShow(int(run_dir.summary()["steps"] or 0))
        _follow(run_dir, args.start, args.no_follow, show)
    summary = run_dir.summary()
    if not args.json and summary["phase"] in (*ENDED, CUT_OFF):
        print(_ending(summary))
    return 0 if summary["phase"] in ("finished", "stopped") or args.no_follow else 1


def set(args: argparse.Namespace) -> int:  # noqa: A001  the command's name
    from profiles.registry import parse_override

    changes: dict[str, Any] = {}
    for text in args.changes:
        key, value = parse_override(text)
        changes[key] = value
    record = ask(RunStore().find(args.run), "set", changes=changes, unlock=args.unlock, force=args.force)
    if record is None:
        return 0
    if not record["ok"]:
        raise SpecError(str(record["why"]))
    changed = ", ".join(f"{k} {old} → {new}" for k, (old, new) in record["changed"].items())
    print(f"from step {record['step'] + 1} on: {changed or 'nothing changed'}", file=sys.stderr)
    return 0


def pause(args: argparse.Namespace) -> int:
    return told(ask(RunStore().find(args.run), "pause"))


def checkpoint(args: argparse.Namespace) -> int:
    record = ask(RunStore().find(args.run), "checkpoint")
    if record is not None and record["kind"] == "checkpoint":
        if not record["ok"]:
            raise UserError(str(record["why"]))
        print(record["path"])
    return 0


def stop(args: argparse.Namespace) -> int:
    run_dir = RunStore().find(args.run)
    record = ask(run_dir, "stop", save=not (args.no_save or args.kill), kill=args.kill)
    if record is None:
        return 0
    deadline = time.monotonic() + ANSWER_PATIENCE
    while not run_dir.ended() and time.monotonic() < deadline:
        time.sleep(0.05)
    summary = run_dir.summary()
    print(_ending(summary), file=sys.stderr)
    return 0 if summary["phase"] in ENDED else 1


def rm(args: argparse.Namespace) -> int:
    if args.run == "latest":
        raise SpecError("rm latest: name the run, so that it is the one you mean (mla-tui ls shows all)")
    run_dir = RunStore().find(args.run)
    run_dir.remove()
    print(f"{run_dir.id}: forgotten; its checkpoints stay", file=sys.stderr)
    return 0


class LineShow:
    """Prints records as plain lines. Steps come at most twice a second, so that a fast run stays readable."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._due = 0.0

    def __call__(self, record: dict[str, Any]) -> None:
        from tui.text.event_text import tell

        if record["kind"] == "step":
            last = record["step"] == self._steps
            if record["t"] < self._due and not last:
                return
            self._due = record["t"] + 0.5
            done = f"step {record['step']}/{self._steps}" if self._steps else f"step {record['step']}"
            print(
                f"{done}  loss {_short(record.get('loss'), 4)}  lr {record.get('lr') or 0:.2e}"
                f"  {_short(record.get('tok_s'), 0)} tok/s  {record.get('step_s') or 0:.2f} s",
                flush=True,
            )
        elif told := tell(record):
            print(told[0], flush=True)


def _follow(run_dir: RunDir, start: int, no_follow: bool, show: Any) -> None:
    if no_follow:
        from engine.events.log import read_all

        for at, record in read_all(run_dir.log_path, start):
            show({"at": at, **record})
        return
    import asyncio

    from engine.runs.client import RunClient

    async def run() -> None:
        async for record in RunClient(run_dir).records(start, live=False):
            show(record)

    asyncio.run(run())


def ask(run_dir: RunDir, method: str, **params: Any) -> dict[str, Any] | None:
    """Ask and wait for the record that answers; None where it takes too long (it stays asked). Raises ``UserError``."""
    import asyncio

    from engine.runs.client import RunClient

    async def answer(records: AsyncIterator[dict[str, Any]], id: str) -> dict[str, Any] | None:
        async for record in records:
            if record.get("id") == id:
                return record
        return None

    async def run() -> dict[str, Any] | None:
        link = RunClient(run_dir)
        start = (await link.history([], 1))["at"]
        paused = run_dir.summary()["phase"] == "paused"
        asked = await link.request(method, **params, by="command line")
        # A paused run does most things when it goes on; one that is held for want of memory takes an edit at once.
        held = paused and method in ("set", "checkpoint")
        patience = HELD_PATIENCE if held else ANSWER_PATIENCE
        try:
            return await asyncio.wait_for(answer(link.records(start, live=False), asked["id"]), patience)
        except TimeoutError:
            when = "the run is paused and does it when it goes on"
            when = when if held else "the trainer answers when its present micro-batch is done"
            print(f"asked ({asked['id']}); {when}", file=sys.stderr)
            return None

    record = asyncio.run(run())
    if record is None and run_dir.ended():
        raise UserError(f"run {run_dir.id}: ended before it could {method}")
    return record


def told(record: dict[str, Any] | None) -> int:
    if record is not None:
        print(f"{record.get('phase')} {record.get('reason') or ''}".rstrip(), file=sys.stderr)
    return 0


def _revive(run_dir: RunDir) -> None:
    """A living run without a supervisor gets one; of a run that was cut off we show what there is."""
    from engine.runs.launch import ensure_supervisor, run_pending_hooks

    if run_dir.ended():
        run_pending_hooks(run_dir)
    elif run_dir.is_on_this_boot():
        ensure_supervisor(run_dir)


def _tell_skew(run_dir: RunDir) -> None:
    import asyncio

    from engine.runs.client import RunClient

    if line := asyncio.run(RunClient(run_dir).version_mismatch()):
        print(f"mla-tui: {line}", file=sys.stderr)


def _ending(summary: dict[str, Any]) -> str:
    words = f"{summary['phase']} at step {summary['step'] or 0}"
    if summary["loss"] is not None:
        words += f", loss {_short(summary['loss'], 4)}"
    if summary["val_loss"] is not None:
        words += f", validation loss {_short(summary['val_loss'], 4)}"
    if summary["reason"]:
        words += f": {summary['reason']}"
    return words


def _short(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
