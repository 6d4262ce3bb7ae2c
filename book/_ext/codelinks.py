"""sphinx-codeautolink asks every name's type.

Some annotations cannot be evaluated (PIL's name classes that its C part has not), which would end
the build.
"""

import typing

from sphinx_codeautolink.extension import resolve


def known_hints(of) -> dict:
    """A name's annotations, or none where they lead nowhere."""
    try:
        return typing.get_type_hints(of)
    except (AttributeError, NameError, TypeError):
        return {}


def setup(app) -> dict:
    """Called by Sphinx."""
    resolve.get_type_hints = known_hints
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
