"""Make slides from the chapters.

`make slides` writes _build/slides/*.html, one file for each notebook and an index page. A chapter
has a slide for its title, for each figure under its section's heading, for each exercise, and for
the summary. All text comes from the chapters, so the slides cannot contradict them. Each file is
complete, with its figures and without external scripts. Arrow keys and the space bar turn the page;
in print, each slide is a page.
"""

import base64
import html
import re
from pathlib import Path

import nbformat
from _ext.glued import glued_texts
from exercises import EXERCISE
from markdown_it import MarkdownIt

from kcdp_book.pictures import picture
from kcdp_lib.command import command

ROOT = Path(__file__).resolve().parents[1]
CHAPTERS = sorted((ROOT / "notebooks").glob("*.ipynb"))
ASKED = re.compile(EXERCISE.pattern + r"\n+(.*?)(?=^#|\Z)", re.MULTILINE | re.DOTALL)
PAGE = (ROOT / "book" / "_templates" / "slides.html").read_text(encoding="utf-8")


def slides_of(path: Path) -> tuple[str, list[str]]:
    """Return a chapter's title and its slides, HTML each."""
    cells, values = nbformat.read(path, as_version=4).cells, glued_texts(path)
    title = re.search(r"^# (.+)$", cells[0].source, re.MULTILINE)[1]
    overview = part(cells[0].source, "Overview")
    slides, heading = [slide("first", f"<h1>{text(title)}</h1>{prose(overview, values)}")], title
    for i, cell in enumerate(cells):
        if cell.cell_type == "markdown":
            heading = (re.findall(r"^## (.+)$", cell.source, re.MULTILINE) or [heading])[-1]
            slides += [
                slide("exercise", f"<h2>{text(name)}</h2>{prose(asked, values)}")
                for name, asked in ASKED.findall(cell.source)
            ]
            slides += [
                figure(heading, alt, "image/svg+xml", (path.parent / file).read_bytes(), "", values)
                for alt, file in re.findall(r"!\[([^\]]*)\]\(([^)]+\.svg)\)", cell.source)
            ]
        elif "solution" not in cell.metadata.get("tags", []):
            told = cell.metadata.get("mystnb", {})
            said, alt = (
                told.get("figure", {}).get("caption") or said_of(cells, i),
                told.get("image", {}).get("alt", heading),
            )
            slides += [
                figure(heading, alt, *shown, said, values)
                for output in cell.outputs
                if (shown := picture(output))
            ]
    summary = re.split(r"(?<=[.]) ", part(cells[-1].source, "Summary").replace("\n", " "))
    slides.append(
        slide(
            "", "<h2>What we did</h2>" + prose("\n".join(f"- {line}" for line in summary), values)
        )
    )
    return title, slides


def part(source: str, heading: str) -> str:
    """Return the text under a heading of a Markdown cell, up to the next heading."""
    return re.search(rf"^## {heading}\n(.*?)(?=^#|\Z)", source, re.MULTILINE | re.DOTALL)[1].strip()


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
    first, *others = re.split(r"(?<=[.!?])\s+(?=[A-Z*“{])", line)
    for sentence in others:
        if len(first) + len(sentence) > letters:
            break
        first += f" {sentence}"
    return first


def figure(
    heading: str, alt: str, kind: str, picture: bytes, said: str, values: dict[str, str]
) -> str:
    """Return a slide with one picture and its text."""
    return slide(
        "",
        f'<h2>{text(heading)}</h2><figure><img alt="{html.escape(alt, quote=True)}" '
        f'src="data:{kind};base64,{base64.b64encode(picture).decode()}"></figure>'
        f"{prose(said, values)}",
    )


def slide(kind: str, content: str) -> str:
    """Return one slide; kind is its class in the style sheet."""
    return f'<section class="{kind}">\n{content}\n</section>'


def prose(markdown: str, values: dict[str, str]) -> str:
    """Convert MyST to HTML.

    Glued numbers are filled in, citations are dropped, and links become plain words.
    """
    markdown = re.sub(
        r"\{glue:text\}`([^`:]+)(?::([^`]+))?`",
        lambda found: format(float(values[found[1]]), found[2]) if found[2] else values[found[1]],
        markdown,
    )
    markdown = re.sub(r"\s*\[\\\[[^\]]*\]\]\(#\w+\)", "", markdown)
    markdown = re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", markdown)
    return (
        MarkdownIt()
        .enable("table")
        .render(re.sub(r"\$([^$\n]+)\$", lambda found: formula(found[1]), markdown))
    )


def formula(tex: str) -> str:
    """Convert the simple formulas of overviews and captions to letters: k = [c ; t]."""
    for name, letter in {
        r"\mathcal": "",
        r"\bar": "",
        r"\hat": "",
        r"\,": " ",
        r"\cdot": "·",
        r"\epsilon": "ε",
        "{": "",
        "}": "",
        "*": "∗",
        "_": "",
    }.items():
        tex = tex.replace(name, letter)
    return f"*{tex.strip()}*"


def text(line: str) -> str:
    """Return a heading without mark-up, escaped for HTML."""
    return html.escape(re.sub(r"[*`$]", "", line))


def main(folder: Path) -> None:
    """Write a file for each chapter, and index.html."""
    folder.mkdir(parents=True, exist_ok=True)
    links = []
    for path in CHAPTERS:
        title, slides = slides_of(path)
        numbered = "\n".join(
            of_one.replace("<section", f'<section data-number="{number}"', 1)
            for number, of_one in enumerate(slides, 1)
        )
        (folder / f"{path.stem}.html").write_text(
            PAGE.format(title=text(title), slides=numbered), encoding="utf-8"
        )
        links.append(f'<li><a href="{path.stem}.html">{text(title)}</a>, {len(slides)} slides</li>')
    index = slide(
        "first",
        f"<h1>KCDP, step by step</h1><ol>{''.join(links)}</ol><p>Arrow keys and the space bar turn "
        "the page.</p>",
    )
    (folder / "index.html").write_text(
        PAGE.format(title="KCDP, step by step", slides=index), encoding="utf-8"
    )
    print(folder / "index.html")


if __name__ == "__main__":
    with command():
        main(ROOT / "_build" / "slides")
