"""``mla-tui plan``: prints what a run will need and cost before it starts, and every way to run it, the best first."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import textwrap
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

from profiles.errors import SpecError, UserError
from profiles.registry import parse_override
from profiles.unreached import unreached
from tui.cli.command_parser import Subparsers, add_command
from tui.cli.spec_arguments import add_spec_arguments, spec_of
from tui.cli.terminal_output import Coloured, print_lines
from tui.text.data_usage import describe_usage
from tui.text.format import size, size_of

if TYPE_CHECKING:
    from engine.memory.hardware import Hardware
    from engine.memory.headroom import Headroom
    from engine.memory.prediction import Prediction
    from engine.memory.search.search import Candidate
    from profiles.spec import RunSpec

SHADES = "█▓▒░"  # parts differ even without colour
COLOURS = (36, 33, 35, 32, 34, 31)
GIB = 1 << 30
_LEAST_WIDTH = 40  # of the text, however narrow the terminal
_SECONDS_FOR_IDS = 0.3  # a split; a launch looks longer
VERDICTS = {"fits": "fits", "tight": "tight: over 90% of the free memory", "over": "does not fit"}


def register(subparsers: Subparsers) -> None:
    parser = add_command(subparsers, "plan", "predict memory, speed and cost of a run", "mla-tui plan -p pretrain_5080")
    add_spec_arguments(parser)
    parser.add_argument("--tokens", metavar="N", help="propose batch size and steps for this many tokens, such as 10B")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--deepspeed-config", action="store_true", help="print the DeepSpeed config of the run instead")
    parser.add_argument(
        "--vram", type=float, metavar="GIB", help="predict for a GPU with this much memory, all free; needs --ram"
    )
    parser.add_argument("--ram", type=float, metavar="GIB", help="predict for a host with this much RAM; needs --vram")
    parser.add_argument("--ram-free", type=float, metavar="GIB", help="how much of --ram is free (default: all)")
    parser.set_defaults(command=run)


class Plan(NamedTuple):
    """What is predicted of a run, every way to run it, and its data."""

    found: Prediction
    hardware: Hardware
    ways: list[Candidate]
    lost: list[str]  # why each of the ways is not chosen; empty for the first, if it fits
    slow_kernels: list[str]
    data: dict[str, Any]
    refused: str  # why a launch would refuse the backend of the spec; empty where it would not, or elsewhere


def run(args: argparse.Namespace) -> int:
    spec = spec_of(args)
    if args.tokens is not None:
        for key in (parse_override(text)[0] for text in args.overrides):
            if key in ("batch.sequences", "batch.accum", "train.steps"):
                raise SpecError(f"--tokens: chooses sequences and steps; leave out -s {key}, or --tokens")
        spec = _for_tokens(spec, args.tokens)
    hardware = _hardware(args, spec.launch.gpus_per_node)
    plan = _plan(spec, hardware, here=args.vram is None)
    if args.deepspeed_config:
        return _print_deepspeed_config(plan.found.spec, hardware.device)
    for problem in filter(None, (plan.refused, plan.data["problem"])):
        print(f"mla-tui: {problem}", file=sys.stderr)
    print_lines([json.dumps(_as_json(plan), indent=1)] if args.json else _as_text(plan))
    return 0


def _for_tokens(spec: RunSpec, text: str) -> RunSpec:
    """Return ``spec`` for a budget of tokens, and say what that changes."""
    from profiles.token_budget import SOURCE, token_count, with_token_budget

    new = with_token_budget(spec, token_count(text))
    settings = f"-s sequences={new.batch.sequences} -s steps={new.train.steps}"
    print(f"mla-tui: {text} tokens: {settings}, {new.tokens_per_step:,} tokens a step ({SOURCE})", file=sys.stderr)
    return new


def _hardware(args: argparse.Namespace, cards: int) -> Hardware:
    """Return this machine's hardware, or the described one. Raises ``SpecError``."""
    from engine.memory.hardware import Hardware, detect_hardware

    vram, ram, free = args.vram, args.ram, args.ram if args.ram_free is None else args.ram_free
    if vram is None and ram is None and free is None:
        return detect_hardware(cards)
    if vram is None or ram is None or not all(0 < amount < 1e6 for amount in (vram, ram, free)):
        raise SpecError("plan: --vram and --ram go together, each a number of GiB, for example --vram 16 --ram 24")
    if free > ram:
        raise SpecError(f"plan: --ram-free {free:g} is more than --ram {ram:g}; give at most that")
    device, host, left = int(vram * GIB), int(ram * GIB), int(free * GIB)
    name = f"a GPU of {vram:g} GiB with {ram:g} GiB of RAM" + (f", {free:g} of it free" if free < ram else "")
    return Hardware(name, "cuda", device, device, host, left)


def _plan(spec: RunSpec, hardware: Hardware, *, here: bool) -> Plan:
    from engine.memory.calibration import load_past_runs
    from engine.memory.headroom import OVER
    from engine.memory.prediction import predict
    from engine.memory.search.search import Search, why_it_lost
    from engine.preflight import slow_kernels
    from profiles.paths import default_home

    runs = load_past_runs(hardware, default_home())
    found = predict(spec, hardware, runs, here=here)
    ways = Search(hardware, runs).all_ways(spec)
    lost = [why_it_lost(way, ways[0], hardware) if way is not ways[0] or way.state == OVER else "" for way in ways]
    slow = slow_kernels(spec.model.config, hardware.device, spec.train.attention)
    return Plan(found, hardware, ways, lost, slow, _data(found.spec), _refused(found.spec, hardware) if here else "")


def _refused(spec: RunSpec, hardware: Hardware) -> str:
    """Return why a launch would refuse the backend of ``spec``, or nothing."""
    from engine.preflight import check_backend, resolve_spec

    try:
        check_backend(resolve_spec(spec, hardware))
    except UserError as error:
        return str(error)
    return ""


def _data(spec: RunSpec) -> dict[str, Any]:
    """Return what the run reads of its data, or the ``problem`` for which a launch would be refused."""
    from data.splits import check_ids, data_usage
    from engine.preflight import check_tokenizer

    try:
        check_tokenizer(spec)
        checked = check_ids(spec, _SECONDS_FOR_IDS)
        usage = data_usage(spec)
    except UserError as error:
        return {"text": "", "problem": str(error)}
    numbers = {**asdict(usage), "epochs": usage.epochs, "ids_checked": checked}
    return {"text": describe_usage(usage, spec.train.last_step), "problem": "", **numbers}


def _as_json(plan: Plan) -> dict[str, Any]:
    found, hardware, calibrated = plan.found, plan.hardware, plan.found.calibrated
    forecast, cost = calibrated.forecast, found.cost
    return {
        "profile": found.spec.profile,
        "spec": found.spec.to_dict(),
        "device": forecast.device,
        "device_total": forecast.device_total,
        "host": forecast.host,
        "host_total": forecast.host_total,
        "saving": forecast.saving,
        "hardware": {key: getattr(hardware, key) for key in hardware.__slots__},
        "fits": forecast.fits(hardware),
        "headroom": {headroom.memory: headroom.state for headroom in found.headrooms},
        "calibration": {
            name: {"ratio": factor.ratio, "runs": factor.runs} if factor else None
            for name, factor in (("device", calibrated.device), ("host", calibrated.host))
        },
        "slow": plan.slow_kernels,
        "unreached": unreached(found.spec),
        "data": plan.data,
        "refused": plan.refused,
        "open": found.open,
        "cost": {
            "tok_s": cost.rate.tok_s,
            "kind": cost.rate.kind,
            "basis": cost.rate.basis,
            "tokens": cost.tokens,
            "seconds": cost.seconds,
            "validation_seconds": cost.validation,
            "checkpoint_bytes": cost.disk,
            "kwh": cost.kwh,
        },
        "ways": [
            {
                **asdict(way.combination),
                "micro": way.spec.batch.micro,
                "device_total": way.forecast.device_total,
                "host_total": way.forecast.host_total,
                "state": way.state,
                "tok_s": way.rate.tok_s,
                "basis": way.rate.basis,
                "numerics": way.combination.numerics,
                "lost": lost,
            }
            for way, lost in zip(plan.ways, plan.lost, strict=True)
        ],
        "levers": [{key: getattr(lever, key) for key in lever.__slots__ if key != "spec"} for lever in found.levers],
        "fit": found.fit,
        "elsewhere": found.elsewhere,
    }


def _as_text(plan: Plan) -> list[str]:
    from tui.text import lever_table, way_table
    from tui.text.run_cost_text import cost_lines

    found = plan.found
    spec, forecast = found.spec, found.calibrated.forecast
    width = min(max(shutil.get_terminal_size((80, 24)).columns, _LEAST_WIDTH), lever_table.MAX_WIDTH) - 1
    batch = f"micro {spec.batch.micro} × accum {spec.accum}, context {spec.batch.context}"
    calibration = found.calibrated.description or "not calibrated yet"
    lines = [f"{spec.profile}: {spec.model.name}, {batch}", f"on {plan.hardware.name}; {calibration}"]
    lines += textwrap.wrap(way_table.chosen(spec, found.open), width)
    lines += textwrap.wrap(found.elsewhere, width)
    lines += textwrap.wrap(plan.data["text"], width)
    for headroom in found.headrooms:
        lines += ["", *_headroom(headroom, width)]
    if forecast.saving:
        lines.append(f"  and {size(forecast.saving)} more while a checkpoint is written")
    lines += textwrap.wrap(found.fit, width)
    lines += [f"slow: {text}" for text in plan.slow_kernels]
    for text in unreached(found.spec):
        lines += textwrap.wrap(text, width)
    lines += ["", *(line for text in cost_lines(found.cost) for line in textwrap.wrap(text, width))]
    memories = [headroom.memory for headroom in found.headrooms]
    lines += ["", *way_table.lines(plan.ways, plan.lost, memories, width)]
    if found.levers:
        lines += ["", lever_table.heading("changes to this, fastest first", memories, width)]
        lines += [text for lever in found.levers for text in lever_table.lines(lever, memories, width)]
    return lines


def _headroom(headroom: Headroom, width: int) -> list[str]:
    """Return the predicted memory of device or host as a heading, a bar and a legend of its parts."""
    parts = sorted(((part, amount) for part, amount in headroom.parts.items() if amount > 0), key=lambda part: -part[1])
    needed = size_of(headroom.needed, headroom.free) + " free" if headroom.free else size(headroom.needed)
    lines = [
        f"{headroom.memory}  {needed}  {VERDICTS[headroom.state]}",
        Coloured("  " + _bar(parts, headroom, width - 2)),
    ]
    row = ""
    for index, (part, amount) in enumerate(parts):
        entry = f"{SHADES[index % len(SHADES)]} {part} {size(amount)}"
        if row and len(row) + len(entry) + 4 > width:
            lines.append(row)
            row = ""
        row += "  " + entry
    return [*lines, row]


def _bar(parts: list[tuple[str, int]], headroom: Headroom, cells: int) -> str:
    """Draw the parts, largest first, on a scale that ends at the free or the needed memory, whichever is more."""
    scale = max(headroom.needed, headroom.free or 0, 1)
    bar, done, at = "", 0, 0
    limit = round((headroom.free or scale) / scale * cells)
    for index, (_, amount) in enumerate(parts):
        done += amount
        end = round(done / scale * cells)
        text = "".join("┃" if cell == limit else SHADES[index % len(SHADES)] for cell in range(at, end))
        bar += _coloured(text, COLOURS[index % len(COLOURS)])
        at = end
    return bar + "·" * (cells - at)


def _coloured(text: str, colour: int) -> str:
    plain = os.environ.get("NO_COLOR") or not sys.stdout.isatty()
    return text if plain or not text else f"\x1b[{colour}m{text}\x1b[0m"


def _print_deepspeed_config(spec: RunSpec, device: str) -> int:
    from engine.execution.deepspeed_config import deepspeed_config

    bf16 = spec.train.precision == "bf16" or (spec.train.precision == "auto" and device == "cuda")
    print(json.dumps(deepspeed_config(spec, bf16=bf16, device=device), indent=1))
    return 0
