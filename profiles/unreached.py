"""Says in words what a run is set to and does not come to."""

from __future__ import annotations

from profiles.spec import RunSpec


def unreached(spec: RunSpec) -> list[str]:
    """Return a line for each: a warm-up longer than the run, a ``stop_step`` behind its last step, DeepSpeed's file.

    All are allowed: what stops within its warm-up may be continued, and a profile may be for several backends.
    """
    train, optim, last, lines = spec.train, spec.optim, spec.train.last_step, []
    if optim.warmup > last:
        until = f"the {last} until train.stop_step" if last < train.steps else f"train.steps = {last}"
        lines.append(
            f"optim.warmup: {optim.warmup} steps of warm-up are more than {until}: the rate ends at"
            f" {optim.lr * last / optim.warmup:.2g} and never reaches optim.lr = {optim.lr:g};"
            f" use fewer, for example -s warmup={max(1, last // 10)}"
        )
    if train.stop_step > train.steps:
        lines.append(
            f"train.stop_step: {train.stop_step} is beyond train.steps = {train.steps}, where the run ends;"
            " use a smaller one, or 0 for no stop"
        )
    if spec.launch.deepspeed_config and spec.launch.backend in ("torch", "mlx"):
        lines.append(
            f"launch.deepspeed_config: {spec.launch.deepspeed_config} is not read by --backend {spec.launch.backend};"
            " use --backend deepspeed for it"
        )
    return lines
