"""Roles that screen readers know, where docutils writes others."""


def mend(app, pagename, templatename, context, doctree) -> None:
    """An entry of the bibliography's list is a list item.

    Its own role, doc-biblioentry, is out of use, and left the list without items.
    """
    context["body"] = context.get("body", "").replace('role="doc-biblioentry"', 'role="listitem"')


def setup(app) -> dict:
    """Called by Sphinx."""
    app.connect("html-page-context", mend)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
