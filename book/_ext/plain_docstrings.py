"""Show the library's docstrings, which are plain text and not reStructuredText.

They appear as in the source, with links to equations and chapters, and with the comments beside a
class's fields.
"""

import ast
import inspect
import re
import textwrap

from sphinx.ext.autosummary import Autosummary

CHAPTERS = {
    "chapter 01": "notebooks/01_datasets",
    "chapter 02": "notebooks/02_knowledge",
    "chapter 03": "notebooks/03_perception",
    "chapter 04": "notebooks/04_counterfactuals",
    "chapter 05": "notebooks/05_adapt",
    'chapter "A fair comparison"': "notebooks/06_compare",
    'chapter "Paper, released code and this book"': "book/differences",
    "method chapter": "book/method",
}
REFERENCE = re.compile("|".join([r"`+[^`]+`+", r"\beq(?:-[a-z]+)+", *map(re.escape, CHAPTERS)]))


def escape(app, what, name, obj, options, lines: list[str]) -> None:
    """Turn a docstring into a paragraph, its first line, and a line block of the rest.

    All mark-up characters are escaped.
    """
    first, *rest = joined([*lines, *fields(obj)]) or [""]
    lines[:] = [
        mark(first),
        "",
        *(line and f"| {indent(line)}{mark(line.strip())}" for line in rest),
    ]


def joined(lines: list[str]) -> list[str]:
    """Join the lines of a sentence, because a page is narrower than the source."""
    found: list[str] = []
    for line in lines:
        if (
            found
            and line.strip()
            and indent(line) == indent(found[-1])
            and re.search(r"[^.:;]$", found[-1])
        ):
            found[-1] += f" {line.strip()}"
        else:
            found.append(line)
    return found


def indent(line: str) -> str:
    """Return leading blanks as no-break spaces, which a line block keeps."""
    return "\N{NO-BREAK SPACE}" * (len(line) - len(line.lstrip()))


def fields(obj) -> list[str]:
    """List the fields of a class, each with the comment beside it.

    These comments hold their shapes and units.
    """
    if not inspect.isclass(obj):
        return []
    source = textwrap.dedent(inspect.getsource(obj))
    own = [node for node in ast.parse(source).body[0].body if isinstance(node, ast.AnnAssign)]
    comments = [re.search(r"#\s*(.*)", source.splitlines()[node.end_lineno - 1]) for node in own]
    return (
        [
            "",
            *(
                f"`{node.target.id}`: {comment[1] if comment else ast.unparse(node.annotation)};"
                for node, comment in zip(own, comments, strict=True)
            ),
        ]
        if own
        else []
    )


def mark(text: str) -> str:
    """Turn `code` into a literal, and the name of an equation or chapter into a link.

    Everywhere else * | _ @ and backslash are escaped.
    """
    found, end = [], 0
    for match in REFERENCE.finditer(text):
        found += [harmless(text[end : match.start()]), linked(match[0])]
        end = match.end()
    return "".join([*found, harmless(text[end:])])


def harmless(text: str) -> str:
    """Escape all mark-up characters."""
    return re.sub(r"([\\*|_@`])", r"\\\1", text)


def linked(name: str) -> str:
    """Return the mark-up for a match of `REFERENCE`, which needs no blanks around it."""
    if name.startswith("`"):
        return f"``{name.strip('`')}``"
    role = f":doc:`{name} </{CHAPTERS[name]}>`" if name in CHAPTERS else f":eq:`{name}`"
    return rf"\ {role}\ "


def skip(app, what, name, obj, skipped, options) -> bool | None:
    """Leave out NamedTuple's own descriptions of its fields."""
    return True if (inspect.getdoc(obj) or "").startswith("Alias for field number") else None


class Table(Autosummary):
    """Autosummary's table without its tree of pages.

    The pages that `:toctree:` makes are listed in _toc.yml, where Jupyter Book needs them.
    """

    def run(self) -> list:
        """Return the table's nodes, without a tree of pages."""
        self.options.pop("toctree", None)
        return super().run()


def setup(app) -> dict:
    """Called by Sphinx."""
    app.setup_extension("sphinx.ext.autosummary")
    app.add_directive("autosummary", Table, override=True)
    app.connect("autodoc-process-docstring", escape)
    app.connect("autodoc-skip-member", skip)
    return {"version": "2", "parallel_read_safe": True, "parallel_write_safe": True}
