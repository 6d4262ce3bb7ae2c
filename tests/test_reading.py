"""The pages as people read them: in plain Jupyter, in the book, on paper.

They have no markup that only Sphinx understands, code that fits the column, results instead of
booleans, and a length that is read to the end.
"""

import ast
import importlib.util
import re
from pathlib import Path

import nbformat
import pytest
from nbconvert import MarkdownExporter

ROOT = Path(__file__).resolve().parents[1]
CHAPTERS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PAGES = [*CHAPTERS, *sorted((ROOT / "book").glob("*.ipynb"))]
# {role}`text`, ```{directive}, :::{directive}, {{substitution}}, and a label after an equation
RAW = r"(?<!`)\{[\w:.-]+\}`|^ *(?:```+|:{3,}) *\{|\{\{.*?\}\}|\$\$ *\([\w-]+\)"
COLUMNS, PRINTED, WORDS = 88, 84, 2500
HIDDEN = {"hide-cell", "hide-input", "remove-cell", "remove-input"}
# A Markdown link to an equation of the method chapter: its number, its label
REFERENCE = r"\[\((\d+)\)\]\(#(eq-[\w-]+)\)"
each_chapter = pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
each_page = pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)


def visible(path: Path) -> list:
    """Return the code cells that a reader of the page sees."""
    cells = nbformat.read(path, as_version=4).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    return [cell for cell in code if not HIDDEN & set(cell.metadata.get("tags", []))]


def markdown(path: Path) -> str:
    """Return all Markdown of a page."""
    cells = nbformat.read(path, as_version=4).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def raw(text: str) -> list[str]:
    """Return markup that plain Jupyter shows as typed."""
    return re.findall(RAW, text, re.MULTILINE)


def printed(cell) -> str:
    """Return the text that a cell shows."""
    texts = [
        output.get("text") or output.get("data", {}).get("text/plain", "")
        for output in cell.outputs
    ]
    return "\n".join(texts)


@each_page
def test_plain_jupyter_shows_no_raw_mark_up(path):
    body, _ = MarkdownExporter().from_notebook_node(nbformat.read(path, as_version=4))
    assert not raw(re.sub(r"!\[[^\]]*\]\(data:[^)]*\)", "", body))


@each_chapter
def test_an_exercise_shows_no_raw_mark_up(path):
    spec = importlib.util.spec_from_file_location("exercises", ROOT / "book" / "exercises.py")
    exercises = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(exercises)
    notebook = exercises.without_solutions(nbformat.read(path, as_version=4))
    assert not raw("\n".join(cell.source for cell in notebook.cells))


def test_raw_mark_up_is_noticed():
    shown = "{eq}`eq-x`, {py:func}`a`\n```{admonition} B\n:::{margin}\n$$\na\n$$ (eq-a) {{ b }}"
    assert len(raw(shown)) == 6
    assert not raw("[(2)](#eq-x) `{a}` $x_{ab}$ ```python\n{'a': `b`}\n$$\n\\frac{a}{b}\n$$")


@each_page
def test_an_equation_is_called_by_the_number_that_it_has_in_the_book(path):
    labels = re.findall(
        r"^\$\$ \((eq-[\w-]+)\)$",
        (ROOT / "book" / "method.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    wrong = [
        (number, label)
        for number, label in re.findall(REFERENCE, markdown(path))
        if label not in labels or int(number) != labels.index(label) + 1
    ]
    assert not wrong


def test_only_the_method_chapter_numbers_equations():
    """Sphinx counts through the whole book, so a label elsewhere would move all numbers."""
    pages = [path for path in (ROOT / "book").glob("*.md") if path.stem != "method"]
    assert not [path for path in pages if "$$ (" in path.read_text(encoding="utf-8")]


@each_page
def test_code_and_what_it_prints_fit_the_column(path):
    lines = [line for cell in visible(path) for line in cell.source.splitlines()]
    assert not [line for line in lines if len(line) > COLUMNS]
    shown = [line for cell in visible(path) for line in printed(cell).splitlines()]
    tables = r"\s*\d+ |^ {3}|\[\d+ rows x"  # the plain text of a table that is shown as HTML
    assert not [line for line in shown if len(line) > PRINTED and not re.match(tables, line)]


@each_page
def test_no_cell_in_sight_only_keeps_numbers_for_other_pages(path):
    def keeps(line: ast.stmt) -> bool:
        return isinstance(line, ast.Expr) and bool(
            re.match(r"glue\(.*display=False", ast.unparse(line))
        )

    for cell in visible(path):
        lines = ast.parse(re.sub(r"^%.*$", "", cell.source, flags=re.MULTILINE)).body
        last = lines[-1] if lines else None
        while isinstance(last, ast.For | ast.With | ast.If):
            last = last.body[-1]
        assert last is None or not keeps(last), cell.source


@each_chapter
def test_chapters_print_results_not_booleans(path):
    assert not [
        line
        for cell in visible(path)
        for line in printed(cell).splitlines()
        if re.search(r"\b(?:True|False)\b", line)
    ]


@each_page
def test_a_page_is_short_enough_to_be_read_to_its_end(path):
    text = re.sub(r"\$\$.*?\$\$|\(#[^)]*\)|\([\w/.-]+\.(?:ipynb|md)[^)]*\)", "", markdown(path))
    assert len(text.split()) <= WORDS
