"""The fingerprint of a run's data: every change of its files is noticed and named."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.fingerprint import Fingerprint, differences, fingerprint, same_content
from data.shards import open_shards
from profiles.errors import UserError


def make(root: Path, lengths: list[int]) -> None:
    folder = root / "p" / "train"
    folder.mkdir(parents=True, exist_ok=True)
    for k, length in enumerate(lengths):
        (np.arange(length) % 251).astype("<u2").tofile(folder / f"{k}.bin")
    (root / "p" / "tokenizer.json").write_text("{}")
    (root / "p" / "dataset.json").write_text('{"eot_id": 7}')


def taken(root: Path) -> Fingerprint:
    return fingerprint(root / "p", {"train": open_shards(root, "p", "train", 512).shards})


def rewrite(path: Path, change: Callable[[bytearray], None]) -> None:
    content = bytearray(path.read_bytes())
    change(content)
    path.write_bytes(content)


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "removed": (lambda folder: (folder / "train/1.bin").unlink(), "train/1.bin is missing"),
    "added": (lambda folder: (folder / "train/0a.bin").write_bytes(b"\1\0\2\0"), "train/0a.bin is new"),
    "renamed": (
        lambda folder: (folder / "train/0.bin").rename(folder / "train/z.bin"),
        "train/0.bin is missing, train/z.bin is new",
    ),
    "longer": (lambda folder: rewrite(folder / "train/0.bin", lambda b: b.extend(b"\1\0")), "301 tokens, not 300"),
    "replaced at equal size": (
        lambda folder: rewrite(folder / "train/0.bin", lambda b: b.__setitem__(250, 7)),
        "train/0.bin has other content",
    ),
    "another end of text": (
        lambda folder: (folder / "dataset.json").write_text('{"eot_id": 8}'),
        "the id that ends a document is 8, not 7",
    ),
    "another tokenizer": (lambda folder: (folder / "tokenizer.json").write_text("[]"), "tokenizer.json has changed"),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer.json is new or missing"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_named(tmp_path: Path, change: str) -> None:
    make(tmp_path, [300, 90])
    before = taken(tmp_path)
    assert differences(before, taken(tmp_path)) == ""
    make_it, named = CHANGES[change]
    make_it(tmp_path / "p")
    after = taken(tmp_path)
    assert named in differences(before, after) and before.digest != after.digest


def test_files_in_another_order_are_other_data(tmp_path: Path) -> None:
    """An earlier version read 10 before 9."""
    make(tmp_path, [300, 90])
    now = taken(tmp_path)
    before = replace(now, splits={"train": now.splits["train"][::-1]})
    assert differences(before, now) == "the files of train are read in another order"


def test_an_end_of_text_that_was_not_recorded_is_no_change(tmp_path: Path) -> None:
    make(tmp_path, [300])
    now = taken(tmp_path)
    older = {key: value for key, value in now.to_dict().items() if key != "ends"}
    assert differences(Fingerprint.from_dict(older, ""), now) == ""


@given(st.integers(0, 2**31), st.integers(1, 2**20))
def test_a_large_shard_is_sampled_over_its_whole_length(
    tmp_path_factory: pytest.TempPathFactory, at: int, size: int
) -> None:
    """4096 bytes of other content, a sixty-fourth of what is hashed: noticed unless they lie between two samples."""
    root = tmp_path_factory.mktemp("large")
    make(root, [size])
    before = taken(root)
    path, at = root / "p/train/0.bin", at % (2 * size)
    rewrite(path, lambda b: b.__setitem__(slice(at, at + 4096), bytes(255 - x for x in b[at : at + 4096])))
    gap = 2 * size // 63
    noticed = bool(differences(before, taken(root)))
    assert noticed or gap > 4096
    assert same_content(path, before.splits["train"][0]) != noticed


def test_of_many_shards_fewer_blocks_are_read_and_only_what_changed_is_named(tmp_path: Path) -> None:
    """One shard fewer, and more is read of each of the others: they are still the same."""
    make(tmp_path, [10])
    for k in range(1, 1025):
        with (tmp_path / f"p/train/{k:04d}.bin").open("wb") as file:
            file.truncate(300_000)
    before = taken(tmp_path)
    (tmp_path / "p/train/0007.bin").unlink()
    after = taken(tmp_path)  # 1024 and less: 64 blocks each
    assert [found.splits["train"][1].blocks for found in (before, after)] == [63, 64]
    assert differences(before, after) == "train/0007.bin is missing"
    assert same_content(tmp_path / "p/train/0008.bin", before.splits["train"][8])
    rewrite(tmp_path / "p/train/0008.bin", lambda b: b.__setitem__(299_999, 1))
    assert not same_content(tmp_path / "p/train/0008.bin", before.splits["train"][8])


def test_a_recorded_fingerprint_is_read_back(tmp_path: Path) -> None:
    make(tmp_path, [300, 90])
    manifest = {"dtype": "uint16", "eot_id": 5, "sha256": {"train/0.bin": "ab"}}
    (tmp_path / "p/dataset.json").write_text(json.dumps(manifest))
    before = taken(tmp_path)
    assert before.splits["train"][0].sha256 == "ab"
    again = Fingerprint.from_dict(json.loads(json.dumps(before.to_dict())), "trainer.json")
    assert again == before and again.digest == before.digest


SHARD = {
    **{"name": "train/a.bin", "bytes": 8, "tokens": 4, "dtype": "uint16"},
    **{"header": 0, "blocks": 64, "sampled": "", "sha256": ""},
}


def test_a_minimal_fingerprint_is_read() -> None:
    assert (
        Fingerprint.from_dict({"splits": {"train": [SHARD]}, "tokenizer": "", "weights": {}}, "")
        .splits["train"][0]
        .tokens
        == 4
    )


@pytest.mark.parametrize(
    "content",
    [
        *(
            None,
            [],
            {},
            {"splits": 3, "tokenizer": "", "weights": {}},
            {"splits": {"train": [1]}, "tokenizer": "", "weights": {}},
        ),
        *({"splits": {}, "tokenizer": 5}, {"splits": {"train": [{"name": 1}]}, "tokenizer": "", "weights": {}}),
        {"splits": {"train": [{**SHARD, "name": "../../secret"}]}, "tokenizer": "", "weights": {}},
        {"splits": {"train": [{**SHARD, "tokens": -1}]}, "tokenizer": "", "weights": {}},
        {"splits": {"train": [SHARD]}, "tokenizer": "", "weights": {}, "ends": {"": -1}},
    ],
)
def test_a_damaged_fingerprint_is_named(content: object) -> None:
    with pytest.raises(UserError, match=r"^ck/trainer.json: the fingerprint of its data is damaged"):
        Fingerprint.from_dict(content, "ck/trainer.json")
