"""Profiles: built-in ones, the user's, extends, and ``-s`` overrides."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.preflight import check_backend, resolve_spec
from profiles import registry
from profiles.errors import SpecError, UserError
from profiles.foreign_keys import OUR_KEYS
from profiles.spec import RunSpec, known_keys


@pytest.fixture(autouse=True)
def profiles_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The empty folder of the user's profiles."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    folder = tmp_path / "mla-tui" / "profiles"
    folder.mkdir(parents=True)
    return folder


def refused(name: str, *overrides: str) -> str:
    with pytest.raises(SpecError) as caught:
        registry.load(name, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "model", "context", "micro", "accum", "strategy"),
    [
        ("cpu_demo", "mla-tiny", 256, 8, 1, "auto"),
        ("pretrain_5080", "mla-1b", 2048, 1, 96, "auto"),
        ("longctx_5090", "mla-1b", 16384, 1, 16, "auto"),
        ("mac_m4_pro", "mla-1b", 2048, 1, 96, "device"),
        ("gpu_fast", "mla-1b", 2048, 1, 96, "device"),
    ],
)
def test_the_built_in_profiles(name: str, model: str, context: int, micro: int, accum: int, strategy: str) -> None:
    spec = registry.load(name)
    assert (spec.model.name, spec.batch.context, spec.batch.micro, spec.accum) == (model, context, micro, accum)
    assert spec.memory.strategy == strategy
    assert spec.auto_micro == (name != "cpu_demo")
    assert spec.profile == name
    assert spec.description


def test_built_in_profiles_are_listed_first_and_each_name_once(profiles_dir: Path) -> None:
    (profiles_dir / "zebra.toml").write_text("")
    (profiles_dir / "ant.toml").write_text("")
    (profiles_dir / "cpu_demo.toml").write_text("")
    assert registry.names() == [*registry.BUILTIN_ORDER, "ant", "zebra"]
    assert set(registry.BUILTIN_ORDER) == {p.stem for p in registry.BUILTIN.glob("*.toml")}


def test_a_user_profile_extends_a_built_in_one(profiles_dir: Path) -> None:
    (profiles_dir / "mine.toml").write_text('extends = "pretrain_5080"\n[batch]\nmicro = 6\n')
    spec = registry.load("mine")
    assert (spec.profile, spec.batch.micro, spec.batch.sequences, spec.accum) == ("mine", 6, 96, 16)
    assert spec.description == registry.load("pretrain_5080").description
    assert spec.model.name == "mla-1b"


def test_a_profile_may_extend_the_built_in_one_of_the_same_name(profiles_dir: Path) -> None:
    (profiles_dir / "cpu_demo.toml").write_text('extends = "cpu_demo"\n[train]\nsteps = 7\n')
    spec = registry.load("cpu_demo")
    assert (spec.train.steps, spec.batch.micro, spec.model.name) == (7, 8, "mla-tiny")


def test_a_file_given_by_path_may_extend_a_user_profile_of_the_same_name(profiles_dir: Path, tmp_path: Path) -> None:
    (profiles_dir / "mine.toml").write_text('extends = "cpu_demo"\n[train]\nsteps = 7\n')
    (tmp_path / "mine.toml").write_text('extends = "mine"\n[train]\nseed = 9\n')
    spec = registry.load(str(tmp_path / "mine.toml"))
    assert (spec.train.steps, spec.train.seed) == (7, 9)


def test_a_profile_that_extends_itself_is_refused(profiles_dir: Path) -> None:
    (profiles_dir / "mine.toml").write_text('extends = "mine"\n')
    assert refused("mine") == "mine.toml: extends: mine → mine is a cycle"


def test_a_cycle_of_two_profiles_is_refused(profiles_dir: Path) -> None:
    (profiles_dir / "a.toml").write_text('extends = "b"\n')
    (profiles_dir / "b.toml").write_text('extends = "a"\n')
    assert refused("a") == "a.toml: extends: a → b → a is a cycle"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("extends = 4", "mine.toml: extends: 4 is not the name of a profile"),
        ('extends = "cpu_dem"', "mine.toml: extends: 'cpu_dem': unknown; did you mean cpu_demo?"),
        ("description = 4", "mine.toml: description: 4 is not a string"),
        ("[batch]\nmicro = 0", "mine.toml: batch.micro: 0 is not in 1..4096"),
        ("[batch]\nmicro = nan", "mine.toml: batch.micro: nan is not a whole number"),
        ("[batc]\nmicro = 4", "mine.toml: batc: unknown key; did you mean batch?"),
        ("micro = 4", "mine.toml: micro: unknown key"),
        ("learning_rate = 1", "mine.toml: learning_rate: unknown key; here that is optim.lr"),
        ("[optim]\nmin_lr = 1", "mine.toml: optim.min_lr: unknown key; here that is optim.final_lr"),
        ("batch = 4", "mine.toml: batch: 4 is not a table; write [batch] with its keys below"),
    ],
)
def test_an_error_in_a_file_names_the_file(profiles_dir: Path, text: str, message: str) -> None:
    (profiles_dir / "mine.toml").write_text(text)
    assert refused("mine").startswith(message)


@pytest.mark.parametrize("content", [b"batch = [", b"\xff\xfe", b"[batch]\nmicro = " + b"9" * 5000])
def test_a_file_that_is_not_toml_is_named(profiles_dir: Path, content: bytes) -> None:
    (profiles_dir / "mine.toml").write_bytes(content)
    assert "mine.toml: " in refused("mine")


def test_an_unknown_profile_gets_a_suggestion_or_the_list() -> None:
    assert refused("pretrain_508") == "profile 'pretrain_508': unknown; did you mean pretrain_5080?"
    assert refused("???") == f"profile '???': unknown; the profiles are {', '.join(registry.BUILTIN_ORDER)}"
    assert refused("/nowhere/x.toml") == "profile '/nowhere/x.toml': no such file"


def test_overrides_by_full_and_by_bare_key() -> None:
    spec = registry.load("pretrain_5080", ["batch.micro=4", "context=512", "root=some/where", "train.compile=off"])
    assert (spec.batch.micro, spec.accum, spec.batch.context) == (4, 24, 512)
    assert spec.data.root == "some/where"
    assert spec.train.compile == "off"


def test_of_accum_and_sequences_the_later_wins() -> None:
    assert registry.load("pretrain_5080", ["micro=12", "accum=2"]).batch.sequences == 24
    assert registry.load("pretrain_5080", ["accum=2", "micro=4"]).batch.sequences == 8
    assert registry.load("pretrain_5080", ["micro=4", "accum=2"]).batch.sequences == 8
    assert registry.load("pretrain_5080", ["accum=2", "sequences=48", "micro=12"]).accum == 4
    assert registry.load("pretrain_5080", ["sequences=48", "accum=2", "micro=12"]).batch.sequences == 24


def test_a_key_that_is_given_twice_is_refused() -> None:
    registry.check_once(["micro=4", "steps=7", "accum=2"])
    with pytest.raises(SpecError, match=r"^-s batch\.micro: is given twice, as 'micro=4' and 'batch\.micro = 8'; give"):
        registry.check_once(["micro=4", "steps=7", "batch.micro = 8"])


def test_a_profile_with_accum_extends_one_with_sequences(profiles_dir: Path) -> None:
    (profiles_dir / "mine.toml").write_text('extends = "pretrain_5080"\n[batch]\nmicro = 12\naccum = 2\n')
    assert registry.load("mine").batch.sequences == 24


def test_keys_for_a_backend_hold_only_with_it_and_the_file_above_has_the_last_word(profiles_dir: Path) -> None:
    (profiles_dir / "base.toml").write_text(
        '[batch]\nsequences = 8\nmicro = 1\n[deepspeed.batch]\nmicro = 4\n[deepspeed.memory]\ncheckpointing = "full"\n'
    )
    (profiles_dir / "mine.toml").write_text('extends = "base"\n[batch]\nmicro = 2\n[mlx.train]\nsteps = 5\n')
    deepspeed = ["launch.backend=deepspeed"]
    assert registry.load("base").batch.micro == 1 and registry.load("base", deepspeed).batch.micro == 4
    mine = registry.load("mine", deepspeed)
    assert (mine.batch.micro, mine.memory.checkpointing, mine.train.steps) == (2, "full", 1000)
    assert registry.load("base", [*deepspeed, "micro=8"]).batch.micro == 8
    assert registry.load("mine", ["launch.backend=mlx"]).train.steps == 5
    (profiles_dir / "wrong.toml").write_text("deepspeed = 3\n")
    assert refused("wrong") == "wrong.toml: deepspeed: 3 is not a table; write [deepspeed.batch] with its keys below"
    (profiles_dir / "wrong.toml").write_text("[torch.batch]\nmikro = 3\n")
    assert refused("wrong") == "wrong.toml: torch: batch.mikro: unknown key; did you mean batch.micro?"


def test_another_named_model_drops_the_old_models_fields(profiles_dir: Path) -> None:
    (profiles_dir / "mine.toml").write_text('[model]\nname = "mla-1b"\nvocab_size = 300\n')
    assert registry.load("mine", ["model.name=mla-tiny"]).model.config.vocab_size == 4096


def test_overrides_of_a_built_spec() -> None:
    spec = registry.with_overrides(registry.load("cpu_demo"), ["accum=4", "train.steps=9"])
    assert (spec.batch.sequences, spec.train.steps, spec.profile) == (32, 9, "cpu_demo")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("micro", "-s micro: write key=value, for example batch.micro=4"),
        ("=4", "-s =4: write key=value, for example batch.micro=4"),
        ("name=x", "-s name: is ambiguous; write model.name or optim.name"),
        ("mikro=4", "-s mikro: unknown key; did you mean batch.micro?"),
        ("stepz=4", "-s stepz: unknown key; did you mean train.steps?"),
        ("batch.mikro=4", "-s: batch.mikro: unknown key; did you mean batch.micro?"),
        (
            "batch_size=4",
            "-s batch_size: unknown key; here that is batch.micro (per device) or batch.sequences (per step)",
        ),
        ("train.max-steps=4", "-s: train.max-steps: unknown key; here that is train.steps"),
        ("micro=", "-s: batch.micro: '' is not a number"),
        ("micro=four", "-s: batch.micro: 'four' is not a number"),
        ("micro=inf", "-s: batch.micro: inf is not a whole number"),
        ("micro=5", "cpu_demo.toml with -s: batch.micro: 5 does not divide the 8 sequences of a step; use 1, 2, 4, 8"),
    ],
)
def test_an_invalid_override_is_refused_in_one_line(text: str, message: str) -> None:
    assert refused("cpu_demo", text) == message


def test_names_of_other_trainers_point_to_existing_keys() -> None:
    known = set(known_keys())
    for name, ours in OUR_KEYS.items():
        assert {part.split(" ")[0] for part in ours.split(" or ")} <= known
        assert not any(key.endswith(f".{name}") for key in known), name


def test_a_number_with_too_many_digits_is_refused() -> None:
    assert refused("cpu_demo", "micro=" + "9" * 5000).startswith("-s: batch.micro: ")


@pytest.mark.parametrize(
    ("given", "backend", "strategy"),
    [
        ([], "torch", "device"),
        (["launch.backend=deepspeed"], "deepspeed", "offload"),
        (["launch.backend=deepspeed", "memory.strategy=offload"], "deepspeed", "offload"),
    ],
)
def test_what_a_launch_resolved_is_resolved_again_for_another_backend(
    given: list[str], backend: str, strategy: str
) -> None:
    """A checkpoint holds the resolved spec, of which only that backend may know the strategy."""
    asked = registry.load("cpu_demo", ["optim.name=adamw", "memory.strategy=auto", *given])
    saved = RunSpec.from_dict(json.loads(json.dumps(resolve_spec(asked).to_dict())))
    assert (saved.launch.backend, saved.memory.strategy) == (backend, strategy)
    again = resolve_spec(registry.with_overrides(saved, ["train.steps=7"]))
    assert (again.launch.backend, again.memory.strategy) == (backend, strategy)
    other = "torch" if backend == "deepspeed" else "deepspeed"
    moved = resolve_spec(registry.with_overrides(saved, [f"launch.backend={other}"]))
    if "memory.strategy=offload" in given:  # the user's own choice is not undone, it is refused with the way out
        with pytest.raises(UserError, match=r"offload needs --backend deepspeed; .* -s memory\.strategy=device or"):
            check_backend(moved)
    else:
        check_backend(moved)
        assert (moved.launch.backend, moved.memory.strategy) == (other, "offload" if other == "deepspeed" else "device")
        chosen = registry.with_overrides(saved, [f"launch.backend={other}", f"memory.strategy={strategy}"])
        assert chosen.memory.strategy == strategy


def test_resolved_keys_that_no_launch_writes_are_refused() -> None:
    content = registry.load("cpu_demo").to_dict() | {"resolved": ["optim.lr"]}
    with pytest.raises(SpecError, match=r"spec\.json: resolved: .* is not a list of keys"):
        RunSpec.from_dict(content)


def test_a_refused_setting_names_where_it_came_from() -> None:
    with pytest.raises(SpecError, match=r"^set: batch\.micro: 'abc' is not a number"):
        registry.parse_override("micro=abc", "set")


@pytest.mark.parametrize(
    ("text", "value"), [("optim.lr=.001", 0.001), ("optim.lr=1e-3", 1e-3), ("train.steps=007", 7), ("optim.lr=1.", 1.0)]
)
def test_a_number_that_toml_writes_otherwise_is_a_number(text: str, value: float) -> None:
    assert registry.parse_override(text)[1] == value


def test_a_number_of_many_digits_is_too_large_and_not_no_number() -> None:
    with pytest.raises(SpecError, match=r"^-s: train\.seed: 1e\+23 is not in 0\.\."):
        registry.parse_override(f"train.seed={10**23}")
    with pytest.raises(SpecError, match="'١٢' is not a number"):
        registry.parse_override("train.steps=١٢")
    assert registry.parse_override("data.phase=007") == ("data.phase", "007")
