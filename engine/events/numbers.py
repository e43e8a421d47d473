"""Defines the numbers that records and the state of a run may hold: others come from a damaged disk."""

from typing import Annotated

from msgspec import Meta

# A flipped bit on a disk may leave valid JSON, for example a number of 400 digits: such a record is damaged.
Number = Annotated[int, Meta(ge=-(1 << 62), le=1 << 62)] | Annotated[float, Meta(ge=-1e200, le=1e200)]
Count = Annotated[int, Meta(ge=0, lt=1 << 53)]  # floats represent every such integer exactly
ExitCode = Annotated[int, Meta(ge=-(1 << 31), lt=1 << 31)]  # negative: the number of a signal
Time = Annotated[float, Meta(lt=1 << 32)]  # unix seconds, until the year 2106
