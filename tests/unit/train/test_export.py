"""An exported directory is loaded by transformers and mlx-lm, and is complete or absent."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
import torch
from mlx_lm.utils import load as mlx_load
from mlx_lm.utils import load_model as mlx_load_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from engine.checkpoints import checkpoint
from engine.checkpoints.evals import EvalResult, add_results
from engine.events.log import LogWriter
from engine.events.types import Start, Step, Val
from engine.train.models import export as exporting
from engine.train.models.export import export
from engine.train.models.sample import TextGenerator
from model.generate import Sampling
from model.transformer import MLATransformer, build
from profiles import registry
from profiles.errors import UserError
from profiles.model_config import NAMED_MODELS, ModelConfig

CONTEXT = 256
TINY = dataclasses.replace(NAMED_MODELS["mla-tiny"], vocab_size=512, initializer_range=0.1)
MODELS = {
    "tiny": TINY,
    "q-lora": dataclasses.replace(TINY, q_lora_rank=48, rms_norm_eps=1e-5, rope_theta=5e5),
    "tied": dataclasses.replace(TINY, tie_word_embeddings=True),
    "yarn": dataclasses.replace(TINY, yarn_factor=4.0, yarn_original_context=64),
    "yarn of the paper": dataclasses.replace(
        TINY, yarn_factor=4.0, yarn_original_context=64, yarn_mscale_all_dim=0.0, rope_theta=5e4
    ),
}
SMALL = dataclasses.replace(TINY, num_hidden_layers=1, hidden_size=32, intermediate_size=32)
TEXTS = ["def parse(text):\n    return text.split()", "for i in range(10):\n    print(i, 'é', '日本')"]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
    mx.set_default_device(mx.cpu)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level tokenizer of 300 ids, like that of the built-in corpus."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        TEXTS * 20,
        trainers.BpeTrainer(
            vocab_size=300, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
        ),
    )
    file = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    made.save(str(file))
    return file


def saved(
    folder: Path, config: ModelConfig, tokenizer: Path | None, dtype: torch.dtype = torch.float32, **facts: Any
) -> Path:
    """Save a checkpoint of an initial model."""
    spec = registry.load("cpu_demo", [f"batch.context={CONTEXT}"])
    spec = dataclasses.replace(spec, model=dataclasses.replace(spec.model, config=config))
    weights = {name: p.detach() for name, p in build(config, 7, dtype=dtype).named_parameters()}
    return checkpoint.save(
        folder, 30, {"model": weights, "optimizer": {}}, {"spec": spec.to_dict(), **facts}, tokenizer
    )[0]


def ours(path: Path, config: ModelConfig) -> MLATransformer:
    model = build(config, 0)
    model.load_state_dict(checkpoint.load(path, ("model",))[0]["model"], strict=False)
    model.tie()
    return model


def ids(tokens: int, config: ModelConfig = TINY) -> torch.Tensor:
    return torch.randint(0, config.vocab_size, (2, tokens), generator=torch.Generator().manual_seed(tokens))


def transformers_model(folder: Path) -> Any:
    loaded: Any = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    model, report = loaded
    assert not any(report.values()), report
    return model


@pytest.mark.parametrize("name", MODELS)
def test_transformers_and_mlx_lm_compute_the_same(name: str, tokenizer: Path, tmp_path: Path) -> None:
    config = MODELS[name]
    path = saved(tmp_path / "run", config, tokenizer)
    done = export(path, tmp_path / "hf")
    assert (done.step, done.dtype, done.tokenizer) == (30, "float32", True)
    theirs, (apple, _) = transformers_model(done.path), mlx_load_model(done.path)
    assert theirs.dtype == torch.float32
    assert theirs.config.max_position_embeddings == CONTEXT
    for tokens in (1, 40, CONTEXT):
        with torch.no_grad():
            wanted = ours(path, config)(ids(tokens))
            logits = theirs(ids(tokens)).logits
        assert (logits - wanted).abs().max().item() <= 1e-5 * wanted.abs().max().item()
        of_mlx = torch.tensor(apple(mx.array(ids(tokens).numpy())).tolist())
        assert (of_mlx - wanted).abs().max().item() <= 1e-4


def test_the_tokenizer_and_the_end_of_text_token_are_exported(tokenizer: Path, tmp_path: Path) -> None:
    done = export(saved(tmp_path / "run", TINY, tokenizer), tmp_path / "hf")
    original, theirs = Tokenizer.from_file(str(tokenizer)), AutoTokenizer.from_pretrained(done.path)
    for text in (*TEXTS, "", " two  spaces ", "a<|endoftext|>b"):
        assert theirs(text)["input_ids"] == original.encode(text).ids
        assert theirs.decode(original.encode(text).ids) == original.decode(original.encode(text).ids, False)
    assert (theirs.eos_token, theirs.eos_token_id, theirs.model_max_length) == ("<|endoftext|>", 0, CONTEXT)
    assert GenerationConfig.from_pretrained(done.path).eos_token_id == 0
    assert transformers_model(done.path).generation_config.eos_token_id == 0
    apple = mlx_load(str(done.path))[1]
    assert apple.encode(TEXTS[0]) == original.encode(TEXTS[0]).ids
    assert apple.eos_token_ids == {0}


@pytest.mark.parametrize(
    ("words", "ends", "end"),
    [
        (["<EOT>"], None, "<EOT>"),
        (["<s>", "</s>"], None, "</s>"),
        (["<stop>", "</s>"], {"": 1}, "<stop>"),
        (["<stop>", "</s>"], {"one": 1, "other": 2}, "</s>"),
        (["<stop>"], {"": 9999}, None),
        (["<stop>"], {"": [1]}, None),
    ],
)
def test_the_end_of_text_is_that_of_the_data_or_a_usual_one(
    words: list[str], ends: dict[str, Any] | None, end: str | None, tmp_path: Path
) -> None:
    made = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    made.add_special_tokens(words)
    made.save(str(tmp_path / "tokenizer.json"))
    path = saved(tmp_path / "run", SMALL, tmp_path / "tokenizer.json", data={"ends": ends})
    done = export(path, tmp_path / "hf")
    id = None if end is None else made.token_to_id(end)
    assert json.loads((done.path / "config.json").read_text())["eos_token_id"] == id
    assert json.loads((done.path / "tokenizer_config.json").read_text()).get("eos_token") == end


def test_transformers_generates_the_same_text(tokenizer: Path, tmp_path: Path) -> None:
    path = saved(tmp_path / "run", TINY, tokenizer)
    prompt = ids(5)[:1]
    theirs = transformers_model(export(path, tmp_path / "hf").path)
    written = theirs.generate(prompt, max_new_tokens=12, do_sample=False, eos_token_id=None, pad_token_id=0)
    for end in range(5, 17):
        with torch.no_grad():
            assert ours(path, TINY)(written[:, :end])[0, -1].argmax() == written[0, end]


@pytest.mark.parametrize(
    ("stored", "requested", "expected"),
    [
        (torch.float32, "bf16", torch.bfloat16),
        (torch.bfloat16, None, torch.bfloat16),
        (torch.bfloat16, "fp32", torch.float32),
    ],
)
def test_dtype(stored: torch.dtype, requested: str | None, expected: torch.dtype, tmp_path: Path) -> None:
    path = saved(tmp_path / "run", TINY, None, stored)
    theirs = transformers_model(export(path, tmp_path / "hf", requested).path)
    weights = checkpoint.load(path, ("model",))[0]["model"]
    assert theirs.dtype == expected
    assert all(torch.equal(p, weights[name].to(expected)) for name, p in theirs.named_parameters())


def test_large_weights_are_split_into_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "run", TINY, None)
    monkeypatch.setattr(exporting, "SHARD_BYTES", 2_000_000)
    done = export(path, tmp_path / "hf")
    files = sorted(file.name for file in done.path.glob("*.safetensors"))
    assert len(files) > 2
    assert files[0] == f"model-00001-of-{len(files):05}.safetensors"
    assert done.bytes == sum(file.stat().st_size for file in done.path.iterdir())
    with torch.no_grad():
        wanted = ours(path, TINY)(ids(9))
        assert torch.allclose(transformers_model(done.path)(ids(9)).logits, wanted, rtol=0, atol=1e-5)
    apple, _ = mlx_load_model(done.path)
    assert torch.allclose(torch.tensor(apple(mx.array(ids(9).numpy())).tolist()), wanted, rtol=0, atol=1e-4)


def test_the_model_card_has_the_curve_and_the_hardware_of_the_log(tokenizer: Path, tmp_path: Path) -> None:
    log = LogWriter(tmp_path / "events.jsonl", 1)
    log.write(Start(device="a card"))
    for step in range(1, 41):  # the checkpoint is of step 30
        log.write(Step(step=step, loss=10 - step / 8, tokens=step * 1000))
        if step % 2 == 0:
            log.write(Val(step=step, loss=9.5, bucket="val", tokens=1))
    log.close()
    add_results(path := saved(tmp_path / "run", TINY, tokenizer), [result("arc.jsonl", "arc", acc=0.25)])
    card = (export(path, tmp_path / "hf", log=log.path).path / "README.md").read_text()
    rows = [line for line in card.splitlines() if re.fullmatch(r"\| [\d,]+ \| .* \|", line)]
    assert len(rows) == 12 and rows[-1] == "| 30 | 30,000 | 6.2500 | 9.5000 |"
    assert "| hardware | a card |" in card and "| arc.jsonl | arc | acc 0.25 | 40 |" in card


def result(name: str, format: str, **metrics: float) -> EvalResult:
    return EvalResult(name=name, format=format, metrics=metrics, examples=40)


def test_without_a_tokenizer_only_the_weights_are_exported(tmp_path: Path) -> None:
    done = export(saved(tmp_path / "run", TINY, None), tmp_path / "hf")
    assert not done.tokenizer
    assert sorted(file.name for file in done.path.iterdir()) == [
        "README.md",
        "config.json",
        "generation_config.json",
        "model.safetensors",
    ]
    assert json.loads((done.path / "config.json").read_text())["eos_token_id"] is None
    assert transformers_model(done.path).generation_config.eos_token_id is None


def test_file_modes_follow_the_umask(tokenizer: Path, tmp_path: Path) -> None:
    done = export(saved(tmp_path / "run", TINY, tokenizer), tmp_path / "hf")
    (tmp_path / "plain").write_text("")
    modes = {file.stat().st_mode for file in (*done.path.iterdir(), tmp_path / "plain")}
    assert len(modes) == 1


def test_an_empty_directory_is_used_and_a_full_one_is_refused(tmp_path: Path) -> None:
    path, out = saved(tmp_path / "run", TINY, None), tmp_path / "deep" / "er" / "hf"
    out.mkdir(parents=True)
    export(path, out)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match="hf: is not empty; choose a new directory"):
        export(path, out)
    with pytest.raises(UserError, match="is a file; choose a new directory"):
        export(path, out / "config.json")
    with pytest.raises(UserError, match="File name too long; nothing was written"):
        export(path, tmp_path / "more" / ("x" * 300))
    assert sorted(tmp_path.rglob("*")) == before


def refused(path: Path, out: Path, message: str) -> None:
    """Assert that the export fails in one line and changes nothing."""
    root = path.parent.parent
    before = sorted(root.rglob("*"))
    with pytest.raises(UserError, match=message) as caught:
        export(path, out)
    assert "\n" not in str(caught.value)
    assert sorted(root.rglob("*")) == before


def test_another_models_tokenizer_is_refused(tokenizer: Path, tmp_path: Path) -> None:
    path = saved(tmp_path / "run", dataclasses.replace(TINY, vocab_size=299), tokenizer)
    refused(path, tmp_path / "hf", "has ids up to 299, the model a vocabulary of 299, .* without it: --no-tokenizer")
    done = export(path, tmp_path / "bare", with_tokenizer=False)
    assert not done.tokenizer and not (done.path / "tokenizer.json").exists()
    assert transformers_model(done.path).config.vocab_size == 299
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    refused(saved(tmp_path / "other", TINY, broken), tmp_path / "hf", "is not a valid tokenizer")


def test_a_prompt_with_ids_beyond_the_vocabulary_is_refused(tokenizer: Path, tmp_path: Path) -> None:
    """An existing run may have such a tokenizer; what it has in common with the model is still of use."""
    ids = Tokenizer.from_file(str(tokenizer)).encode(TEXTS[0]).ids
    path = saved(tmp_path / "run", dataclasses.replace(TINY, vocab_size=max(ids)), tokenizer)
    generator = TextGenerator(path)
    with pytest.raises(UserError, match=f"prompt: .* the id {max(ids)}, the model has a vocabulary of {max(ids)}"):
        generator.generate(TEXTS[0], 4, Sampling())
    assert generator.generate("d", 4, Sampling()).prompt_tokens == 1


def test_an_output_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "run", TINY, None)
    (tmp_path / "file").write_text("")
    refused(path, tmp_path / "file" / "hf", "nothing was written")
    refused(path, tmp_path / ("x" * 300) / "hf", "File name too long")


def test_nothing_is_left_where_the_weights_cannot_be_written(tmp_path: Path) -> None:
    path = saved(tmp_path / "run", TINY, None)
    before = sorted(tmp_path.rglob("*"))
    code = f"""
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
from pathlib import Path
from engine.train.models.export import export
from profiles.errors import UserError
try:
    export(Path({str(path)!r}), Path({str(tmp_path / "new" / "hf")!r}))
except UserError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("; nothing was written\n"), done
    assert len(done.stdout.splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_a_damaged_checkpoint_is_not_exported(tmp_path: Path) -> None:
    path = saved(tmp_path / "run", TINY, None)
    with open(path / "model.safetensors", "r+b") as file:
        file.truncate(1000)
    refused(path, tmp_path / "hf", "is not what was saved; take an earlier checkpoint")
