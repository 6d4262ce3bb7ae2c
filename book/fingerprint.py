"""Hash what a notebook's outputs were made from.

The hashes are kept in its metadata when it is executed. A test and `python book/execute.py --stale`
compare them with the tree.
"""

import ast
import hashlib
import re
from functools import cache
from pathlib import Path

import grimp
import nbformat

import kcdp_lib
from kcdp_book.lines import LABELS
from kcdp_lib.checkout import code_key
from kcdp_lib.paths import PACKAGE, sha

ROOT = Path(__file__).resolve().parents[1]


def fingerprint(notebook: nbformat.NotebookNode) -> dict[str, str]:
    """Return hashes of all that the outputs depend on, by kind.

    "code": its own cells; "library": the modules that they import, directly or not, without
    docstrings and comments; "models": the package's weights and drawings; "lock": the pinned
    versions; "results": the committed records that the cells name.
    """
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    found = {
        "code": sha(*code),
        "library": code_key(*[ROOT / file for file in modules("\n".join(code))]),
        "models": package_data(),
        "lock": sha((ROOT / "constraints.txt").read_bytes()),
        "results": records("\n".join(code)),
    }
    return {name: value[:16] for name, value in found.items()}


def stale(notebook: nbformat.NotebookNode) -> list[str]:
    """Return the kinds of `fingerprint` that have changed since the notebook was executed.

    All of them if it never was.
    """
    made_from = notebook.metadata.get("kcdp", {}).get("made_from", {})
    return [name for name, value in fingerprint(notebook).items() if made_from.get(name) != value]


def modules(code: str) -> list[str]:
    """Return the files of both packages that code imports, directly or not.

    Sorted paths, relative to the checkout.
    """
    graph, tree = library(), ast.walk(ast.parse(re.sub(r"^%", "#", code, flags=re.MULTILINE)))
    named = set()
    for node in tree:
        if isinstance(node, ast.ImportFrom):
            named |= {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
        elif isinstance(node, ast.Import):
            named |= {name.name for name in node.names}
        elif (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == "kcdp_lib"
        ):
            # `import kcdp_lib` alone does not import the attribute's module.
            named.add(kcdp_lib._HOMES.get(node.attr))
    if "kcdp_lib.adapt" in named:
        # The package imports its parts lazily.
        named |= {f"kcdp_lib.adapt.{home}" for home in kcdp_lib.adapt._HOMES.values()}
    imported = named & graph.modules
    reached = imported.union(*(graph.find_upstream_modules(name) for name in imported))
    return sorted({file_of(name).relative_to(ROOT).as_posix() for name in reached})


@cache
def library() -> grimp.ImportGraph:
    """Build the graph of imports in the library and the book's package."""
    return grimp.build_graph("kcdp_lib", "kcdp_book", cache_dir=None)


def file_of(module: str) -> Path:
    """Return the file of a module."""
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@cache
def package_data() -> str:
    """Return the SHA of the package's data files.

    Without those that only the pre-training reads: no notebook runs it, and it makes weights.
    """
    files = sorted(
        path
        for path in PACKAGE.rglob("*")
        if path.is_file()
        and path.suffix not in (".py", ".pyc", ".md")
        and PACKAGE / "pretrain" not in path.parents
    )
    return sha(
        *[
            part
            for path in files
            for part in (
                path.relative_to(PACKAGE).as_posix(),
                hashlib.sha256(path.read_bytes()).hexdigest(),
            )
        ]
    )


def records(code: str) -> str:
    """Return the SHA of the files of `results/` that a string in the code names."""
    return sha(*[path.name + sha(path.read_bytes()) for path in named_records(code)])


def named_records(code: str) -> list[Path]:
    """Return the files of `results/` whose names are strings in the code, sorted.

    A string that is only a key, as in `row["gain"]`, names no file. The file of labels is left out,
    because each line holds a hash of its labels.
    """
    found = list(ast.walk(ast.parse(re.sub(r"^%", "#", code, flags=re.MULTILINE))))
    keys = {id(node.slice) for node in found if isinstance(node, ast.Subscript)}
    strings = {
        node.value
        for node in found
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in keys
    }
    files = sorted((ROOT / "results").glob("*.json*"))
    return [path for path in files if path.stem in strings and path != LABELS]
