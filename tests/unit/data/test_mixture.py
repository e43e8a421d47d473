"""A mixture of sources: its weights in every stretch, each source in epochs of its own, exact when it changes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from math import log2
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.continuing import continued
from data.cursor import Cursor
from data.dataset import PackedBinDataset
from data.fingerprint import Fingerprint, differences
from data.mixture import divide, shares
from data.recorded import RecordedShards
from data.splits import data_usage, fingerprint_of, open_split, open_splits
from profiles import registry
from profiles.errors import SpecError, UserError
from profiles.spec import RunSpec
from tui.text.data_usage import describe_usage

WEIGHTS = st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=9)


@given(WEIGHTS, st.integers(0, 10**15), st.integers(1, 60))
def test_every_stretch_has_nearly_the_weights(weights: list[float], start: int, count: int) -> None:
    parts, fractions = shares(weights), [weight / sum(weights) for weight in weights]
    before = divide(start, parts)
    bound = 1 + log2(len(weights)) / 2
    assert sum(before) == start
    for k in range(start + 1, start + count + 1):
        after = divide(k, parts)
        assert sorted(new - old for old, new in zip(before, after, strict=True)) == [0] * (len(parts) - 1) + [1]
        before = after
    exact = [k * part / sum(parts) for part in parts] if k < 1 << 40 else []
    assert all(abs(got - want) <= bound for got, want in zip(before, exact, strict=bool(exact)) if exact)
    assert all(abs(part / sum(parts) - fraction) < 1e-9 for part, fraction in zip(parts, fractions, strict=True))


def test_the_division_is_the_same_in_every_version() -> None:
    """Checkpoints hold numbers of sequences: if these values change, resumed runs read other data."""

    def sources(weights: list[float], count: int) -> str:
        counts = [divide(k, shares(weights)) for k in range(count + 1)]
        return "".join(
            "abcd"[next(s for s in range(len(weights)) if counts[k + 1][s] > counts[k][s])] for k in range(count)
        )

    assert sources([0.7, 0.3], 20) == "abaaabaabaabaaabaaba"
    assert sources([1, 1, 2], 12) == "cabccabccabc"
    assert sources([0.4, 0.3, 0.2, 0.1], 20) == "acbabdabcaacbabdabca"
    assert divide(10**12 + 7, shares([0.123456, 3.5, 1e-6])) == (34071330224, 965928393803, 275980)
    assert shares([0.7, 0.3]) == (7, 3) and shares([70.0, 30.0]) == (70, 30)


def put(root: Path, phase: str, count: int, first: int, split: str = "train") -> None:
    """Write ids that count from ``first`` on, so that a window tells where it came from."""
    path = root / phase / split / "x.bin"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.arange(first, first + count, dtype="<u2").tofile(path)


def spec_of(root: Path, sources: Mapping[str, float] | str, context: int = 8) -> RunSpec:
    chosen = f"data.phase={sources}" if isinstance(sources, str) else "data.sources=" + toml(sources)
    shape = ("model.vocab_size=65536", f"context={context}", "sequences=8", "val_every=0")
    return registry.load("cpu_demo", [f"data.root={root}", chosen, *shape])


def toml(sources: Mapping[str, float]) -> str:
    return "{" + ", ".join(f"{json.dumps(name)} = {weight}" for name, weight in sources.items()) + "}"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("mixture")
    for phase, count, first in (("web", 401, 0), ("code", 81, 1000), ("books", 165, 2000), ("code/old", 57, 3000)):
        put(root, phase, count, first)
    return root


def of_source(batch: np.ndarray, phase: str) -> np.ndarray:
    low = {"web": 0, "code": 1000, "books": 2000, "code/old": 3000}[phase]
    return batch[(batch[:, 0] >= low) & (batch[:, 0] < low + 1000)]


@cache
def opened(root: Path, chosen: str | tuple[tuple[str, float], ...]) -> tuple[PackedBinDataset, Fingerprint]:
    spec = spec_of(root, chosen if isinstance(chosen, str) else dict(chosen))
    return open_split(spec, "train"), print_of(spec)


MIXTURES = st.dictionaries(
    st.sampled_from(["web", "code", "books", "code/old"]), st.sampled_from([0.1, 1, 7.5]), min_size=1
).map(lambda sources: tuple(sorted(sources.items())))


@given(MIXTURES, st.integers(1, 150), st.lists(st.integers(0, 20), max_size=4))
def test_a_source_of_a_mixture_is_read_as_if_it_were_alone(
    root: Path, sources: tuple[tuple[str, float], ...], n: int, parts: list[int]
) -> None:
    data, _ = opened(root, sources)
    batch, _ = data.read_batch(data.initial_cursor(), n)
    for phase, _ in sources:
        alone, _ = opened(root, phase)
        found = of_source(batch, phase)
        assert np.array_equal(found, alone.read_batch(alone.initial_cursor(), len(found))[0])
    cursor, pieces = data.initial_cursor(), []
    for part in parts:  # as edits of micro and accum, and resumes, divide it
        piece, after = data.read_batch(cursor, part)
        assert after == data.advance(cursor, part)
        cursor = Cursor.from_dict(json.loads(json.dumps(after.to_dict())))
        pieces.append(piece)
    whole, end = data.read_batch(data.initial_cursor(), sum(parts))
    assert np.array_equal(np.concatenate([np.empty((0, 9)), *pieces]), whole) and end == cursor


def print_of(spec: RunSpec) -> Fingerprint:
    found = fingerprint_of(spec, open_splits(spec))
    assert Fingerprint.from_dict(json.loads(json.dumps(found.to_dict())), "") == found
    return found


@given(st.lists(st.tuples(MIXTURES | st.sampled_from(["web", "code"]), st.integers(0, 40)), min_size=1, max_size=5))
def test_no_change_of_the_mixture_reads_an_order_again(
    root: Path, course: list[tuple[str | tuple[tuple[str, float], ...], int]]
) -> None:
    """Whatever is added, weighted otherwise or dropped: within an epoch of a source no window is read twice."""
    before: Fingerprint | None = None
    cursor, epochs = None, set[tuple[str, int, int]]()
    for chosen, count in course:
        data, now = opened(root, chosen)
        cursor = continued(cursor, before, now) if cursor and before else data.initial_cursor()
        assert cursor == Cursor.from_dict(cursor.to_dict())
        recorded = RecordedShards(root if now.weights else root / str(chosen), now, 8)
        for place in data.order.after(cursor, count):
            name = data.order.names[place.source] or str(chosen)
            assert (name, place.epoch, place.position) not in epochs
            epochs.add((name, place.epoch, place.position))
        if count:
            found = recorded.read(cursor)
            assert np.array_equal(found.ids, data.read_batch(cursor, 1)[0][0])
        cursor, before = data.advance(cursor, count), now
    assert cursor is not None and cursor.tokens == 8 * sum(count for _, count in course)


def test_other_weights_go_on_in_the_same_epochs(root: Path) -> None:
    """An annealing phase with more code: nothing of the web is read again before all of it was read."""
    first, then = spec_of(root, {"web": 0.9, "code": 0.1}), spec_of(root, {"web": 0.5, "code": 0.5})
    data, cursor = open_split(first, "train"), open_split(first, "train").initial_cursor()
    one, cursor = data.read_batch(cursor, 20)
    cursor = continued(cursor, print_of(first), print_of(then))
    assert [segment.sequences for segment in cursor.segments] == [20] and cursor.consumed == 0
    two, after = open_split(then, "train").read_batch(cursor, 64)
    web = of_source(np.concatenate([one, two]), "web")
    assert len(web) == 50 == len({tuple(row) for row in web})
    assert [(place.source, place.epoch) for place in after.sources] == [("code", 3), ("web", 1)]


def test_a_change_is_named(root: Path) -> None:
    names = [spec_of(root, s) for s in ({"web": 1, "code": 2}, {"web": 1, "code": 3}, {"web": 1, "books": 2})]
    one, two, three = map(print_of, names)
    assert differences(one, two) == "the weight of code is 3, not 2" and one.digest != two.digest
    assert differences(one, three) == "code/train/x.bin is missing, books/train/x.bin is new"
    assert differences(one, one) == ""


def test_a_cursor_of_other_sources_is_refused(root: Path) -> None:
    data = open_split(spec_of(root, {"web": 1, "code": 2}), "train")
    for other in (Cursor(1, 8), open_split(spec_of(root, {"web": 1}), "train").initial_cursor()):
        with pytest.raises(UserError, match=r"data cursor: is of .*, the data of code, web: restore"):
            data.read_batch(other, 1)
    start = data.initial_cursor()
    with pytest.raises(UserError, match="sequence 10 is past the end of an epoch of 10 of code"):
        data.read_batch(replace(start, sources=(replace(start.sources[0], position=10), start.sources[1])), 1)


def test_validation_takes_of_each_source_its_part(tmp_path: Path) -> None:
    for phase, count, first in (("web", 401, 0), ("code", 41, 1000), ("books", 165, 2000)):
        put(tmp_path, phase, count, first)
        if phase != "books":
            put(tmp_path, phase, count, first, "val")
    data = open_split(spec_of(tmp_path, {"web": 0.5, "code": 0.25, "books": 0.25}), "val")
    assert {phase: len(windows) for phase, windows in data.read_first(12).items()} == {"code": 4, "web": 8}
    assert {phase: len(windows) for phase, windows in data.read_first(99).items()} == {"code": 5, "web": 50}
    (tmp_path / "code/val/x.bin").write_bytes(b"odd")  # what is there and damaged is not taken for missing
    with pytest.raises(UserError, match=r"code/val/x.bin: 3 bytes"):
        open_split(spec_of(tmp_path, {"web": 0.5, "code": 0.25}), "val")


def test_what_cannot_be_mixed_is_refused(tmp_path: Path, root: Path) -> None:
    for phase in ("web", "code"):
        put(tmp_path, phase, 100, 0)
        (tmp_path / phase / "tokenizer.json").write_text(f'"{phase}"')
    with pytest.raises(UserError, match=r"data.sources: code and web have different tokenizers"):
        print_of(spec_of(tmp_path, {"web": 1, "code": 1}))
    with pytest.raises(UserError, match=r"data.sources: .*/gone is not a folder; each source is a phase in data.root"):
        open_split(spec_of(root, {"web": 1, "gone": 1}), "train")
    put(tmp_path, "short", 5, 0)
    with pytest.raises(UserError, match=r"short/train/x.bin, has 5 tokens"):
        open_split(spec_of(tmp_path, {"web": 1, "short": 1}), "train")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "is not a table"),
        ("[1]", "is not a table"),
        ('"web"', "is not a table"),
        ("{web = 0}", "data.sources.web: 0 is not in"),
        ("{web = -1}", "data.sources.web: -1 is not in"),
        ("{web = nan}", "data.sources.web: nan is not in"),
        ("{web = true}", "data.sources.web: True is not a number"),
        ('{web = "much"}', "data.sources.web: 'much' is not a number"),
        ('{"../web" = 1}', "leads out of data.root"),
        ('{"web/" = 1}', "is not the name of a folder"),
        ('{"." = 1}', "is not the name of a folder"),
        ('{"" = 1}', "is not a non-empty string"),
    ],
)
def test_weights_that_are_none_are_refused(text: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        registry.load("cpu_demo", [f"data.sources={text}"])
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_profile_has_a_phase_or_sources(tmp_path: Path) -> None:
    profile = tmp_path / "mine.toml"
    profile.write_text('extends = "cpu_demo"\n[data.sources]\nweb = 3\ncode = 1\n')
    spec = registry.load(str(profile))
    assert spec.data.sources == {"code": 1.0, "web": 3.0} and list(spec.data.sources) == ["code", "web"]
    assert RunSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    assert registry.load(str(profile), ["data.phase=web"]).data.sources == {}
    assert registry.with_overrides(spec, ["data.phase=web"]).data.phase == "web"
    assert registry.with_overrides(spec, ["data.sources={web = 1}"]).data.sources == {"web": 1.0}
    profile.write_text('extends = "cpu_demo"\n[data]\nphase = "web"\nsources = {web = 1}\n')
    with pytest.raises(SpecError, match="set phase or sources, not both"):
        registry.load(str(profile))


def test_the_usage_names_the_epochs_of_each_source(root: Path) -> None:
    spec = registry.with_overrides(spec_of(root, {"web": 0.6, "code": 0.4}), ["steps=10"])
    usage = data_usage(spec)
    line = describe_usage(usage, 10)
    assert line == ("data: 60 sequences of 9 tokens; 10 steps read 3.2 epochs of code (0.4), 0.96 epochs of web (0.6)")
    assert usage.epochs == 3.2
    assert describe_usage(data_usage(registry.with_overrides(spec, ["steps=20"])), 20).startswith("warning: ")


def test_one_phase_is_read_as_ever(root: Path) -> None:
    """Golden: what a run without a mixture reads must not change."""
    data = open_split(spec_of(root, "web"), "train")
    batch, cursor = data.read_batch(data.initial_cursor(), 60)
    assert [int(row[0]) // 8 for row in batch[:12]] == [10, 37, 28, 40, 23, 5, 7, 1, 31, 2, 14, 34]
    assert (cursor.epoch, cursor.position, cursor.sources) == (1, 10, ())
