"""Packs folders of text and reads the shards again."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from data.pack.shard_writer import ShardState, ShardWriter
from data.pack.split_rule import as_digests, default_fraction, digest_of, for_validation
from profiles.errors import UserError
from tests.unit.data.packs import EOT, Notes, contents, documents, make_tokenizer, pack_into, rows, texts, write_files


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tokenizer(tmp_path_factory.mktemp("tokenizer") / "tokenizer.json")


def test_the_documents_of_a_folder_come_back_in_the_order_of_their_names(tmp_path: Path, tokenizer: Path) -> None:
    files = {**texts(40), "z/last.py": "last\n", "a.txt": "first ä 字 😀\n"}
    packed = pack_into(tmp_path / "out", write_files(tmp_path / "in", files), tokenizer=tokenizer, shard_tokens=500)
    found = {split: documents(packed, split) for split in ("train", "val")}
    order = [files[name] for name in sorted(files, key=lambda name: (name.count("/"), name))]
    is_val = {text: bool(for_validation(as_digests(digest_of(text.encode())), 0.1)[0]) for text in order}
    assert found["val"] == [text for text in order if is_val[text]] != []
    assert found["train"] == [text for text in order if not is_val[text]]
    splits = packed.manifest["splits"]
    assert sum(split["bytes"] for split in splits.values()) == sum(len(text.encode()) for text in order)
    names = sorted(path.name for path in (packed.target / "train").iterdir())
    assert len(names) > 1
    assert names == [f"p-train-{number:03}.bin" for number in range(len(names))]
    assert packed.manifest["sha256"] == {
        name: sha256 for name, sha256 in contents(packed.target).items() if name != "dataset.json"
    }
    assert not list((tmp_path / "out").glob(".*"))


def test_any_number_of_threads_gives_the_same_bytes(tmp_path: Path, tokenizer: Path) -> None:
    from data.pack import batches

    source = write_files(tmp_path / "in", {f"{n}/{name}": text for n in range(3) for name, text in texts(9, n).items()})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "BATCH_BYTES", 100)  # many tasks and batches of little text
        made = [
            pack_into(tmp_path / str(n), source, tokenizer=tokenizer, workers=n, shard_tokens=99) for n in (1, 2, 4)
        ]
    first, *others = (contents(packed.target) for packed in made)
    assert others == [first, first]


def test_of_equal_documents_the_first_in_the_order_of_the_sources_is_kept(tmp_path: Path, tokenizer: Path) -> None:
    write_files(tmp_path, {"b/1.txt": "same\n", "a/2.txt": "other\n", "a/3.jsonl": rows({"text": "same\n"})})
    packed = pack_into(tmp_path / "out", tmp_path / "b", tmp_path / "a", tmp_path / "b/*", tokenizer=tokenizer, val=0)
    assert documents(packed) == ["same\n", "other\n"]
    assert packed.progress.duplicates == 2


@settings(max_examples=25)
@given(
    seed=st.integers(0, 10**6), first=st.floats(0, 0.5, exclude_max=True), second=st.floats(0, 0.5, exclude_max=True)
)
def test_a_document_stays_in_its_split(seed: int, first: float, second: float) -> None:
    digests = as_digests(b"".join(digest_of(f"{seed} {number}".encode()) for number in range(50)))
    low, high = (for_validation(digests, fraction) for fraction in sorted((first, second)))
    assert not (low & ~high).any()
    assert (for_validation(digests[::-1], first) == for_validation(digests, first)[::-1]).all()


def test_little_text_has_more_of_it_for_validation(tmp_path: Path, tokenizer: Path) -> None:
    assert [default_fraction(size) for size in (0, 20_000_000, 50_000_000, 10**9)] == [0.05, 0.05, 0.02, 0.005]
    source = write_files(tmp_path / "in", texts(9, 1))
    packed = pack_into(tmp_path / "out", source, tokenizer=tokenizer, val=None)
    assert packed.manifest["packs"][0]["options"]["val"] == 0.05
    more = write_files(tmp_path / "more", texts(9, 2))
    assert (
        pack_into(tmp_path / "other", source, tokenizer=tokenizer, val=0.3).manifest["packs"][0]["options"]["val"]
        == 0.3
    )
    added = pack_into(tmp_path / "other", more, append=True, val=None)
    assert [pack["options"]["val"] for pack in added.manifest["packs"]] == [0.3, 0.3]


def test_the_text_of_a_special_token_stays_text(tmp_path: Path, tokenizer: Path) -> None:
    text = f"a{EOT}b {EOT}"
    packed = [
        pack_into(tmp_path / encoder, write_files(tmp_path / "in", {"a.txt": text}), tokenizer=tokenizer, val=0)
        for encoder in ("fastokens", "tokenizers")
    ]
    assert [documents(each) for each in packed] == [[text], [text]]
    assert (np.fromfile(packed[0].target / "train/p-train-000.bin", "<u2") == packed[0].manifest["eot_id"]).sum() == 1
    assert contents(packed[0].target / "train") == contents(packed[1].target / "train")


@pytest.mark.parametrize("eot", ["<|endoftext|>", "<EOT>", "</s>", "<|im_end|>", "<|end_of_text|>"])
def test_the_usual_tokens_end_a_document(tmp_path: Path, eot: str) -> None:
    source = write_files(tmp_path / "in", {"a.txt": "text"})
    packed = pack_into(tmp_path / "out", source, tokenizer=make_tokenizer(tmp_path / "t.json", eot), val=0)
    assert packed.manifest["eot"] == eot
    assert documents(packed) == ["text"]


def test_another_token_must_be_named(tmp_path: Path) -> None:
    source, other = write_files(tmp_path / "in", {"a.txt": "text"}), make_tokenizer(tmp_path / "t.json", "<fin>")
    with pytest.raises(
        UserError, match=rf"{tmp_path}/t\.json: has none of .*; name the token that ends a document with --eot TOKEN"
    ):
        pack_into(tmp_path / "out", source, tokenizer=other)
    with pytest.raises(UserError, match=r"--eot: .* has no token '<nie>'"):
        pack_into(tmp_path / "out", source, tokenizer=other, eot="<nie>")
    assert documents(pack_into(tmp_path / "out", source, tokenizer=other, eot="<fin>", val=0)) == ["text"]


def test_encoders_that_differ_stop_the_pack(tmp_path: Path) -> None:
    """BPE dropout is random, so no two encodings of a long text are the same."""
    path = make_tokenizer(tmp_path / "t.json")
    content = json.loads(path.read_text())
    content["model"]["dropout"] = 0.5
    path.write_text(json.dumps(content))
    source = write_files(tmp_path / "in", {"a.txt": "def word1 return the value " * 50})
    with pytest.raises(UserError, match=r"a\.txt: fastokens and tokenizers give different ids at token \d+"):
        pack_into(tmp_path / "out", source, tokenizer=path)


@pytest.mark.parametrize("encoder", ["fastokens", "tokenizers"])
def test_text_that_a_tokenizer_cannot_encode_is_refused_in_one_line(tmp_path: Path, encoder: str) -> None:
    content = json.loads(make_tokenizer(tmp_path / "t.json").read_text())
    del content["model"]["vocab"]["Q"]
    content["model"]["unk_token"] = "<nie>"  # which has no id either
    (tmp_path / "t.json").write_text(json.dumps(content))
    source = write_files(tmp_path / "in", {"a.txt": "Q"})
    with pytest.raises(UserError, match=r"tokenizer\.json: cannot encode this text: .*; use one that has an id"):
        pack_into(tmp_path / "out", source, tokenizer=tmp_path / "t.json", encoder=encoder)


def test_ids_for_which_no_table_has_room_are_refused(tmp_path: Path) -> None:
    content = json.loads(make_tokenizer(tmp_path / "t.json").read_text())
    content["added_tokens"][0]["id"] = 1 << 31
    (tmp_path / "t.json").write_text(json.dumps(content))
    source = write_files(tmp_path / "in", {"a.txt": "text"})
    with pytest.raises(UserError, match=r"t\.json: has the id 2147483648; ids above 16777215 are not supported"):
        pack_into(tmp_path / "out", source, tokenizer=tmp_path / "t.json")


def test_truncation_and_padding_of_a_tokenizer_do_not_count(tmp_path: Path) -> None:
    cut = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    pad = {
        **{"strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": None},
        **{"pad_id": 0, "pad_type_id": 0, "pad_token": "!"},
    }
    source = write_files(tmp_path / "in", {"a.txt": "def word1 return the value " * 9})
    path = make_tokenizer(tmp_path / "t.json", truncation=cut, padding=pad)
    for encoder in ("fastokens", "tokenizers"):
        packed = pack_into(tmp_path / encoder, source, tokenizer=path, val=0, encoder=encoder)
        assert documents(packed) == ["def word1 return the value " * 9]


def test_a_vocabulary_above_65536_ids_is_written_as_uint32(tmp_path: Path) -> None:
    path = make_tokenizer(tmp_path / "t.json", eot=None)
    content = json.loads(path.read_text())
    vocab = content["model"]["vocab"]
    vocab |= {f"<unused{number}>": number for number in range(len(vocab), 70_000)}
    path.write_text(json.dumps(content))
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.add_special_tokens([EOT])
    tokenizer.save(str(path))
    packed = pack_into(tmp_path / "out", write_files(tmp_path / "in", {"a.txt": "text"}), tokenizer=path, val=0)
    assert (packed.manifest["dtype"], packed.manifest["vocab_size"]) == ("uint32", 70_001)
    assert documents(packed) == ["text"]


def test_a_tokenizer_that_fastokens_does_not_know_is_encoded_by_tokenizers(tmp_path: Path) -> None:
    words = {"[UNK]": 0, "</s>": 1, "one": 2, "two": 3}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(["</s>"])
    tokenizer.save(str(tmp_path / "t.json"))
    report = Notes()
    source = write_files(tmp_path / "in", {"a.txt": "one two", "b.txt": "two one one"})
    packed = pack_into(tmp_path / "out", source, tokenizer=tmp_path / "t.json", val=0, report=report)
    assert documents(packed) == ["one two", "two one one"]
    assert report.lines == ["fastokens does not know this kind of tokenizer: tokenizers encodes, which is slower"]


def test_a_document_that_would_hold_the_id_of_the_end_is_left_out(tmp_path: Path) -> None:
    """Where the token is an ordinary word of the vocabulary, its text cannot be encoded otherwise."""
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "</s>": 1, "one": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(tmp_path / "t.json"))
    source = write_files(tmp_path / "in", {"a.txt": "one one", "b.txt": "one </s> one", "c.txt": "one"})
    packed = pack_into(tmp_path / "out", source, tokenizer=tmp_path / "t.json", val=0)
    assert documents(packed) == ["one one", "one"]
    reasons = {reason: each["count"] for reason, each in packed.progress.skipped.to_dict().items()}
    assert reasons == {"holds the end-of-text token": 1}


@settings(max_examples=30)
@given(sizes=st.lists(st.integers(1, 30), min_size=1, max_size=12), limit=st.integers(1, 40), split=st.integers(0, 12))
def test_a_shard_holds_whole_documents_and_only_a_long_one_is_longer(sizes: list[int], limit: int, split: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, start, state = Path(name), 0, ShardState()
        for part in filter(None, (sizes[:split], sizes[split:])):  # the second goes on where the first was
            writer = ShardWriter(folder, "p", np.dtype("<u2"), limit, state, first=0)
            ids = np.arange(start, start + sum(part), dtype="<u2")
            writer.write(ids, np.array(part), size=0)
            start += sum(part)
        writer.close()
        files = sorted(folder.iterdir())
        shards = [np.fromfile(file, "<u2", offset=1024) for file in files]
    assert np.concatenate(shards).tolist() == list(range(sum(sizes)))
    ends = np.cumsum(sizes)
    assert set(np.cumsum([len(shard) for shard in shards])) <= set(ends)
    assert all(len(shard) and (len(shard) <= limit or len(shard) in sizes) for shard in shards)
    assert [file.name for file in files] == list(state.closed)


def test_the_table_of_seen_documents_grows_and_forgets_nothing(tmp_path: Path) -> None:
    from data.pack.dedup import SeenDocuments

    rng = np.random.default_rng(0)
    seen, known = SeenDocuments(tmp_path / "seen"), set()
    values = rng.integers(0, 1 << 63, (60_000, 2)).astype(np.uint64)
    values[:5, 0] = 0  # 0 marks an empty slot
    values[5:90, 0] = 1 << 16  # all want one slot
    for _ in range(8):
        batch = values[rng.integers(0, len(values), 20_000)]
        expected = [row.tobytes() not in known and not known.add(row.tobytes()) for row in batch]  # type: ignore[func-returns-value]
        assert (seen.add(batch) == expected).all()
    seen.close()
    assert not list(tmp_path.iterdir())
