"""The one exception that is written for users, and how to quote other errors inside it."""

import re
from textwrap import shorten


class KCDPError(ValueError):
    """Bad input, described in one sentence that says what to do."""

    def __init__(self, sentence: str):
        super().__init__(printable(sentence))


def printable(text: object) -> str:
    """Return a text that any stream can print, on one line.

    Control characters, line separators, marks that turn the direction of writing, and the bytes of
    file names that are not UTF-8 are escaped.
    """
    unfit = r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
    return re.sub(unfit, lambda match: ascii(match[0])[1:-1], str(text))


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, short enough to be quoted inside a sentence.

    The second line is added if the first ends in a colon; an empty message gives the error's name.
    """
    lines = (str(error).strip() or type(error).__name__).splitlines()
    quoted = lines[:2] if lines[0].endswith(":") else lines[:1]
    return shorten(" ".join(quoted), 300, placeholder=" ...")
