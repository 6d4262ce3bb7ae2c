"""The one exception that users are meant to read, and how to quote another inside it."""

from textwrap import shorten


class KCDPError(ValueError):
    """Bad input, described in one sentence that says what to do."""


def first_line(error: Exception) -> str:
    """The first line of an error's message, short enough to be quoted inside a sentence.

    The second line is added where the first ends in a colon; an empty message gives the error's
    name.
    """
    lines = (str(error).strip() or type(error).__name__).splitlines()
    quoted = lines[:2] if lines[0].endswith(":") else lines[:1]
    return shorten(" ".join(quoted), 300, placeholder=" ...")
