"""Settings that are whole numbers, flags or seconds, checked."""

from __future__ import annotations

import math
from operator import index
from typing import Any

from amphora.errors import repr_of


def check_count(name: str, value: Any, most: int | None = None) -> int:
    """Return a setting that is a whole number, 1 or more.

    Args:
        name: the name of the setting.
        most: its largest value; None for no limit.

    Raises:
        ValueError: it is not a whole number in this range.
    """
    try:
        number = None if isinstance(value, bool) else index(value)
    except TypeError:
        number = None
    if number is None or number < 1 or (most is not None and number > most):
        span = "of at least 1" if most is None else f"from 1 to {most}"
        raise ValueError(f"{name} must be a whole number {span}, not {repr_of(value, 50)}")
    return number


def check_flag(name: str, value: Any) -> bool:
    """Return a setting that is on or off.

    Args:
        name: the name of the setting.

    Raises:
        ValueError: it is neither; a text such as "false" would count as on.
    """
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, not {repr_of(value, 50)}")
    return value


def check_patience(timeout: Any) -> float | None:
    """Return for how many seconds to wait at an end; None for no limit.

    Checked before anything ends: what is half closed cannot be closed again.

    Raises:
        ValueError: it is no number of seconds.
    """
    if timeout is None:
        return None
    check_number("a timeout", timeout)
    if math.isnan(timeout):
        raise no_seconds("a timeout", timeout)
    return float(timeout)


def check_number(name: str, value: Any) -> None:
    """Check that a setting in seconds is a number.

    Args:
        name: the name of the setting.

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise no_seconds(name, value)


def no_seconds(name: str, value: object) -> ValueError:
    """Return the error for a setting that is no number of seconds."""
    return ValueError(f"{name} must be a number of seconds, not {repr_of(value)}")
