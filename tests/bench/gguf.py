"""Runs exported GGUF files of every shape and dtype in a real llama.cpp and compares text and loss with our model's."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from data.pack.training import train_tokenizer
from data.tokenizer import load_tokenizer
from engine.train.models.export_gguf import export_gguf
from profiles.model_config import NAMED_MODELS
from tests.llama import llama
from tests.unit.train.test_export import TEXTS, saved

_TOKENS = 64
_TINY = dataclasses.replace(NAMED_MODELS["mla-tiny"], vocab_size=512, initializer_range=0.1)
_SHAPES = {
    "4 layers": _TINY,
    "27 layers": dataclasses.replace(_TINY, num_hidden_layers=27),
    "27 layers, q-lora": dataclasses.replace(_TINY, num_hidden_layers=27, q_lora_rank=48),
    "tied": dataclasses.replace(_TINY, tie_word_embeddings=True),
    "YaRN": dataclasses.replace(_TINY, yarn_factor=4.0, yarn_original_context=64),
    "YaRN, mscale 0.7": dataclasses.replace(_TINY, yarn_factor=4.0, yarn_original_context=64, yarn_mscale=0.7),
    "YaRN of the paper": dataclasses.replace(
        _TINY, yarn_factor=4.0, yarn_original_context=64, yarn_mscale_all_dim=0.0, q_lora_rank=48
    ),
    "nope width 24": dataclasses.replace(_TINY, qk_nope_head_dim=24),
}
_DTYPES = ("fp32", "f16", "bf16", "q8_0")


def bench_gguf(folder: Path) -> None:
    """Print for each shape and dtype how many of 64 greedy tokens agree, and both losses on prompt and text."""
    if why := llama.missing():
        print(f"gguf: {why}")
        return
    tokenizer = folder / "tokenizer.json"
    tokenizer.write_text(train_tokenizer(TEXTS * 20, 300))
    prompt = load_tokenizer(tokenizer).encode(TEXTS[0]).ids
    print(f"{'shape':20} dtype  equal  behind  llama.cpp    ours  of fp32")
    for shape, config in _SHAPES.items():
        path = saved(folder / shape.replace(" ", "-"), config, tokenizer)
        exact = llama.model_of(export_gguf(path, folder / f"{shape}.gguf", "fp32").path, config)
        for dtype in _DTYPES:
            file = export_gguf(path, folder / f"{shape}-{dtype}.gguf", dtype).path
            found = llama.compare(file, config, prompt, _TOKENS, TEXTS)
            whole = llama.loss_of(exact, [*prompt, *found["greedy"]])
            print(
                f"{shape:20} {dtype:5}  {found['equal']:5}  {found['behind']:6.4f}"
                f"  {found['loss']:9.5f} {found['ours']:7.5f} {found['ours'] / whole - 1:+8.2%}"
            )
