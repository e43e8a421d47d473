"""The memory of a run before it starts: plain formulas, bytes by part.

Counted from what eager torch keeps for backward, tensor by tensor; not yet held against measured peaks of a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.memory.hardware import Hardware
from profiles.model_config import ModelConfig
from profiles.spec import RunSpec

LOSS_CHUNK_TOKENS = 1024  # of the fused loss
CONTEXT_BYTES = 400 << 20  # a CUDA context with its libraries
INTERPRETER_BYTES = 350 << 20  # a Python process with torch in it


@dataclass(frozen=True, slots=True)
class Forecast:
    """Bytes by part, for the device and for the host."""

    device: dict[str, int]
    host: dict[str, int]

    @property
    def device_total(self) -> int:
        return sum(self.device.values())

    @property
    def host_total(self) -> int:
        return sum(self.host.values())

    def fits(self, hardware: Hardware) -> bool:
        """Whether the free memory of ``hardware`` holds it; unified memory holds device and host together."""
        if hardware.device == "mlx":
            return self.device_total + self.host_total <= hardware.ram_free
        on_device = hardware.device_free is None or self.device_total <= hardware.device_free
        return on_device and self.host_total <= hardware.ram_free


def forecast(spec: RunSpec, hardware: Hardware) -> Forecast:
    """What ``spec`` would hold at its peak on ``hardware``. Microseconds, no torch: fit for every key press."""
    config, params = spec.model.config, spec.model.config.params
    offload = spec.memory.strategy == "offload"
    bf16 = spec.train.precision == "bf16" or (spec.train.precision == "auto" and hardware.device != "cpu")
    width = 2 if bf16 else 4
    tokens = spec.batch.micro * spec.batch.context
    device = {
        # Offload keeps bf16 weights on the device, their masters in RAM; else fp32 masters, cast a layer at a time.
        "weights": params * (2 if offload else 4),
        "gradients": params * (2 if offload else 4),
        "optimizer": 0 if offload else params * (2 if spec.memory.strategy == "states8bit" else 8),
        "activations": _activations(config, tokens, width, spec.memory.checkpointing == "full"),
        "logits": _logits(config, tokens, width, spec.memory.loss == "fused"),
    }
    # fp32 master, gradient and two moments, and the bf16 accumulation buffer: 18 bytes a parameter at worst.
    host = {"optimizer states": params * 18} if offload else {}
    host["interpreter"] = INTERPRETER_BYTES
    if hardware.device == "cpu":
        return Forecast({}, device | host)
    return Forecast(device | {"context": CONTEXT_BYTES}, host)


def _activations(config: ModelConfig, tokens: int, width: int, checkpointed: bool) -> int:
    """What backward needs of the blocks, in bytes; with full checkpointing one block and every block's input."""
    per_layer = _saved_values(config) * width * tokens
    stream = config.hidden_size * width * tokens
    if checkpointed:
        return per_layer + config.num_hidden_layers * stream
    return config.num_hidden_layers * per_layer


def _saved_values(config: ModelConfig) -> int:
    """Values one block keeps a token for backward in eager torch."""
    d, f, heads = config.hidden_size, config.intermediate_size, config.num_attention_heads
    norms = 4 * d  # input and output of both
    latent = 2 * config.kv_lora_rank + config.qk_rope_head_dim
    attention = heads * (2 * config.qk_head_dim + 2 * config.v_head_dim)  # q, k, v and the output
    rotated = heads * config.qk_rope_head_dim + config.qk_rope_head_dim
    unrolled = heads * (config.qk_nope_head_dim + config.v_head_dim)  # kv_b's output
    feed_forward = 4 * f  # gate, up, silu(gate), their product
    return norms + latent + attention + rotated + unrolled + feed_forward


def _logits(config: ModelConfig, tokens: int, width: int, fused: bool) -> int:
    """Logits, their fp32 copy where they are not fp32, the log-softmax kept and the gradient."""
    at_once = min(tokens, LOSS_CHUNK_TOKENS) if fused else tokens
    copies = 4 * 2 + width + (4 if width < 4 else 0)
    return at_once * config.vocab_size * copies
