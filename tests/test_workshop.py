"""The workshop: the check of a machine, exercises, slides and guide.

The check finds each kind of trouble, exercises come without their solutions, slides are complete,
and the guide mentions only what exists.
"""

import base64
import html
import importlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import nbformat
import papermill
import psutil
import pytest

from kcdp_book import check, results
from kcdp_book.pictures import picture
from kcdp_lib import config, paths
from kcdp_lib.errors import KCDPError

ROOT = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.usefixtures("one_thread")


# ---------------------------------------------------------------- check your setup


def said(what: str) -> str:
    """Return the line of one check, state first."""
    checks = {**check.MUST, **check.MAY}
    finding = check.look(what, checks[what], "mend" if what in check.MUST else "note")
    return f"{finding.state}: {finding.said}"


@pytest.mark.parametrize("what", [*check.MUST, "threads", "device"])
def test_nothing_is_to_mend_where_the_tests_run(what):
    assert said(what).startswith("ok: "), said(what)


def test_the_python_it_asks_for_is_the_projects(monkeypatch):
    assert (
        f'requires-python = ">={".".join(map(str, check.PYTHON))}"'
        in (ROOT / "pyproject.toml").read_text()
    )
    monkeypatch.setattr(sys, "version_info", (3, 9, 1))
    assert said("Python") == (
        "mend: Python 3.9.1 is too old; install Python 3.11.5 or newer and make the "
        "environment with it."
    )


@pytest.mark.parametrize(
    "versions, sentence",
    [
        ({"torch": None}, "missing: torch; install in this environment by"),
        ({"papermill": None}, "missing: papermill; install in this environment by"),
        ({"scipy": "1.0"}, "scipy is 1.0 and the book was made with {scipy}; install"),
        (
            {"scipy": "1.0", "numpy": "1.0"},
            "numpy is 1.0 and the book was made with {numpy}, and 1 more differ; install",
        ),
    ],
)
def test_a_package_that_is_missing_or_another_is_named(versions, sentence, monkeypatch):
    as_it_is = check.version
    monkeypatch.setattr(
        check, "version", lambda name: versions[name] if name in versions else as_it_is(name)
    )
    assert said("packages").startswith("mend: " + sentence.format(**check.pinned()))


def test_a_builds_mark_is_no_other_version(monkeypatch):
    monkeypatch.setattr(check.importlib.metadata, "version", lambda name: "2.0.1+cpu")
    assert check.version("torch") == "2.0.1"


def test_the_tests_own_tools_and_a_chosen_torch_need_no_mending(monkeypatch):
    others = {"playwright": None, "torch": "9.0", "torchvision": "9.0", "triton": "9.0"}
    others |= {name: "9.0" for name in check.pinned() if name.startswith(("cuda-", "nvidia-"))}
    assert len(others) > 10
    as_it_is = check.version
    monkeypatch.setattr(check, "version", lambda name: others.get(name, as_it_is(name)))
    assert said("packages").startswith("ok: ")
    assert f"; the book was made with {check.pinned()['torch']}; torchvision" in said("torch")


@pytest.mark.parametrize(
    "cuda, gpu, sentence",
    [
        (None, False, "a build for CPUs; torchvision"),
        ("13.2", True, "a build for GPUs; torchvision"),
        ("13.2", False, "a build for GPUs without a GPU to use (a smaller one will do: see TORCH"),
    ],
)
def test_which_torch_is_there_is_told(cuda, gpu, sentence, monkeypatch):
    import torch

    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    assert sentence in said("torch")


def test_a_torchvision_of_another_build_is_noticed(monkeypatch):
    """It fails as in practice: at its import, with torch's error."""

    class Broken:
        def find_spec(self, name, path=None, target=None):
            if name == "torchvision":
                raise RuntimeError("operator torchvision::nms does not exist\nmore")

    monkeypatch.delitem(sys.modules, "torchvision")
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    line = said("torch")
    assert line.startswith("mend: torch ") and "(operator torchvision::nms does not exist);" in line


def test_the_room_of_a_folder_is_the_sum_of_its_files(tmp_path):
    (tmp_path / "in" / "ner").mkdir(parents=True)
    (tmp_path / "a").write_bytes(b"12")
    (tmp_path / "in" / "ner" / "b").write_bytes(b"345")
    assert check.size(tmp_path) == 5


def test_weights_that_are_not_there_are_told_with_the_way_to_get_them(monkeypatch, tmp_path):
    monkeypatch.setitem(
        config.PRESETS, "tiny", replace(config.PRESETS["tiny"], diffusion=str(tmp_path))
    )
    check.foundations.cache_clear()
    line = said("weights")
    check.foundations.cache_clear()
    assert (
        line.startswith("mend: ")
        and "could not be loaded" in line
        and "give a folder that is complete" in line
    )


def test_a_stack_that_computes_nonsense_is_noticed(monkeypatch):
    from kcdp_lib.adapt import KCDP

    predict = KCDP.predict
    monkeypatch.setattr(
        KCDP,
        "predict",
        lambda model, images: replace(predict(model, images), captions=["the the the"]),
    )
    assert said("one picture").startswith("mend: a sticker was captioned 'the the the', so")


@pytest.mark.parametrize(
    "argv, sentence",
    [
        (None, 'Jupyter has no kernel "python3"; make it'),
        (["/other/bin/python"], "the notebooks would run with /other/bin/python; make it"),
    ],
)
def test_a_kernel_that_is_missing_or_another_environments_is_noticed(argv, sentence, monkeypatch):
    from jupyter_client import kernelspec

    def found(manager, name):
        if argv is None:
            raise kernelspec.NoSuchKernel(name)
        return kernelspec.KernelSpec(argv=argv)

    monkeypatch.setattr(kernelspec.KernelSpecManager, "get_kernel_spec", found)
    assert said("Jupyter").startswith(f"mend: {sentence}")


def test_a_folder_that_cannot_be_written_is_named(monkeypatch, tmp_path):
    """Root may write anywhere, so a file stands where the folder should be."""
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(paths, "CACHE", tmp_path / "file" / "cache")
    line = said("folders")
    assert line.startswith(
        f"mend: {tmp_path / 'file' / 'cache'} cannot be written ("
    ) and line.endswith("; set KCDP_CACHE to a folder that you may write to.")


def test_a_full_disk_and_full_memory_are_told(monkeypatch):
    usage, virtual = namedtuple("usage", "free"), namedtuple("virtual", "available")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(check.FREE_BYTES - 1))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: virtual(check.MEMORY_BYTES - 1))
    assert "2.0 GB are free below" in said("folders") and said("folders").startswith("mend: ")
    assert said("memory").startswith(
        "mend: 3.0 GB of memory are free and 3 are wanted; close other programs"
    )


def test_a_missing_browser_is_a_note_and_no_trouble(monkeypatch):
    monkeypatch.setattr(check, "CHROMIUM", ())
    assert said("browser") == "note: no Chromium was found; nothing in the workshop needs it."


def test_whatever_breaks_becomes_a_sentence():
    def broken():
        raise ImportError("libtorch.so: cannot open\nmore")

    assert (
        check.look("torch", broken, "mend").said
        == f"ImportError, libtorch.so: cannot open; {check.INSTALL}."
    )


def test_the_whole_check_takes_half_a_minute_and_asks_no_network(tmp_path):
    """Run it as a reader does, with every connection refused.

    One trouble, a cache that cannot be written, makes its status 1.
    """
    (tmp_path / "sitecustomize.py").write_text(
        "import socket\ndef refuse(*_):\n    raise SystemExit('the check asked the network')\n"
        "socket.socket.connect = refuse\nsocket.getaddrinfo = refuse\n"
    )
    (tmp_path / "file").write_text("")
    environment = {
        "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}",
        "PATH": "/usr/bin:/bin",
        "KCDP_CACHE": str(tmp_path / "file" / "cache"),
    }
    run = subprocess.run(
        [sys.executable, "-m", "kcdp_book.check"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    lines = run.stdout.splitlines()
    assert (
        run.returncode == 1
        and [line.split()[0] for line in lines[:8]] == ["ok"] * 6 + ["mend", "ok"]
        and not run.stderr
    ), run.stdout + run.stderr
    assert lines[-1] == (
        f'1 of {len(check.MUST) + len(check.MAY)} lines say "mend": do what they say, from '
        "above, and run this once more."
    )


# ---------------------------------------------------------------- exercises

CHAPTERS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def script(name: str):
    """Import a module of book/."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "book" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def cells_of(path: Path) -> list:
    return nbformat.read(path, as_version=4).cells


def solutions(cells: list) -> list:
    return [cell for cell in cells if "solution" in cell.metadata.get("tags", [])]


EXERCISE = script("exercises").EXERCISE
EXERCISED = [
    path
    for folder in ("notebooks", "book")
    for path in sorted((ROOT / folder).glob("*.ipynb"))
    if path.stem != "workshop"
]  # the guide has none itself


@pytest.mark.parametrize("path", EXERCISED, ids=lambda path: path.stem)
def test_every_notebook_has_exercises_and_every_exercise_its_solution(path):
    """A solution has an answer that unfolds and a cell, hidden on the page, that was run.

    Chapters have at least two.
    """
    cells = cells_of(path)
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    asked = len(EXERCISE.findall(text))
    assert (
        asked == text.count("<summary>Solution") >= (2 if path in CHAPTERS else 1)
        and "Try it" not in text
    )
    assert asked == len(solutions(cells))
    assert all(
        "hide-cell" in cell.metadata.tags
        and cell.execution_count
        and any(output.output_type == "stream" for output in cell.outputs)
        for cell in solutions(cells)
    )


def test_exercise_versions_hold_nothing_of_the_solutions(tmp_path):
    exercises = script("exercises")
    exercises.main(tmp_path)
    assert (
        {path.name for path in tmp_path.iterdir()}
        == {path.name for path in exercises.SOURCES}
        == {path.name for path in EXERCISED}
        >= {path.name for path in CHAPTERS}
    )
    for source in exercises.SOURCES:
        whole, made = cells_of(source), cells_of(tmp_path / source.name)
        nbformat.validate(nbformat.read(tmp_path / source.name, as_version=4))
        text = "\n".join(cell.source for cell in made)
        assert (
            "<summary>Solution" not in text
            and "</details>" not in text
            and len(EXERCISE.findall(text))
            == sum(len(EXERCISE.findall(cell.source)) for cell in whole)
        )
        assert [cell.source for cell in made].count(exercises.STUB) == len(solutions(whole))
        assert all(cell.source not in text for cell in solutions(whole))
        assert [cell.source for cell in made if cell.cell_type == "code"] == [
            exercises.STUB if cell in solutions(whole) else cell.source
            for cell in whole
            if cell.cell_type == "code"
        ]
        assert not any(cell.get("outputs") or cell.get("execution_count") for cell in made)


def test_a_participants_work_is_never_overwritten(tmp_path, capsys):
    (tmp_path / "03_perception.ipynb").write_text("mine")
    script("exercises").main(tmp_path)
    assert (
        (tmp_path / "03_perception.ipynb").read_text() == "mine"
        and "03_perception.ipynb is left as it is; delete or rename it" in capsys.readouterr().out
    )


def test_an_exercise_version_runs_up_to_its_first_exercise(tmp_path):
    """Run chapter 1 from another folder, as far as a participant gets alone."""
    script("exercises").main(tmp_path)
    notebook = nbformat.read(tmp_path / "01_datasets.ipynb", as_version=4)
    first = next(i for i, cell in enumerate(notebook.cells) if "### Exercise 1" in cell.source)
    notebook.cells = notebook.cells[: first + 2]
    nbformat.write(notebook, tmp_path / "first.ipynb")
    papermill.execute_notebook(
        tmp_path / "first.ipynb",
        tmp_path / "out.ipynb",
        cwd=tmp_path,
        kernel_name="python3",
        progress_bar=False,
    )
    ran = cells_of(tmp_path / "out.ipynb")
    assert (
        all(cell.execution_count for cell in ran if cell.cell_type == "code")
        and ran[-1].source == script("exercises").STUB
    )


# ---------------------------------------------------------------- slides


@pytest.fixture(scope="module")
def slides(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("slides")
    script("slides").main(folder)
    return folder


def test_there_are_slides_of_every_chapter_with_its_figures_and_exercises(slides):
    index = (slides / "index.html").read_text(encoding="utf-8")
    for path in CHAPTERS:
        page, cells = (slides / f"{path.stem}.html").read_text(encoding="utf-8"), cells_of(path)
        pictures = [
            shown
            for cell in cells
            if cell.cell_type == "code" and cell not in solutions(cells)
            for output in cell.outputs
            if (shown := picture(output))
        ]
        exercises = sum(len(EXERCISE.findall(cell.source)) for cell in cells)
        assert f'href="{path.stem}.html"' in index
        shown = re.findall("data:image/(?:png|jpeg);base64,", page)
        assert pictures and len(shown) == len(pictures)
        for kind, content in pictures:
            assert f"data:{kind};base64,{base64.b64encode(content).decode()}" in page
        assert page.count('class="exercise"') == exercises
        told = [
            cell.metadata["mystnb"]["image"]["alt"]
            for cell in cells
            if "mystnb" in cell.metadata and cell not in solutions(cells)
        ]
        assert all(f'alt="{html.escape(alt, quote=True)}"' in page for alt in told), (
            "a slide's picture keeps the chapter's words for who cannot see it"
        )


def test_slides_are_whole_files_without_solutions_and_without_debris(slides):
    for page in slides.glob("*.html"):
        text = re.sub(r"data:image/[^\"]+", "", page.read_text(encoding="utf-8"))
        assert not re.search(r"https?://|src=\"(?!\")", text), "nothing is loaded from elsewhere"
        shown = re.sub(
            r"<style>.*?</style>|<script>.*?</script>|<code>.*?</code>", "", text, flags=re.DOTALL
        )
        assert not re.search(r"\{\w[\w:]*\}|\$|```|\\[a-z]|Solution", shown), re.search(
            r".{40}(?:\{\w[\w:]*\}|\$|```|\\[a-z]|Solution).{40}", shown
        )


def test_a_slide_says_what_the_chapter_says_of_its_figure():
    slides = script("slides")
    cell = {"markdown": nbformat.v4.new_markdown_cell, "code": nbformat.v4.new_code_cell}
    cells = [
        cell["markdown"]("## Here\n\nSome photos:"),
        cell["code"]("a"),
        cell["markdown"]("Red is more. Blue is less,\nmostly.\n\nMore."),
        cell["code"]("b"),
        cell["markdown"]("## There"),
    ]
    assert slides.said_of(cells, 1) == "Some photos" and slides.said_of(cells[2:], 1) == "More."
    assert (
        slides.said_of([cell["code"]("b"), *cells[1:3]], 1) == "Red is more. Blue is less, mostly."
    )
    assert (
        slides.prose(
            "At {glue:text}`f1:.2f` [\\[A and B, 2020\\]](#a2020b), $k = [c\\,; t]$ by "
            "[`look`](#kcdp_lib.perception.look), equation [(2)](#eq-x).",
            {"f1": "0.456"},
        )
        == "<p>At 0.46, <em>k = [c ; t]</em> by <code>look</code>, equation (2).</p>\n"
    )


def sections_of(page: Path) -> list[str]:
    """Return a deck's slides, HTML each."""
    return re.findall(r"<section.*?</section>", page.read_text(encoding="utf-8"), re.DOTALL)


def words(slide: str) -> str:
    """Return a slide's text without its mark-up."""
    return html.unescape(re.sub(r"<[^>]+>", "", slide))


def test_the_workshops_deck_follows_the_plan(slides):
    """Each block has its minutes, its question, and in between what its row of the plan lists."""
    deck = sections_of(slides / "workshop.html")
    starts = [i for i, slide in enumerate(deck) if "<p>Minutes " in slide]
    rows = [line for line in GUIDE.splitlines() if re.match(r"\| \d+ to \d+ ", line)][:7]
    assert len(starts) == len(rows) == 7 and rows[-1].startswith("| 80 to 90 ")
    for row, start, end in zip(rows, starts, [*starts[1:], len(deck)], strict=True):
        minutes, what, _, ask, listed = [cell.strip() for cell in row[1:-1].split("|")]
        what = re.sub(r"\[(.*?)\]\(.*?\)", r"\1", what)
        assert f"<p>Minutes {minutes}</p>" in deck[start]
        assert what in deck[start].replace(f"<h1>{what[0].upper()}", f"<h1>{what[0]}")
        assert 'class="question"' in deck[end - 1] and ask in words(deck[end - 1])
        of_block = "".join(deck[start:end])
        for heading in re.findall(r"\*([^*]+)\*", listed):
            assert re.search(rf"<h2>{re.escape(heading)}", of_block), heading
        assert f'<a href="#{start + 1}">{what}</a>' in deck[1]
    names = [[path.stem in deck[start] for path in CHAPTERS] for start in starts]
    assert [sum(found) for found in names] == [1, 1, 1, 1, 2, 1, 0]


def test_the_workshops_deck_has_the_results_and_the_limits(slides):
    deck = "".join(map(words, sections_of(slides / "workshop.html")))
    results_ = cells_of(ROOT / "notebooks" / "05_adapt.ipynb")
    printed = [
        output.text
        for cell in results_
        for output in cell.get("outputs", [])
        if output.get("text", "").lstrip().startswith(("macro-F1", "KCDP minus"))
    ]
    assert len(printed) == 2 and all(text.rstrip() in deck for text in printed)
    limits = (ROOT / "book" / "limits.md").read_text(encoding="utf-8")
    bold = re.findall(r"^\*\*(.+?)\*\*", limits, re.MULTILINE)
    plain = [re.sub(r"\{term\}`(\w+) <.*?>`", r"\1", sentence) for sentence in bold]
    assert len(plain) > 12 and not [sentence for sentence in plain if sentence not in deck]
    assert all(f"{heading}" in deck for heading in re.findall(r"^## (.+)$", limits, re.MULTILINE))


def displayed(text: str) -> list[str]:
    """Return the displayed equations of a page, TeX each."""
    return re.findall(r"^\$\$\n(.*?)\n\$\$", text, re.MULTILINE | re.DOTALL)


def test_every_displayed_equation_has_a_slide(slides):
    mathml = script("mathml").mathml
    page = (ROOT / "book" / "method.md").read_text(encoding="utf-8")
    pages = {"workshop": displayed(page)}
    assert len(pages["workshop"]) == page.count("(eq-") == 13
    for path in CHAPTERS:
        told = "\n\n".join(c.source for c in cells_of(path) if c.cell_type == "markdown")
        pages[path.stem] = displayed(told)
        shown = sum(
            'class="equation"' in slide for slide in sections_of(slides / f"{path.stem}.html")
        )
        assert shown == len(pages[path.stem]) == told.count("$$") / 2
    for name, equations in pages.items():
        deck = (slides / f"{name}.html").read_text(encoding="utf-8")
        for tex in equations:
            for line in re.split(r"\s*\\qquad\s*", tex):
                assert mathml(line, display=True) in deck, f"{name}: {tex}"
        for display in re.findall(r"<math[^>]*display.*?</math>", deck):
            assert "<merror" not in display and "\\" not in display


def test_the_sentences_around_equations_are_shown_once():
    """A paragraph between two equations is divided; a sentence that announces is left out."""
    slides = script("slides")
    body = "A first. Let $b$ be:\n\n$$\nb\n$$\n\n`f` gives it. Then\n\n$$\nc\n$$\n\n- a list"
    first, second = map(words, (slide.content for slide in slides.equations("Here", body, {})))
    assert "A first. Let b be:" in first and "f gives it." in first and "Then" not in first
    assert "Then" in second and "gives" not in second and "list" not in second


@pytest.mark.parametrize(
    "tex, expected",
    [
        (r"\hat y_s", "<mover accent"),  # docutils puts s below y
        (r"\underbrace{x_1}_{a}", "<munder><munder><"),
        (r"\operatorname*{arg\,max}_c x", "<munder>"),
        (r"\operatorname{top\text{-}2}", "<mtext>top-2</mtext>"),
        (r"\{(a)\}_i", '<mo stretchy="false">}</mo>'),
        (r"\text{A \{b\}}", "<mtext>A {b}</mtext>"),
        (r"e'", "<msup><mi>e</mi>"),
    ],
)
def test_what_docutils_does_not_set_rightly_is_rewritten(tex, expected):
    assert expected in script("mathml").mathml(tex)


def test_an_unknown_command_is_named():
    with pytest.raises(KCDPError, match=r"cannot show .*\\nonsense"):
        script("mathml").mathml(r"\nonsense{x}")


def test_every_slide_leads_to_the_index_and_the_index_to_every_deck(slides):
    index = (slides / "index.html").read_text(encoding="utf-8")
    decks = {page.name for page in slides.glob("*.html")} - {"index.html"}
    assert decks == {"workshop.html", *(f"{path.stem}.html" for path in CHAPTERS)}
    assert decks == set(re.findall(r'<li><a href="([^"#]+)"', index))
    for page in slides.glob("*.html"):
        found = sections_of(page)
        for number, slide in enumerate(found, 1):
            assert f'id="{number}"' in slide and slide.count('<a href="index.html">') == 1
            assert f"</a> {number}/{len(found)}</footer>" in slide
        links = set(re.findall(r'href="([^"#]+)"', page.read_text(encoding="utf-8")))
        assert links <= {*decks, "index.html"}


def test_what_pages_and_outputs_say_is_escaped():
    slides = script("slides")
    assert "<b>" not in slides.prose("a <b>c</b>\n\n<script>x</script>") + slides.text("<b>")
    output = nbformat.v4.new_output("stream", text="<1\n<2\n<3\n")
    assert slides.table(output) == "<pre>&lt;1\n&lt;2\n&lt;3</pre>"
    assert not slides.table(nbformat.v4.new_output("stream", text="1\n2\nthree\n"))


MEASURE = """() => {
  const slide = document.querySelector("section:not(.away)"), found = [];
  const corner = slide.querySelector("footer").getBoundingClientRect().top;
  if (slide.scrollHeight > innerHeight || slide.scrollWidth > innerWidth) found.push("overflows");
  for (const element of slide.querySelectorAll(":scope > :not(footer), :scope > :not(footer) *")) {
    const box = element.getBoundingClientRect();
    const size = parseFloat(getComputedStyle(element).fontSize);
    const own = [...element.childNodes].some(node => node.nodeType == 3 && node.data.trim());
    if (box.bottom > corner || box.right > innerWidth || box.left < 0) found.push("leaves it");
    if (own && size < 20 && !element.closest("math")) found.push(`${element.tagName}: ${size} px`);
    if (element.matches(".equation math[display]") && size < 40) found.push(`equation: ${size} px`);
    if (element.matches("img") && box.height < 300) found.push(`picture: ${box.height} px`);
  }
  return found;
}"""


@pytest.fixture
def screen(chromium):
    """Yield a browser's page of the size of a projector."""
    page = chromium.new_page()
    page.set_viewport_size({"width": 1280, "height": 720})
    yield page
    page.close()


def test_every_slide_fits_and_can_be_read(slides, screen):
    found = {}
    for deck in sorted(slides.glob("*.html")):
        screen.goto(deck.as_uri())
        for number in range(1, len(sections_of(deck)) + 1):
            screen.evaluate(f"location.hash = {number}; show()")
            if problems := screen.evaluate(MEASURE):
                found[f"{deck.name}#{number}"] = problems
    assert not found


def test_slides_turn_and_print(slides, screen):
    deck = slides / "05_adapt.html"
    last = len(sections_of(deck))
    screen.goto(deck.as_uri())

    def position() -> int:
        shown = screen.evaluate(
            "[...document.querySelectorAll('section:not(.away)')].map(x => x.id)"
        )
        assert len(shown) == 1
        return int(shown[0])

    def swipe(start: int, end: int) -> None:
        for kind, x in (("touchstart", start), ("touchend", end)):
            screen.evaluate(
                "([kind, x]) => dispatchEvent(Object.assign(new Event(kind), "
                "{changedTouches: [{clientX: x}]}))",
                [kind, x],
            )
        screen.wait_for_timeout(50)

    for key, expected in (
        ("ArrowRight", 2), ("Space", 3), ("ArrowLeft", 2), ("PageDown", 3), ("Shift+Space", 2),
        ("End", last), ("ArrowRight", last), ("Home", 1), ("ArrowLeft", 1), ("Alt+ArrowDown", 1),
    ):  # fmt: skip
        screen.keyboard.press(key)
        screen.wait_for_timeout(50)
        assert position() == expected, key
    for x, expected in ((900, 2), (900, 3), (100, 2)):
        screen.mouse.click(x, 650)
        screen.wait_for_timeout(50)
        assert position() == expected
    swipe(800, 300)
    assert position() == 3
    swipe(300, 800)
    assert position() == 2
    swipe(300, 320)
    assert position() == 2
    printed = screen.pdf(prefer_css_page_size=True)
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) == last
    screen.click("section:not(.away) footer a")
    assert screen.url == (slides / "index.html").as_uri()


# ---------------------------------------------------------------- the guide

GUIDE = "\n\n".join(
    cell.source
    for cell in cells_of(ROOT / "book" / "workshop.ipynb")
    if cell.cell_type == "markdown"
)


def test_every_command_of_the_guide_exists():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.search(r"^COMMANDS := (.*)$", makefile, re.MULTILINE)[1].split()
    named = set(re.findall(r"`make (\w+)", GUIDE))
    assert {"check", "exercises", "slides", "adapt"} <= named <= set(targets)
    written = re.findall(r"(?:python|`)\s?((?:book|benchmarks)[/\\]\w+\.py)", GUIDE)
    scripts = {name.replace("\\", "/") for name in written}
    assert scripts >= {
        "book/exercises.py",
        "book/slides.py",
        "book/run.py",
        "benchmarks/workshop.py",
    }
    assert all((ROOT / name).is_file() for name in scripts)
    modules = set(re.findall(r"-m (kcdp_(?:lib|book)[.\w]*)", GUIDE))
    assert "kcdp_book.check" in modules
    assert all(importlib.util.find_spec(name) for name in modules)


def test_the_guide_shows_lines_that_the_check_prints():
    """Times may differ; `test_a_folder_that_cannot_be_written_is_named` covers the trouble."""
    lines = [f"{what:13}{said(what).removeprefix('ok: ')}" for what in ("one picture", "Jupyter")]
    without_seconds = [re.sub(r"[\d.]+ s$", "", line) for line in lines]
    assert all(f"ok    {line}" in GUIDE for line in without_seconds)


def test_the_guide_lists_every_exercise_and_shows_slides_that_exist(slides):
    asked = [
        title
        for path in EXERCISED
        for cell in cells_of(path)
        if cell.cell_type == "markdown"
        for title in re.findall(r"^#{2,3} Exercise(?: \d)?: (.+)", cell.source, re.MULTILINE)
    ]
    assert len(asked) == 24 and all(f"| {title} |" in GUIDE for title in asked)
    headings = {
        heading
        for page in slides.glob("*.html")
        for heading in re.findall(r"<h2>(.*?)</h2>", page.read_text(encoding="utf-8"))
    }
    shown = [
        name
        for line in GUIDE.splitlines()
        if re.match(r"\| \d+ to \d+ ", line)
        for name in re.findall(r"\*([^*]+)\*", line)
    ]
    assert len(shown) >= 6 and not [
        name for name in shown if not any(heading.startswith(name) for heading in headings)
    ]


def test_the_first_figure_takes_less_than_five_minutes_as_measured():
    steps = results.benchmark("workshop")["path"]["seconds"]
    assert (
        steps.keys() == {"clone", "check", "exercises", "figure"}
        and sum(step["clock"] for step in steps.values()) < 300
    )


def test_the_script_that_measures(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    measuring = importlib.import_module("workshop")
    found = measuring.timed(sys.executable, "-c", "sum(range(30_000_000))", cwd=tmp_path)
    assert 0 < found["processor"] < 60 and 0 < found["clock"]
    assert len({measuring.face(i).tobytes() for i in range(measuring.OWN)}) > 10 and measuring.face(
        0
    ).size == (256, 256)
    with pytest.raises(
        SystemExit, match="There is no part 'nothing'; choose among path, chapters, own."
    ):
        measuring.main(["nothing"])
