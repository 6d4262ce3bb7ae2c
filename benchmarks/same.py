"""Show that a change of the code changed no result, by running a sample of the grids again.

`python benchmarks/same.py` takes one job of each method, recipe and setting in the grids and
compares what it computes now with the committed line, to the last digit. If all agree, it writes
into results/same.json that the present code computes what the code of those lines computed, and
the lines count as this code's (`results.first_alike`). A job that differs is named, and nothing is
written. It may be interrupted; started twice, the two processes share the work. With one thread, as
the lines were made.
"""

import json
from collections import Counter

import grid
import torch

from kcdp_book import results
from kcdp_book.lines import packed, unpacked
from kcdp_lib import paths
from kcdp_lib.checkout import commit
from kcdp_lib.command import command


def earlier_code() -> str:
    """Return the key of the code that made most of the lines of these frozen models."""
    rows = [row for name in results.grids() for row in results.read(name)]
    made = Counter(row.get("code") for row in rows if results.of_these_weights(row))
    return made.most_common(1)[0][0]


def sample(code: str) -> list[tuple[str, grid.Job]]:
    """Return (grid, job): one of each kind with lines of that code, from photos to stickers if any.

    A kind is a method with its recipe and setting, with candidates to choose from or without, with
    few target pictures or all. Grids come in the order in which they share pictures.
    """
    chosen: dict[tuple, tuple[str, grid.Job]] = {}
    for name, jobs in grid.GRIDS.items():
        rows = [row for row in results.read(name) if row.get("code") == code]
        for job in sorted(jobs, key=lambda job: (job.target != "stickers", job.seed)):
            kind = (job.method, job.recipe, job.setting, bool(job.weights), bool(job.pictures))
            if grid.is_done(job, rows):
                chosen.setdefault(kind, (name, job))
    return list(chosen.values())


def differences(name: str, job: grid.Job, code: str) -> list[str]:
    """Run a job; return the methods whose scores differ from the committed lines of that code."""
    rows = [row for row in results.read(name) if row.get("code") == code]
    computed = {method: as_read(scores) for method, scores in grid.run(job).items()}
    known = {
        method: row["metrics"] for method in computed for row in grid.lines_of(job, rows, method)
    }
    assert known, "the sample holds only jobs with a line"
    return [method for method in known if known[method] != computed[method]]


def as_read(scores: dict) -> dict:
    """Return a job's scores as they come back from a line of results."""
    return unpacked(json.loads(json.dumps(packed(scores))))


def main() -> None:
    """Run the jobs that no process has claimed; the last one to end writes the verdict."""
    code = earlier_code()
    if results.first_alike(code) == results.first_alike(results.code_now()):
        print("The lines are of the present code, or of code that computes the same.")
        return
    jobs = sample(code)
    book = paths.CACHE / "grid" / f"same-{code}-{results.code_now()}.jsonl"
    for name, job in paths.progress(jobs, "jobs run again"):
        with grid.claim(job) as mine:
            if mine and [name, repr(job)] not in [line[:2] for line in outcomes(book)]:
                wrong = differences(name, job, code)
                with book.open("a", encoding="utf-8", newline="\n") as file:
                    file.write(json.dumps([name, repr(job), wrong]) + "\n")
    done = outcomes(book)
    wrong = [line for line in done if line[2]]
    for name, job, methods in wrong:
        print(f"{name}: {job} differs in {', '.join(methods)}")
    if len(done) == len(jobs) and not wrong:
        shown = results.benchmark("same")
        shown[results.code_now()] = {
            "as": code,
            "jobs": len(jobs),
            "commit": commit(),
            "torch": torch.__version__,
        }
        paths.atomic_write(results.FOLDER / "same.json", json.dumps(shown, indent=2) + "\n")
    print(f"{len(done)} of {len(jobs)} jobs run again, {len(wrong)} differ")


def outcomes(book) -> list[list]:
    """Read what has been run again: grid, job and the methods that differ."""
    return [json.loads(line) for line in book.read_text().splitlines()] if book.exists() else []


if __name__ == "__main__":
    with command():
        main()
