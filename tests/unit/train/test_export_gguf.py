"""An exported GGUF file holds the weights, says what llama.cpp needs, and is complete or absent."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFReader

from data.pack.training import train_tokenizer
from data.tokenizer import load_tokenizer
from engine.checkpoints import checkpoint
from engine.train.models.export_gguf import export_gguf
from profiles.errors import UserError
from profiles.model_config import ModelConfig
from tests.llama import llama
from tests.unit.train.test_export import MODELS, TEXTS, TINY, saved
from tui.cli.main import main

SMALL = dataclasses.replace(TINY, num_hidden_layers=2, q_lora_rank=32)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One as data pack trains it."""
    file = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    file.write_text(train_tokenizer(TEXTS * 20, 300))
    return file


def keys(file: Path) -> dict[str, Any]:
    return {name: field.contents() for name, field in GGUFReader(file).fields.items()}


@pytest.mark.parametrize("name", MODELS)
def test_the_file_holds_every_weight(name: str, tokenizer: Path, tmp_path: Path) -> None:
    config = MODELS[name]
    path = saved(tmp_path / "run", config, tokenizer)
    done = export_gguf(path, tmp_path / "new" / "model.gguf", "fp32")
    assert (done.step, done.dtype, done.tokenizer, done.bytes) == (30, "fp32", True, done.path.stat().st_size)
    weights = checkpoint.load(path, ("model",))[0]["model"]
    for key, value in llama.model_of(done.path, config).named_parameters():
        assert torch.equal(value, weights[key]), key
    found = keys(done.path)
    assert found["deepseek2.attention.q_lora_rank"] == (config.q_lora_rank or 0)
    assert found["deepseek2.context_length"] == 256
    assert ("deepseek2.rope.scaling.factor" in found) == (config.yarn_factor > 1)
    assert ("output.weight" in {one.name for one in GGUFReader(done.path).tensors}) != config.tie_word_embeddings


def test_a_layer_of_nothing_follows_where_llama_cpp_would_not_read_a_query_latent(tmp_path: Path) -> None:
    config = dataclasses.replace(SMALL, num_hidden_layers=27, hidden_size=64, intermediate_size=32)
    path = saved(tmp_path / "run", config, None)
    done = export_gguf(path, tmp_path / "model.gguf", "fp32")
    weights = checkpoint.load(path, ("model",))[0]["model"]
    assert all(torch.equal(p, weights[key]) for key, p in llama.model_of(done.path, config).named_parameters())
    assert keys(done.path)["deepseek2.block_count"] == 28


@pytest.mark.parametrize(("dtype", "close"), [("f16", 1e-3), ("bf16", 8e-3), ("q8_0", 8e-3)])
def test_matrices_are_rounded_and_norms_are_not(dtype: str, close: float, tmp_path: Path) -> None:
    # The nope width, the row of attn_k_b, is no multiple of 32.
    config = dataclasses.replace(TINY, qk_nope_head_dim=24)
    path = saved(tmp_path / "run", config, None)
    done = export_gguf(path, tmp_path / "model.gguf", dtype)
    weights = checkpoint.load(path, ("model",))[0]["model"]
    for key, value in llama.model_of(done.path, config).named_parameters():
        error = (value - weights[key]).abs().max() / weights[key].abs().max()
        assert error <= (close if value.dim() > 1 else 0), key
    kinds = {one.name: one.tensor_type for one in GGUFReader(done.path).tensors}
    assert kinds["output_norm.weight"] == GGMLQuantizationType.F32
    assert kinds["blk.0.ffn_up.weight"].name == dtype.upper()
    assert kinds["blk.0.attn_k_b.weight"].name == ("F16" if dtype == "q8_0" else dtype.upper())
    assert not done.tokenizer and keys(done.path)["tokenizer.ggml.model"] == "none"


def test_the_tokenizer_is_written_with_its_end(tokenizer: Path, tmp_path: Path) -> None:
    found = keys(export_gguf(saved(tmp_path / "run", TINY, tokenizer), tmp_path / "model.gguf").path)
    assert (found["tokenizer.ggml.model"], found["tokenizer.ggml.pre"]) == ("gpt2", "qwen2")
    assert found["tokenizer.ggml.tokens"][found["tokenizer.ggml.eos_token_id"]] == "<|endoftext|>"
    assert len(found["tokenizer.ggml.tokens"]) == len(found["tokenizer.ggml.token_type"]) == TINY.vocab_size
    assert found["tokenizer.ggml.token_type"][0] == 3 and found["tokenizer.ggml.token_type"][-1] == 5
    assert found["tokenizer.ggml.add_bos_token"] is False
    assert {"Ġ", "def"} & set(found["tokenizer.ggml.tokens"]) and found["tokenizer.ggml.merges"]


def of(tokenizer: Path, **changes: Any) -> Path:
    changed = tokenizer.with_name("changed.json")
    changed.write_text(json.dumps(json.loads(tokenizer.read_text()) | changes))
    return changed


SPACE = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
DIGITS = {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, {**SPACE}]}
WORDS = {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pre_tokenizer": SPACE}, "puts a space before a text, llama.cpp does not; export without it: --no-tokenizer"),
        ({"pre_tokenizer": DIGITS}, "puts a space before a text"),
        ({"pre_tokenizer": {**DIGITS, "pretokenizers": DIGITS["pretokenizers"][:1]}}, "is not byte-level"),
        ({"pre_tokenizer": None}, "is not byte-level; GGUF takes byte-level BPE"),
        ({"normalizer": {"type": "Lowercase"}}, "changes text ('Lowercase'), llama.cpp does not"),
        ({"model": WORDS, "added_tokens": []}, "is a tokenizer of type 'WordLevel'; GGUF takes byte-level BPE"),
    ],
)
def test_a_tokenizer_that_gguf_cannot_carry_is_named(
    changes: dict[str, Any], message: str, tokenizer: Path, tmp_path: Path
) -> None:
    path = saved(tmp_path / "run", TINY, of(tokenizer, **changes))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError) as caught:
        export_gguf(path, tmp_path / "model.gguf")
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before
    assert not export_gguf(path, tmp_path / "model.gguf", with_tokenizer=False).tokenizer


def test_what_is_there_is_kept(tmp_path: Path) -> None:
    path = saved(tmp_path / "run", SMALL, None)
    (tmp_path / "there.gguf").write_text("mine")
    with pytest.raises(UserError, match=r"there\.gguf: exists; name a new file"):
        export_gguf(path, tmp_path / "there.gguf")
    with pytest.raises(UserError, match="exists; name a new file"):
        export_gguf(path, tmp_path)
    with pytest.raises(UserError, match=r"there\.gguf/x: .*; nothing was written"):
        export_gguf(path, tmp_path / "there.gguf" / "x")
    assert (tmp_path / "there.gguf").read_text() == "mine"


def test_values_beyond_float16_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "run", SMALL, None, torch.bfloat16)
    state = checkpoint.load(path, ("model",))[0]
    state["model"]["model.layers.1.mlp.up_proj.weight"][3, 5] = 1e5
    metadata = {"spec": checkpoint.metadata(path)["spec"]}
    path = checkpoint.save(tmp_path / "large", 30, {**state, "optimizer": {}}, metadata, None)[0]
    with pytest.raises(
        UserError, match=r"1\.mlp\.up_proj\.weight has values that float16 .*; export with --dtype bf16"
    ):
        export_gguf(path, tmp_path / "model.gguf")
    assert not (tmp_path / "model.gguf").exists()
    assert export_gguf(path, tmp_path / "model.gguf", "bf16").dtype == "bf16"


def test_the_command_takes_the_format_from_the_name(
    tokenizer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = saved(tmp_path / "run", SMALL, tokenizer), tmp_path / "model.gguf"
    assert main(["export", str(path), str(out)]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    assert out.read_bytes()[:4] == b"GGUF"
    assert main(["export", str(path), str(tmp_path / "hf"), "--dtype", "q8_0"]) == 2
    assert "--dtype q8_0: --format hf takes fp32, bf16" in capsys.readouterr().err
    assert not (tmp_path / "hf").exists()


@pytest.mark.skipif(bool(llama.missing()), reason=llama.missing())
def test_llama_cpp_writes_the_same_text(tokenizer: Path, tmp_path: Path) -> None:
    """The other shapes and dtypes: python -m tests.bench gguf."""
    config: ModelConfig = dataclasses.replace(SMALL, yarn_factor=4.0, yarn_original_context=64, yarn_mscale=0.7)
    done = export_gguf(saved(tmp_path / "run", config, tokenizer), tmp_path / "model.gguf", "f16")
    ids = load_tokenizer(tokenizer).encode(TEXTS[0]).ids
    found = llama.compare(done.path, config, ids, 64, TEXTS)
    assert found["tokens"] == [load_tokenizer(tokenizer).encode(text).ids for text in TEXTS]
    assert found["equal"] >= 60 and found["behind"] < 1e-2  # f16 rounds activations too, which decides ties
    assert found["loss"] == pytest.approx(found["ours"], rel=1e-3)
    assert np.median(found["gaps"]) > 1e-3  # it was a choice
