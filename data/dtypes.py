"""Names the integer types that files of token ids have; all are little-endian."""

from __future__ import annotations

from typing import Any

import numpy as np

UINT16: np.dtype[Any] = np.dtype("<u2")
UINT32: np.dtype[Any] = np.dtype("<u4")
INT32: np.dtype[Any] = np.dtype("<i4")
INT64: np.dtype[Any] = np.dtype("<i8")
# By the names that dataset.json and fingerprints have for them.
DTYPES: dict[str, np.dtype[Any]] = {
    np.dtype(code).name: np.dtype(code) for code in ("<u2", "<u4", "<i4", "<i8", "u1", "<i2", "<u8")
}
