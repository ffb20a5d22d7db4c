"""Timeouts and other settings of both clients and servers, checked."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from amphora.errors import repr_of
from amphora.transport.checks import check_number

# The longest timeout of a call, in seconds.
LONGEST_TIMEOUT = 1_000_000.0
# Ten years: more, RabbitMQ refuses.
LONGEST_EXPIRY = 315_360_000.0
# The longest version of a service, in characters.
LONGEST_VERSION = 100


def check_timeout(timeout: Any, name: str = "a timeout") -> float:
    """Return a timeout in seconds.

    Args:
        name: the name of the setting, if it is another.

    Raises:
        ValueError: it is no number of seconds, or out of range.
    """
    return _seconds_up_to(LONGEST_TIMEOUT, name, timeout)


def check_expiry(seconds: Any) -> float:
    """Return after how many seconds without use a queue is deleted.

    Raises:
        ValueError: it is no number of seconds, or out of range.
    """
    return _seconds_up_to(LONGEST_EXPIRY, "x_expires", seconds)


def _seconds_up_to(longest: float, name: str, seconds: Any) -> float:
    check_number(name, seconds)
    # NaN is not more than 0.
    if not 0 < seconds <= longest:
        raise ValueError(
            f"{name} must be more than 0 and at most {longest:,.0f} seconds, not {repr_of(seconds)}"
        )
    return float(seconds)


def check_names(name: str, names: Any, such_as: str = "kill") -> tuple[str, ...]:
    """Return a setting of texts, of which there may be one alone.

    Otherwise one that is given without brackets would be taken for its letters.

    Args:
        name: the name of the setting.
        such_as: what one may look like.

    Raises:
        ValueError: they are none.
    """
    if isinstance(names, str):
        return (names,)
    if not isinstance(names, Iterable) or isinstance(names, bytes | bytearray):
        # Not shown: it may be secret.
        raise ValueError(f"{name} takes texts, such as {{{such_as!r}}}, not {type(names).__name__}")
    return tuple(names)


def seconds_of(expiration: str | None) -> float | None:
    """Return the seconds in the expiration of a message; None if it has none, or a wrong one."""
    if expiration is None or not expiration.isdecimal():
        return None
    return int(expiration) / 1000


def check_wait(seconds: Any) -> float:
    """Return how many seconds to wait for a server; 0 does not wait.

    Raises:
        ValueError: it is no number of seconds, or out of range.
    """
    check_number("wait_for_server", seconds)
    if not 0 <= seconds <= LONGEST_TIMEOUT:
        raise ValueError(
            f"wait_for_server must be from 0 to {LONGEST_TIMEOUT:,.0f} seconds, not"
            f" {repr_of(seconds)}"
        )
    return float(seconds)


def check_version(version: Any) -> str:
    """Return the version of a service.

    Raises:
        ValueError: it is no text, too long, or cannot be printed.
    """
    if (
        not isinstance(version, str)
        or len(version) > LONGEST_VERSION
        or not version.isprintable()
        or version != version.strip()
    ):
        raise ValueError(
            f"a version must be text of at most {LONGEST_VERSION} characters that can be printed,"
            f' such as "2.1.0", not {repr_of(version)}'
        )
    return version
