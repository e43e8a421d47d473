"""The memory of a run before it starts: plain formulas, bytes by part.

Counted from what eager torch keeps for backward, tensor by tensor; not yet held against measured peaks of a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.memory.hardware import Hardware
from profiles.model_config import ModelConfig
from profiles.spec import RunSpec

LOSS_CHUNK_TOKENS = 1024  # of the fused loss
TILE_TOKENS = 4096  # of the feed-forward under checkpointing offload
STATE_BLOCK = 256  # values of an 8-bit optimizer state that share a scale
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
    precision = spec.train.precision
    width = 2 if precision.startswith("bf16") or (precision == "auto" and hardware.device != "cpu") else 4
    tokens = spec.batch.micro * spec.batch.context
    device = {
        # Offload keeps bf16 weights on the device, their masters in RAM.
        "weights": params * 2 if offload else weight_bytes(spec),
        "weight casts": 0 if offload else _cast_bytes(spec, width),
        # Without masters the gradients of several micro-batches are summed in fp32, that of one stays in bf16.
        "gradients": params * (2 if offload or (precision == "bf16_sr" and spec.accum == 1) else 4),
        "optimizer": 0 if offload else optimizer_bytes(spec),
        "activations": _activations(config, tokens, width, spec.memory.checkpointing),
        "logits": _logits(config, tokens, width, spec.memory.loss == "fused"),
    }
    # fp32 master, gradient and two moments, and the bf16 accumulation buffer: 18 bytes a parameter at worst.
    host = {"optimizer states": params * 18} if offload else {}
    if spec.memory.checkpointing == "offload":
        host["stream"] = config.num_hidden_layers * config.hidden_size * width * tokens
    host["interpreter"] = INTERPRETER_BYTES
    if hardware.device == "cpu":
        return Forecast({}, device | host)
    return Forecast(device | {"context": CONTEXT_BYTES}, host)


def weight_bytes(spec: RunSpec) -> int:
    """The weights an optimizer steps: fp32 masters, or bf16 where there are none."""
    return spec.model.config.params * (2 if spec.train.precision == "bf16_sr" else 4)


def optimizer_bytes(spec: RunSpec) -> int:
    """What the optimizer keeps between steps, wherever it lies."""
    config = spec.model.config
    if spec.memory.strategy == "states8bit":
        return config.params * 2 + config.params * 2 * 4 // STATE_BLOCK  # a code each, an fp32 scale for each block
    if spec.optim.name == "muon":
        return config.params * 4 + config.embedding_params * 4  # one momentum; embedding and head have two moments
    return config.params * 8


def _cast_bytes(spec: RunSpec, width: int) -> int:
    """The bf16 copies of fp32 weights that backward needs: of every block, or of the one it is at."""
    if width == 4 or spec.train.precision == "bf16_sr":
        return 0
    config = spec.model.config
    blocks = (config.params - config.embedding_params) * 2
    return blocks if spec.memory.checkpointing in ("auto", "none") else blocks // config.num_hidden_layers


def _activations(config: ModelConfig, tokens: int, width: int, checkpointing: str) -> int:
    """What backward needs of the blocks, in bytes, while it is at one of them.

    That one is whole; of the others what ``memory.checkpointing`` keeps: all, the stream and the results of the
    projections, the stream, or (offload, whose feed-forward comes in tiles) nothing on the device.
    """
    layers, stream = config.num_hidden_layers, config.hidden_size
    attention, feed_forward = _attention_values(config), _feed_forward_values(config)
    if checkpointing == "offload":
        return width * ((attention + 2 * stream) * tokens + feed_forward * min(tokens, TILE_TOKENS))
    if checkpointing == "full":
        return width * tokens * (attention + feed_forward + layers * stream)
    if checkpointing == "selective":
        return width * tokens * (attention + feed_forward + layers * (stream + _projected_values(config)))
    return width * tokens * layers * (attention + feed_forward)


def _attention_values(config: ModelConfig) -> int:
    """Values the attention half of a block keeps a token for backward in eager torch, its norm included."""
    norm = 2 * config.hidden_size  # input and output
    latent = 2 * config.kv_lora_rank + config.qk_rope_head_dim
    kernel = config.num_attention_heads * (2 * config.qk_head_dim + 2 * config.v_head_dim)  # q, k, v and the output
    rotated = (config.num_attention_heads + 1) * config.qk_rope_head_dim
    return norm + latent + kernel + rotated + _unrolled_values(config)


def _feed_forward_values(config: ModelConfig) -> int:
    """The same of the other half: norm, gate, up, silu(gate) and their product."""
    return 2 * config.hidden_size + 4 * config.intermediate_size


def _projected_values(config: ModelConfig) -> int:
    """Results a token of a block's projections and of its attention kernel."""
    heads = config.num_attention_heads
    query = heads * config.qk_head_dim + (config.q_lora_rank or 0)
    attended = heads * config.v_head_dim
    written = 2 * config.hidden_size
    return query + config.cached_values + _unrolled_values(config) + attended + written + 2 * config.intermediate_size


def _unrolled_values(config: ModelConfig) -> int:
    return config.num_attention_heads * (config.qk_nope_head_dim + config.v_head_dim)


def _logits(config: ModelConfig, tokens: int, width: int, fused: bool) -> int:
    """Logits, their fp32 copy where they are not fp32, the log-softmax kept and the gradient."""
    at_once = min(tokens, LOSS_CHUNK_TOKENS) if fused else tokens
    copies = 4 * 2 + width + (4 if width < 4 else 0)
    return at_once * config.vocab_size * copies
