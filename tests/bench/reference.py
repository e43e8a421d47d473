"""Compares our training step with that of ``DeepseekV3ForCausalLM``: ``python -m tests.bench.reference [ROUNDS]``.

The reference is what a user would write for this model: sdpa attention, bf16 weights, fused AdamW. Ours is the torch
backend, with fp32 masters and with bf16 weights like the reference.
"""

from __future__ import annotations

import sys
from typing import Any

import torch

from model.hf import to_hf_config
from tests.bench.paired import AUTO, CONTEXT, OFF, Batch, Step, compare, ours, spec


def main() -> None:
    compare(
        {
            "transformers": reference(),
            "ours, fp32 masters": ours(*AUTO),
            "ours, bf16 weights": ours(*AUTO, "train.precision=bf16_sr"),
            "ours, everything off": ours(*OFF),
        },
        int(sys.argv[1]) if len(sys.argv) > 1 else 11,
    )


def reference() -> Step:
    from transformers import DeepseekV3Config, DeepseekV3ForCausalLM

    content = to_hf_config(spec().model.config, CONTEXT)
    config = DeepseekV3Config.from_dict(content | {"attn_implementation": "sdpa"})
    model: Any = DeepseekV3ForCausalLM(config)
    model.to(torch.bfloat16).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step(batch: Batch) -> float:
        tokens = torch.from_numpy(batch)
        logits = model(input_ids=tokens[:, :-1], use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return step


if __name__ == "__main__":
    main()
