"""The notebooks' outputs are present, clean and compared, and the pages build.

The three lists of dependencies agree.
"""

import ast
import copy
import importlib.metadata
import json
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import papermill
import pytest
import yaml
from _ext.provenance import lines_shown
from fingerprint import fingerprint, modules, named_records, stale
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import kcdp_lib
from kcdp_book import results
from kcdp_book.pictures import KINDS, picture
from kcdp_lib import Config

ROOT = Path(__file__).resolve().parents[1]
ORDERED = sorted((ROOT / "notebooks").glob("*.ipynb"))
NOTEBOOKS = [*ORDERED, *sorted((ROOT / "book").glob("*.ipynb"))]
CHAPTERS = (
    "01_datasets",
    "02_knowledge",
    "03_perception",
    "04_counterfactuals",
    "05_adapt",
    "06_compare",
)
IGNORED = "nbval-ignore-output"
CHOSEN = {"torch", "torchvision", "triton"}  # a machine may have other builds of these
# Used by name or as plug-ins, so nothing imports them.
COMMANDS = {
    "pytest-xdist",
    "nbval",
    "ruff",
    "mypy",
    "types-pyyaml",
    "import-linter",
    "pre-commit",
}
GLUE = "application/papermill.record/text/plain"
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


# ---------------------------------------------------------------- dependencies


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def constraints() -> dict[str, str]:
    """Return the exact version of each constrained package."""
    lines = [
        line
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    ]
    pairs = [re.fullmatch(r"([A-Za-z0-9._-]+)==([^\s;@]+)", line) for line in lines]
    assert all(pairs), "a constraint is one name==version, without an address"
    return {canonicalize_name(pair[1]): pair[2] for pair in pairs}


def requirements(*extras: str) -> list[Requirement]:
    """Return the library's own requirements and those of the extras."""
    lists = [project()["dependencies"]]
    lists += [project()["optional-dependencies"][extra] for extra in extras]
    return [Requirement(text) for one in lists for text in one]


ALL = ("spacy", "book", "test")


def test_pyproject_and_constraints_agree():
    pins = constraints()
    assert set(project()["optional-dependencies"]) == set(ALL)
    for requirement in requirements(*ALL):
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), (
            requirement
        )


def test_environment_yml_agrees():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    *conda, pip = environment["dependencies"]
    assert conda == [f"python{project()['requires-python']}", "pip"]
    assert pip == {"pip": ["-c constraints.txt", "-e .[book,test]"]}
    assert '--editable ".[book,test]"' in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_constraints_hold_the_whole_closure():
    """All transitive dependencies are pinned at the installed version."""
    pins, seen = constraints(), set()
    wanted = [(requirement, "") for requirement in requirements(*ALL)]
    while wanted:
        requirement, extra = wanted.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        for extra in ("", *requirement.extras):
            if (name, extra) not in seen:
                seen.add((name, extra))
                if name not in CHOSEN:
                    assert importlib.metadata.version(name) == pins.get(name), (
                        f"{name} is not pinned at its installed version in constraints.txt"
                    )
                wanted += [
                    (Requirement(text), extra) for text in importlib.metadata.requires(name) or []
                ]
    assert len(seen) > 100


def imported(*folders: str) -> dict[str, str]:
    """Return the packages that Python files and notebooks import, each with one of the files."""
    names = {}
    files = [
        file
        for folder in folders
        for kind in ("*.py", "*.ipynb")
        for file in sorted((ROOT / folder).rglob(kind))
    ]
    for file in files:
        if file.suffix == ".py":
            sources = [file.read_text(encoding="utf-8")]
        else:
            sources = [re.sub("^%.*", "", cell.source, flags=re.M) for cell in code_cells(file)]
        for node in (node for source in sources for node in ast.walk(ast.parse(source))):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                modules = [node.module]
            names |= {module.split(".")[0]: str(file.relative_to(ROOT)) for module in modules}
    return {name: file for name, file in names.items() if name not in sys.stdlib_module_names}


@pytest.mark.parametrize(
    "folders, extras",
    [
        (["kcdp_lib"], ["spacy"]),
        (["kcdp_book", "book", "notebooks", "benchmarks"], ["book"]),
        (["tests"], ["book", "test"]),
    ],
)
def test_what_is_imported_is_asked_for(folders, extras):
    """The library's own list suffices to install it alone."""
    ours = {"kcdp_lib", "kcdp_book"}
    ours |= {path.stem for folder in folders for path in (ROOT / folder).glob("*")}
    beside = ("book", "benchmarks", "tests")
    ours |= {path.stem for folder in beside for path in (ROOT / folder).glob("*")}
    homes = importlib.metadata.packages_distributions()
    asked = {canonicalize_name(requirement.name) for requirement in requirements(*extras)}
    lacking = {
        name: file
        for name, file in imported(*folders).items()
        if name not in ours and not asked & {canonicalize_name(home) for home in homes[name]}
    }
    assert not lacking, "add to pyproject.toml's lists"


@pytest.mark.parametrize("extras, folders", [((), ["kcdp_lib"]), (("test",), ["tests"])])
def test_what_is_asked_for_is_used(extras, folders):
    """A package that nothing imports must be a command or a plug-in."""
    homes = importlib.metadata.packages_distributions()
    own = requirements(*extras)[len(requirements()) if extras else 0 :]
    used = {canonicalize_name(home) for name in imported(*folders) for home in homes.get(name, [])}
    unused = {canonicalize_name(requirement.name) for requirement in own} - used
    assert unused <= COMMANDS


def test_python_in_the_readme_is_the_packages():
    assert SpecifierSet(project()["requires-python"]) == SpecifierSet(">=3.11.5")
    assert "Python 3.11.5 or newer" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_there_is_one_version():
    """It is `kcdp_lib.__version__`; the changelog has its changes, and the citation names it."""
    assert project()["dynamic"] == ["version"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == kcdp_lib.__version__
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{kcdp_lib.__version__}]" in changes


def test_what_holds_the_style_has_one_version():
    """CI and pre-commit run the pinned versions; no hook brings its own."""
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    assert [repo["repo"] for repo in hooks["repos"]] == ["local"]
    entries = [hook["entry"] for repo in hooks["repos"] for hook in repo["hooks"]]
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", makefile(), re.MULTILINE)[1]
    commands = [line.strip().replace("$(PY)", "python") for line in recipe.splitlines()]
    assert entries == [command.removesuffix(" .") for command in commands[: len(entries)]]


def makefile() -> str:
    return (ROOT / "Makefile").read_text(encoding="utf-8")


# ---------------------------------------------------------------- layout


def test_chapter_notebook_module_and_test_carry_the_same_name():
    assert tuple(path.stem for path in ORDERED) == CHAPTERS
    for chapter in CHAPTERS:
        name = chapter.split("_", 1)[1]
        package = ROOT / ("kcdp_book" if name == "compare" else "kcdp_lib")
        assert (package / f"{name}.py").exists() or (package / name / "__init__.py").exists()
        assert (ROOT / "tests" / f"test_{name}.py").exists()


# ---------------------------------------------------------------- notebooks


def code_cells(path: Path) -> list:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def shows(source: str) -> bool:
    """Return whether a cell is written to show something.

    It prints, or ends in an expression that is no assignment.
    """
    body = ast.parse(
        "\n".join(line for line in source.splitlines() if not line.startswith("%"))
    ).body
    return "print(" in source or (bool(body) and isinstance(body[-1], ast.Expr))


@each_notebook
def test_every_cell_was_run_in_order_and_shows_its_output(path):
    cells = code_cells(path)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    silent = [cell.source for cell in cells if shows(cell.source) and not cell.outputs]
    assert not silent, f"run `make notebooks`; these cells show nothing: {silent}"
    assert any("text" in output for cell in cells for output in cell.outputs), (
        "no text for nbval to compare"
    )


@each_notebook
def test_only_figures_times_and_what_is_asserted_are_exempt_from_comparison(path):
    """A trained model's numbers differ between machines, so asserts guard what the text says."""
    for cell in code_cells(path):
        tags = set(cell.metadata.get("tags", []))
        assert (
            not tags & {"nbval-skip", "nbval-raises-exception", "raises-exception"}
            and "NBVAL" not in cell.source
        )
        if IGNORED in tags:
            drawn = [
                output
                for output in cell.outputs
                if output.output_type in ("display_data", "execute_result")
                and any(kind == GLUE or kind in KINDS for kind in output.data)
            ]
            asserted = any(
                isinstance(line, ast.Assert) for line in ast.walk(ast.parse(cell.source))
            )
            assert "timing" in tags or asserted or drawn == cell.outputs, (
                f"only figures, times and what is asserted may be ignored:\n{cell.source}"
            )


@each_notebook
def test_outputs_are_clean(path):
    for cell in code_cells(path):
        assert all(
            output.output_type != "error" and output.get("name") != "stderr"
            for output in cell.outputs
        )
        text = json.dumps(
            [
                {
                    **output,
                    "data": {
                        kind: data
                        for kind, data in output.get("data", {}).items()
                        if kind not in KINDS
                    },
                }
                for output in cell.outputs
            ]
        )
        assert not re.search(r"(?<![\w.<])/(?:work|root|home|Users|tmp|usr|opt)/", text), (
            f"an absolute path in the output of:\n{cell.source}"
        )
        assert "image/svg+xml" not in text, "nbval compares SVG byte by byte: use PNG"


@each_notebook
def test_outputs_are_of_this_tree(path):
    changed = stale(nbformat.read(path, as_version=4))
    assert not changed, (
        f"its outputs are older than {', '.join(changed)}: run `python book/execute.py {path.stem}`"
    )


def test_what_changed_is_named(monkeypatch, tmp_path):
    """An edited cell, module, pin or record is named; an edited docstring or comment is not."""
    notebook = nbformat.read(ROOT / "book" / "parts.ipynb", as_version=4)
    notebook.metadata["kcdp"] = {"made_from": fingerprint(notebook)}
    edited = copy.deepcopy(notebook)
    next(cell for cell in edited.cells if cell.cell_type == "code").source += "\n1 + 1"
    assert not stale(notebook) and stale(edited) == ["code"]

    tree = tmp_path / "tree"
    for folder in ("results", "kcdp_lib", "kcdp_book"):
        ignored = shutil.ignore_patterns("models", "noto", "art", "__pycache__")
        shutil.copytree(ROOT / folder, tree / folder, ignore=ignored)
    (tree / "constraints.txt").write_bytes((ROOT / "constraints.txt").read_bytes() + b"one==1\n")
    monkeypatch.setattr("fingerprint.ROOT", tree)
    assert stale(notebook) == ["lock"]
    with (tree / "results" / "ablate.jsonl").open("a") as file:
        file.write("{}\n")
    assert stale(notebook) == ["lock", "results"]
    with (tree / "kcdp_book" / "results.py").open("a") as file:
        file.write("\n# nothing new\n")
    assert stale(notebook) == ["lock", "results"]
    with (tree / "kcdp_book" / "results.py").open("a") as file:
        file.write("NEW = 1\n")
    assert stale(notebook) == ["library", "lock", "results"]


def test_a_notebook_depends_on_what_its_imports_import():
    assert modules("from kcdp_lib import figures") == [
        "kcdp_lib/__init__.py",
        "kcdp_lib/figures.py",
        "kcdp_lib/machine.py",
    ]
    assert {"kcdp_lib/config.py", "kcdp_lib/world/causes.py", "kcdp_book/results.py"} <= set(
        modules("%matplotlib inline\nfrom kcdp_book import results")
    )
    assert "kcdp_lib/adapt/training.py" in modules(
        "import kcdp_lib\nkcdp_lib.adapt(target='noto')"
    ) and not modules("import numpy")


def test_every_chapter_is_quick():
    """Three minutes on two cores, from empty caches; chapter 05 is the training itself."""
    made = {path.stem: nbformat.read(path, as_version=4).metadata.kcdp for path in NOTEBOOKS}
    assert not [
        name
        for name, of in made.items()
        if of["seconds"] * of["threads"] > 2 * 180 and name != "05_adapt"
    ]


def figure_cells(path: Path) -> list:
    return [cell for cell in code_cells(path) if any(picture(output) for output in cell.outputs)]


@each_notebook
def test_every_figure_has_a_name_a_caption_and_words_for_who_cannot_see_it(path):
    for cell in figure_cells(path):
        about = cell.metadata.get("mystnb", {})
        assert about.get("figure", {}).keys() == {"name", "caption"}, (
            "give the cell metadata mystnb: figure: name, caption, as its neighbours have them:\n"
            f"{cell.source}"
        )
        assert (
            len(about["image"]["alt"]) > len("a sentence, at least")
            and about["image"]["alt"] != about["figure"]["caption"]
        )


def test_figures_have_names_of_their_own():
    names = [
        cell.metadata.mystnb.figure.name
        for path in NOTEBOOKS
        for cell in figure_cells(path)
        if "mystnb" in cell.metadata
    ]
    assert len(names) == len(set(names)) > 30 and all(name.startswith("fig-") for name in names)


def test_a_run_keeps_what_a_figure_is_called():
    path = ROOT / "notebooks" / "01_datasets.ipynb"
    run = nbformat.read(path, as_version=4)
    run.cells[0].metadata["papermill"] = {"duration": 1}
    clean = runpy.run_path(str(ROOT / "book" / "execute.py"))["clean"]
    assert [cell.metadata for cell in clean(run).cells] == [
        cell.metadata for cell in nbformat.read(path, as_version=4).cells
    ]


def test_papermill_reads_every_parameter(caplog):
    """The main job's cell holds the run's parameters in order, at their defaults.

    Papermill cannot read a line with a second "=", even in a comment.
    """
    found = papermill.inspect_notebook(ROOT / "notebooks" / "05_adapt.ipynb")
    assert {
        name: ast.literal_eval(about["default"]) for name, about in found.items()
    } == Config().as_dict() and list(found) == list(Config().as_dict())
    assert not [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


@pytest.mark.slow
@each_notebook
def test_nbval_notices_one_altered_result(path, tmp_path):
    """Change the first printed result in a copy: nbval must stop there.

    With -x, later cells are not run again.
    """
    notebook = nbformat.read(path, as_version=4)
    printed = next(
        output
        for cell in notebook.cells
        if cell.cell_type == "code" and IGNORED not in cell.metadata.get("tags", [])
        for output in cell.outputs
        if output.output_type == "stream"
    )
    printed.text = alter(printed.text)
    nbformat.write(notebook, tmp_path / path.name)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "--nbval",
        "--nbval-current-env",
        "-p",
        "no:cacheprovider",
        str(tmp_path / path.name),
    ]
    run = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert run.returncode == 1 and "Cell outputs differ" in run.stdout, (
        run.stdout[-3000:] + run.stderr[-3000:]
    )


def alter(text: str) -> str:
    """Change one character of the text: its last digit, or else its last letter."""
    place = [match.start() for match in re.finditer(r"\d", text)] or [
        match.start() for match in re.finditer(r"[a-z]", text)
    ]
    i = place[-1]
    new = str((int(text[i]) + 1) % 10) if text[i].isdigit() else ("a" if text[i] != "a" else "b")
    return text[:i] + new + text[i + 1 :]


# ---------------------------------------------------------------- prose

# Names, licences, thresholds that were set and not measured, and what METHOD.md says of the paper;
# nothing that a run computes.
TYPED = (
    "Stable Diffusion 1.5",
    "Stable Diffusion 2.1",
    "Python 3.11",
    "Apache-2.0",
    "SIL OFL 1.1",
    "CC BY 4.0",
    "PSF-2.0",
    "MPL-2.0",
    "95%",
    "(2, 2.6 and 16 GB",
    "a gain of 12% over the previous best model",
    "stay below 0.85",
    "must reach 0.93",
    "a confidence of 0.8 is",
)


def typed_numbers(prose: str) -> list[str]:
    """Return the decimals and percentages that are typed into Markdown.

    Glued results, code, mathematics, citations, addresses and `TYPED` do not count.
    """
    for pattern in (
        r"```\{math\}.*?```|\$\$.*?\$\$|```.*?```",
        r"\{[\w:]+\}`[^`]*`",
        r"`[^`]*`",
        r"\$[^$]*\$",
        r"\]\([^)]*\)",
        r"\b\d+\.\d+\.\d+\b|\bCC(?:-BY|0)-\d\.\d\b",  # a version, and a licence
    ):
        prose = re.sub(pattern, " ", prose, flags=re.DOTALL)
    for words in TYPED:
        prose = prose.replace(words, " ")
    return re.findall(r"\d+\.\d+|\d+ ?%|\d+ per cent", prose)


def prose_of(cell) -> list[str]:
    """Return what a cell says to readers.

    That is its Markdown, or the caption and the alternative text of its figure.
    """
    about = cell.metadata.get("mystnb", {})
    return (
        [cell.source]
        if cell.cell_type == "markdown"
        else [
            of[key]
            for of, key in ((about.get("figure", {}), "caption"), (about.get("image", {}), "alt"))
            if key in of
        ]
    )


@pytest.mark.parametrize(
    "path", [*NOTEBOOKS, *sorted((ROOT / "book").glob("*.md"))], ids=lambda path: path.stem
)
def test_no_number_of_a_run_is_typed_into_prose(path):
    """Pages glue a result or print it in a cell, and nbval compares both with a fresh run."""
    texts = (
        [path.read_text(encoding="utf-8")]
        if path.suffix == ".md"
        else [text for cell in nbformat.read(path, as_version=4).cells for text in prose_of(cell)]
    )
    assert not [number for text in texts for number in typed_numbers(text)]


def test_typed_numbers_are_noticed():
    assert typed_numbers(
        "It reaches 0.45, or 12 % more, on Stable Diffusion 1.5 ({glue:text}`a:.3f`, `0.7`, $T = "
        "0.07$, {cite:p}`x2.5`, [there](a-0.5.html))."
    ) == ["0.45", "12 %"]


# ---------------------------------------------------------------- the book


def test_the_book_builds_without_a_warning(build):
    run, html = build
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-4000:]
    assert all((html / "notebooks" / f"{chapter}.html").exists() for chapter in CHAPTERS)


def test_a_key_of_a_row_is_not_a_grid_that_the_page_shows():
    code = '%matplotlib inline\nrows = results.read("gain")\nrows[0]["sweep"] == rows[1]["gain"]'
    assert [path.name for path in named_records(code)] == ["gain.jsonl"]
    both = named_records(f'{code}\nresults.read("sweep")')
    assert [path.name for path in both] == ["gain.jsonl", "sweep.jsonl"]
    cells = [nbformat.v4.new_code_cell('results.read("few"), rows[0]["sweep"]')]
    shown = lines_shown(nbformat.v4.new_notebook(cells=cells))
    assert shown == results.standing(["few"])
