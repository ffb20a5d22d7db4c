"""Unknown options, and the name nearest to a misspelt one."""

from __future__ import annotations

import inspect
from collections.abc import Iterable

# Of the settings that are the parts of a URL.
_BEGINNING = "amqp_"


def check_options(cls: type, given: Iterable[str], others: Iterable[str]) -> None:
    """Check the keywords that a constructor passes on.

    Args:
        cls: the class of the constructor; a hint may also name a keyword of its own.
        given: the keywords that are passed on.
        others: the keywords that may be passed on.

    Raises:
        TypeError: one is unknown; the text names the class and the nearest known keyword.
    """
    unknown = set(given).difference(others)
    if unknown:
        raise unknown_options(cls.__name__, unknown, {*others, *_taken_by(cls)})


def unknown_options(owner: str, unknown: Iterable[str], known: Iterable[str]) -> TypeError:
    """Return the error for options that `owner` does not have."""
    names = ", ".join(f"{name!r:.100}" for name in sorted(unknown))
    return TypeError(
        f"{owner} has no option {names}; it has {', '.join(sorted(known))}"
        f"{did_you_mean(unknown, known)}"
    )


def did_you_mean(unknown: Iterable[str], known: Iterable[str]) -> str:
    """Return the end of an error that names the nearest option, "" if none is near."""
    names = list(known)
    near = [match for name in sorted(unknown) for match in _nearest(name, names)]
    return f"; did you mean {', '.join(map(repr, near))}?" if near else ""


def _nearest(name: str, known: list[str]) -> list[str]:
    # Few letters are the same of a short name whose beginning is left out, or of one too many.
    for other in (_BEGINNING + name, name.removeprefix(_BEGINNING)):
        if other in known:
            return [other]
    # Imported here, because most programs never need it.
    from difflib import get_close_matches

    return get_close_matches(name, known, 1, 0.7)


def _taken_by(cls: type) -> Iterable[str]:
    by_name = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    for each in cls.__mro__[:-1]:
        init = vars(each).get("__init__")
        if init is not None:
            # Without `self`.
            parameters = list(inspect.signature(init).parameters.values())[1:]
            yield from (one.name for one in parameters if one.kind in by_name)
