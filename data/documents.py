"""Counts the tokens of packed sequences that a loss is the mean of."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def count_targets(batch: npt.NDArray[np.int64], document_end: int | None) -> int:
    """Return how many tokens of ``batch``, (n, context + 1), are predicted.

    These are all but the first of each sequence, and not those after ``document_end``: another document begins there.
    """
    inputs = batch[:, :-1]
    return inputs.size if document_end is None else int(np.count_nonzero(inputs != document_end))
