"""Keep sphinx-codeautolink from ending the build.

It reads the type of every name, and some annotations cannot be evaluated (PIL's use classes that
its C part lacks).
"""

import typing

from sphinx_codeautolink.extension import resolve


def known_hints(of) -> dict:
    """Return a name's annotations, or none if they cannot be evaluated."""
    try:
        return typing.get_type_hints(of)
    except (AttributeError, NameError, TypeError):
        return {}


def setup(app) -> dict:
    """Called by Sphinx."""
    resolve.get_type_hints = known_hints
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
