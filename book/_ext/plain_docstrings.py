"""The library's docstrings are plain text, not reStructuredText.

Show them on the page as they stand in the source, with links to equations and chapters, and with
the comments beside a class's fields.
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

    Every mark-up character is made harmless.
    """
    first, *rest = joined([*lines, *fields(obj)]) or [""]
    lines[:] = [
        mark(first),
        "",
        *(line and f"| {indent(line)}{mark(line.strip())}" for line in rest),
    ]


def joined(lines: list[str]) -> list[str]:
    """Lines as a reader would break them: a page is narrower than the source.

    A line that goes on in the middle of a sentence gets its rest back.
    """
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
    """Leading blanks as no-break spaces, which a line block keeps."""
    return "\N{NO-BREAK SPACE}" * (len(line) - len(line.lstrip()))


def fields(obj) -> list[str]:
    """The fields of a class with the comments beside them, a line each.

    That is where their shapes and units stand.
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
    """`code` becomes a literal, the name of an equation or a chapter a link.

    Elsewhere * | _ @ and backslash lose their meaning.
    """
    found, end = [], 0
    for match in REFERENCE.finditer(text):
        found += [harmless(text[end : match.start()]), linked(match[0])]
        end = match.end()
    return "".join([*found, harmless(text[end:])])


def harmless(text: str) -> str:
    """Text in which no character is mark-up."""
    return re.sub(r"([\\*|_@`])", r"\\\1", text)


def linked(name: str) -> str:
    """What `REFERENCE` found, as mark-up. No blank is needed around it."""
    if name.startswith("`"):
        return f"``{name.strip('`')}``"
    role = f":doc:`{name} </{CHAPTERS[name]}>`" if name in CHAPTERS else f":eq:`{name}`"
    return rf"\ {role}\ "


def skip(app, what, name, obj, skipped, options) -> bool | None:
    """Leave out what NamedTuple says of its fields by itself."""
    return True if (inspect.getdoc(obj) or "").startswith("Alias for field number") else None


class Table(Autosummary):
    """autosummary's table.

    The pages that `:toctree:` makes stand in _toc.yml, where Jupyter Book wants them, so its own
    tree is left out.
    """

    def run(self) -> list:
        """The table's nodes, without a tree of pages."""
        self.options.pop("toctree", None)
        return super().run()


def setup(app) -> dict:
    """Called by Sphinx."""
    app.setup_extension("sphinx.ext.autosummary")
    app.add_directive("autosummary", Table, override=True)
    app.connect("autodoc-process-docstring", escape)
    app.connect("autodoc-skip-member", skip)
    return {"version": "2", "parallel_read_safe": True, "parallel_write_safe": True}
