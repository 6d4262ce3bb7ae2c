"""Every page of the built book, in a browser.

Nothing is missing or requested from another machine, mathematics is typeset, pages fit a phone, and
they are accessible.
"""

import re
from functools import cache
from pathlib import Path

import pytest
import yaml
from axe_playwright_python.sync_playwright import Axe
from browser import build_book, visit

ROOT = Path(__file__).resolve().parents[1]
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text())
DOCUMENTS = [
    TOC["root"],
    *(chapter["file"] for part in TOC["parts"] for chapter in part["chapters"]),
]
PAGES = [*DOCUMENTS, "book/api/kcdp_lib.perception", "genindex", "py-modindex", "search"]
PHONE = 390  # pixels
SECONDS = 3  # until a page is readable; an idle machine takes a fraction of one
GRAVE = ("serious", "critical")

LOOK = """() => ({
    images: [...document.images].map(image => ({
        name: image.currentSrc, width: image.naturalWidth, alt: image.getAttribute("alt")
    })),
    formulas: [...document.querySelectorAll(".math")].map(formula => ({
        drawn: !!formula.querySelector("mjx-container svg"),
        wrong: !!formula.querySelector('[data-mjx-error], [mathcolor="red"]'),
        text: formula.textContent.slice(0, 80)
    })),
    prose: [...document.querySelectorAll(
        "article p, article li, article td, article figcaption"
    )].filter(of => !of.querySelector("pre")).map(of => {
        const copy = of.cloneNode(true);
        copy.querySelectorAll("code, mjx-container").forEach(inner => inner.remove());
        return copy.textContent;
    }),
})"""
each_page = pytest.mark.parametrize("name", PAGES)
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def look(chromium, site):
    """Return a function that reports what a page shows, by its name.

    Each page is opened once for all tests.
    """

    @cache
    def at(name: str) -> dict:
        with visit(chromium, f"{site}{name}.html", below=site) as seen:
            page = seen.page
            page.evaluate(
                "Promise.allSettled([...document.images].map(image => image.decode()))"
            )  # images that a script inserts load after the page
            found = {
                "problems": list(seen.problems),
                "seconds": seen.seconds,
                **page.evaluate(LOOK),
            }
            found["light"] = violations(page, "light")
            found["dark"] = violations(page, "dark", {"runOnly": ["color-contrast"]})
            page.set_viewport_size({"width": PHONE, "height": 844})
            found["phone"] = page.evaluate("document.documentElement.scrollWidth")
            return found

    return at


def violations(page, theme: str, options: dict | None = None) -> list[str]:
    """Return axe-core's grave violations in a theme, one line per place."""
    page.evaluate(
        "theme => Object.assign(document.documentElement.dataset, {theme, mode: theme})", theme
    )
    found = (
        Axe()
        .run(page, options={"resultTypes": ["violations"], "preload": False, **(options or {})})
        .response["violations"]
    )
    return [
        f"{of['id']}: {node['html'][:200]} {node['failureSummary'].splitlines()[1]}"
        for of in found
        if of["impact"] in GRAVE
        for node in of["nodes"]
    ]


@each_page
def test_nothing_is_missing_and_nothing_is_asked_of_a_network(look, name):
    assert not look(name)["problems"]


@each_page
def test_mathematics_is_drawn(look, book, name):
    seen = look(name)
    assert len(seen["formulas"]) == len(
        re.findall(r'class="math ', (book / f"{name}.html").read_text())
    )
    assert not [
        formula["text"] for formula in seen["formulas"] if not formula["drawn"] or formula["wrong"]
    ]
    assert not [
        text for text in seen["prose"] if re.search(r"\$[^$\s][^$]*\$|\\[(\[]|\\[a-z]+\{", text)
    ], "raw TeX"


def test_there_is_mathematics(look):
    assert len(look("book/method")["formulas"]) > 50


@each_page
def test_every_image_is_there_and_has_words_for_it(look, name):
    images = look(name)["images"]
    assert not [image["name"] for image in images if not image["width"]]
    assert not [
        image["name"]
        for image in images
        if re.fullmatch(r"\s*|\S*\.(png|jpe?g|svg)", image["alt"] or "")
    ], "a file's name tells nobody what it shows: give the cell metadata mystnb: image: alt"


@each_page
def test_it_fits_a_phone(look, name):
    assert look(name)["phone"] <= PHONE


@pytest.mark.parametrize("theme", ("light", "dark"))
@each_page
def test_everyone_can_read_it(look, name, theme):
    assert not look(name)[theme]


def test_pages_are_readable_at_once(look):
    seconds = {name: look(name)["seconds"] for name in PAGES}
    slowest = max(seconds, key=seconds.get)
    print(f"slowest page: {slowest}, readable after {seconds[slowest]:.2f} s")
    assert seconds[slowest] < SECONDS


def test_the_site_is_small(book):
    assert sum(file.stat().st_size for file in book.rglob("*") if file.is_file()) <= 60e6


def test_names_in_code_cells_lead_to_their_documentation(book):
    page = (book / "notebooks" / "04_counterfactuals.html").read_text()
    links = set(re.findall(r'class="sphinx-codeautolink-a" href="([^"]*)"', page))
    assert {
        "../book/api/kcdp_lib.counterfactuals.html#kcdp_lib.counterfactuals.CLIEA",
        "../book/api/kcdp_lib.datasets.html#kcdp_lib.datasets.load",
    } <= links
    assert any("pytorch.org" in link for link in links)


def test_sources_of_the_code_load(chromium, site, book):
    """The pages behind [source] are many and alike, so they are only opened."""
    pages = sorted((book / "_modules").rglob("*.html"))
    assert len(pages) > 20
    for path in pages:
        with visit(chromium, site + path.relative_to(book).as_posix(), below=site) as seen:
            assert not seen.problems, path.name


@pytest.mark.parametrize("way", ("server", "file"))
def test_search_finds_a_word(chromium, site, book, way):
    start = site if way == "server" else f"{book.as_uri()}/"
    with visit(chromium, f"{start}search.html?q=counterfactual", below=start) as seen:
        link = seen.page.locator("#search-results li a", has_text="Counterfactuals: ").first
        link.wait_for()
        seen.page.wait_for_load_state("networkidle")
        link.click()
        seen.page.wait_for_url("**/04_counterfactuals.html*")
        assert not seen.problems


@each_page
def test_it_opens_as_a_file(chromium, book, name):
    top = f"{book.as_uri()}/"
    with visit(chromium, f"{top}{name}.html", below=top) as seen:
        assert not seen.problems
        assert all(formula["drawn"] for formula in seen.page.evaluate(LOOK)["formulas"])


def test_launch_buttons_follow_the_address(book, tmp_path):
    """Without an address there are no buttons.

    With one, each leads to the page's own notebook in that repository.
    """
    assert "colab.research" not in (book / "notebooks" / "01_datasets.html").read_text()
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    config["repository"]["url"] = "https://github.com/someone/something"
    config["sphinx"]["local_extensions"] = dict.fromkeys(
        config["sphinx"]["local_extensions"], str(ROOT / "book")
    )  # paths are relative to the config file
    (tmp_path / "config.yml").write_text(yaml.safe_dump(config))
    (tmp_path / "toc.yml").write_text("format: jb-book\nroot: notebooks/01_datasets\n")
    build_book(
        tmp_path, "--config", str(tmp_path / "config.yml"), "--toc", str(tmp_path / "toc.yml")
    )  # warns, as a single page lacks its link targets
    page = (tmp_path / "_build" / "html" / "notebooks" / "01_datasets.html").read_text()
    assert re.findall(r'href="(https://(?:mybinder|colab)[^"]*)"', page) == [
        "https://mybinder.org/v2/gh/someone/something/main?urlpath=lab/tree/notebooks/01_datasets.ipynb",
        "https://colab.research.google.com/github/someone/something/blob/main/notebooks/01_datasets.ipynb",
    ]
