"""Each private name of Textual is used in one file, which says why: that is where a new version may break."""

from __future__ import annotations

import ast
from pathlib import Path

import textual.app
import textual.screen
import textual.strip
import textual.widgets

APP = Path(__file__).parents[3] / "tui" / "app"
# file below tui/app → the private names it uses
KNOWN = {
    "terminal/cell_diff.py": {"_compositor", "_display", "_divide_cache"},
    "terminal/rebind.py": {"_bindings", "_merged_bindings"},
}
TEXTUAL = (
    textual.app.App,
    textual.screen.ModalScreen,
    textual.strip.Strip,
    textual.widgets.Input,
    textual.widgets.Button,
)


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def names_of_textual() -> set[str]:
    """What its classes and their instances call their own; what a class of ours may not override by accident."""
    names = {name for one in TEXTUAL for name in dir(one)}
    return {name for name in names | set(vars(textual.app.App())) if private(name)}


def used(tree: ast.Module, names: set[str]) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("textual"):
            parts = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
            found |= {part for part in parts if private(part)}
        elif isinstance(node, ast.Attribute) and not (isinstance(node.value, ast.Name) and node.value.id == "os"):
            found |= {node.attr} & names
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found |= {node.name} & names
    return found


def test_each_private_name_is_used_in_the_file_that_documents_it() -> None:
    names = names_of_textual()
    found = {}
    for path in APP.rglob("*.py"):
        if path.parent.name != "state":  # whose classes are plain ones
            found[path.relative_to(APP).as_posix()] = used(ast.parse(path.read_text(encoding="utf-8")), names)
    assert {path: private for path, private in found.items() if private} == KNOWN
