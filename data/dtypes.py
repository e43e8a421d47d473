"""Names the integer types that files of token ids have; all are little-endian."""

from __future__ import annotations

from typing import Any

import numpy as np

UINT16: np.dtype[Any] = np.dtype("<u2")
UINT32: np.dtype[Any] = np.dtype("<u4")
INT32: np.dtype[Any] = np.dtype("<i4")
INT64: np.dtype[Any] = np.dtype("<i8")
