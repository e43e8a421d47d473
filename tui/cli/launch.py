"""Commands that start something: a run, a look at data."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path

from profiles.errors import SpecError
from profiles.registry import detect, load, with_overrides
from profiles.spec import RunSpec


def launch(args: argparse.Namespace) -> int:
    from engine.preflight import check, resolved
    from engine.runs.launch import launch as start
    from engine.runs.store import RunStore

    spec, resume, init_from = _resolve(args)
    if args.dry_run:
        spec = resolved(spec)
        check(spec, Path(spec.train.out))
        print(_what_would_run(spec), end="")
        return 0
    store = RunStore()
    waits = {"queue": args.queue, "share_device": args.share_device}
    run = start(store, spec, name=args.name, resume=resume, init_from=init_from, **waits)
    print(run.id, flush=True)
    if args.attach:
        from tui.app.app import run_app

        return run_app(store, run.id)
    print(f"follow it with: mla-tui attach {run.id}", file=sys.stderr)
    return 0


def _what_would_run(spec: RunSpec) -> str:
    """The commands of a launch as a shell reads them; for Slurm, the batch script."""
    from engine.runs.launchers import batch_script, hostfile, launcher_of, other_hosts, trainer_command
    from engine.runs.store import default_home

    if launcher_of(spec) == "slurm":
        words = ["mla-tui", *(word for word in sys.argv[1:] if word not in ("--dry-run", "--attach"))]
        return batch_script(spec, shlex.join(words))
    text = "# here: mla-tui launch starts this, and starts it again when it dies\n"
    text += shlex.join(trainer_command(spec, default_home() / "runs" / "RUN", 1)) + "\n"
    if launcher_of(spec) == "deepspeed":
        text += "# RUN/hostfile\n" + "".join(f"#   {line}\n" for line in hostfile(spec).splitlines())
    for host, line in other_hosts(spec).items():
        text += f"# on {host}, by hand\n{line}\n"
    return text


def train(args: argparse.Namespace) -> int:
    from engine.train.main import run_foreground
    from tui.cli.run_commands import LineShow

    if args.deepspeed_config:
        args.overrides.append(f"launch.deepspeed_config={args.deepspeed_config}")
    spec, resume, init_from = _resolve(args)
    return run_foreground(spec, args.name, resume, init_from, LineShow(spec.train.steps))


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
        spec, init_from = asked_for(args), None
        if args.init_from:
            from engine.train.models import pretrained

            init_from = pretrained.find(args.init_from, Path("models").absolute())
            pretrained.check(init_from, spec)
        return spec, None, init_from
    from engine.checkpoints import checkpoint

    given = asked_for(args) if args.profile else None
    out = Path(given.train.out if given else "models")
    path = checkpoint.find(args.resume, (out / args.name if args.name else out).absolute())
    if given is None:
        saved = RunSpec.from_dict(checkpoint.facts(path)["spec"], f"{path}/trainer.json")
        given = _with_backend(with_overrides(saved, args.overrides), args.backend)
    return given, path, None


def asked_for(args: argparse.Namespace) -> RunSpec:
    """The run that ``-p``, ``-s`` and ``--backend`` describe. Raises ``UserError``."""
    return _with_backend(load(args.profile or detect(), args.overrides), args.backend)


def _with_backend(spec: RunSpec, backend: str | None) -> RunSpec:
    return replace(spec, launch=replace(spec.launch, backend=backend)) if backend else spec
