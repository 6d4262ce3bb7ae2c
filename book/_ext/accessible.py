"""Replace ARIA roles from docutils that screen readers no longer support."""


def mend(app, pagename, templatename, context, doctree) -> None:
    """Give each entry of the bibliography the role of a list item.

    Its own role, doc-biblioentry, is deprecated, and left the list without items.
    """
    context["body"] = context.get("body", "").replace('role="doc-biblioentry"', 'role="listitem"')


def setup(app) -> dict:
    """Called by Sphinx."""
    app.connect("html-page-context", mend)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
