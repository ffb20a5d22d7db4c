"""The catalogue of faults; docs/explanation/reliability.rst says what its ids mean."""

import os
from typing import TypeVar

T = TypeVar("T")

# Whether the whole catalogue runs (`tox run -e faults`), or the slice of it in every test run.
WHOLE = bool(os.environ.get("AMPHORA_FAULTS"))


def whole(figure: T, otherwise: T) -> T:
    """Return a case's figure in a run of the whole catalogue, and another in every test run."""
    return figure if WHOLE else otherwise
