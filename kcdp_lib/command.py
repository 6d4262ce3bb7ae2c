"""How `python -m kcdp_lib...` ends on a user's mistake: with a sentence and an exit status."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from kcdp_lib.errors import KCDPError, printable

INTERRUPTED = 130  # exit status of shells after Ctrl-C


@contextmanager
def command() -> Iterator[None]:
    """Run a command inside: errors that its user can cause become a sentence and an exit status.

    Other errors are bugs and keep their traceback.
    """
    try:
        # a console that cannot show a character still gets the line
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")
        yield
        sys.stdout.flush()
    except KCDPError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:  # the reader, such as `head`, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        where = printable(error.filename or "The output")
        sys.exit(f"{where} cannot be used ({error.strerror}): check the path and the disk.")
