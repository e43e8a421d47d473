"""``mla-tui plan``: prints the predicted memory of a run beside what is free, and levers that reduce it."""

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
from tui.cli.command_parser import Subparsers, add_command
from tui.cli.spec_arguments import add_spec_arguments, spec_of
from tui.cli.terminal_output import Coloured, print_lines
from tui.text.data_usage import describe_usage
from tui.text.format import size, size_of

if TYPE_CHECKING:
    from engine.memory.calibration import CalibratedForecast
    from engine.memory.hardware import Hardware
    from engine.memory.headroom import Headroom
    from engine.memory.levers import Lever
    from engine.memory.strategies import Strategy
    from profiles.spec import RunSpec

SHADES = "█▓▒░"  # parts differ even without colour
COLOURS = (36, 33, 35, 32, 34, 31)
GIB = 1 << 30
_SECONDS_FOR_IDS = 0.3  # a split; a launch looks longer
VERDICTS = {"fits": "fits", "tight": "tight: over 90% of the free memory", "over": "does not fit"}


def register(subparsers: Subparsers) -> None:
    parser = add_command(subparsers, "plan", "predict the memory of a run", "mla-tui plan -p pretrain_5080")
    add_spec_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--deepspeed-config", action="store_true", help="print the DeepSpeed config of the run instead")
    parser.add_argument(
        "--vram", type=float, metavar="GIB", help="predict for a GPU with this much memory, all free; needs --ram"
    )
    parser.add_argument(
        "--ram", type=float, metavar="GIB", help="predict for a host with this much RAM, all free; needs --vram"
    )
    parser.set_defaults(command=run)


class Plan(NamedTuple):
    """The predicted memory of a run, and what else is known before it starts."""

    spec: RunSpec
    hardware: Hardware
    calibrated: CalibratedForecast
    headrooms: list[Headroom]
    strategies: list[Strategy]
    levers: list[Lever]
    slow_kernels: list[str]
    data: dict[str, Any]


def run(args: argparse.Namespace) -> int:
    spec = spec_of(args)
    hardware = _hardware(args.vram, args.ram, spec.launch.gpus_per_node)
    if args.deepspeed_config:
        return _print_deepspeed_config(spec, hardware.device)
    plan = _plan(spec, hardware)
    if problem := plan.data["problem"]:
        print(f"mla-tui: {problem}", file=sys.stderr)
    print_lines([json.dumps(_as_json(plan), indent=1)] if args.json else _as_text(plan))
    return 0


def _hardware(vram: float | None, ram: float | None, cards: int) -> Hardware:
    """Return this machine's hardware, or the described one with all its memory free. Raises ``SpecError``."""
    from engine.memory.hardware import Hardware, detect_hardware

    if vram is None and ram is None:
        return detect_hardware(cards)
    if vram is None or ram is None or not (0 < vram < 1e6 and 0 < ram < 1e6):
        raise SpecError("plan: --vram and --ram go together, each a number of GiB, for example --vram 16 --ram 24")
    device, host = int(vram * GIB), int(ram * GIB)
    return Hardware(f"a GPU of {vram:g} GiB with {ram:g} GiB of RAM", "cuda", device, device, host, host)


def _plan(spec: RunSpec, hardware: Hardware) -> Plan:
    from engine.memory.calibration import calibrate, calibrated_forecaster, load_past_runs
    from engine.memory.headroom import headroom_by_memory
    from engine.memory.levers import levers
    from engine.memory.strategies import available_strategies, resolve_strategy
    from engine.preflight import slow_kernels
    from engine.runs.store import default_home

    runs = load_past_runs(hardware, default_home())
    forecast = calibrated_forecaster(runs)
    spec = resolve_strategy(spec, hardware, forecast)
    found = calibrate(spec, hardware, runs)
    return Plan(
        spec,
        hardware,
        found,
        headroom_by_memory(found.forecast, hardware),
        available_strategies(spec, hardware, forecast),
        levers(spec, hardware, forecast),
        slow_kernels(spec.model.config, hardware.device, spec.train.attention),
        _data(spec),
    )


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
    return {"text": describe_usage(usage, spec.train.steps), "problem": "", **numbers}


def _as_json(plan: Plan) -> dict[str, Any]:
    forecast, hardware, calibrated = plan.calibrated.forecast, plan.hardware, plan.calibrated
    return {
        "profile": plan.spec.profile,
        "spec": plan.spec.to_dict(),
        "device": forecast.device,
        "device_total": forecast.device_total,
        "host": forecast.host,
        "host_total": forecast.host_total,
        "saving": forecast.saving,
        "hardware": {key: getattr(hardware, key) for key in hardware.__slots__},
        "fits": forecast.fits(hardware),
        "headroom": {headroom.memory: headroom.state for headroom in plan.headrooms},
        "calibration": {
            name: {"ratio": factor.ratio, "runs": factor.runs} if factor else None
            for name, factor in (("device", calibrated.device), ("host", calibrated.host))
        },
        "slow": plan.slow_kernels,
        "data": plan.data,
        "strategies": [
            {
                "strategy": strategy.name,
                "device_total": strategy.forecast.device_total,
                "host_total": strategy.forecast.host_total,
                "fits": strategy.fits,
            }
            for strategy in plan.strategies
        ],
        "levers": [{key: getattr(lever, key) for key in lever.__slots__ if key != "spec"} for lever in plan.levers],
    }


def _as_text(plan: Plan) -> list[str]:
    from tui.text import lever_table as table

    spec, forecast = plan.spec, plan.calibrated.forecast
    width = min(shutil.get_terminal_size((80, 24)).columns, table.MAX_WIDTH) - 1
    batch = f"micro {spec.batch.micro} × accum {spec.accum}, context {spec.batch.context}"
    calibration = plan.calibrated.description or "not calibrated yet"
    lines = [f"{spec.profile}: {spec.model.name}, {batch}", f"on {plan.hardware.name}; {calibration}"]
    lines += textwrap.wrap(plan.data["text"], width)
    for headroom in plan.headrooms:
        lines += ["", *_headroom(headroom, width)]
    if forecast.saving:
        lines.append(f"  and {size(forecast.saving)} more while a checkpoint is written")
    lines += [f"slow: {text}" for text in plan.slow_kernels]
    lines += ["", f"strategies, fastest first (current: {spec.memory.strategy})"]
    for strategy in plan.strategies:
        device = f"device {size(strategy.forecast.device_total)}, " if strategy.forecast.device else ""
        verdict = "fits" if strategy.fits else "does not fit"
        lines.append(f"  {strategy.name:<11} {device}host {size(strategy.forecast.host_total)}  {verdict}")
    if plan.levers:
        memories = [headroom.memory for headroom in plan.headrooms]
        lines += ["", table.heading("reduce memory, cheapest first", memories, width)]
        lines += [text for lever in plan.levers for text in table.lines(lever, memories, width)]
        lines.append(f"tokens/s: {plan.levers[0].basis}")
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
