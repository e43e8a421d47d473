"""--init-from loads weights from both kinds of directory, and refuses those that do not fit before the first step."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
import torch
from mlx.utils import tree_flatten
from mlx_lm.utils import load_model as mlx_load_model
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, DeepseekV3Config, DeepseekV3ForCausalLM

from data.splits import open_split
from engine.checkpoints import checkpoint
from engine.train.backends.build import build_backend
from engine.train.backends.ranks import SingleRank
from engine.train.loop import Trainer
from engine.train.models import pretrained
from engine.train.models.export import export
from engine.train.run_state import RunState
from model.hf import to_hf_config
from model.shapes import parameter_shapes
from model.transformer import build
from profiles import registry
from profiles.errors import UserError
from profiles.model_config import NAMED_MODELS, ModelConfig
from profiles.spec import RunSpec
from tests.unit.train.tiny_runs import RecordingReporter, write_shards
from tui.cli.main import main
from tui.cli.spec_arguments import add_spec_arguments, add_start_arguments, spec_and_start

TINY = dataclasses.replace(NAMED_MODELS["mla-tiny"], num_hidden_layers=2, vocab_size=300)
TIED = dataclasses.replace(TINY, tie_word_embeddings=True)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def spec_of(config: ModelConfig, root: Path = Path("nowhere")) -> RunSpec:
    spec = registry.load("cpu_demo", [f"data.root={root}"])
    return dataclasses.replace(spec, model=dataclasses.replace(spec.model, name="mine", config=config))


def ours(folder: Path, config: ModelConfig = TINY, tokenizer: Path | None = None) -> Path:
    weights = {name: p.detach() for name, p in build(config, 7).named_parameters()}
    return checkpoint.save(
        folder, 3, {"model": weights, "optimizer": {}}, {"spec": spec_of(config).to_dict()}, tokenizer
    )[0]


def theirs(folder: Path, config: ModelConfig = TINY, shard: str = "5GB") -> Path:
    """What ``save_pretrained`` of transformers writes."""
    torch.manual_seed(7)
    model = DeepseekV3ForCausalLM(DeepseekV3Config(**to_hf_config(config, 256)))
    model.save_pretrained(folder, max_shard_size=shard)
    return folder


def exported(folder: Path, config: ModelConfig = TINY) -> Path:
    return export(ours(folder / "run", config), folder / "hf").path


@pytest.mark.parametrize("config", [TINY, TIED, dataclasses.replace(TINY, q_lora_rank=24)])
@pytest.mark.parametrize("make", [ours, theirs, exported])
def test_both_kinds_of_directory_load(
    make: Callable[[Path, ModelConfig], Path], config: ModelConfig, tmp_path: Path
) -> None:
    path = make(tmp_path / "there", config)
    pretrained.check_compatible(path, spec_of(config))
    weights = pretrained.load_weights(path)
    for name, parameter in build(config, 0).named_parameters():
        assert weights[name].shape == parameter.shape


def test_exported_weights_load_unchanged(tmp_path: Path) -> None:
    path = ours(tmp_path / "run")
    back = pretrained.load_weights(export(path, tmp_path / "hf").path)
    held = pretrained.load_weights(path)
    assert back.keys() == held.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in held.items())


def test_shards_are_read_together(tmp_path: Path) -> None:
    folder = theirs(tmp_path / "hf", shard="1MB")
    assert len(list(folder.glob("*.safetensors"))) > 2
    pretrained.check_compatible(folder, spec_of(TINY))
    whole = pretrained.load_weights(theirs(tmp_path / "whole"))
    parts = pretrained.load_weights(folder)
    assert all(torch.equal(parts[name], tensor) for name, tensor in whole.items())


# Settings that change what the weights compute, and that a run need not name.
FUNCTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "theta": {"rope_theta": 5e5},
    "yarn": {"yarn_factor": 8.0, "yarn_original_context": 16, "yarn_mscale_all_dim": 0.0},
    "deepseek's yarn": {
        "yarn_factor": 8.0,
        "yarn_original_context": 16,
        "yarn_mscale": 0.7,
        "yarn_mscale_all_dim": 0.7,
    },
    "eps and q latent": {"rms_norm_eps": 1e-3, "q_lora_rank": 24},
    "tied": {"tie_word_embeddings": True},
}
SHARP = dataclasses.replace(TINY, initializer_range=0.2)  # so that attention looks at positions


def adopted(path: Path, spec: RunSpec, *given: str) -> RunSpec:
    spec, _ = pretrained.adopt_config(path, spec, set(given), "--init-from")
    pretrained.check_compatible(path, spec)
    return spec


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_first_loss_is_that_of_transformers(name: str, tmp_path: Path) -> None:
    """The run's own model has other rope and norms; those of the weights decide."""
    write_shards(tmp_path / "shards")
    folder = theirs(tmp_path / "hf", dataclasses.replace(SHARP, **FUNCTIONS[name]))
    options = ("steps=1", "val_every=0", "save_every=0", "context=64", "sequences=4", "micro=2", "precision=fp32")
    spec = registry.load("cpu_demo", [*options, "compile=off", f"data.root={tmp_path / 'shards'}"])
    spec = dataclasses.replace(spec, model=dataclasses.replace(spec.model, name="mine", config=TINY))
    spec = adopted(folder, spec)
    log = RecordingReporter()
    Trainer(RunState(spec), build_backend(spec, SingleRank()), log, tmp_path / "out").run(None, folder)

    data = open_split(spec, "train")
    windows = torch.from_numpy(data.read_batch(data.initial_cursor(), 4)[0])
    model = DeepseekV3ForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        logits = model(windows[:, :-1]).logits
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten()).item()
    assert log.losses()[1] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("make", [ours, exported])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_settings_that_the_user_did_not_give_are_those_of_the_weights(
    name: str, make: Callable[[Path, ModelConfig], Path], tmp_path: Path
) -> None:
    config = dataclasses.replace(TINY, **FUNCTIONS[name])
    path = make(tmp_path, config)
    spec, said = pretrained.adopt_config(
        path, spec_of(dataclasses.replace(TINY, initializer_range=0.5)), set(), "--init-from"
    )
    assert spec.model.config == dataclasses.replace(config, initializer_range=0.5)
    assert len(said) == (name != "plain")
    for key in FUNCTIONS[name]:
        if getattr(config, key) != getattr(TINY, key):
            assert f"{key} = {json.dumps(getattr(config, key))}" in said[0]


@pytest.mark.parametrize("option", ["--init-from", "--resume"])
def test_a_difference_that_the_user_set_is_refused(option: str, tmp_path: Path) -> None:
    path, other = ours(tmp_path), spec_of(dataclasses.replace(TINY, rms_norm_eps=1e-3))
    with pytest.raises(UserError, match=f"{option} {path}: rms_norm_eps: 1e-06 there, 0.001 in model mine; use -s"):
        pretrained.adopt_config(path, other, {"model.rms_norm_eps"}, option)


def test_a_new_stage_may_change_rope_where_the_user_says_so(tmp_path: Path) -> None:
    path = exported(tmp_path)
    changes: dict[str, Any] = {"rope_theta": 5e5, "yarn_factor": 8.0, "yarn_original_context": 256}
    wanted = dataclasses.replace(TINY, **changes)
    spec, said = pretrained.adopt_config(path, spec_of(wanted), {f"model.{key}" for key in changes}, "--init-from")
    pretrained.check_compatible(path, spec)
    assert spec.model.config == wanted
    assert len(said) == 3
    assert f"--init-from {path}: rope_theta becomes 500000.0, as you set it; the weights were trained with" in said[0]
    assert adopted(path, spec_of(wanted)).model.config == TINY  # not named by the user, not changed


def test_what_a_profile_or_an_option_sets_is_given(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text("[model]\nrope_theta = 2e4\n[optim]\nlr = 1e-3\n")
    profile = tmp_path / "mine.toml"
    profile.write_text(f'extends = "{tmp_path / "base.toml"}"\n[model]\nrms_norm_eps = 1e-5\n')
    given = registry.given_keys(str(profile), ["model.yarn_factor=1", "micro=2"])
    assert {key for key in given if key.startswith("model.")} == {
        "model.rope_theta",
        "model.rms_norm_eps",
        "model.yarn_factor",
    }
    # Another model is none of the profile's any more.
    assert registry.given_keys(str(profile), ["model.name=mla-1b"]) & given == {"optim.lr"}


def test_a_new_run_takes_the_shape_and_its_name_from_the_weights(tmp_path: Path) -> None:
    here = spec_of(dataclasses.replace(TINY, num_hidden_layers=3, hidden_size=256, vocab_size=512))
    spec, said = pretrained.adopt_config(exported(tmp_path), here, set(), "--init-from")
    assert (spec.model.config, spec.model.name) == (TINY, "hf")
    taken = "hidden_size = 192, num_hidden_layers = 2, vocab_size = 300"
    assert said == [f"--init-from {tmp_path / 'hf'}: takes {taken} from the weights"]
    with pytest.raises(UserError, match="hidden_size: 192 there, 256 in model mine"):
        pretrained.adopt_config(tmp_path / "hf", here, set(), "--resume")
    with pytest.raises(UserError, match="hidden_size: 192 there, 256 in model hf; use -s"):
        pretrained.adopt_config(tmp_path / "hf", here, {"model.hidden_size"}, "--init-from")


def compiled(path: Path) -> None:
    """Name the tensors as torch.compile does, of the whole model and of a block."""

    def rename(tensors: dict[str, Any]) -> None:
        for name in list(tensors):
            short = name.replace("layers.0.", "layers.0._orig_mod.")
            tensors[f"_orig_mod.{short}"] = tensors.pop(name)

    rewrite(path, rename)


def converted(path: Path) -> None:
    """Save the folder as mlx-lm does."""
    model, _ = mlx_load_model(path)
    mx.save_safetensors(str(path / "model.safetensors"), dict(tree_flatten(model.parameters())))
    assert "model.layers.0.self_attn.embed_q.weight" in load_file(path / "model.safetensors")


@pytest.mark.parametrize("save", [compiled, converted])
def test_names_of_other_programs_are_known(save: Callable[[Path], None], tmp_path: Path) -> None:
    path = exported(tmp_path)
    wanted = {name: tensor.clone() for name, tensor in pretrained.load_weights(path).items()}
    save(path)
    pretrained.check_compatible(path, spec_of(TINY))
    found = pretrained.load_weights(path)
    assert all(torch.equal(found[name], wanted[name]) for name in parameter_shapes(TINY))


def test_the_command_line_says_what_it_takes_and_refuses_what_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLA_TUI_HOME", str(tmp_path / "home"))
    write_shards(tmp_path / "shards")
    path = ours(tmp_path / "run", dataclasses.replace(TINY, rope_theta=5e5))
    model = ("-s", "model.num_hidden_layers=2", "-s", "model.vocab_size=300")
    command = ["launch", "-p", "cpu_demo", *model, "-s", f"data.root={tmp_path / 'shards'}", "--dry-run"]
    assert main([*command, "--init-from", str(path)]) == 0
    assert capsys.readouterr().err == f"mla-tui: --init-from {path}: takes rope_theta = 500000.0 from the weights\n"
    assert main([*command, "--init-from", str(path), "-s", "model.rms_norm_eps=1e-5"]) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1) and "rms_norm_eps: 1e-06 there, 1e-05 in model mla-tiny" in err
    # A checkpoint that goes on under a named profile is the same case.
    parser = argparse.ArgumentParser()
    add_spec_arguments(parser)
    add_start_arguments(parser)
    spec, _, _ = spec_and_start(parser.parse_args([*command[1:-1], "--resume", str(path)]))
    assert spec.model.config.rope_theta == 5e5
    taken, summary = capsys.readouterr().err.splitlines()
    assert taken == f"mla-tui: --resume {path}: takes rope_theta = 500000.0 from the weights"
    assert "differs: model.name mine → mla-tiny; the learning rate" in summary


@pytest.mark.parametrize("make", [ours, exported])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab_size": 512}, "vocab_size: 300 there, 512 in model mine; use -s model.vocab_size=300 or a profile"),
        ({"rms_norm_eps": 1e-5}, "rms_norm_eps: 1e-06 there, 1e-05 in model mine; use -s model.rms_norm_eps=1e-06 or"),
        (
            {"tie_word_embeddings": True},
            "tie_word_embeddings: false there, true in model mine; use -s model.tie",
        ),
        ({"q_lora_rank": 24}, "q_lora_rank: null there, 24 in model mine; use a profile with that model"),
        (
            {"num_hidden_layers": 3, "hidden_size": 256, "vocab_size": 512},
            "hidden_size: 192 there, 256 in model mine (num_hidden_layers, vocab_size differ too); use a profile with",
        ),
    ],
)
def test_another_config_is_refused_with_both_values(
    make: Callable[[Path], Path], changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = make(tmp_path)
    with pytest.raises(UserError) as caught:
        pretrained.check_compatible(path, spec_of(dataclasses.replace(TINY, **changes)))
    assert f"--init-from {path}: {message}" in str(caught.value)
    assert "\n" not in str(caught.value)


def rewrite(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    tensors = {name: tensor.clone() for name, tensor in load_file(path / "model.safetensors").items()}
    change(tensors)
    save_file(tensors, path / "model.safetensors")


def edit(file: Path, **changes: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def cut(path: Path) -> None:
    with open(path / "model.safetensors", "r+b") as file:
        file.truncate(100_000)


def index(path: Path, names: object) -> None:
    (path / "model.safetensors").unlink()
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))


NORM = "model.norm.weight"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p: rewrite(p, lambda t: t.pop(NORM)), "model.norm.weight is missing"),
        (
            lambda p: rewrite(p, lambda t: t.update({NORM: t[NORM][:5].clone()})),
            "norm.weight is (5,) and should be (192,)",
        ),
        (lambda p: rewrite(p, lambda t: t.update({NORM: t[NORM].to(torch.int8)})), "of dtype I8, not one of F64"),
        (
            lambda p: rewrite(p, lambda t: t.update({"layers.2.eh_proj": t[NORM].clone()})),
            "eh_proj is not part",
        ),
        (cut, "is damaged or not whole"),
        (lambda p: os.truncate(p / "model.safetensors", 50_000_000), "is damaged or not whole"),
        (lambda p: (p / "model.safetensors").write_bytes(b""), "is damaged or not whole"),
        (lambda p: (p / "model.safetensors").write_bytes(b"\xff" * 64), "is damaged or not whole"),
        (lambda p: (p / "model.safetensors").write_bytes(b"\x02" + bytes(7) + b"[]"), "is damaged or not whole"),
        (lambda p: (p / "model.safetensors").write_bytes(b"\x02" + bytes(7) + b"{}"), "is damaged or not whole"),
        (lambda p: (p / "model.safetensors").unlink(), "neither model.safetensors nor model.safetensors.index.json"),
        (lambda p: index(p, {NORM: "model-1.safetensors"}), "model-1.safetensors is missing, which"),
        (lambda p: index(p, {NORM: "../run/x.safetensors"}), "index.json: is damaged"),
        (lambda p: index(p, {NORM: 5}), "index.json: is damaged"),
        (lambda p: index(p, []), "index.json: is damaged"),
        (lambda p: (p / "config.json").write_text("{"), "config.json: is not valid JSON"),
        (lambda p: edit(p / "config.json", quantization={"bits": 4}), "config.json: its weights are quantised; take"),
        (
            lambda p: rewrite(p, lambda t: t.update({f"_orig_mod.{NORM}": t[NORM].clone()})),
            "model.norm.weight is there twice, compiled and not; remove one",
        ),
        (lambda p: edit(p / "config.json", model_type="llama"), "config.json: model_type: 'llama' is not supported"),
        (lambda p: edit(p / "config.json", rope_parameters={"rope_type": "linear"}), "'linear'"),
        (lambda p: edit(p / "config.json", hidden_size="192"), "hidden_size: '192'"),
    ],
)
def test_weights_that_cannot_be_loaded_are_refused_in_one_line(
    spoil: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    path = exported(tmp_path)
    spoil(path)
    with pytest.raises(UserError) as caught:
        pretrained.check_compatible(path, spec_of(TINY))
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def tokenizer(file: Path, *words: str) -> Path:
    """Save a tokenizer of whole words with ids in the given order."""
    from tokenizers import Tokenizer, models

    file.parent.mkdir(parents=True, exist_ok=True)
    made = Tokenizer(models.WordLevel({word: id for id, word in enumerate(words)}, unk_token=words[0]))
    made.add_special_tokens(["<|endoftext|>"])
    made.save(str(file))
    return file


def test_data_of_another_tokenizer_is_refused(tmp_path: Path) -> None:
    path = ours(tmp_path / "run", TINY, tokenizer(tmp_path / "one.json", "a", "b", "c"))
    spec = spec_of(TINY, tmp_path / "data")
    pretrained.check_compatible(path, spec)  # nothing to compare with
    phase = tmp_path / "data" / spec.data.phase
    tokenizer(phase / "tokenizer.json", "a", "b", "c")
    pretrained.check_compatible(path, spec)
    grown = json.loads((path / "tokenizer.json").read_text())
    grown["added_tokens"].append({**grown["added_tokens"][0], "id": 4, "content": "<|im_end|>"})
    more = exported(tmp_path / "more")
    (more / "tokenizer.json").write_text(json.dumps(grown))
    pretrained.check_compatible(more, spec)
    for other in (("a", "c", "b"), ("a", "b"), ("a", "b", "c", "d")):
        tokenizer(phase / "tokenizer.json", *other)
        with pytest.raises(UserError, match="so the ids mean other texts") as caught:
            pretrained.check_compatible(path, spec)
        assert str(path) in str(caught.value) and str(phase) in str(caught.value)


def test_a_tokenizer_saved_again_by_transformers_is_the_same(tmp_path: Path) -> None:
    path = ours(tmp_path / "run", TINY, tokenizer(tmp_path / "data" / "phase1" / "tokenizer.json", "a", "b", "c"))
    folder = export(path, tmp_path / "hf").path
    again = theirs(tmp_path / "again")
    AutoTokenizer.from_pretrained(folder).save_pretrained(again)
    assert (again / "tokenizer.json").read_bytes() != (folder / "tokenizer.json").read_bytes()
    pretrained.check_compatible(again, spec_of(TINY, tmp_path / "data"))
