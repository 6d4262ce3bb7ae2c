"""Git commit of the checkout that this code lies in."""

import subprocess

from kcdp_lib.paths import PACKAGE

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
