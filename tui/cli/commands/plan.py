"""``mla-tui plan``: a run's memory as bars against what is free, and the ways to make it smaller."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from typing import TYPE_CHECKING, Any

from profiles.errors import SpecError
from tui.cli.command_parser import Subparsers, add_command
from tui.cli.spec_arguments import add_spec_arguments, spec_of
from tui.text.format import size, size_of

if TYPE_CHECKING:
    from engine.memory.calibration import CalibratedForecast
    from engine.memory.hardware import Hardware
    from engine.memory.headroom import Headroom
    from engine.memory.levers import Lever
    from engine.memory.strategies import Strategy
    from profiles.spec import RunSpec

SHADES = "█▓▒░"  # without colour the parts still differ
COLOURS = (36, 33, 35, 32, 34, 31)
GIB = 1 << 30
VERDICTS = {"fits": "fits", "tight": "tight: over 90% of what is free", "over": "does not fit"}


def register(subparsers: Subparsers) -> None:
    parser = add_command(subparsers, "plan", "forecast the memory of a run", "mla-tui plan -p pretrain_5080")
    add_spec_arguments(parser)
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument(
        "--deepspeed-config", action="store_true", help="print DeepSpeed's configuration of the run instead"
    )
    parser.add_argument("--vram", type=float, metavar="GIB", help="as if on a card of so much, all free; with --ram")
    parser.add_argument("--ram", type=float, metavar="GIB", help="as if with so much RAM, all free; with --vram")
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    from engine.memory.calibration import calibrate, calibrated_forecaster, load_past_runs
    from engine.memory.hardware import detect_hardware
    from engine.memory.headroom import headroom_by_memory
    from engine.memory.levers import levers
    from engine.memory.strategies import available_strategies, resolve_strategy
    from engine.preflight import slow_kernels
    from engine.runs.store import default_home

    spec = spec_of(args)
    hardware = _supposed(args.vram, args.ram) if args.vram or args.ram else detect_hardware()
    if args.deepspeed_config:
        return _print_deepspeed_config(spec, hardware.device)
    runs = load_past_runs(hardware, default_home())
    told = calibrated_forecaster(runs)
    spec = resolve_strategy(spec, hardware, told)
    found = calibrate(spec, hardware, runs)
    answer = (
        spec,
        hardware,
        found,
        headroom_by_memory(found.forecast, hardware),
        available_strategies(spec, hardware, told),
        levers(spec, hardware, told),
        slow_kernels(spec.model.config, hardware.device, spec.train.attention),
    )
    if args.json:
        print(json.dumps(_as_json(*answer), indent=1))
    else:
        print("\n".join(_as_text(*answer)))
    return 0


def _supposed(vram: float | None, ram: float | None) -> Hardware:
    """A machine that is not this one, all of it free. Raises ``SpecError``."""
    from engine.memory.hardware import Hardware

    if not vram or not ram or not (0 < vram < 1e6 and 0 < ram < 1e6):
        raise SpecError("plan: --vram and --ram go together, each a number of GiB, for example --vram 16 --ram 24")
    device, host = int(vram * GIB), int(ram * GIB)
    return Hardware(f"a supposed card of {vram:g} GiB with {ram:g} GiB of RAM", "cuda", device, device, host, host)


def _as_json(
    spec: RunSpec,
    hardware: Hardware,
    found: CalibratedForecast,
    places: list[Headroom],
    ranked: list[Strategy],
    ways: list[Lever],
    slow: list[str],
) -> dict[str, Any]:
    parts = found.forecast
    return {
        "profile": spec.profile,
        "spec": spec.to_dict(),
        "device": parts.device,
        "device_total": parts.device_total,
        "host": parts.host,
        "host_total": parts.host_total,
        "saving": parts.saving,
        "hardware": {key: getattr(hardware, key) for key in hardware.__slots__},
        "fits": parts.fits(hardware),
        "headroom": {place.memory: place.state for place in places},
        "calibration": {
            name: {"ratio": factor.ratio, "runs": factor.runs} if factor else None
            for name, factor in (("device", found.device), ("host", found.host))
        },
        "slow": slow,
        "strategies": [
            {
                "strategy": way.name,
                "device_total": way.forecast.device_total,
                "host_total": way.forecast.host_total,
                "fits": way.fits,
            }
            for way in ranked
        ],
        "levers": [{key: getattr(way, key) for key in way.__slots__ if key != "spec"} for way in ways],
    }


def _as_text(
    spec: RunSpec,
    hardware: Hardware,
    found: CalibratedForecast,
    places: list[Headroom],
    ranked: list[Strategy],
    ways: list[Lever],
    slow: list[str],
) -> list[str]:
    from tui.text import lever_table as table

    width = min(shutil.get_terminal_size((80, 24)).columns, table.WIDEST) - 1
    batch = f"micro {spec.batch.micro} × accum {spec.accum}, context {spec.batch.context}"
    known = found.description or "not calibrated yet"
    lines = [f"{spec.profile}: {spec.model.name}, {batch}", f"on {hardware.name}; {known}"]
    for place in places:
        lines += ["", *_place(place, width)]
    if found.forecast.saving:
        lines.append(f"  and {size(found.forecast.saving)} more while a checkpoint is written")
    lines += [f"slow: {text}" for text in slow]
    lines += ["", f"strategies, fastest first (now {spec.memory.strategy})"]
    for each in ranked:
        held = f"device {size(each.forecast.device_total)}, " if each.forecast.device else ""
        verdict = "fits" if each.fits else "does not fit"
        lines.append(f"  {each.name:<11} {held}host {size(each.forecast.host_total)}  {verdict}")
    if ways:
        heads = [place.memory for place in places]
        lines += ["", table.heading("smaller, by cost", heads, width)]
        lines += [text for way in ways for text in table.lines(way, heads, width)]
        lines.append(f"tokens/s: {ways[0].basis}")
    return lines


def _place(place: Headroom, width: int) -> list[str]:
    held = sorted(((part, amount) for part, amount in place.parts.items() if amount > 0), key=lambda pair: -pair[1])
    needed = size_of(place.needed, place.free) + " free" if place.free else size(place.needed)
    lines = [f"{place.memory}  {needed}  {VERDICTS[place.state]}", "  " + _bar(held, place, width - 2)]
    row = ""
    for index, (part, amount) in enumerate(held):
        entry = f"{SHADES[index % len(SHADES)]} {part} {size(amount)}"
        if row and len(row) + len(entry) + 4 > width:
            lines.append(row)
            row = ""
        row += "  " + entry
    return [*lines, row]


def _bar(held: list[tuple[str, int]], place: Headroom, cells: int) -> str:
    """The parts, largest first, on a scale that ends at what is free or needed, whichever is more."""
    whole = max(place.needed, place.free or 0, 1)
    bar, done, at = "", 0, 0
    limit = round((place.free or whole) / whole * cells)
    for index, (_, amount) in enumerate(held):
        done += amount
        end = round(done / whole * cells)
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
