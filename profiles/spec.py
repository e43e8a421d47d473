"""Defines the settings of a run: ``RunSpec``, typed, validated and immutable.

Its tables are frozen dataclasses (``tables.py``, ``optim.py``, ``model_config.py``); the metadata of their fields hold
the allowed values. ``check_table`` validates raw TOML against them, and ``RunSpec.build`` builds a spec from the result
and checks the fields against each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, asdict, dataclass, fields, replace
from typing import Any

from profiles.errors import SpecError
from profiles.foreign_keys import our_key
from profiles.model_config import NAMED_MODELS, ModelConfig
from profiles.names import check_name
from profiles.optim import OptimTable
from profiles.printable import LONGEST_KEY, brief, brief_key, one_line
from profiles.tables import LOWER_PRECISION, BatchTable, DataTable, LaunchTable, MemoryTable, TrainTable
from profiles.values import check_names, check_number, check_text, check_texts, check_weights


@dataclass(frozen=True, slots=True)
class ModelTable:
    """The name and config of a model: one of ``NAMED_MODELS``, or a custom one."""

    name: str
    config: ModelConfig


LONGEST_DESCRIPTION = 200  # characters of a profile's description
TABLES: dict[str, type] = {
    "data": DataTable,
    "batch": BatchTable,
    "train": TrainTable,
    "optim": OptimTable,
    "memory": MemoryTable,
    "launch": LaunchTable,
}
AUTO = "auto"
# Chosen at launch where they are "auto".
RESOLVED_AT_LAUNCH = ("launch.backend", "memory.strategy", "memory.checkpointing", "train.precision", "batch.micro")
_MODEL_FIELDS = {f.name: f for f in fields(ModelConfig)}


def known_keys() -> list[str]:
    """Return every dotted key that a profile or an override may set."""
    keys = ["model.name", *(f"model.{name}" for name in _MODEL_FIELDS), "batch.accum"]
    return keys + [f"{table}.{f.name}" for table, cls in TABLES.items() for f in fields(cls)]


def check_value(source: str, key: str, value: Any) -> Any:
    """Return the validated value of a dotted key. Raise ``SpecError`` with source, key, value and allowed values."""
    table, _, name = key.partition(".")
    if key == "batch.accum":
        return check_number(source, key, value, int, (1, 1 << 20))
    if key == "model.name":
        return check_text(source, key, value)
    declared = _MODEL_FIELDS.get(name) if table == "model" else _field(table, name)
    if declared is None:
        raise SpecError(f"{source}: {brief_key(key)}: unknown key{suggest_key(key)}")
    if key == "batch.micro" and value == AUTO:
        return AUTO
    if "each" in declared.metadata:
        return check_names(source, key, value, declared.metadata["each"])
    if "choices" in declared.metadata:
        if value not in declared.metadata["choices"]:
            raise SpecError(f"{source}: {key}: {brief(value)} is not one of {', '.join(declared.metadata['choices'])}")
        return value
    kind = str(declared.type)
    if kind == "bool":
        if not isinstance(value, bool):
            raise SpecError(f"{source}: {key}: {brief(value)} is not true or false")
        return value
    if kind == "str":
        return value if value == declared.default else check_text(source, key, value)  # "" only if it is the default
    if kind.endswith("None") and value is None:
        return value
    if kind.startswith("tuple"):
        return check_texts(source, key, value) if value or declared.default else ()
    if kind.startswith("Mapping"):
        return check_weights(source, key, value)
    span = declared.metadata.get("range", (1, 1 << 24) if "int" in kind else (1e-12, 1e12))
    return check_number(source, key, value, int if "int" in kind else float, span)


def check_table(source: str, raw: Mapping[str, Any]) -> dict[str, Any]:
    """Validate a parsed profile and return it flattened: ``{"batch.micro": 4, …}``."""
    flat: dict[str, Any] = {}
    for table, content in raw.items():
        if table not in TABLES and table != "model":
            raise SpecError(f"{source}: {brief_key(table)}: unknown key{suggest_key(table)}")
        if not isinstance(content, Mapping):
            raise SpecError(f"{source}: {table}: {brief(content)} is not a table; write [{table}] with its keys below")
        for name, value in content.items():
            flat[f"{table}.{name}"] = check_value(source, f"{table}.{name}", value)
    if {"data.phase", "data.sources"} <= flat.keys():
        raise SpecError(f"{source}: data.sources: set phase or sources, not both; a source is a phase with a weight")
    if {"batch.accum", "batch.sequences"} <= flat.keys():
        raise SpecError(f"{source}: batch.accum: set accum or sequences, not both; each follows from the other")
    return flat


@dataclass(frozen=True, slots=True)
class RunSpec:
    """All settings of one run. ``profile`` is the profile that they came from.

    ``resolved``: the keys of ``RESOLVED_AT_LAUNCH`` that were "auto"; their values were chosen for one backend.
    ``auto_micro``: the profile says ``batch.micro = "auto"``, and no launch has chosen yet; until then micro is 1,
    which needs the least memory.
    """

    profile: str
    description: str
    model: ModelTable
    data: DataTable
    batch: BatchTable
    train: TrainTable
    optim: OptimTable
    memory: MemoryTable
    launch: LaunchTable
    resolved: tuple[str, ...] = ()
    auto_micro: bool = False

    @property
    def ranks(self) -> int:
        return self.launch.nodes * self.launch.gpus_per_node

    @property
    def accum(self) -> int:
        """Micro-batches per optimizer step on each rank (gradient accumulation steps)."""
        return self.batch.sequences // (self.batch.micro * self.ranks)

    @property
    def tokens_per_step(self) -> int:
        return self.batch.sequences * self.batch.context

    def with_batch(self, **changes: int) -> RunSpec:
        """Return the spec with other batch settings. Raise ``SpecError`` if they contradict each other."""
        return self.with_values("edit", batch=changes)

    def with_values(self, source: str, **tables: Mapping[str, Any]) -> RunSpec:
        """Return the spec with other values in some tables. Raise ``SpecError`` if they contradict each other."""
        spec = replace(self, **{name: replace(getattr(self, name), **new) for name, new in tables.items()})
        if "micro" in tables.get("batch", {}):
            spec = replace(spec, auto_micro=False)
        spec._check(source)
        return spec

    def on_ranks(self, nodes: int, per_node: int) -> RunSpec:
        """Return the spec for ``nodes`` machines with ``per_node`` ranks each, as an external launcher started them.

        ``sequences`` stays; ``micro`` becomes the largest divisor up to its current value. Raise ``SpecError``.
        """
        ranks, sequences = nodes * per_node, self.batch.sequences
        if sequences % ranks:
            raise SpecError(
                f"{self.profile}: batch.sequences: {ranks} ranks do not divide the {sequences} sequences of a step;"
                f" use -s batch.sequences={-(-sequences // ranks) * ranks}, or start another number of ranks"
            )
        micro = max(n for n in range(1, self.batch.micro + 1) if sequences % (n * ranks) == 0)
        launch = replace(self.launch, nodes=nodes, gpus_per_node=per_node)
        return replace(self, launch=launch, batch=replace(self.batch, micro=micro))

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; ``model`` holds the name and the fields of its config."""
        content = asdict(self)
        content["model"] = {"name": self.model.name, **asdict(self.model.config)}
        content["memory"]["allow"] = list(self.memory.allow)
        for name in ("sample_prompts", "eval_tasks"):
            content["train"][name] = list(content["train"][name])
        if content.pop("auto_micro"):
            content["batch"]["micro"] = AUTO
        del content["data"]["phase" if self.data.sources else "sources"]
        return content

    @classmethod
    def from_dict(cls, content: Any, source: str = "spec.json") -> RunSpec:
        """Return the spec that ``to_dict`` wrote. Raise ``SpecError``."""
        if not isinstance(content, Mapping):
            raise SpecError(f"{source}: spec: {brief(content)} is not a table; take another copy")
        tables = dict(content)
        texts = {key: tables.pop(key, "") for key in ("profile", "description")}
        resolved = tables.pop("resolved", [])
        for key, text in texts.items():
            if not isinstance(text, str):
                raise SpecError(f"{source}: {key}: {brief(text)} is not text; take another copy")
        if not isinstance(resolved, Sequence) or not all(key in RESOLVED_AT_LAUNCH for key in resolved):
            raise SpecError(f"{source}: resolved: {brief(resolved)} is not a list of keys; take another copy")
        return replace(cls.build(source, **texts, flat=check_table(source, tables)), resolved=tuple(resolved))

    @classmethod
    def build(cls, source: str, profile: str, description: str, flat: Mapping[str, Any]) -> RunSpec:
        """Build a spec from validated, flattened keys and defaults. Raise ``SpecError``."""
        given: dict[str, dict[str, Any]] = {table: {} for table in TABLES}
        model: dict[str, Any] = {}
        for key, value in flat.items():
            table, _, name = key.partition(".")
            (model if table == "model" else given[table])[name] = value
        accum = given["batch"].pop("accum", None)
        if auto_micro := given["batch"].get("micro") == AUTO:
            given["batch"]["micro"] = 1
        if auto_micro and accum is not None:
            raise SpecError(
                f"{source}: batch.accum: {accum} with batch.micro = auto leaves open how many sequences a step has;"
                " set batch.sequences, or a number for batch.micro"
            )
        launch = LaunchTable(**given["launch"])
        if accum is not None:
            micro = given["batch"].get("micro", BatchTable().micro)
            sequences = accum * micro * launch.nodes * launch.gpus_per_node
            given["batch"]["sequences"] = check_value(source, "batch.sequences", sequences)
        spec = cls(
            profile=check_name(f"{source}: profile", profile),
            description=one_line(description, LONGEST_DESCRIPTION),
            model=_model_table(source, model),
            data=DataTable(**given["data"]),
            batch=BatchTable(**given["batch"]),
            train=TrainTable(**given["train"]),
            optim=OptimTable(**given["optim"]),
            memory=MemoryTable(**given["memory"]),
            launch=launch,
            auto_micro=auto_micro,
        )
        spec._check(source)
        return spec

    def _check(self, source: str) -> None:
        sequences, micro = self.batch.sequences, self.batch.micro
        if sequences % (micro * self.ranks):
            per_rank = sequences // self.ranks
            allowed = [n for n in range(1, min(per_rank, 4096) + 1) if sequences % (n * self.ranks) == 0]
            ranks = f" × {self.ranks} ranks" if self.ranks > 1 else ""
            remedy = f"use {_shorten(allowed)}" if allowed else "change batch.sequences"
            raise SpecError(
                f"{source}: batch.micro: {micro}{ranks} does not divide the {sequences} sequences of a step; {remedy}"
            )
        if wrong := self.optim.conflict(self.train.steps):
            raise SpecError(f"{source}: optim.{wrong[0]}: {wrong[1]}")
        if self.optim.name == "muon" and self.memory.strategy == "states8bit":
            raise SpecError(f"{source}: memory.strategy: states8bit is for adamw only; use that, or device")
        allow = self.memory.allow
        for key, value in (("memory.strategy", self.memory.strategy), ("train.precision", self.train.precision)):
            if allow and value in LOWER_PRECISION and value not in allow:
                both = ", ".join(f'"{name}"' for name in (*allow, value))
                raise SpecError(
                    f"{source}: {key}: {value} is not among memory.allow = {list(allow)};"
                    f" use -s 'memory.allow=[{both}]', or -s {key}=auto"
                )
        if conflict := self.model.config.conflict():
            raise SpecError(f"{source}: model.{conflict[0]}: {conflict[1]}")


def _model_table(source: str, table: Mapping[str, Any]) -> ModelTable:
    name = table.get("name", "mla-tiny")
    config = {k: v for k, v in table.items() if k != "name"}
    if name in NAMED_MODELS:
        return ModelTable(name, replace(NAMED_MODELS[name], **config))
    missing = [f.name for f in _MODEL_FIELDS.values() if f.default is MISSING and f.name not in config]
    if missing:
        raise SpecError(
            f"{source}: model.name: {brief(name)} is not one of {', '.join(NAMED_MODELS)};"
            f" a custom model also needs {', '.join(missing)}"
        )
    return ModelTable(name, ModelConfig(**config))


def _field(table: str, name: str) -> Field[Any] | None:
    cls = TABLES.get(table)
    return next((f for f in fields(cls) if f.name == name), None) if cls else None


def _shorten(numbers: list[int]) -> str:
    if len(numbers) <= 8:
        return ", ".join(map(str, numbers))
    return f"{', '.join(map(str, numbers[:6]))} … {numbers[-1]}"


def suggest_key(key: str, bare: bool = False) -> str:
    """Return a suggestion for an unknown key, to append to a message, or ""; ``bare`` ignores table names.

    The name of another trainer's setting gets our key; any other name gets the most similar key.
    """
    import difflib  # slow to import, and only errors need it

    if ours := our_key(key.rpartition(".")[2]):
        return f"; here that is {ours}"
    names = known_keys() if bare or "." in key else [*TABLES, "model", "description", "extends"]
    candidates = {name.rpartition(".")[2] if bare else name: name for name in names}
    near = difflib.get_close_matches(key[:LONGEST_KEY], candidates, 1, 0.4)
    return f"; did you mean {candidates[near[0]]}?" if near else ""
