"""The library's docstrings are plain text, not reStructuredText: show them on the page as they stand in the source."""
import re


def escape(app, what, name, obj, options, lines: list[str]) -> None:
    """Turn each docstring line into a line of a line block, with every mark-up character made harmless. A line that goes on in the middle of a sentence gets its rest back."""
    lines[:] = [line and f"| {indent(line)}{mark(line.strip())}" for line in joined(lines)]


def joined(lines: list[str]) -> list[str]:
    """Lines as a reader would break them: a page is narrower than the source."""
    found: list[str] = []
    for line in lines:
        if found and line.strip() and indent(line) == indent(found[-1]) and re.search(r"[^.:;]$", found[-1]):
            found[-1] += f" {line.strip()}"
        else:
            found.append(line)
    return found


def indent(line: str) -> str:
    """Leading blanks as no-break spaces, which a line block keeps."""
    return "\N{NO-BREAK SPACE}" * (len(line) - len(line.lstrip()))


def mark(text: str) -> str:
    """`code` becomes a literal; elsewhere * | _ @ and backslash lose their meaning."""
    pieces = re.split(r"(`+[^`]+`+)", text)
    return "".join(f"``{piece.strip('`')}``" if piece.startswith("`") else re.sub(r"([\\*|_@`])", r"\\\1", piece) for piece in pieces)


def setup(app) -> dict:
    app.connect("autodoc-process-docstring", escape)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
