"""``mla-tui launch``: starts a run in the background."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from profiles.errors import SpecError
from tui.cli.command_parser import Subparsers, add_command
from tui.cli.spec_arguments import add_spec_arguments, add_start_arguments, spec_and_start
from tui.text.data_usage import usage_line

if TYPE_CHECKING:
    from profiles.spec import RunSpec


def register(subparsers: Subparsers) -> None:
    help = "start a run in the background"
    parser = add_command(subparsers, "launch", help, "mla-tui launch -p cpu_demo")
    add_spec_arguments(parser)
    add_start_arguments(parser)
    parser.add_argument("--attach", action="store_true", help="open the app on the run")
    parser.add_argument("--queue", action="store_true", help="if another run uses the device, wait until it ends")
    parser.add_argument("--share-device", action="store_true", help="start even if another run uses the device")
    parser.add_argument("--dry-run", action="store_true", help="print the commands and hosts, and start nothing")
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    from engine.preflight import check_spec, resolve_spec
    from engine.runs.launch import launch
    from engine.runs.store import RunStore

    if args.queue and args.share_device:
        raise SpecError("--queue and --share-device: give only one; to wait for the device, or to share it")
    spec, resume, init_from = spec_and_start(args)
    if args.dry_run:
        spec = resolve_spec(spec)
        check_spec(spec, Path(spec.train.out))
        print(_launch_commands(spec), end="")
        return 0
    store = RunStore()
    run_dir = launch(
        store,
        spec,
        name=args.name,
        resume=resume,
        init_from=init_from,
        queue=args.queue,
        share_device=args.share_device,
        data_changed=args.data_changed,
        force=args.force,
        notify=lambda line: print(f"mla-tui: {line}", file=sys.stderr),
    )
    print(run_dir.id)
    print(usage_line(run_dir.spec()), file=sys.stderr)
    if args.attach:
        from tui.app.start import run_app

        return run_app(store, run_dir.id)
    print(f"follow it with: mla-tui attach {run_dir.id}", file=sys.stderr)
    return 0


def _launch_commands(spec: RunSpec) -> str:
    """Return the shell commands of a launch; for Slurm, the batch script."""
    from engine.runs.launchers import batch_script, hostfile, launcher_of, trainer_command, worker_commands
    from profiles.paths import default_home

    if launcher_of(spec) == "slurm":
        words = ["mla-tui", *(word for word in sys.argv[1:] if word not in ("--dry-run", "--attach"))]
        return batch_script(spec, shlex.join(words))
    text = "# on this host: mla-tui launch starts it, and restarts it when it dies\n"
    text += shlex.join(trainer_command(spec, default_home() / "runs" / "RUN", 1)) + "\n"
    if launcher_of(spec) == "deepspeed":
        text += "# RUN/hostfile\n" + "".join(f"#   {line}\n" for line in hostfile(spec).splitlines())
    for host, line in worker_commands(spec).items():
        text += f"# on {host}: start it yourself\n{line}\n"
    return text
