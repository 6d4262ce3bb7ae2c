"""Public docstrings state shapes, errors and equations; the method chapter links to real code.

The checks read the sources, not the objects: a dataclass without a docstring generates one.
"""

import ast
import importlib.util
import inspect
import pkgutil
import re
from dataclasses import dataclass
from functools import cache
from itertools import takewhile
from pathlib import Path

import kcdp_book
import kcdp_lib

METHOD_FILE = Path(__file__).resolve().parents[1] / "book" / "method.md"
TESTS = Path(__file__).resolve().parent
METHOD = METHOD_FILE.read_text(encoding="utf-8")
# [B, 4, h, w], or [] for a single number; [-1, 1] is a range
SHAPE = r"(?:\[\]|\[[^\[\]]*\b(?:[A-Z]|h|w|n|size)\b[^\[\]]*\])"
TENSOR = r"\b(?:Tensor|ndarray)\b"
EQUATION = r"\beq(?:-[a-z]+)+"
DEFINITIONS = (ast.FunctionDef, ast.ClassDef)
OF_THE_METHOD = (
    "kcdp_lib.vision_language",
    "kcdp_lib.knowledge",
    "kcdp_lib.latents",
    "kcdp_lib.precompute",
    "kcdp_lib.perception",
    "kcdp_lib.counterfactuals",
    "kcdp_lib.adapt",
    "kcdp_lib.adapt.model",
    "kcdp_lib.adapt.training",
    "kcdp_lib.adapt.baselines",
    "kcdp_lib.adapt.peers",
)
# Where to read on: an equation, a chapter, the paper, or another paper
PLACE = rf"{EQUATION}|\bchapter\b|paper, (?:section|figure|table)|et al\."
# Packages that only import, commands, and the drawing code of the world
WITHOUT_PAGE = (
    r"kcdp_lib|kcdp_book|.*\.__main__|kcdp_lib\.pretrain(\.blank)?|"
    r"kcdp_lib\.world(\.(svg|subjects|faces|responses|events|scenery))?"
)


@dataclass
class Definition:
    """A public function, class or method: its full name, syntax tree and file's lines."""

    name: str
    node: ast.FunctionDef | ast.ClassDef
    lines: list[str]

    @property
    def doc(self) -> str:
        return ast.get_docstring(self.node) or ""


@cache
def sources() -> dict[str, str]:
    """Return the source of every module of both packages, by name."""
    names = []
    for package in (kcdp_lib, kcdp_book):
        inside = pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
        names += [package.__name__, *(module.name for module in inside)]
    return {
        name: Path(importlib.util.find_spec(name).origin).read_text(encoding="utf-8")
        for name in names
    }


def public(source: str, name: str) -> list[Definition]:
    """Return a module's public definitions and the public methods of its public classes."""

    def inside(body: list, prefix: str) -> list[Definition]:
        own = [
            node for node in body if isinstance(node, DEFINITIONS) and not node.name.startswith("_")
        ]
        return [
            found
            for node in own
            for found in (
                Definition(f"{prefix}.{node.name}", node, lines),
                *(
                    inside(node.body, f"{prefix}.{node.name}")
                    if isinstance(node, ast.ClassDef)
                    else ()
                ),
            )
        ]

    lines = source.splitlines()
    return inside(ast.parse(source).body, name)


def everything() -> list[Definition]:
    return [found for name, source in sources().items() for found in public(source, name)]


def without_docstring(found: Definition) -> list[str]:
    return [] if found.doc.strip() else [found.name]


def without_shape(found: Definition) -> list[str]:
    """Name a function with tensors in its signature but no shape in its docstring.

    Likewise a field, whose shape may also stand in the comment beside it.
    """
    if isinstance(found.node, ast.FunctionDef):
        return (
            [found.name]
            if re.search(TENSOR, ast.unparse(signature(found.node)))
            and not re.search(SHAPE, found.doc)
            else []
        )
    fields = [
        node
        for node in found.node.body
        if isinstance(node, ast.AnnAssign) and re.search(TENSOR, ast.unparse(node.annotation))
    ]
    return [
        f"{found.name}.{node.target.id}"
        for node in fields
        if not re.search(rf"#.*{SHAPE}", comment_of(node, found.lines))
        and not re.search(rf"{node.target.id.replace('_', '.')}`? {SHAPE}", found.doc)
    ]


def comment_of(node: ast.AnnAssign, lines: list[str]) -> str:
    """Return the comment beside a field, or the comment lines right above it, as one line."""
    above = list(takewhile(lambda line: line.strip().startswith("#"), lines[node.lineno - 2 :: -1]))
    return " ".join([*above[::-1], *lines[node.lineno - 1 : node.end_lineno]])


def signature(node: ast.FunctionDef) -> ast.FunctionDef:
    """Return the function without body and decorators."""
    return ast.FunctionDef(
        name=node.name,
        args=node.args,
        returns=node.returns,
        body=[ast.Pass()],
        decorator_list=[],
        lineno=1,
    )


def without_error(found: Definition) -> list[str]:
    """Name a function that raises KCDPError itself but does not document it."""
    if not isinstance(found.node, ast.FunctionDef):
        return []
    raised = [
        ast.unparse(node.exc)
        for node in own_nodes(found.node)
        if isinstance(node, ast.Raise) and node.exc
    ]
    return (
        [found.name]
        if any("KCDPError" in error for error in raised)
        and not re.search(r"KCDPError|\b[Rr]aises\b", found.doc)
        else []
    )


def without_place(found: Definition) -> list[str]:
    """Name a class of the method, or a function on tensors, without a place to read on.

    Methods may leave it to their class, and plumbing to its module.
    """
    module = found.name.rpartition(".")[0]
    computes = isinstance(found.node, ast.ClassDef) or re.search(
        TENSOR, ast.unparse(signature(found.node))
    )
    return (
        [found.name]
        if module in OF_THE_METHOD and computes and not re.search(PLACE, found.doc)
        else []
    )


def own_nodes(node: ast.AST) -> list[ast.AST]:
    """Return all nodes below, except those inside a nested function or class."""
    below = [
        child
        for child in ast.iter_child_nodes(node)
        if not isinstance(child, (*DEFINITIONS, ast.Lambda))
    ]
    return below + [deeper for child in below for deeper in own_nodes(child)]


def report(check) -> str:
    """List what is missing, one name per line."""
    return "\n".join(name for found in everything() for name in check(found))


def named_equations() -> dict[str, str]:
    """Return, for each label, a module whose docstrings name it; private functions count."""
    trees = {name: ast.walk(ast.parse(source)) for name, source in sources().items()}
    return {
        label: name
        for name, nodes in trees.items()
        for node in nodes
        if isinstance(node, (ast.Module, *DEFINITIONS))
        for label in re.findall(EQUATION, ast.get_docstring(node) or "")
    }


# ---------------------------------------------------------------- the library


def test_every_module_function_class_and_method_has_a_docstring():
    silent = [
        name for name, source in sources().items() if not ast.get_docstring(ast.parse(source))
    ]
    assert not silent, f"modules without a docstring: {silent}"
    lacking = report(without_docstring)
    assert not lacking, f"without a docstring:\n{lacking}"


def test_every_tensor_has_a_shape():
    lacking = report(without_shape)
    assert not lacking, (
        "tensors in the signature, but no shape such as [B, T, H] in the docstring (of a field: "
        f"beside it):\n{lacking}"
    )


def test_every_kcdp_error_is_announced():
    lacking = report(without_error)
    assert not lacking, f"raise KCDPError, but do not say so:\n{lacking}"


def test_the_method_says_where_to_read_on():
    lacking = report(without_place)
    assert not lacking, f"of the method, but name no equation, chapter or paper:\n{lacking}"


def test_every_module_has_a_page():
    """book/code.md lists every module, and autosummary makes a page of each.

    That page holds every public function.
    """
    page = (METHOD_FILE.parent / "code.md").read_text(encoding="utf-8")
    listed = [
        name.removesuffix(".render.render") + ".render" if name.endswith(".render.render") else name
        for name in re.findall(r"^   (kcdp_(?:lib|book)[\w.]*)$", page, re.MULTILINE)
    ]
    assert sorted(listed) == sorted(
        name for name in sources() if not re.fullmatch(WITHOUT_PAGE, name)
    )


# ---------------------------------------------------------------- library and chapter


def test_docstrings_and_the_method_chapter_name_the_same_equations():
    named, equations = (
        named_equations(),
        set(re.findall(rf"^\$\$ \(({EQUATION})\)$", METHOD, re.MULTILINE)),
    )
    assert METHOD.count("\n$$") == 2 * len(equations), (
        "an equation of book/method.md has no label of its own"
    )
    unknown, unused = (
        {label: name for label, name in named.items() if label not in equations},
        sorted(equations - named.keys()),
    )
    assert not unknown, f"named in docstrings, but not in book/method.md: {unknown}"
    assert not unused, f"equations of book/method.md that no docstring names: {unused}"


def test_references_of_the_method_chapter_lead_to_code():
    kinds = {"func": inspect.isfunction, "meth": inspect.isfunction, "class": inspect.isclass}
    references = re.findall(r"\{py:(\w+)\}`~?([\w.]+)`", METHOD)
    assert references and len(references) == METHOD.count("{py:")
    wrong = [name for kind, name in references if not leads(name, kinds[kind])]
    assert not wrong, (
        f"book/method.md refers to what does not exist, or is of another kind: {wrong}"
    )


def test_every_equation_has_a_function_that_names_it_and_a_test():
    """The table of book/method.md has a row for each equation.

    The docstring of each function, or of its class's methods, names the equation, and the tests
    exist.
    """
    rows = re.findall(
        r"^\* - \{eq\}`(eq[-a-z]+)`\n  - (.*)\n  - (.*)\n  - \S.*$", METHOD, re.MULTILINE
    )
    assert [label for label, _, _ in rows] == re.findall(
        rf"^\$\$ \(({EQUATION})\)$", METHOD, re.MULTILINE
    )
    docs = {found.name: found.doc for found in everything()}
    for label, functions, tests in rows:
        for name in re.findall(r"\{py:\w+\}`~([\w.]+)`", functions):
            assert label in " ".join(
                doc for other, doc in docs.items() if f"{other}.".startswith(f"{name}.")
            ), f"{name} does not name {label}"
        found = re.findall(r"`(\w+\.py)` `(\w+)`", tests)
        assert found and not [
            name
            for file, name in found
            if f"\ndef {name}(" not in (TESTS / file).read_text(encoding="utf-8")
        ], label


def leads(name: str, is_kind) -> bool:
    try:
        return is_kind(pkgutil.resolve_name(name))
    except (ImportError, AttributeError):
        return False


# ---------------------------------------------------------------- the checks themselves


def test_the_checks_notice_what_lacks():
    source = '''
class Seen:
    """v [B, 4 F], and more."""
    v: torch.Tensor
    maps: torch.Tensor   # in [-1, 1]

    def forward(self, x: torch.Tensor):
        """x [B, T]. KCDPError if T is wrong."""
        raise KCDPError("no")

def load(path) -> np.ndarray:
    """Between [0, 1]."""
    if path:
        raise KCDPError("no")
    def inner(): pass

def silent(loss: "Callable[[int], torch.Tensor]"): pass
def _private(): pass
'''
    assert [found.name for found in public(source, "m")] == [
        "m.Seen",
        "m.Seen.forward",
        "m.load",
        "m.silent",
    ]
    lacking = {
        check: [name for found in public(source, "m") for name in check(found)]
        for check in (without_docstring, without_shape, without_error)
    }
    assert lacking == {
        without_docstring: ["m.silent"],
        without_shape: ["m.Seen.maps", "m.load", "m.silent"],
        without_error: ["m.load"],
    }
    assert not leads("kcdp_lib.perception.nothing", inspect.isclass) and not leads(
        "kcdp_lib.perception.KADAP", inspect.isfunction
    )


# ---------------------------------------------------------------- glossary and bibliography

BOOK = METHOD_FILE.parent


def prose() -> str:
    """Return all pages of the book, notebooks included, as text."""
    return "\n".join(
        path.read_text(encoding="utf-8")
        for folder in (BOOK, BOOK.parent / "notebooks")
        for path in sorted(folder.iterdir())
        if path.suffix in (".md", ".ipynb")
    )


def test_the_glossary_is_sorted_and_every_term_leads_on():
    body = (
        (BOOK / "glossary.md").read_text(encoding="utf-8").split("```{glossary}\n")[1].rstrip("`\n")
    )
    entries = dict(entry.split("\n  ", 1) for entry in re.split(r"\n\n(?=\S)", body))
    assert 35 <= len(entries) <= 55 and list(entries) == sorted(entries, key=str.lower)
    assert not [
        term
        for term, text in entries.items()
        if not re.search(r"\{(?:eq|term|py:\w+|cite:p)\}`|\]\(", text)
    ]
    used = {
        re.sub(r".*<(.+)>$", r"\1", name).lower()
        for name in re.findall(r"\{term\}`([^`]+)`", prose())
    }
    assert used and not used - {term.lower() for term in entries}


def test_every_reference_is_cited_and_every_citation_is_there():
    known = set(
        re.findall(
            r"^@\w+\{(\w+),", (BOOK / "references.bib").read_text(encoding="utf-8"), re.MULTILINE
        )
    )
    cited = {
        key.strip()
        for keys in re.findall(r"\{cite:[pt]+\}`([^`]+)`|\\\]\]\(#(\w+)\)", prose())
        for key in "".join(keys).split(",")
    }
    assert not known ^ cited, f"only in one of the two: {sorted(known ^ cited)}"


def test_no_line_of_a_script_or_style_is_wider_than_a_hundred_columns():
    """The limit is ruff's for Python; third-party files (ort) stay as they are."""
    static = METHOD_FILE.parent / "_static"
    files = [*static.glob("*.*s"), *static.glob("live/*.*s")]
    assert {file.name for file in files} >= {"live.js", "live.css", "book.js", "book.css"}
    lines = [(file.name, line) for file in files for line in file.read_text("utf-8").splitlines()]
    assert not [(name, line) for name, line in lines if len(line) > 100]
