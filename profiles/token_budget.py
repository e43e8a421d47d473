"""Proposes batch size and steps for a budget of tokens.

The batch with the lowest loss grows as tokens ** 0.383, whatever the model's size (arXiv:2505.13738). The reference is
nanochat's (github.com/karpathy/nanochat, scripts/base_train.py): 524 288 tokens a step at 10.5 tokens for each of the
110 million matrix parameters of its 12-layer model. Neither was measured on an MLA.
"""

from __future__ import annotations

import math
import re

from profiles.errors import SpecError
from profiles.printable import brief
from profiles.spec import RunSpec

EXPONENT = 0.383
REFERENCE_BATCH = 2**19  # tokens of a step
REFERENCE_TOKENS = 1.16e9  # of the run that it is best for
SOURCE = "batch ∝ tokens^0.383, arXiv:2505.13738, from nanochat's 524k at 1.16B"
_UNITS = {"": 1.0, "K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
_RANGE = (1e6, 1e15)


def token_count(text: str) -> int:
    """Return the number of tokens in ``text``: "10B", "500M", "2e9". Raise ``SpecError``."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?(?:e\d{1,2})?)([KMBT]?)", text.strip(), re.IGNORECASE | re.ASCII)
    count = float(found[1]) * _UNITS[found[2].upper()] if found else 0
    if not _RANGE[0] <= count <= _RANGE[1]:
        raise SpecError(f"--tokens: {brief(text)} is not a number of tokens from 1M to 1000T; write for example 10B")
    return round(count)


def best_batch(tokens: int) -> float:
    """Return the tokens of a step with which ``tokens`` in all reach the lowest loss."""
    return REFERENCE_BATCH * math.pow(tokens / REFERENCE_TOKENS, EXPONENT)


def with_token_budget(spec: RunSpec, tokens: int) -> RunSpec:
    """Return ``spec`` with the sequences and steps for ``tokens``. Raise ``SpecError``.

    The sequences are the power of two times micro and ranks that is nearest to the best batch, by ratio.
    """
    unit = spec.batch.micro * spec.ranks
    times = 2 ** max(0, round(math.log2(best_batch(tokens) / (unit * spec.batch.context))))
    steps = math.ceil(tokens / (times * unit * spec.batch.context))
    return spec.with_values("--tokens", batch={"sequences": times * unit}, train={"steps": steps})
