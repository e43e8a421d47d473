"""The tables of a card: ``python tests/gpu/measure.py A|B|C|D OUT [--dry-run]``.

A compile and DeepSpeed, the matmul peak and the longest kernels; B what each fusion gains; C speed under a cap of 16
GiB; D peaks beside their forecast, and the longest context. Each call rewrites its ``OUT/gpu-….json`` and ``.md`` after
every measurement, so that an interrupted call keeps its results, and prints its tables last. What could not have ended
in time is listed as not measured. ``--dry-run`` measures small models.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from engine.memory.forecast import NOT_ALLOCATED, forecast
from engine.memory.hardware import detect_hardware
from engine.train.measure.grid import Budget, build_cell, measure_cell
from profiles.errors import UserError
from profiles.registry import load
from tests.gpu.search import longest

GIB = 2**30
PARTS = ("data", "forward", "backward", "optimizer")
MIN_SECONDS = 30.0  # no cell is started with less time left


@dataclass(frozen=True, slots=True)
class Scale:
    """The sizes to measure: those for a card, or small ones to try the script on any machine."""

    profile: str
    micro: int
    sequences: int
    context: int
    cap_gib: float | None
    first_context: int
    last_context: int
    budget: Budget
    rows: int | None  # how many of each list below; None: all

    def overrides(self, **changes: object) -> list[str]:
        """Return the settings of a measurement, for AdamW: every strategy has it."""
        sizes = {"micro": self.micro, "sequences": self.sequences, "context": self.context}
        return [f"{key}={value}" for key, value in {"optim.name": "adamw", **sizes, **changes}.items()]


CARD = Scale("gpu_fast", 12, 48, 2048, 16.0, 32768, 262144, Budget(seconds=8.0), None)
DRY = Scale("cpu_demo", 2, 4, 64, None, 64, 128, Budget(steps=1), 1)

# Every key that chooses a fused path, and the value that turns it off. What is not fused holds more, so it runs with a
# smaller micro-batch.
OFF = {"train.compile": "off", "memory.loss": "plain"}
OFF_MICRO = 8

# What may fit in 16 GiB, each with the largest micro-batch that is forecast to.
_STATES8BIT = {"train.precision": "bf16_sr", "memory.strategy": "states8bit"}
SMALL: Sequence[dict[str, str]] = (
    *({**_STATES8BIT, "memory.checkpointing": kind} for kind in ("selective", "full", "none")),
    {"train.precision": "bf16_sr", "memory.checkpointing": "full"},
    {"backend": "deepspeed", "train.precision": "bf16", "memory.strategy": "offload", "memory.checkpointing": "full"},
)
# The specs to compare with the forecast, each using memory differently, capped to the size of a smaller card. One that
# does not fit is a result as well. Most are eager, like the formulas; the last is compiled.
_EAGER = {"train.compile": "off", "sequences": "8", "micro": "4"}
GRID: Sequence[tuple[float, dict[str, str]]] = (
    *(
        (16.0, {**_EAGER, "train.precision": "bf16_sr", "memory.strategy": "states8bit", "memory.checkpointing": kind})
        for kind in ("selective", "full", "offload")
    ),
    (16.0, {**_EAGER, "train.precision": "bf16_sr", "memory.checkpointing": "full", "memory.loss": "plain"}),
    *((24.0, {**_EAGER, "memory.checkpointing": kind}) for kind in ("full", "offload")),
    (24.0, {**_EAGER, "memory.checkpointing": "full", "micro": "8"}),
    *((32.0, {**_EAGER, "memory.checkpointing": kind, "micro": "2"}) for kind in ("none", "selective")),
    (32.0, {**_EAGER, "memory.checkpointing": "full", "micro": "1", "sequences": "2", "context": "16384"}),
    (32.0, {"memory.checkpointing": "full", "micro": "4", "sequences": "8"}),
)
# Eager, because every context would be compiled separately, its feed-forward tile by tile.
LONGEST = {
    "train.precision": "bf16_sr",
    "train.compile": "off",
    "memory.strategy": "states8bit",
    "memory.checkpointing": "offload",
}


class Session:
    """One call of this script: its results, its output files and its deadline."""

    def __init__(self, section: str, out: Path, seconds: float, scale: Scale, peak: float | None = None) -> None:
        self.scale = scale
        self.results: list[dict[str, Any]] = []
        self._path = out / f"gpu-{section}"
        self._deadline = time.monotonic() + seconds
        self.lines: Callable[[], list[str]] = list
        self._longest = MIN_SECONDS
        self.peak = peak  # of the matrix products, FLOP/s; measured once a call, by its first cell or section

    def show(self, lines: Callable[[], list[str]]) -> None:
        """Use ``lines`` as the table from now on."""
        self.lines = lines
        self.write()

    def measure(
        self, name: str, changes: dict[str, str], cap: float | None = None, steps: int | None = None
    ) -> dict[str, Any]:
        """Measure the profile with ``changes`` in ``cap`` GiB; an error is a result as well."""
        start = time.monotonic()
        result: dict[str, Any] = {"name": name, "changes": changes, **self._try(changes, cap, steps)}
        result["took_s"] = time.monotonic() - start
        self._longest = max(self._longest, result["took_s"])
        self.peak = result.get("matmul_peak_flop_s", self.peak)
        self.results.append(result)
        self.write()
        print(f"{name}: {result.get('error') or '{:,.0f} tokens/s'.format(result['tok_s'])}", flush=True)
        return result

    def out_of_time(self) -> bool:
        """Whether a measurement as long as the longest so far would end too late."""
        return time.monotonic() + self._longest > self._deadline

    def write(self) -> None:
        self._path.with_suffix(".json").write_text(json.dumps(self.results, indent=1))
        self._path.with_suffix(".md").write_text("\n".join([*self.lines(), ""]))

    def _try(self, changes: dict[str, str], cap: float | None, steps: int | None) -> dict[str, Any]:
        if self.out_of_time():
            return {"error": "not measured: no time left"}
        scale = self.scale
        try:
            one = build_cell(scale.profile, scale.overrides(), changes, synthetic=True)
        except UserError as error:
            return {"error": f"not measured: {error}"}
        parts = forecast(one.spec, detect_hardware())
        budget = replace(
            scale.budget,
            steps=steps or scale.budget.steps,
            cap_gib=cap if scale.cap_gib else None,  # nothing to cap in a dry run
            timeout=None if math.isinf(self._deadline) else self._deadline - time.monotonic(),
            peak=self.peak,
        )
        # The allocator's peak, which it is compared with, includes neither the CUDA context nor the allocator's slack.
        allocated = sum(size for part, size in parts.device.items() if part not in NOT_ALLOCATED)
        return {"forecast": allocated, "forecast_parts": parts.device, **measure_cell(one, budget)}


def smoke(session: Session) -> None:
    """Measure one cell compiled and one with DeepSpeed's offload, and list the longest kernels of the first."""
    session.show(lambda: [*_speeds(session), "", *_kernels(session)])
    session.measure("compiled", {"train.compile": "on"} if session.scale is CARD else {})
    session.measure("DeepSpeed, offload", SMALL[-1])


def matmul(session: Session) -> None:
    """Measure the model's matmuls one by one and together."""
    import torch

    from engine.train.measure.matmul_peak import TimedMatmul, matmul_peak, time_matmul
    from model.flops import Product

    scale, device = session.scale, "cuda" if torch.cuda.is_available() else "cpu"
    config = load(scale.profile).model.config
    square = 8192 if scale is CARD else 256
    seconds = 10.0 if scale is CARD else 0.1

    def note(what: str, row: TimedMatmul) -> None:
        shape = {"inputs": row.product.inputs, "outputs": row.product.outputs, "times": row.product.times}
        session.results.append({"name": what, "tokens": row.tokens, "kind": row.kind, **shape, "flop_s": row.flop_s})

    for row in time_matmul(Product(square, square, 1), square, torch.bfloat16, device, seconds / 10):
        note("square", row)
    total, rows = matmul_peak(config, scale.micro * scale.context, torch.bfloat16, device, seconds)
    for row in rows:
        note(f"micro {scale.micro}", row)
    session.results.append({"name": f"micro {scale.micro}", "kind": "all together", "flop_s": total})
    session.peak = total
    fields = ("name", "tokens", "inputs", "outputs", "times", "kind")
    session.show(
        lambda: [
            f"{_machine()}. bf16, random numbers; context {scale.context}.",
            "",
            *_table(
                [*fields, "TFLOP/s"],
                [[*(r.get(f, "") for f in fields), f"{r['flop_s'] / 1e12:.4g}"] for r in session.results],
            ),
        ]
    )


def ablation(session: Session) -> None:
    """Measure everything on and everything off, twice, and each fusion turned off alone."""
    session.show(lambda: [*_speeds(session), "", _gain(session), _peak_fraction(session)])
    on = {"train.compile": "on"} if session.scale is CARD else {}
    micro = {"micro": str(min(OFF_MICRO, session.scale.micro))}
    for number in (1, 2)[: session.scale.rows]:
        session.measure(f"everything on ({number})", on)
        session.measure(f"everything off ({number})", {**OFF, **micro})
        if number == 2:
            for key, value in OFF.items():
                session.measure(f"all but {key} {value}", {**on, key: value, **micro})


def memory(session: Session) -> None:
    """Measure speed without a cap and, in the ways that may fit, under it; compare every peak with its forecast."""
    session.show(lambda: [*_speeds(session), "", _capped_speed(session), _forecast_error(session)])
    session.measure("uncapped", {})
    for changes in SMALL[: session.scale.rows]:
        micro = _largest_micro(session.scale, changes)
        name = f"capped: {', '.join(changes.values())}, micro {micro}"
        session.measure(name, {**changes, "micro": str(micro)}, cap=session.scale.cap_gib)


def _largest_micro(scale: Scale, changes: dict[str, str]) -> int:
    """Return the largest micro-batch that is forecast to fit under the cap, or 1."""
    for micro in range(scale.micro, 1, -1):
        if scale.sequences % micro:
            continue
        spec = load(scale.profile, scale.overrides(**changes, micro=micro))
        if sum(forecast(spec, detect_hardware()).device.values()) <= (scale.cap_gib or math.inf) * GIB:
            return micro
    return 1


def grid(session: Session) -> None:
    """Compare the forecast with the allocator's peaks, for each way to use memory."""
    session.show(lambda: [*_speeds(session), "", _forecast_error(session)])
    for cap, wanted in GRID[: session.scale.rows]:
        context = min(int(wanted.get("context", session.scale.context)), session.scale.last_context)
        changes = {**wanted, "context": str(context)}
        name = ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in changes.items())
        session.measure(f"{cap:g} GiB: {name}", changes, cap=cap, steps=1)


def longctx(session: Session) -> None:
    """Find the longest context that trains under the cap, one sequence at a time."""
    scale = session.scale
    found: tuple[int | None, int | None] = (None, None)

    def lines() -> list[str]:
        fits, not_fits = found
        longest_found = f"Longest context found to train: {fits}." if fits else "No context was found to train."
        return [*_speeds(session), "", longest_found, f"Shortest found not to: {not_fits or 'none'}."]

    def fits(context: int) -> bool | None:
        changes = {**LONGEST, "micro": "1", "sequences": "1", "context": str(context)}
        result = session.measure(f"context {context}", changes, cap=scale.cap_gib, steps=1)
        return None if str(result.get("error")).startswith("not measured") else "error" not in result

    session.show(lines)
    found = longest(fits, scale.first_context, scale.last_context, grain=64)
    session.write()


def _speeds(session: Session) -> list[str]:
    """Return the table, one row per measurement."""
    rows = []
    for r in session.results:
        if "error" in r:
            rows.append([r["name"], r["error"], *[""] * 9])
            continue
        split, peak = r["split_s"], r["peak"]
        parts = " / ".join(f"{split[part] / sum(split.values()):.0%}" for part in PARTS)
        speeds = [f"{r['tok_s']:,.0f}", f"{r['step_s']['median']:.3f}", f"{r['warmup_s']:.0f}", parts]
        sizes = [f"{value / GIB:.2f}" if value is not None else "" for value in (peak["device"], r["forecast"])]
        rows.append(
            [
                *(r["name"], *speeds, *sizes),
                *(f"{r['matmul_peak_flop_s'] / 1e12:.4g}", f"{r['matmul_peak_fraction']:.1%}"),
                *((r["kernels"]["launches"], r["kernels"]["attention"]) if r["kernels"] else ("", "")),
            ]
        )
    scale = session.scale
    capped = f"capped at {scale.cap_gib:g} GiB where it says so" if scale.cap_gib else "nothing is capped in a dry run"
    step = f"{scale.sequences} × {scale.context} tokens a step unless a row says otherwise"
    head = f"{_machine()}. {scale.profile}: {step}; random tokens; {capped}."
    columns = ["what", "tokens/s", "step, s", "warm-up, s", " / ".join(PARTS), "peak, GiB", "forecast, GiB"]
    more = ["matmul peak, TFLOP/s", "fraction of it", "kernels a micro-batch", "attention"]
    return [head, "", *_table([*columns, *more], rows)]


def _kernels(session: Session) -> list[str]:
    """Return the kernels of a micro-batch that took longest, of the first measurement that has any."""
    profiles = [r["kernels"] for r in session.results if r.get("kernels")]
    longest: list[tuple[str, int, float]] = next((profile["longest"] for profile in profiles if profile["longest"]), [])
    if not longest:
        return ["Kernels: none seen."]
    return _table(["kernel", "launches", "ms"], [[name, times, f"{s * 1e3:.3f}"] for name, times, s in longest])


def _machine() -> str:
    # Ask the driver, not torch, which would take memory of the card from the measurements.
    hardware = detect_hardware()
    where = hardware.name if hardware.device == "cuda" else f"No card, a dry run on {os.cpu_count()} CPUs"
    return f"{where}, torch {version('torch')}, Python {platform.python_version()}"


def _tok_s(session: Session, start: str) -> list[float]:
    return [r["tok_s"] for r in session.results if r["name"].startswith(start) and "error" not in r]


def _gain(session: Session) -> str:
    pairs = list(zip(_tok_s(session, "everything on"), _tok_s(session, "everything off"), strict=False))
    if not pairs:
        return "Everything on against everything off (goal 1.15×): not measured."
    ratios = [auto / off for auto, off in pairs]
    return f"Everything on against everything off (goal 1.15×): {statistics.median(ratios):.3f}×, pairs {len(pairs)}."


def _peak_fraction(session: Session) -> str:
    shares = [
        r["matmul_peak_fraction"] for r in session.results if r["name"].startswith("everything on") and "tok_s" in r
    ]
    summary = f"{statistics.median(shares):.1%}" if shares else "not measured"
    return f"Everything on, fraction of the matmul peak (goal 60%, aim 70%): {summary}."


def _capped_speed(session: Session) -> str:
    free, capped = _tok_s(session, "uncapped"), _tok_s(session, "capped")
    summary = f"{max(capped) / free[0]:.1%}" if free and capped else "not measured"
    return f"The fastest under the cap against uncapped (goal 85%): {summary}."


def _forecast_error(session: Session) -> str:
    measured = [r for r in session.results if "error" not in r and r["peak"]["device"]]
    if not measured:
        return "Forecast against the allocated peak: not measured."
    lines = []
    for name, key in (("allocated", "device"), ("reserved", "device_reserved")):
        slack = [r["forecast_parts"].get("allocator slack", 0) if name == "reserved" else 0 for r in measured]
        errors = [(r["forecast"] + more) / r["peak"][key] - 1 for r, more in zip(measured, slack, strict=True)]
        lines.append(
            f"Forecast against the {name} peak: median error {statistics.median(map(abs, errors)):.1%},"
            f" {max(errors):+.1%} at most, {min(errors):+.1%} at least."
        )
    return " ".join(lines)


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    lines = [f"| {' | '.join(map(str, row))} |" for row in (head, *rows)]
    return [lines[0], "|---" * len(head) + "|", *lines[1:]]


# The parts of a call: the seconds that each may take at most, one after the other.
CALLS: dict[str, dict[str, tuple[Callable[[Session], None], float]]] = {
    "A": {"matmul": (matmul, 60.0), "smoke": (smoke, 200.0)},
    "B": {"ablation": (ablation, 500.0)},
    "C": {"memory": (memory, 500.0)},
    "D": {"forecast": (grid, 270.0), "longctx": (longctx, 230.0)},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("call", choices=CALLS)
    parser.add_argument("out", type=Path)
    parser.add_argument("--dry-run", action="store_true", help="small, for a machine without a card")
    args = parser.parse_args()
    if detect_hardware().device != "cuda" and not args.dry_run:
        parser.error("this machine has no CUDA card; --dry-run measures small models on the CPU")
    args.out.mkdir(parents=True, exist_ok=True)
    tables: list[str] = []
    peak: float | None = None
    for name, (measure, seconds) in CALLS[args.call].items():
        # A dry run shows that all of it runs, however slow the machine.
        session = Session(name, args.out, math.inf if args.dry_run else seconds, DRY if args.dry_run else CARD, peak)
        measure(session)
        peak = session.peak
        tables += [f"\n{name}\n", *session.lines()]
    print("\n".join(tables))


if __name__ == "__main__":
    main()
