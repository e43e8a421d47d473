"""Lists the names and shapes of a model's parameters without torch, and of what Muon orthogonalizes by itself."""

from __future__ import annotations

from collections import Counter

from profiles.model_config import ModelConfig


def parameter_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return the shape of every parameter by its Hugging Face name. A tied head has no entry."""
    c = config
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (c.vocab_size, c.hidden_size)}
    for layer in range(c.num_hidden_layers):
        shapes |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in _layer(c).items()}
    shapes["model.norm.weight"] = (c.hidden_size,)
    if not c.tie_word_embeddings:
        shapes["lm_head.weight"] = (c.vocab_size, c.hidden_size)
    return shapes


def _layer(c: ModelConfig) -> dict[str, tuple[int, ...]]:
    heads = c.num_attention_heads
    query: dict[str, tuple[int, ...]] = {"self_attn.q_proj": (heads * c.qk_head_dim, c.hidden_size)}
    if c.q_lora_rank is not None:
        query = {
            "self_attn.q_a_proj": (c.q_lora_rank, c.hidden_size),
            "self_attn.q_a_layernorm": (c.q_lora_rank,),
            "self_attn.q_b_proj": (heads * c.qk_head_dim, c.q_lora_rank),
        }
    return {
        **query,
        "self_attn.kv_a_proj_with_mqa": (c.kv_lora_rank + c.qk_rope_head_dim, c.hidden_size),
        "self_attn.kv_a_layernorm": (c.kv_lora_rank,),
        "self_attn.kv_b_proj": (heads * (c.qk_nope_head_dim + c.v_head_dim), c.kv_lora_rank),
        "self_attn.o_proj": (c.hidden_size, heads * c.v_head_dim),
        "mlp.gate_proj": (c.intermediate_size, c.hidden_size),
        "mlp.up_proj": (c.intermediate_size, c.hidden_size),
        "mlp.down_proj": (c.hidden_size, c.intermediate_size),
        "input_layernorm": (c.hidden_size,),
        "post_attention_layernorm": (c.hidden_size,),
    }


def head_rows(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return the rows of one head's parts in each projection that holds all heads, by the projection's name."""
    query = (config.qk_head_dim,)
    return {"q_proj": query, "q_b_proj": query, "kv_b_proj": (config.qk_nope_head_dim, config.v_head_dim)}


def orthogonalized_shapes(config: ModelConfig) -> Counter[tuple[int, int]]:
    """Return the (rows, columns) of every matrix that Muon orthogonalizes by itself, and how many there are."""
    heads, found = head_rows(config), Counter[tuple[int, int]]()
    for name, shape in _layer(config).items():
        if len(shape) == 2:
            parts = heads.get(name.rpartition(".")[2])
            for rows in parts or shape[:1]:
                times = config.num_attention_heads if parts else 1
                found[rows, shape[1]] += times * config.num_hidden_layers
    return found
