"""The largest attention logit is that of the training forward, changes no loss, and raises one alert when too large."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from engine.events.types import Alert, Step
from engine.train import logit_monitor
from engine.train.backends.build import build_backend
from engine.train.backends.ranks import SingleRank
from engine.train.logit_monitor import LogitMonitor
from model import attention_logits
from model.attention_logits import LogitProbe
from model.documents import document_ids
from model.transformer import MLATransformer, build
from tests.unit.train.test_samples import trained
from tests.unit.train.tiny_runs import MakeSpec, RecordingReporter


def as_any(module: Any) -> Any:
    """Return a module whose submodules the type checker does not know."""
    return module


def model_of(nano: MakeSpec, tokens: int, end: int | None) -> tuple[MLATransformer, torch.Tensor]:
    spec = nano("model.num_hidden_layers=2", "optim.lr=1e-3")
    drawn = torch.randint(0, 8, (2, tokens), generator=torch.Generator().manual_seed(1))
    return build(spec.model.config, 1, attention="blocked", document_end=end), drawn


@pytest.mark.parametrize("end", [None, 3])
@pytest.mark.parametrize(("tokens", "chosen"), [(40, slice(None)), (301, slice(0, None, 2))])
def test_it_is_the_largest_score_of_each_head_on_the_chosen_queries(
    nano: MakeSpec, monkeypatch: pytest.MonkeyPatch, tokens: int, chosen: slice, end: int | None
) -> None:
    monkeypatch.setattr(attention_logits, "SCORES", 1 << 14)  # several pieces of keys
    model, tokens_BT = model_of(nano, tokens, end)
    expected = []
    for block in map(as_any, model.model.layers):
        attend = block.self_attn.attend

        def attend_and_keep(q, k, v, scale, documents, attend=attend):  # type: ignore[no-untyped-def]
            scores = (q[0].double() @ k[0].double().transpose(-1, -2)) * scale
            hidden = torch.ones(tokens, tokens, dtype=torch.bool).triu(1)
            if end is not None:
                ids = document_ids(tokens_BT, end)[0]
                hidden |= ids[:, None] != ids
            expected.append(scores.masked_fill(hidden, -torch.inf)[:, chosen].amax((1, 2)).tolist())
            return attend(q, k, v, scale, documents)

        block.self_attn.attend = attend_and_keep
    probe = model.model.logit_probe = LogitProbe()
    with torch.no_grad():
        model.hidden(tokens_BT)
        model.hidden(tokens_BT)  # one forward is measured, not the next
    assert len(expected) == 4 and len(probe.largest()) == 2
    assert torch.tensor(probe.largest()) == pytest.approx(torch.tensor(expected[:2]), rel=1e-5)


@pytest.mark.parametrize("settings", [("precision=bf16_sr",), ("backend=deepspeed", "checkpointing=offload")])
def test_it_is_logged_every_few_steps_and_changes_no_loss(
    nano: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: tuple[str, ...]
) -> None:
    spec = nano("steps=6", "micro=4", "val_every=3", *settings)
    without = trained(spec, tmp_path / "without")
    assert not [event for event in without.events if isinstance(event, Step) and event.attn_logit is not None]
    monkeypatch.setattr(logit_monitor, "EVERY", 2)
    log = trained(spec, tmp_path / "with")
    assert log.losses() == without.losses()
    assert [r["grad_norm"] for r in log.of("step")] == [r["grad_norm"] for r in without.of("step")]
    found = {event.step: event.attn_logit for event in log.events if isinstance(event, Step) and event.attn_logit}
    assert [*found] == [2, 4, 6] and all(0 < logit < 1 for logit in found.values())


def test_an_alert_names_the_head_once_until_it_is_small_again(nano: MakeSpec) -> None:
    spec = nano("model.num_hidden_layers=2")
    backend, reporter = build_backend(spec, SingleRank()), RecordingReporter()
    model = backend.torch_model()
    assert model is not None
    monitor = LogitMonitor(backend, reporter, rank=0)
    query: Any = as_any(model.model.layers[1]).self_attn.q_proj.weight
    tokens = torch.arange(32)[None]
    drawn = query.detach().clone()
    found = []
    for large in (False, True, True, False, True):
        with torch.no_grad():
            query.copy_(drawn)
            query[query.shape[0] // 2 :] *= 1e7 if large else 1.0  # those of the second head
        monitor.begin_step(10)
        model.hidden(tokens)
        found.append((monitor.end_step() or 0) > logit_monitor.THRESHOLD)
        assert monitor.end_step() is None
    assert found == [False, True, True, False, True]
    alerts = [event for event in reporter.events if isinstance(event, Alert)]
    assert [alert.what for alert in alerts] == ["logits"] * 2
    assert "above 100 (layer 1, head 1, both from 0)" in str(alerts[0].text)


def test_other_ranks_measure_nothing(nano: MakeSpec) -> None:
    backend = build_backend(nano(), SingleRank())
    LogitMonitor(backend, RecordingReporter(), rank=1).begin_step(10)
    model = backend.torch_model()
    assert model is not None and model.model.logit_probe is None
