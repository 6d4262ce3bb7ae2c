"""Slides from the chapters.

`make slides` writes _build/slides/*.html, one file for each notebook and a first page with all of
them. A chapter has a slide for the title, one for each figure under its section's heading, one for
each exercise, one for the summary. Nothing is written for the slides alone, so they cannot say
anything else than the chapters. Each file is whole: figures inside, no script from elsewhere. Arrow
keys and the space bar turn the page; printed, each slide is a page.
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
    """A chapter's title and its slides, HTML each."""
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
    """What stands under a heading of a Markdown cell, up to the next."""
    return re.search(rf"^## {heading}\n(.*?)(?=^#|\Z)", source, re.MULTILINE | re.DOTALL)[1].strip()


def said_of(cells: list, i: int) -> str:
    """What the chapter says of the figure of cell i.

    The words that lead to it, if they end in a colon or a question; else the first sentences after
    it, or where a new section begins there, the last before it.
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
    """The first sentences of a paragraph, as many as fit; at least one."""
    first, *others = re.split(r"(?<=[.!?])\s+(?=[A-Z*“{])", line)
    for sentence in others:
        if len(first) + len(sentence) > letters:
            break
        first += f" {sentence}"
    return first


def figure(
    heading: str, alt: str, kind: str, picture: bytes, said: str, values: dict[str, str]
) -> str:
    """A slide with one picture and what is said of it."""
    return slide(
        "",
        f'<h2>{text(heading)}</h2><figure><img alt="{html.escape(alt, quote=True)}" '
        f'src="data:{kind};base64,{base64.b64encode(picture).decode()}"></figure>'
        f"{prose(said, values)}",
    )


def slide(kind: str, content: str) -> str:
    """One slide; kind is its class in the style sheet."""
    return f'<section class="{kind}">\n{content}\n</section>'


def prose(markdown: str, values: dict[str, str]) -> str:
    """MyST as HTML.

    Numbers that were glued are put in. Citations go, and of a link its words stay.
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
    """The little mathematics that overviews and captions hold, in letters: k = [c ; t]."""
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
    """A heading without mark-up."""
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
