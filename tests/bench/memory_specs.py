"""Lists the specs whose measured memory is compared with the forecast, each using memory differently."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from profiles.registry import load
from profiles.spec import RunSpec

_SMALL = [
    *("model.hidden_size=192", "model.num_hidden_layers=3", "model.num_attention_heads=3", "model.vocab_size=2048"),
    *("model.qk_nope_head_dim=32", "model.qk_rope_head_dim=32", "model.v_head_dim=64", "model.kv_lora_rank=64"),
    *("model.intermediate_size=512", "train.compile=off", "train.attention=sdpa", "context=384", "micro=2"),
    "optim.name=adamw",
]
_LONG = ["context=5120", "micro=1", "model.num_hidden_layers=2"]
_WIDE = ["model.hidden_size=512", "model.intermediate_size=1408", "model.num_hidden_layers=4", "context=64"]

PRECISIONS = ("fp32", "bf16", "bf16_sr")
CHECKPOINTING = ("none", "selective", "full", "offload")


def _one(*changes: str) -> RunSpec:
    return load("cpu_demo", [*_SMALL, "sequences=2", *changes])


def short() -> Iterator[RunSpec]:
    """Yield ten, for every run of the tests."""
    yield from itertools.islice(whole(), 0, None, 11)


def whole() -> Iterator[RunSpec]:
    """Yield all."""
    for precision, kind, loss, accum in itertools.product(PRECISIONS, CHECKPOINTING, ("fused", "plain"), (1, 2)):
        yield _one(f"precision={precision}", f"checkpointing={kind}", f"loss={loss}", f"sequences={2 * accum}")
    for optimizer, precision, shape in itertools.product(
        ("optim.name=muon", "strategy=states8bit"), ("fp32", "bf16", "bf16_sr"), ([], _WIDE)
    ):
        yield _one(optimizer, f"precision={precision}", "checkpointing=full", "loss=fused", *shape)
    for precision, kind, accum in itertools.product(("fp32", "bf16"), ("none", "full", "offload"), (1, 3)):
        yield _one(
            *("backend=deepspeed", "strategy=offload", f"precision={precision}", f"checkpointing={kind}"),
            *("loss=fused", f"sequences={2 * accum}"),
        )
    # In this order the one of the ten is in fp32: in bf16 it takes a CPU without units for that half a minute.
    for kind, precision in itertools.product(CHECKPOINTING, ("bf16", "fp32")):
        yield _one(f"precision={precision}", f"checkpointing={kind}", "loss=fused", *_LONG, "sequences=1")
    for precision, kind in itertools.product(("fp32", "bf16"), ("none", "full")):
        yield _one(f"precision={precision}", f"checkpointing={kind}", "attention=blocked")
        yield _one(f"precision={precision}", f"checkpointing={kind}", "model.v_head_dim=48")
        yield _one(f"precision={precision}", f"checkpointing={kind}", "model.q_lora_rank=96")
        yield _one(f"precision={precision}", f"checkpointing={kind}", "model.tie_word_embeddings=true")
        yield _one(f"precision={precision}", f"checkpointing={kind}", *_WIDE)
    for kernel, precision, kind in itertools.product(
        ("attention=sdpa", "attention=blocked", "model.v_head_dim=48"), ("fp32", "bf16"), ("none", "full")
    ):
        yield _one("documents=mask", f"precision={precision}", f"checkpointing={kind}", kernel)
    for precision in ("fp32", "bf16"):
        offload = ("backend=deepspeed", "strategy=offload", "optim.name=muon", f"precision={precision}")
        yield _one(*offload, "checkpointing=full", "loss=fused", "sequences=6")


def full_size() -> Iterator[RunSpec]:
    """Yield ``mla-1b`` in the built-in profiles, for each kind of checkpointing that works with fake tensors."""
    for profile in ("pretrain_5080", "longctx_5090", "gpu_fast"):
        for kind in ("none", "selective", "full"):
            yield load(
                profile,
                [f"checkpointing={kind}", "precision=bf16", "compile=off", "attention=sdpa", "launch.backend=auto"],
            )
