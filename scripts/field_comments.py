"""Reads what the source of a class says about its fields, for the generated references."""

from __future__ import annotations

import ast
import inspect
import io
import sys
import tokenize


def source_of(cls: type) -> ast.ClassDef:
    """Return the definition of ``cls`` in its module."""
    module = ast.parse(inspect.getsource(sys.modules[cls.__module__]))
    return next(node for node in module.body if isinstance(node, ast.ClassDef) and node.name == cls.__name__)


def comments_of(cls: type) -> dict[str, str]:
    """Return the comment of each field that ``cls`` defines itself: the lines above it, and what is beside it."""
    tokens = tokenize.generate_tokens(io.StringIO(inspect.getsource(sys.modules[cls.__module__])).readline)
    comments = {token.start[0]: token for token in tokens if token.type == tokenize.COMMENT}
    found = {}
    for item in source_of(cls).body:
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
            first, last = item.lineno, item.end_lineno or item.lineno
            above = first
            while (before := comments.get(above - 1)) and before.line.lstrip().startswith("#"):
                above -= 1
            lines = [comments[line].string.lstrip("# ") for line in range(above, last + 1) if line in comments]
            found[item.target.id] = " ".join(lines)
    return found
