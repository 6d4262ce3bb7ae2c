"""The one exception that users are meant to read, and how a command ends in it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from textwrap import shorten


class KCDPError(ValueError):
    """Bad input, described in one sentence that says what to do."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message, short enough to be quoted inside a sentence.

    The second line is added where the first ends in a colon; an empty message gives the error's
    name.
    """
    lines = (str(error).strip() or type(error).__name__).splitlines()
    quoted = lines[:2] if lines[0].endswith(":") else lines[:1]
    return shorten(" ".join(quoted), 300, placeholder=" ...")


@contextmanager
def ends_in_a_sentence() -> Iterator[None]:
    """End a command, with status 1, in a sentence for what its user can cause, not in a traceback.

    That is a KCDPError, a file that cannot be read or written, and Ctrl-C (status 130).
    """
    try:
        yield
    except KCDPError as error:
        sys.exit(str(error))
    except OSError as error:
        sys.exit(
            f"{error.filename or 'A file'} cannot be read or written "
            f"({error.strerror or error}); give this user the right to, or choose another folder."
        )
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        sys.exit(130)
