"""Formats numbers, bytes, durations and times in few characters."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

NOTHING = "–"
SMALL = 1e-3  # an axis writes smaller values with an exponent
_UNIQUE_DATE = 350 * 86400.0  # seconds, within which day and month mean one date
_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_COUNTS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


def size(value: float | None) -> str:
    """Return bytes in binary units with about three digits: ``9.11 GiB``."""
    if value is None or not math.isfinite(value):
        return NOTHING
    scale, unit = size_scale(value)
    return f"{_three(value / scale) if scale > 1 else int(value)} {unit}"


def size_scale(value: float | None) -> tuple[float, str]:
    """Return the unit, in bytes and by name, in which ``size`` writes a value."""
    amount, scale, unit = abs(value or 0.0), 1.0, 0
    while math.isfinite(amount) and amount / scale >= 999.5 and unit < len(_BINARY) - 1:
        scale, unit = scale * 1024, unit + 1
    return scale, _BINARY[unit]


def size_of(used: float | None, total: float | None) -> str:
    """Return used and total bytes, with one unit if both have the same: ``9.11 of 15.9 GiB``."""
    part, whole = size(used), size(total)
    number, _, unit = part.partition(" ")
    return f"{number} of {whole}" if whole.endswith(f" {unit}") else f"{part} of {whole}"


def _three(amount: float) -> str:
    """Return about three significant digits, without an exponent."""
    magnitude = abs(amount)
    return f"{amount:.2f}" if magnitude < 9.995 else f"{amount:.1f}" if magnitude < 99.95 else f"{amount:.0f}"


def duration(seconds: float | None) -> str:
    """Return at most two units: ``0.42 s``, ``12m 30s``, ``3h 05m``, ``6d 4h``, ``27y 31d``."""
    if seconds is None or not math.isfinite(seconds) or seconds < 0:
        return NOTHING
    if seconds < 10:
        return f"{seconds:.2f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes}m {rest:02d}s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours}h {minutes:02d}m"
    days, hours = divmod(hours, 24)
    if days < 2 * 365:
        return f"{days}d {hours}h"
    years, days = divmod(days, 365)
    return f"{years}y {days}d"


def short_duration(seconds: float) -> str:
    """Return one unit, for an axis: ``90s``, ``5m``, ``2.5h``, ``4d``."""
    for length, name in ((86400.0, "d"), (3600.0, "h"), (60.0, "m")):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f}".removesuffix(".0") + name
    return f"{seconds:.0f}s"


def rough_duration(seconds: float) -> str:
    """Return one unit, whole, so that it changes rarely: ``<1m``, ``5m``, ``3h``, ``4d``."""
    for length, name in ((86400.0, "d"), (3600.0, "h"), (60.0, "m")):
        if seconds >= (2 * length if length > 60 else length):
            return f"{seconds // length:.0f}{name}"
    return "<1m"


def clock(t: float, now: float) -> str:
    """Return a local time with what a date needs: ``19:47``, ``Tue 19:47``, ``23 Nov 19:47``, ``23 Nov 2027``."""
    then, today = time.localtime(t), time.localtime(now)
    if then[:3] == today[:3]:
        return time.strftime("%H:%M", then)
    if t - now < 6 * 86400:
        return time.strftime("%a %H:%M", then)
    return time.strftime("%d %b %H:%M" if then[0] == today[0] else "%d %b %Y", then)


def count(value: float | None) -> str:
    """Return a count in at most five characters: ``512``, ``12.3k``, ``1.02B``."""
    if value is None or not math.isfinite(value):
        return NOTHING
    if abs(value) < 9999.5:
        return f"{value:.0f}"
    for scale, name in _COUNTS:
        if abs(value) >= scale * 0.9995:
            return _three(value / scale) + name
    return f"{value:.0f}"


def exact(value: float | None) -> str:
    """Return a count with thousands separators: ``1,024,849,664``."""
    return NOTHING if value is None or not math.isfinite(value) else f"{value:,.0f}"


def fixed(value: float | None, digits: int) -> str:
    """Return a number with ``digits`` decimals."""
    return NOTHING if value is None else f"{value:.{digits}f}"


def loss(value: float | None) -> str:
    """Return a loss or norm with three decimals, fewer if it is large."""
    if value is None or not math.isfinite(value):
        return NOTHING
    magnitude = abs(value)
    if magnitude and (magnitude < 1e-3 or magnitude >= 1e6):
        return f"{value:.2e}"
    return f"{value:.3f}" if magnitude < 100 else f"{value:.1f}"


def rate(value: float | None) -> str:
    """Return a learning rate: ``3.00e-4``."""
    if value is None or not math.isfinite(value):
        return NOTHING
    if not value:
        return "0"
    mantissa, _, exponent = f"{value:.2e}".partition("e")
    return f"{mantissa}e{int(exponent)}"


def percent(value: float | None) -> str:
    """Return a fraction in percent: ``43%``."""
    return NOTHING if value is None or not math.isfinite(value) else f"{value:.0%}"


def percent_of_100(value: float | None) -> str:
    """Return percent: ``43%``."""
    return NOTHING if value is None or not math.isfinite(value) else f"{value:.0f}%"


def flop_s(value: float) -> str:
    """Return FLOP/s: ``112.6 TFLOP/s``."""
    return f"{value / 1e12:.4g} TFLOP/s" if value >= 1e12 else f"{value / 1e9:.4g} GFLOP/s"


def watts(value: float | None) -> str:
    return NOTHING if value is None or not math.isfinite(value) else f"{value:.0f} W"


def celsius(value: float | None) -> str:
    return NOTHING if value is None or not math.isfinite(value) else f"{value:.0f} °C"


def formatter(name: str) -> Callable[[float | None], str]:
    """Return the function that a ``Metric`` names as its ``format``."""
    found: Callable[[float | None], str] = globals()[name]
    return found


def axis(value: float) -> str:
    """Return the label of an axis tick: no trailing zeros, at most six characters for ordinary values."""
    if value and (abs(value) >= 1e4 or abs(value) < SMALL):
        return count(value) if 1e4 <= abs(value) < 1e15 else scientific(value)
    return f"{value:.4g}"


def scientific(value: float) -> str:
    """Return a value with an exponent and two digits: ``2.5e-4``."""
    mantissa, _, exponent = f"{value:.1e}".partition("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"


def axis_time(t: float, span: float) -> str:
    """Return the local time of a tick on an axis of ``span`` seconds, no more precise than the span needs."""
    form = "%d %b" if span > 6 * 86400 else "%d %b %H:%M" if span > 43200 else "%H:%M" if span > 3600 else "%H:%M:%S"
    return time.strftime(form, time.localtime(t))


def start_of_day(t: float) -> float:
    """Return when the local day of ``t`` started, in unix seconds."""
    day = time.localtime(t)
    return time.mktime((*day[:3], 0, 0, 0, 0, 0, -1))


def timestamp(t: float | None, now: float | None = None) -> str:
    """Return a local time: the hour if it is today, else the date, or the year where the date may be of this one:
    ``19:47``, ``23 Nov``, ``2025``.
    """
    if t is None or not math.isfinite(t):
        return NOTHING
    now = time.time() if now is None else now
    then, today = time.localtime(t), time.localtime(now)
    form = "%H:%M" if then[:3] == today[:3] else "%d %b" if abs(now - t) < _UNIQUE_DATE else "%Y"
    return time.strftime(form, then)
