"""Launches a run: checks the spec, creates the run's directory and starts a detached supervisor."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from data.splits import fingerprint_of, open_splits
from engine.checkpoints import checkpoint
from engine.checkpoints.hold import held
from engine.checkpoints.resume_source import check_same_data
from engine.events.phases import STARTING, is_active
from engine.events.run_dir import RunDir, is_on_other_host
from engine.events.status import Launch, RunStatus
from engine.host.process import boot_id, host_name
from engine.host.version import VERSION
from engine.memory.hardware import Hardware, hardware_after
from engine.preflight import (
    check_checkpoint_folder,
    check_memory,
    check_spec,
    check_tokenizer,
    report_slow,
    resolve_spec,
)
from engine.runs import hooks
from engine.runs.device_locks import check_free, devices_of, holder, process_of, tune_on
from engine.runs.launchers import check_hosts, check_launcher, write_hostfile
from engine.runs.store import RunStore
from engine.runs.supervision import ensure_supervisor
from profiles.errors import UserError
from profiles.names import check_name
from profiles.unreached import unreached

if TYPE_CHECKING:
    from profiles.spec import RunSpec


def launch(
    store: RunStore,
    spec: RunSpec,
    *,
    name: str | None = None,
    resume: Path | None = None,
    init_from: Path | None = None,
    queue: bool = False,
    share_device: bool = False,
    force: bool = False,
    notify: Callable[[str], None] = lambda line: None,
    data_changed: bool = False,
) -> RunDir:
    """Start ``spec`` as a run in its own processes. Raises ``UserError`` before anything is created.

    A device in use by another run is an error; with ``queue`` the run waits for it, with ``share_device`` it shares it.
    ``force`` starts a run that cannot fit into memory, and one whose other hosts do not answer. ``notify`` gets a line
    about a run that needs more memory than is free, about ids that were not looked at, and where torch.compile is off.
    With ``data_changed`` the data may be other than that of the checkpoint ``resume``.
    """
    source = resume or init_from
    with held(source) if source else contextlib.nullcontext(True) as is_there:  # its run might delete it meanwhile
        if not is_there:
            raise UserError(f"{source}: was removed before this run could start from it; name a newer one")
        open_spec, spec = spec, resolve_spec(spec)
        at_start = _when_device_is_free(store.home, spec) if queue else None
        if at_start is not None:
            spec = resolve_spec(open_spec, at_start)
        if name is not None:
            check_name("--name", name)
        out = Path(spec.train.out)
        check_spec(spec, out / name if name else out, notify)
        check_launcher(spec)
        if not force:
            check_hosts(spec)
        if resume is None:
            check_tokenizer(spec)
        # What is resumed has trained already, and settles by itself.
        check_memory(spec, store.home, notify, insists=force or resume is not None, hardware=at_start)
        report_slow(spec, notify)
        for line in unreached(spec):
            notify(line)
        if resume:
            check_same_data(fingerprint_of(spec, open_splits(spec)), resume, data_changed)
        hooks.load()
        check_name_is_free = partial(_check_name, store, name, spec.train.out)
        check_name_is_free()
        if name:
            check_checkpoint_folder(out / name, resume)
        if not (queue or share_device):
            check_free(store.home, spec)
        elif share_device and (user := tune_on(store.home, spec)):
            notify(f"{user} measures on the same device; what it finds beside this run is too slow")
        how = Launch(
            name=name,
            resume=str(resume) if resume else None,
            init_from=str(init_from) if init_from else None,
            share_device=share_device,
            data_changed=data_changed,
        )
        begins_at = checkpoint.metadata(resume)["step"] if resume else None
        state = RunStatus(
            profile=spec.profile,
            backend=spec.launch.backend,
            steps=spec.train.steps,
            micro=spec.batch.micro,
            accum=spec.accum,
            context=spec.batch.context,
            version=VERSION,
            host=host_name(),
            boot=boot_id(),
            phase=STARTING,
            step=begins_at,  # until the trainer has begun
            restarts_at=begins_at,
            hooks_at=0,
            started=time.time(),
            launched=time.monotonic(),
        )
        run = store.create(spec, how, state, check_name_is_free)  # again: another launch may have taken it meanwhile
        write_hostfile(spec, run.path)
        ensure_supervisor(run)
        return run


def _when_device_is_free(home: Path, spec: RunSpec) -> Hardware | None:
    """Return the memory that a queued run finds: what is free now and what the run or tune frees that it waits for.

    None where it does not have to wait, or nothing is known of the process that uses the device.
    """
    for device in devices_of(spec):
        if (other := holder(home, device)) is not None and (pid := process_of(home, other)) is not None:
            return hardware_after(pid, spec.launch.gpus_per_node)
    return None


def _check_name(store: RunStore, name: str | None, out: str) -> None:
    """Raise ``UserError`` where an active run writes to that folder; a new run has no checkpoint or lock in it yet."""
    if name is None:
        return
    for run in (RunDir(store.runs / id) for id in store.ids()):
        if run.name == name and not run.ended() and os.path.realpath(run.spec().train.out) == os.path.realpath(out):
            phase = run.summary().phase
            if is_active(phase):
                verb = "rm" if is_on_other_host(run.state()) else "stop"
                raise UserError(
                    f"--name {name}: run {run.id} is {phase} and writes its checkpoints there;"
                    f" choose another name, or first run: mla-tui {verb} {run.id}"
                )
