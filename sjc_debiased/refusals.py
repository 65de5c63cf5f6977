"""What commands share: an error that a person can mend is a line on stderr, not a traceback."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def refusals(*errors: type[Exception]) -> Iterator[None]:
    """End the command with 2 where one of these errors, or an `OSError`, is raised; print what it says."""
    try:
        yield
    except (OSError, *errors) as problem:
        print(problem, file=sys.stderr)
        sys.exit(2)
