"""Commands that start something: a run, a forecast, a look at data."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from profiles.errors import SpecError
from profiles.registry import detect, load, overridden
from profiles.spec import RunSpec


def launch(args: argparse.Namespace) -> int:
    from engine.jobs.launch import launch as start
    from engine.jobs.store import Store
    from engine.preflight import check, resolved

    spec, resume, init_from = _resolve(args)
    if args.dry_run:
        spec = resolved(spec)
        check(spec, Path(spec.train.out))
        print(_what_would_run(spec), end="")
        return 0
    store = Store()
    waits = {"queue": args.queue, "share_device": args.share_device}
    job = start(store, spec, name=args.name, resume=resume, init_from=init_from, **waits)
    print(job.id, flush=True)
    if args.attach:
        from tui.app import run_app

        return run_app(store, job.id)
    print(f"follow it with: mla-tui attach {job.id}", file=sys.stderr)
    return 0


def _what_would_run(spec: RunSpec) -> str:
    """The commands of a launch as a shell reads them; for Slurm, the batch script."""
    from engine.jobs.launchers import batch_script, hostfile, launcher_of, other_hosts, trainer_command
    from engine.jobs.store import default_home

    if launcher_of(spec) == "slurm":
        words = ["mla-tui", *(word for word in sys.argv[1:] if word not in ("--dry-run", "--attach"))]
        return batch_script(spec, shlex.join(words))
    text = "# here: mla-tui launch starts this, and starts it again when it dies\n"
    text += shlex.join(trainer_command(spec, default_home() / "jobs" / "JOB", 1)) + "\n"
    if launcher_of(spec) == "deepspeed":
        text += "# JOB/hostfile\n" + "".join(f"#   {line}\n" for line in hostfile(spec).splitlines())
    for host, line in other_hosts(spec).items():
        text += f"# on {host}, by hand\n{line}\n"
    return text


def train(args: argparse.Namespace) -> int:
    from engine.train.main import run_foreground
    from tui.commands_job import LineShow

    if args.deepspeed_config:
        args.overrides.append(f"launch.deepspeed_config={args.deepspeed_config}")
    spec, resume, init_from = _resolve(args)
    return run_foreground(spec, args.name, resume, init_from, LineShow(spec.train.steps))


def plan(args: argparse.Namespace) -> int:
    from engine.memory.forecast import forecast
    from engine.memory.hardware import detect_hardware
    from engine.memory.levers import levers
    from engine.memory.strategies import strategies, with_strategy
    from engine.preflight import slow_paths
    from tui.format import size

    spec, hardware = _spec(args), detect_hardware()
    if args.deepspeed_config:
        return _print_deepspeed_config(spec, hardware.device)
    spec = with_strategy(spec, hardware)
    parts = forecast(spec, hardware)
    slow = slow_paths(spec.model.config, hardware.device, spec.train.attention)
    ways = levers(spec, hardware)
    if args.json:
        answer: dict[str, Any] = {
            "profile": spec.profile,
            "spec": spec.to_dict(),
            "device": parts.device,
            "device_total": parts.device_total,
            "host": parts.host,
            "host_total": parts.host_total,
            "hardware": {key: getattr(hardware, key) for key in hardware.__slots__},
            "fits": parts.fits(hardware),
            "slow": slow,
            "strategies": [
                {
                    "strategy": way.name,
                    "device_total": way.forecast.device_total,
                    "host_total": way.forecast.host_total,
                    "fits": way.fits,
                }
                for way in strategies(spec, hardware)
            ],
            "levers": [{"change": way.change, "device": way.device, "host": way.host} for way in ways],
        }
        print(json.dumps(answer, indent=1))
        return 0
    batch = f"micro {spec.batch.micro} × accum {spec.accum}, context {spec.batch.context}"
    print(f"{spec.profile}: {spec.model.name}, {batch}, forecast by formula")
    for place, content, total, free in (
        ("device", parts.device, parts.device_total, hardware.device_free),
        ("host", parts.host, parts.host_total, hardware.ram_free),
    ):
        if content:
            print(f"{place}: {size(total)} of {size(free)} free" if free else f"{place}: {size(total)}")
            for part, amount in sorted(content.items(), key=lambda item: -item[1]):
                if amount:
                    print(f"  {part:<18} {size(amount):>10}")
    print("it fits" if parts.fits(hardware) else "it does not fit this machine")
    for text in slow:
        print(f"slow: {text}")
    print(f"strategies, fastest first (memory.strategy = {spec.memory.strategy}):")
    for each in strategies(spec, hardware):
        held = f"device {size(each.forecast.device_total)}, " if each.forecast.device else ""
        verdict = "fits" if each.fits else "does not fit"
        print(f"  {each.name:<12} {held}host {size(each.forecast.host_total)}  {verdict}")
    if ways:
        print("smaller:")
    for way in ways:
        place, saved = ("device", way.device) if parts.device else ("host", way.host)
        print(f"  {way.change:<31} {place} {size(saved)} less")
    return 0


def _print_deepspeed_config(spec: RunSpec, device: str) -> int:
    from engine.deepspeed_config import deepspeed_config

    bf16 = spec.train.precision == "bf16" or (spec.train.precision == "auto" and device == "cuda")
    print(json.dumps(deepspeed_config(spec, bf16=bf16, device=device), indent=1))
    return 0


def data_inspect(args: argparse.Namespace) -> int:
    from data.inspect import inspect_path

    entries = inspect_path(Path(args.path))
    if args.json:
        print(json.dumps(entries, indent=1))
    else:
        for entry in entries:
            print(entry["path"])
            for key in ("format", "dtype", "tokens", "bytes", "highest_id", "sampled", "peek"):
                if entry[key] is not None:
                    print(f"  {key:<11} {entry[key]!r}" if key == "peek" else f"  {key:<11} {entry[key]}")
    problems = [problem for entry in entries for problem in entry["problems"]]
    for problem in dict.fromkeys(problems):
        print(f"mla-tui: {problem}", file=sys.stderr)
    return 1 if problems else 0


def _resolve(args: argparse.Namespace) -> tuple[RunSpec, Path | None, Path | None]:
    """The spec a person asked for and the checkpoint it starts from. Raises ``UserError``."""
    if args.resume and args.init_from:
        raise SpecError("--resume and --init-from: give one; resume goes on, init-from takes the weights alone")
    if not args.resume:
        spec, init_from = _spec(args), None
        if args.init_from:
            from engine.train import pretrained

            init_from = pretrained.find(args.init_from, Path("models").absolute())
            pretrained.check(init_from, spec)
        return spec, None, init_from
    from engine.train import checkpoint

    given = _spec(args) if args.profile else None
    out = Path(given.train.out if given else "models")
    path = checkpoint.find(args.resume, (out / args.name if args.name else out).absolute())
    if given is None:
        saved = RunSpec.from_dict(checkpoint.facts(path)["spec"], f"{path}/trainer.json")
        given = _with_backend(overridden(saved, args.overrides), args.backend)
    return given, path, None


def _spec(args: argparse.Namespace) -> RunSpec:
    return _with_backend(load(args.profile or detect(), args.overrides), args.backend)


def _with_backend(spec: RunSpec, backend: str | None) -> RunSpec:
    return replace(spec, launch=replace(spec.launch, backend=backend)) if backend else spec
