"""Make slides from the pages: a deck for the workshop of ninety minutes, and one for each chapter.

`make slides` writes _build/slides/workshop.html, one file for each chapter, and an index page. All
text and numbers come from the pages, so the slides cannot contradict them. Each file is complete,
with its figures and formulas and without external scripts. In print, each slide is a page.

The workshop follows the plan in book/workshop.ipynb row by row. A row's slides are: its title; the
pages and the section that it names; the method's equations that belong to its chapters; what these
chapters show in the sections that it lists; and the question to ask. A chapter's deck has its
overview, equations, figures, exercises and summary.
"""

import base64
import html
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from math import ceil
from pathlib import Path

import nbformat
from _ext.glued import glued_texts
from exercises import EXERCISE
from markdown_it import MarkdownIt
from mathml import mathml
from mdit_py_plugins.deflist import deflist_plugin
from mdit_py_plugins.dollarmath import dollarmath_plugin

from kcdp_book.pictures import picture
from kcdp_lib.command import command

ROOT = Path(__file__).resolve().parents[1]
BOOK = ROOT / "book"
CHAPTERS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PAGE = (BOOK / "_templates" / "slides.html").read_text(encoding="utf-8")
PLAN = "Ninety minutes"  # the section of the workshop's page that has the plan
OVERVIEW = "method.svg"  # the figure of the first page that stands before the first equation
ASKED = re.compile(EXERCISE.pattern + r"\n+(.*?)(?=^#|\Z)", re.MULTILINE | re.DOTALL)
EQUATION = re.compile(r"^\$\$\n(.*?)\n\$\$(?: \(eq-\w+\))?$", re.MULTILINE | re.DOTALL)
ARROW = re.compile(r"→ \[[^\]]*\]\(\S*?([^/)]+)\)")
FENCED = re.compile(r"^```\{.*?^```\n", re.MULTILINE | re.DOTALL)
FIGURE = re.compile(
    r"^```\{figure\} (\S+)\n.*?^:alt: (.*?)\n\n(.*?)\n```", re.MULTILINE | re.DOTALL
)
SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z*“{$\[`])")
ROWS = 3  # printed lines with a number from which an output counts as a table
LETTERS = 680  # of text on one slide


@dataclass
class Slide:
    """One slide: its class in the style sheet, its heading (Markdown), and its content (HTML)."""

    kind: str
    heading: str
    content: str

    def render(self, number: int, total: int, thread: str = "") -> str:
        """Return the slide's HTML; the corner has the link to the index and the position."""
        return (
            f'<section class="{self.kind}" id="{number}">\n{self.content}\n<footer>'
            f'<span>{thread}</span><a href="index.html">Index</a> {number}/{total}</footer>'
            "</section>"
        )


# ---------------------------------------------------------------- chapters


@cache
def slides_of(path: Path) -> tuple[str, list[Slide]]:
    """Return a chapter's title and its slides; those of kind "table" are for the workshop alone."""
    cells, values = nbformat.read(path, as_version=4).cells, glued_texts(path)
    title = title_of(cells[0].source)
    slides, heading = opening(title, part(cells[0].source, "Overview"), values), title
    for i, cell in enumerate(cells):
        if cell.cell_type == "markdown":
            for section, body in sections(cell.source, heading):
                slides += told(section, body, path.parent, values)
                heading = section
        elif "solution" not in cell.metadata.get("tags", []):
            slides += shown(heading, cells, i, values)
    summary = re.split(r"(?<=[.]) ", part(cells[-1].source, "Summary").replace("\n", " "))
    listed = "\n".join(f"- {line}" for line in summary)
    return title, [*slides, worded("text", "What we did", prose(listed, values))]


def opening(title: str, overview: str, values: dict[str, str]) -> list[Slide]:
    """Return a chapter's first two slides: what it is about, and the list of what it does."""
    about, steps = re.split(r"^(?=1\. )", overview, maxsplit=1, flags=re.MULTILINE)
    *sentences, lead = SENTENCE.split(about.strip())
    first = f"<h1>{text(title)}</h1>{prose(' '.join(sentences), values)}"
    return [Slide("first", title, first), worded("text", lead, prose(steps, values))]


def told(heading: str, body: str, folder: Path, values: dict[str, str]) -> Iterator[Slide]:
    """Yield the slides of a Markdown cell's section: equations, exercises, drawings."""
    yield from equations(heading, body, values)
    for name, asked in ASKED.findall(body):
        yield worded("exercise", name, prose(asked, values))
    for alt, file in re.findall(r"!\[([^\]]*)\]\(([^)]+\.svg)\)", body):
        yield figure(heading, alt, "image/svg+xml", (folder / file).read_bytes(), "", values)


def shown(heading: str, cells: list, i: int, values: dict[str, str]) -> Iterator[Slide]:
    """Yield the slides of the outputs of cell i: figures and tables."""
    about = cells[i].metadata.get("mystnb", {})
    said = about.get("figure", {}).get("caption") or said_of(cells, i)
    alt = about.get("image", {}).get("alt", heading)
    for output in cells[i].outputs:
        if drawn := picture(output):
            yield figure(heading, alt, *drawn, said, values)
        elif rows := table(output):
            yield worded("table", heading, prose(said, values) + rows)


def table(output: nbformat.NotebookNode) -> str:
    """Return an output's table, or printed lines that look like one, as HTML; else nothing."""
    if found := re.search(r"<table.*</table>", output.get("data", {}).get("text/html", ""), re.S):
        return found[0]
    printed = output.get("text", "").rstrip()
    numbers = len(re.findall(r"^.*\d.*$", printed, re.MULTILINE))
    return f"<pre>{html.escape(printed)}</pre>" if numbers >= ROWS else ""


def equations(heading: str, body: str, values: dict[str, str]) -> Iterator[Slide]:
    """Yield a slide for each displayed equation, with the sentences before it and after it."""
    parts = EQUATION.split(plain(body, values))
    gaps, after = [sentences_of(gap) for gap in parts[::2]], []
    for i, tex in enumerate(parts[1::2]):
        before = gaps[i][-1]
        if i > 0 and len(gaps[i]) == 1:  # one paragraph, of which the last equation has a part
            before = before[len(after) :]
        after = gaps[i + 1][0]
        if i + 2 < len(gaps) and len(gaps[i + 1]) == 1:
            after = after[:-1]
        before, after = fitting(before[::-1])[::-1], fitting(whole(after))
        lines = [mathml(line, display=True) for line in re.split(r"\s*\\qquad\s*", tex)]
        shown = f"<div>{''.join(lines)}</div>"
        yield worded(
            "equation", heading, f"{prose(' '.join(before))}{shown}{prose(' '.join(after))}"
        )


def sentences_of(gap: str) -> list[list[str]]:
    """Return the sentences of each paragraph; none of lists, headings and links to chapters."""
    gap = re.sub(r"\s*→ \w+ \d$", "", gap, flags=re.MULTILINE)
    paragraphs = gap.strip().split("\n\n")
    return [[] if re.match(r"[#|!-]|```", some) else SENTENCE.split(some) for some in paragraphs]


def whole(sentences: list[str]) -> list[str]:
    """Leave out sentences that announce what is not shown."""
    return [sentence for sentence in sentences if not sentence.endswith(":")]


def figure(
    heading: str, alt: str, kind: str, picture: bytes, said: str, values: dict[str, str]
) -> Slide:
    """Return a slide with one picture and its text."""
    source = f"data:{kind};base64,{base64.b64encode(picture).decode()}"
    image = f'<img alt="{html.escape(alt, quote=True)}" src="{source}">'
    return worded("", heading, f"<figure>{image}</figure>{prose(said, values)}")


def worded(kind: str, heading: str, content: str) -> Slide:
    """Return a slide with its heading above the content."""
    return Slide(kind, heading, f"<h2>{text(heading)}</h2>{content}")


# ---------------------------------------------------------------- the workshop


def workshop() -> tuple[str, list[Slide], list[str]]:
    """Return the workshop's title, its slides, and for each the minutes and name of its block."""
    page = guide()
    title = f"{title_of(read('intro.md'))}: {PLAN.lower()}"
    idea = shorter(part(page, PLAN), letters=0)
    blocks = [(row, block(row)) for row in plan(page)]
    slides = [Slide("first", PLAN, f"<h1>{text(title)}</h1>{prose(idea)}")]
    slides.append(agenda(blocks, first=3))
    threads = ["", ""]
    for row, of_block in blocks:
        slides += of_block
        threads += [text(f"{row['Minutes']} · {plain(row['What'])}")] * len(of_block)
    return title, slides, threads


def guide() -> str:
    """Return the text of the workshop's page."""
    cells = nbformat.read(BOOK / "workshop.ipynb", as_version=4).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def plan(page: str) -> list[dict[str, str]]:
    """Return the rows of the plan, each from the table's header to a cell."""
    lines = [line for line in part(page, PLAN).splitlines() if line.startswith("|")]
    header, _, *rows = [[cell.strip() for cell in line[1:-1].split("|")] for line in lines]
    return [dict(zip(header, row, strict=True)) for row in rows]


def agenda(blocks: list[tuple[dict[str, str], list[Slide]]], first: int) -> Slide:
    """Return the slide that lists the blocks, each with a link; `first` is the first's position."""
    lines = []
    for row, slides in blocks:
        link = f'<a href="#{first}">{text(plain(row["What"]))}</a>'
        lines.append(f"<tr><td>{text(row['Minutes'])}</td><td>{link}</td></tr>")
        first += len(slides)
    return worded("agenda", PLAN, f"<table>{''.join(lines)}</table>")


def block(row: dict[str, str]) -> list[Slide]:
    """Return the slides of one row of the plan."""
    name = plain(row["What"])
    name = name[0].upper() + name[1:]
    slides = [block_title(name, row)]
    for file in re.findall(r"\]\((\w+\.md)\)", " ".join(row.values())):
        slides += page_slides(read(file))
    for heading, body in sections(guide(), ""):
        if heading.lower() == row["Run"].lower():
            slides += section_slides(heading, body)
    for path in chapters_of(row):
        slides += method_slides(path)
    for path in CHAPTERS:
        for beginning in listed(row, path):
            slides += new_equations(named_slides(path, beginning), slides)
    return [*slides, worded("question", name, prose(row["Ask"]))]


def block_title(name: str, row: dict[str, str]) -> Slide:
    """Return a block's first slide: minutes, name, what runs, and links to its chapters' decks."""
    links = [
        f'<a href="{path.stem}.html">{text(slides_of(path)[0])}</a>' for path in chapters_of(row)
    ]
    return Slide(
        "first",
        name,
        f"<p>Minutes {text(row['Minutes'])}</p><h1>{text(name)}</h1>"
        f"{prose('Run: ' + row['Run'])}<p>{'<br>'.join(links)}</p>",
    )


def chapters_of(row: dict[str, str]) -> list[Path]:
    """Return the chapters that a row of the plan names by number, or of which it lists slides."""
    numbers = re.findall(r"\d", " ".join(re.findall(r"chapters? \d(?: and \d)?", row["Run"])))
    return [path for path in CHAPTERS if str(int(path.stem[:2])) in numbers or listed(row, path)]


def listed(row: dict[str, str], path: Path) -> list[str]:
    """Return the headings of a chapter whose slides a row of the plan lists."""
    word = slides_of(path)[0].split(":")[0]
    of_chapter = re.search(rf"\b{re.escape(word)}: ((?:\*[^*]+\*(?:, )?)+)", row["Slides"])
    return re.findall(r"\*([^*]+)\*", of_chapter[1]) if of_chapter else []


def named_slides(path: Path, name: str) -> list[Slide]:
    """Return a chapter's slides whose heading begins with a name."""
    return [slide for slide in slides_of(path)[1] if text(slide.heading).startswith(name)]


def new_equations(some: list[Slide], shown: list[Slide]) -> list[Slide]:
    """Leave out slides with an equation that has been shown."""
    known = {found for slide in shown for found in re.findall("<div>.*</div>", slide.content)}
    return [slide for slide in some if not known & set(re.findall("<div>.*</div>", slide.content))]


def method_slides(path: Path) -> Iterator[Slide]:
    """Yield the equations of the method's sections that link to a chapter by an arrow.

    The first section has before it the overview, and how the equations are to be read.
    """
    page = FENCED.sub("", read("method.md"))
    (title, about), *parts = sections(page, title_of(page))
    for number, (section, body) in enumerate(parts):
        if path.name in ARROW.findall(body):
            if number == 0:
                yield overview()
                yield from section_slides(title, about.split("\n\n", 2)[2])
            for heading, of_part in sections(body, section, "###"):
                yield from equations(heading, of_part, page_values())


def overview() -> Slide:
    """Return the slide with the figure of the whole method."""
    for heading, body in sections(read("intro.md"), ""):
        for file, alt, caption in FIGURE.findall(body):
            if file == OVERVIEW:
                content = (BOOK / file).read_bytes()
                return figure(heading, alt, "image/svg+xml", content, caption, {})
    raise LookupError(OVERVIEW)


def page_slides(page: str) -> Iterator[Slide]:
    """Yield the slides of a page of text, without its first paragraph and its summary."""
    title = title_of(page)
    for heading, body in sections(FENCED.sub("", page), title):
        if heading == title:
            body = body.strip().split("\n\n", 2)[2]
        if heading != "Summary":
            yield from section_slides(heading, body)


def section_slides(heading: str, body: str) -> Iterator[Slide]:
    """Yield as many slides as a section's text needs.

    If most paragraphs begin in bold, only the first sentences of these are shown.
    """
    body = re.sub(r"\s*→[^\n]*", "", plain(body, page_values()).strip())
    paragraphs = re.split(r"(?<=[.?!)$])\n\n(?![^\n]*\n:)", body)
    bold = [some for some in paragraphs if some.startswith("**")]
    if 2 * len(bold) >= len(paragraphs):
        kept = [fitting(whole(SENTENCE.split(some)), 190) for some in bold]
        paragraphs = ["- " + " ".join(sentences) for sentences in kept]
    else:
        paragraphs = [brief(some) for some in paragraphs]
    yield from [worded("text", heading, prose("\n\n".join(some))) for some in evenly(paragraphs)]


def evenly(paragraphs: list[str]) -> list[list[str]]:
    """Divide paragraphs among as few slides as hold them, about equally full."""
    ends = list(accumulate(len(some) for some in paragraphs))
    slides = ceil(ends[-1] / LETTERS)
    groups = [[] for _ in range(slides)]
    for some, end in zip(paragraphs, ends, strict=True):
        groups[int((end - len(some) / 2) / ends[-1] * slides)].append(some)
    return [group for group in groups if group]


def brief(paragraphs: str) -> str:
    """Shorten paragraphs and the points of lists to their first sentences."""
    kept = []
    for some in paragraphs.split("\n\n"):
        points = re.split(r"\n(?=- |\d\. )", some)
        kept.append("\n".join(point if point[0] in ":$" else shorter(point) for point in points))
    return "\n\n".join(kept)


# ---------------------------------------------------------------- text


def read(file: str) -> str:
    """Return the text of a page of the book."""
    return (BOOK / file).read_text(encoding="utf-8")


def title_of(page: str) -> str:
    """Return the title of a page."""
    return re.search(r"^# (.+)$", page, re.MULTILINE)[1]


def part(source: str, heading: str) -> str:
    """Return the text under a heading of a Markdown cell, up to the next heading."""
    return re.search(rf"^## {heading}\n(.*?)(?=^#|\Z)", source, re.MULTILINE | re.DOTALL)[1].strip()


def sections(source: str, heading: str, marks: str = "##") -> list[tuple[str, str]]:
    """Split text at its headings of one level; return heading and text of each section.

    `heading` is that of the text before the first.
    """
    first, *others = re.split(rf"^{marks} (.+)$", source, flags=re.MULTILINE)
    return [(heading, first), *zip(others[::2], others[1::2], strict=True)]


def said_of(cells: list, i: int) -> str:
    """Return the chapter's text on the figure of cell i.

    This is the last line before it, if it ends in a colon or a question mark; else the first
    sentences after it; or, if a new section begins there, again the last line before it.
    """
    before, after = (
        [cell.source for cell in some if cell.cell_type == "markdown"]
        for some in (reversed(cells[:i]), cells[i + 1 :])
    )
    if cells[i - 1].cell_type == "markdown" and re.search(r"[:?]$", before[0]):
        return before[0].split("\n")[-1].rstrip(":")
    if after and not re.match(r"[#`|!$-]", after[0]):
        return shorter(after[0].split("\n\n")[0].replace("\n", " "))
    return before[0].split("\n")[-1].rstrip(":")


def shorter(line: str, letters: int = 240) -> str:
    """Return as many of a paragraph's first sentences as fit; at least one."""
    return " ".join(fitting(SENTENCE.split(line), letters))


def fitting(sentences: list[str], letters: int = 240) -> list[str]:
    """Return the first of some sentences, as many as fit; at least one if there is any."""
    kept = sentences[:1]
    for sentence in sentences[1:]:
        if len(" ".join(kept)) + len(sentence) > letters:
            break
        kept.append(sentence)
    return kept


@cache
def page_values() -> dict[str, str]:
    """Return what all chapters glued, by the names that pages use."""
    return {
        f"../notebooks/{path.name}::{name}": value
        for path in CHAPTERS
        for name, value in glued_texts(path).items()
    }


def plain(markdown: str, values: dict[str, str] | None = None) -> str:
    """Convert MyST to plain Markdown.

    Glued numbers are filled in, citations in brackets are dropped, and links become plain words.
    """
    markdown = re.sub(
        r"\{glue:text\}`((?:[^`]+::)?[^`:]+)(?::([^`]+))?`",
        lambda found: format(float(values[found[1]]), found[2]) if found[2] else values[found[1]],
        markdown,
    )
    markdown = re.sub(r"\s*\{cite:p\}`[^`]+`|\s*\[\\\[[^\]]*\]\]\(#\w+\)", "", markdown)
    markdown = re.sub(r"\{cite:t\}`([^`]+)`", lambda found: cited(found[1]), markdown)
    markdown = re.sub(r"\s*\(\{numref\}`[^`]+`\)", "", markdown)
    markdown = re.sub(r"\{term\}`([^`<]+?)(?: <[^`]+>)?`", r"\1", markdown)
    markdown = re.sub(r"\{py:\w+\}`~?(?:[\w.]+\.)?(\w+)`", r"`\1`", markdown)
    return re.sub(r"(?<!!)\[([^\]]+)\]\([^)]+\)", r"\1", markdown)


def cited(key: str) -> str:
    """Return the authors of a reference as they stand in a sentence."""
    entries = read("references.bib")
    entry = re.search(rf"\{{{key},.*?^\}}", entries, re.MULTILINE | re.DOTALL)[0]
    names = [
        name.split(",")[0] for name in re.search(r"author = \{(.+)\}", entry)[1].split(" and ")
    ]
    year = re.search(r"year = \{(\d+)\}", entry)[1]
    return f"{names[0]} et al. ({year})" if len(names) > 2 else f"{' and '.join(names)} ({year})"


def prose(markdown: str, values: dict[str, str] | None = None) -> str:
    """Convert MyST to HTML; HTML in it is shown as it is written."""
    return PARSER.render(plain(markdown, values))


def formula(tokens: list, i: int, options: dict, env: dict) -> str:
    """Convert a formula of the parser's to HTML: letters alone to italics, others to MathML."""
    tex = tokens[i].content.strip()
    letters = tex.replace("\\,", " ")
    if tokens[i].type == "math_inline" and not re.search(r"[\\_^{}]", letters):
        return f"<em>{html.escape(letters)}</em>"
    return mathml(tex, display=tokens[i].type == "math_block")


PARSER = MarkdownIt("commonmark", {"html": False}).enable("table")
PARSER.use(deflist_plugin).use(dollarmath_plugin)
PARSER.renderer.rules |= {"math_inline": formula, "math_block": formula}


def text(line: str) -> str:
    """Return a heading without mark-up, escaped for HTML."""
    return html.escape(re.sub(r"[*`$]", "", line))


# ---------------------------------------------------------------- files


def write(file: Path, title: str, slides: list[Slide], threads: list[str] | None = None) -> str:
    """Write a deck; return its line in the index."""
    threads = threads or [""] * len(slides)
    rendered = [
        slide.render(number, len(slides), thread)
        for number, (slide, thread) in enumerate(zip(slides, threads, strict=True), 1)
    ]
    content = PAGE.format(title=text(title), slides="\n".join(rendered))
    file.write_text(content, encoding="utf-8")
    return f'<li><a href="{file.name}">{text(title)}</a>, {len(slides)} slides</li>'


def main(folder: Path) -> None:
    """Write the workshop's deck, one for each chapter, and index.html."""
    folder.mkdir(parents=True, exist_ok=True)
    first = write(folder / "workshop.html", *workshop())
    links = []
    for path in CHAPTERS:
        title, slides = slides_of(path)
        slides = [slide for slide in slides if slide.kind != "table"]
        links.append(write(folder / f"{path.stem}.html", title, slides))
    name = title_of(read("intro.md"))
    content = (
        f"<h1>{text(name)}</h1><ul>{first}</ul><ol>{''.join(links)}</ol><p>Arrow keys, the space "
        "bar, a click or a swipe turn the page.</p>"
    )
    write(folder / "index.html", name, [Slide("first", name, content)])
    print(folder / "index.html")


if __name__ == "__main__":
    with command():
        main(ROOT / "_build" / "slides")
