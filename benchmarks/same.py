"""Show that a change of the code changed no result, by running a sample of the grids again.

`python benchmarks/same.py` takes one job of each method, recipe and setting in the grids and
compares what it computes now with the committed line. Most jobs agree to the last digit. Some do
not, even if the same code runs twice: the last bits of a gradient depend on where its tensors lie
in memory, and training amplifies them. So a macro-F1 may move by `ROUNDING`. If all jobs agree, the
script writes into results/same.json that the present code computes what the code of those lines
computed, how many jobs agreed to the last digit and how far the others moved, and the lines count
as this code's (`results.first_alike`). A job that moves further is named, and nothing is written.

It may be interrupted; started twice, the two processes share the work. With one thread, as the
lines were made.
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

ROUNDING = 0.005  # of macro-F1; seeds differ by several times as much


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


def moved(name: str, job: grid.Job, code: str) -> float | None:
    """Run a job; return how far its scores moved from the committed lines of that code.

    None if all entries of the lines agree to the last digit, else the largest difference of a
    macro-F1, 0 to 1.
    """
    rows = [row for row in results.read(name) if row.get("code") == code]
    computed = {method: as_read(scores) for method, scores in grid.run(job).items()}
    pairs = [
        (row["metrics"], computed[method])
        for method in computed
        for row in grid.lines_of(job, rows, method)
    ]
    assert pairs, "the sample holds only jobs with a line"
    if all(known == new for known, new in pairs):
        return None
    return max(
        abs(known[part]["macro_f1"] - new[part]["macro_f1"])
        for known, new in pairs
        for part in known.keys() & {"source.test", "target.test"}
    )


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
                difference = moved(name, job, code)
                with book.open("a", encoding="utf-8", newline="\n") as file:
                    file.write(json.dumps([name, repr(job), difference]) + "\n")
    done = outcomes(book)
    differences = [line[2] for line in done if line[2] is not None]
    for name, job, difference in done:
        if (difference or 0) > ROUNDING:
            print(f"{name}: {job} moved by {difference:.4f}")
    largest = max(differences, default=0.0)
    if len(done) == len(jobs) and largest <= ROUNDING:
        shown = results.benchmark("same")
        shown[results.code_now()] = {
            "as": code,
            "jobs": len(jobs),
            "exact": len(jobs) - len(differences),
            "largest": round(largest, 6),
            "commit": commit(),
            "torch": torch.__version__,
        }
        paths.atomic_write(results.FOLDER / "same.json", json.dumps(shown, indent=2) + "\n")
    print(
        f"{len(done)} of {len(jobs)} jobs run again, {len(done) - len(differences)} to the last "
        f"digit; the others moved by {largest:.4f} at most"
    )


def outcomes(book) -> list[list]:
    """Read what has been run again: grid, job and how far it moved."""
    lines = book.read_text(encoding="utf-8").splitlines() if book.exists() else []
    return [json.loads(line) for line in lines]


if __name__ == "__main__":
    with command():
        main()
