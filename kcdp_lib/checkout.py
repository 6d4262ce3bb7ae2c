"""The checkout that this code lies in."""

import subprocess

from kcdp_lib.paths import PACKAGE

# What numbers are computed by. Results and notebooks are written by runs and change without it.
CODE = ("kcdp_lib", "kcdp_book", "benchmarks", ":(exclude)*.md")


def commit() -> str | None:
    """The checkout's commit, with "+changes" where code differs from it.

    None outside a checkout, also where some other one holds the installed package.
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
