"""Adds the arguments that describe a run, and resolves them to its spec."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from profiles.errors import SpecError
from tui.cli.checkpoint_argument import find_checkpoint_argument, reading

if TYPE_CHECKING:
    from profiles.spec import RunSpec


def add_spec_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``-p``, ``-s`` and ``--backend``."""
    parser.add_argument("-p", "--profile", metavar="PROFILE", help="the name of a profile, or a .toml file")
    parser.add_argument(
        *("-s", "--set"),
        dest="overrides",
        action="append",
        default=[],
        metavar="K=V",
        help="override a setting, e.g. micro=4",
    )
    parser.add_argument("--backend", choices=("auto", "torch", "deepspeed", "mlx"), help="the training backend")


def add_start_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--name``, ``--resume``, ``--init-from``, ``--data-changed`` and ``--force``."""
    parser.add_argument("--name", metavar="N", help="the name of the run and of its checkpoint folder")
    parser.add_argument("--resume", metavar="CKPT", help="continue from a checkpoint, a run's newest, or the latest")
    parser.add_argument(
        "--init-from", metavar="CKPT", help="start a new run from the weights of a checkpoint or HF directory"
    )
    parser.add_argument("--data-changed", action="store_true", help="resume with data that has changed")
    parser.add_argument("--force", action="store_true", help="start although it does not fit, or a host is silent")


def spec_of(args: argparse.Namespace) -> RunSpec:
    """Return the spec that ``-p``, ``-s`` and ``--backend`` describe. Raises ``UserError``."""
    from profiles.registry import load

    return load(profile_of(args), overrides_of(args))


def overrides_of(args: argparse.Namespace) -> list[str]:
    """Return what ``-s`` and ``--backend`` set, as ``key=value``. Raises ``SpecError`` where two set one thing."""
    from profiles.registry import check_none_replaced, check_once

    overrides = [*args.overrides, *([f"launch.backend={args.backend}"] if args.backend else [])]
    check_once(overrides)
    check_none_replaced(overrides)
    return overrides


def profile_of(args: argparse.Namespace) -> str:
    """Return the profile that ``-p`` names, or the one for this machine. Raises ``SpecError``."""
    from profiles.registry import detect_profile

    return detect_profile() if args.profile is None else args.profile


def spec_and_start(args: argparse.Namespace) -> tuple[RunSpec, Path | None, Path | None]:
    """Return the spec, the checkpoint to resume from and the weights to start from. Raises ``UserError``."""
    if args.resume and args.init_from:
        raise SpecError(
            "--resume and --init-from: give only one; --resume continues a run, --init-from loads only its weights"
        )
    if args.data_changed and not args.resume:
        raise SpecError("--data-changed: goes with --resume; a new run reads the data as it is")
    if not args.resume:
        spec, init_from = spec_of(args), None
        if args.init_from:
            from engine.train.models import pretrained
            from profiles.paths import expand

            init_from = expand(args.init_from, "--init-from")
            if not pretrained.is_hugging_face(init_from):
                init_from = find_checkpoint_argument(args.init_from, spec.train.out)
            with reading(init_from, args.init_from):
                spec = _as_trained(init_from, spec, args, "--init-from")
                pretrained.check_compatible(init_from, spec)
        return spec, None, init_from
    from engine.checkpoints import checkpoint
    from engine.memory.search.choose import keep_choices
    from engine.preflight import resolve_spec
    from engine.train.resume_summary import resume_summary
    from profiles.registry import with_overrides

    given = None if args.profile is None else spec_of(args)
    path = find_checkpoint_argument(args.resume, given.train.out if given else "models", args.name)
    with reading(path, args.resume):
        if given is None:
            given = with_overrides(checkpoint.spec_of(path), overrides_of(args))
        else:
            given = keep_choices(_as_trained(path, given, args, "--resume"), checkpoint.spec_of(path))
        summary = resume_summary(path, resolve_spec(given))
    print(f"mla-tui: {summary}", file=sys.stderr)
    return given, path, None


def _as_trained(path: Path, spec: RunSpec, args: argparse.Namespace, option: str) -> RunSpec:
    """Return ``spec`` with the model settings of the weights in ``path`` and say which they are."""
    from engine.train.models.pretrained import adopt_config
    from profiles.registry import given_keys

    spec, said = adopt_config(path, spec, given_keys(profile_of(args), overrides_of(args)), option)
    for line in said:
        print(f"mla-tui: {line}", file=sys.stderr)
    return spec
