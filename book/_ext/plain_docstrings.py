"""The library's docstrings are plain text, not reStructuredText: show them on the page as they stand in the source."""
import re


def escape(app, what, name, obj, options, lines: list[str]) -> None:
    """Turn each docstring line into a line of a line block, with every mark-up character made harmless."""
    lines[:] = [line and f"| {indent(line)}{mark(line.strip())}" for line in lines]


def indent(line: str) -> str:
    """Leading blanks as no-break spaces, which a line block keeps."""
    return "\N{NO-BREAK SPACE}" * (len(line) - len(line.lstrip()))


def mark(text: str) -> str:
    """`code` becomes a literal; elsewhere * | _ and backslash lose their meaning."""
    pieces = re.split(r"(`+[^`]+`+)", text)
    return "".join(f"``{piece.strip('`')}``" if piece.startswith("`") else re.sub(r"([\\*|_`])", r"\\\1", piece) for piece in pieces)


def setup(app) -> dict:
    app.connect("autodoc-process-docstring", escape)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
