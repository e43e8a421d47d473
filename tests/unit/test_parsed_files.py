"""Mutants of every file that the program parses: read, or refused by one line; no traceback, no hang, little memory.

hypothesis draws them, so that one that fails is shrunk to the few changes that matter.
"""

from __future__ import annotations

import os
import random
import resource
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, seed, settings

from profiles.errors import UserError
from tests.unit import parsed_files, parsed_logs, parsed_tokens
from tests.unit.mutants import Format, mutants

FORMATS = (
    *("profile", "hooks", "settings", "state", "spec", "labels", "trainer", "facts", "manifest", "evals", "dataset"),
    *("tokenizer", "hf config", "safetensors", "index", "deepspeed", "calibration", "packed", "journal", "mixture"),
    *("llm.c", "npy", "megatron", "datatrove", "metadata", "described", "vocabulary"),
    *("log", "commands", "request", "data record", "app pack", "marker", "pointer"),
)
MOST_MEMORY = 300 << 10  # KiB that reading may add to the peak of this process


def assert_message(text: str) -> None:
    assert text.isprintable() and 0 < len(text) < 500, text


def formats(root: Path) -> dict[str, Format]:
    found = parsed_files.formats(root)
    tokens = parsed_tokens.formats(root / "tokens", found["tokenizer"].valid)
    return {**found, **tokens, **parsed_logs.formats(root / "logs")}


def read_mutants(root: Path, monkeypatch: pytest.MonkeyPatch, name: str, count: int, number: int) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(root / "config"))
    monkeypatch.setenv("MLA_TUI_HOME", str(root / "home"))
    (root / "config" / "mla-tui").mkdir(parents=True)
    found = formats(root)
    assert found.keys() == set(FORMATS)
    form = found[name]
    form.path.write_bytes(form.dump(form.valid))
    form.read()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    @seed(number)
    @settings(max_examples=count, database=None, suppress_health_check=list(HealthCheck), print_blob=False)
    @given(data=mutants(form))
    def check(data: bytes) -> None:
        form.path.write_bytes(data)
        read(form)

    check()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST_MEMORY


def read(form: Format) -> None:
    try:
        answer = form.read()
    except UserError as error:
        assert_message(str(error))
    else:
        for line in answer if form.messages else ():
            assert_message(line)


@pytest.mark.parametrize("name", FORMATS)
def test_a_mutant_is_read_or_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    read_mutants(tmp_path, monkeypatch, name, 200, 1)


@pytest.mark.faults
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", FORMATS)
def test_20_000_mutants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    number = int(os.environ.get("MLA_TUI_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"seed {number}")
    read_mutants(tmp_path, monkeypatch, name, 20_000, number)
