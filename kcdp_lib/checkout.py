"""The code itself: the commit of its checkout, and hashes of what files compute."""

import ast
import subprocess
from pathlib import Path

from kcdp_lib.paths import PACKAGE, sha

# Code that computes numbers. Results and notebooks are left out, because runs write them.
CODE = ("kcdp_lib", "kcdp_book", "benchmarks", ":(exclude)*.md")


def commit() -> str | None:
    """Return the checkout's commit, with "+changes" if its code differs from it.

    None outside a checkout, even if the package is installed inside some other one.
    """
    root = PACKAGE.parent
    if not (root / ".git").exists():
        return None

    def git(*words: str) -> str:
        command = ["git", "-C", str(root), *words]
        run = subprocess.run(command, capture_output=True, encoding="utf-8", check=True)
        return run.stdout.strip()

    try:
        changes = git("status", "--porcelain", "--untracked-files=no", "--", *CODE)
        return git("rev-parse", "HEAD") + ("+changes" if changes else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def code_key(*files: Path) -> str:
    """Return the SHA of what Python files compute: their syntax trees without docstrings.

    Prose and layout do not matter.
    """
    return sha(*[without_docstrings(file.read_text(encoding="utf-8")) for file in files])


def without_docstrings(source: str) -> str:
    """Return the syntax tree of a source as text, without docstrings (and comments)."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
            if ast.get_docstring(node) is not None:
                del node.body[0]
    return ast.dump(tree)
