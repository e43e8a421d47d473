"""Names from files and the command line: refused where a path, a shell or a terminal would obey them."""

from __future__ import annotations

from pathlib import Path

import pytest

from profiles.errors import SpecError
from profiles.names import check_name
from profiles.registry import load
from profiles.spec import RunSpec, check_value


@pytest.mark.parametrize("name", ["cpu_demo", "my run", "größe-1.5", "a$(id)", "x" * 100])
def test_a_name_may_have_any_printable_character_but_a_slash(name: str) -> None:
    assert check_name("profile", name) == name


@pytest.mark.parametrize("name", ["", "latest", ".x", "-x", "..", "a/b", "x\n", "\x1b[2J", "a\0", "\u202ex", "x" * 101])
def test_a_name_that_is_more_than_a_name_is_refused(name: str) -> None:
    with pytest.raises(SpecError, match=r"^profile '.*: use a name of 1 to 100 printable characters") as caught:
        check_name("profile", name)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 300
    content = load("cpu_demo").to_dict() | {"profile": name}
    with pytest.raises(SpecError, match=r"^trainer\.json: profile '"):
        RunSpec.from_dict(content, "trainer.json")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("launch.hosts", "a,b\n* slots=9", "'a,b\\n* slots=9' has a control character"),
        ("launch.hosts", "a, --evil", "'--evil' is not the name or address of a host"),
        ("launch.hosts", "a,$(id)", "'$(id)' is not the name or address of a host"),
        ("launch.hosts", "a b", "'a b' is not the name or address of a host"),
        ("data.phase", "../secret", "'../secret' leads out of data.root"),
        ("data.phase", "/etc", "'/etc' leads out of data.root"),
        ("data.root", "a\nb", "'a\\nb' has a control character"),
        ("train.out", "\x1b]0;x\x07", "has a control character"),
        ("model.name", "m\r", "'m\\r' has a control character"),
        ("launch.deepspeed_config", "\ud800", "has a control character"),
    ],
)
def test_a_value_that_would_be_obeyed_is_refused(key: str, value: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        check_value("f.toml", key, value)
    assert str(caught.value).startswith(f"f.toml: {key}: ") and message in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("launch.hosts", "node-1, node_2.lan,10.0.0.3,[fe80::1%eth0]"),
        ("data.root", "/data/\udcff/größe x"),  # a byte that is not UTF-8
        ("data.phase", "phase1/code..v2"),
    ],
)
def test_other_values_are_taken_as_they_are(key: str, value: str) -> None:
    assert check_value("f.toml", key, value) == value


def test_a_description_is_shown_on_one_line(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('extends = "cpu_demo"\ndescription = """a\nb \\u001b[2J"""\n')
    spec = load(str(tmp_path / "mine.toml"))
    assert spec.description == "a b \\x1b[2J"
    assert RunSpec.from_dict(spec.to_dict()) == spec
