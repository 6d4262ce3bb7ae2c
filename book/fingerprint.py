"""What a notebook's outputs were made from.

Kept in its metadata when it is executed, and compared with the tree by a test and by `python
book/execute.py --stale`.
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
from kcdp_lib.keys import code_key
from kcdp_lib.paths import PACKAGE, sha

ROOT = Path(__file__).resolve().parents[1]


def fingerprint(notebook: nbformat.NotebookNode) -> dict[str, str]:
    """Hashes of all that the outputs depend on, by what it is, so that a difference has a name.

    "code" its own cells, "library" what they import of it and what that imports, docstrings and
    comments aside, "models" the package's weights and drawings, "lock" the pinned versions,
    "results" the committed records whose names stand in the cells.
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
    """What has changed since the notebook was executed, by the names that `fingerprint` gives.

    Everything if it never was.
    """
    made_from = notebook.metadata.get("kcdp", {}).get("made_from", {})
    return [name for name, value in fingerprint(notebook).items() if made_from.get(name) != value]


def modules(code: str) -> list[str]:
    """Files of both packages that code imports, or that these import in turn.

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
            # `import kcdp_lib` alone does not import it.
            named.add(kcdp_lib._HOMES.get(node.attr))
    if "kcdp_lib.adapt" in named:
        # The package imports its parts when they are asked for.
        named |= {f"kcdp_lib.adapt.{home}" for home in kcdp_lib.adapt._HOMES.values()}
    imported = named & graph.modules
    reached = imported.union(*(graph.find_upstream_modules(name) for name in imported))
    return sorted({file_of(name).relative_to(ROOT).as_posix() for name in reached})


@cache
def library() -> grimp.ImportGraph:
    """Who imports whom in the library and in what the book adds to it."""
    return grimp.build_graph("kcdp_lib", "kcdp_book", cache_dir=None)


def file_of(module: str) -> Path:
    """Where a module of the package lies."""
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@cache
def package_data() -> str:
    """SHA over what the package ships beside code and prose.

    Not over what only the pre-training reads: no notebook runs it, and what it makes are weights.
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
    """SHA over the files of `results/` that a string in the code names."""
    return sha(*[path.name + sha(path.read_bytes()) for path in named_records(code)])


def named_records(code: str) -> list[Path]:
    """The files of `results/` whose names are strings in the code, sorted.

    Without the labels that lines refer to: a line holds their hash, so theirs is in its own.
    """
    tree = ast.parse(re.sub(r"^%", "#", code, flags=re.MULTILINE))
    constants = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
    strings = {value for value in constants if isinstance(value, str)}
    files = sorted((ROOT / "results").glob("*.json*"))
    return [path for path in files if path.stem in strings and path != LABELS]
