"""Grids of trainings, one JSON line for each method's scores in results/<grid>.jsonl.

`python benchmarks/grid.py GRID [SEED ...]` runs the missing jobs (of all seeds by default), so it
may be interrupted. Started twice, the two processes share the work. On two cores, two processes
with OMP_NUM_THREADS=1 are fastest. A target's labels are read only to score a finished run. The
oracle, which trains on them, is not a method but an upper limit.

switches   the paper recipe, the released one, and the paper's with each single switch as released:
           for the chapter on differences
gain       KCDP, all baselines and the oracle on stickers and on real artwork, with five seeds: how
           far the method comes
develop    parts of the recipe "best", on photos to sketches and to paintings, with seeds that no
           reported result uses: how it was chosen
compare    KCDP and its peers on frozen features, five seeds, each with three weights and all epochs
           to choose from without a label; and the methods that need no training
plain      the peers on the paper's features alone, without the VLM's embeddings, chosen like those
           of `compare`, which has KCDP's line
matrix     every built-in domain to every other and to real artwork, with the target's pictures (DA)
           and without (UC), two seeds, weight 1 and the last epoch
sweep      KCDP and what it is compared with, on frozen features, while one dial of the world is
           turned, or all gaps together: where the gain comes from
art        one artist's real artwork to another's, trained on classes or on shares of them
few        photos to stickers with few target pictures
ablate     the two recipes with one part removed or replaced: knowledge, perception, alignment,
           pseudo-labels
controls   linear classifiers on KCDP's inputs, its knowledge and the UNet's frozen maps, with the
           source's averages and with each domain's own; and each recipe trained on the target's
           labels
eye        the whole UNet trained on labels of one domain with an empty text, from pre-trained and
           from random weights, with few labels to many, evaluated at several steps
role       a backbone pre-trained on ImageNet and fine-tuned on the source, plain and with AdaBN:
           needs `make corpus`
cesa       a subspace found by CCA instead of CLIEA, of whole texts and of what the intervention
           changes in them
rank       adapters of other ranks
probe      the standardised probe by other averages, while class frequencies move apart and between
           all domains, and joined with the VLM
adapters   KCDP and some peers with adapters in the UNet, weight 1 and the last epoch; and the
           released recipe, which trains the whole UNet
"""

import json
import sys
import time
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
from filelock import FileLock, Timeout
from jobs import LOOKS, Job, run

from kcdp_book import results
from kcdp_book.lines import packed
from kcdp_lib import paths
from kcdp_lib.adapt.peers import PEERS
from kcdp_lib.command import command
from kcdp_lib.config import RECIPES, SWITCHES
from kcdp_lib.world import BENCHMARK, Dials

ALONE = [f"paper, {switch}={getattr(RECIPES['released'], switch)}" for switch in SWITCHES]
HEADS, TRIED, SOME = (
    "trained=heads",
    (0.3, 1.0, 3.0),
    ("adabn", "mcd", "fixmatch"),
)  # one peer method of each kind: averages, discrepancy, self-training
# `best` with a part removed or added, which `develop` compares
PARTS = [
    f"best, {part}"
    for part in (
        "embeddings=False",
        "labelled_by=answer",
        "labelled_by=vlm",
        "eye=blind",
        "pseudo_labels=priors",
    )
]
WEIGHTS = {"source_only": (1.0,), "adabn": (1.0,), "oracle": (1.0,)}  # no loss to weigh
PAIRS = [
    (source, target) for source in BENCHMARK for target in (*BENCHMARK, "noto") if source != target
]  # noto has 42 labelled pictures, too few to train on
# From one artist to another: between emoji, between characters, and across
ART_PAIRS = [
    ("art-noto", "art-emojione"),
    ("art-twemoji", "art-streamline"),
    ("art-lorelei", "art-micah"),
    ("art-big-smile", "art-twemoji"),
    ("photos", "art-twemoji"),
]
# One dial alone or all gaps together. With all gaps at 1, only prior_shift is not as usual
SWEPT = [
    Dials(),
    *(
        replace(Dials(), **{dial: stop})
        for dial, stops in (
            ("event_gap", (0.0, 0.5)),
            ("prior_shift", (0.0, 0.35, 1.0)),
            ("style_gap", (0.0, 0.5)),
            ("expression_gap", (0.0, 0.5)),
            ("spurious", (0.5, 1.0)),
        )
        for stop in stops
    ),
    *(Dials(**dict.fromkeys(results.GAPS, stop)) for stop in (0.0, 0.5)),
]
# Labels that the perception model is trained on
LABELS = (60, 300, 1200, 6000)
ABLATED = (
    [f"knowledge={part}" for part in ("caption", "triplets", "none", "another")]
    + [f"eye={eye}" for eye in ("no_attention", "untrained", "blind")]
    + [f"timestep={t}" for t in (50, 250, 500)]
    + [
        "alignment=prompts",
        "labelled_by=experts",
        "labelled_by=vlm",
        "alignment=none, labelled_by=experts",
        "pseudo_labels=raw",
        "feelings=False",
        "domain_norm=False",
        "cliea_start=random",
    ]
)
# Half of the main job's epochs: thirty-four trainings take more than an hour on two cores
GRIDS = {
    "switches": [
        Job("kcdp", seed, recipe, epochs=2)
        for seed in (0, 1)
        for recipe in ("paper", "released", *ALONE)
    ],
    "gain": [
        Job(method, seed, target=target)
        for seed in range(5)
        for target in ("stickers", "noto")
        for method in ("kcdp", "baselines", "oracle")
        if (method, target) != ("oracle", "noto")
    ],
    "develop": [
        Job(method, seed, f"{recipe}, {HEADS}", target, weights=WEIGHTS.get(method, TRIED))
        for seed in (100, 101)
        for target in ("sketches", "paintings")
        for method, recipe in [
            *(("kcdp", recipe) for recipe in ("best", *PARTS, "paper")),
            *((peer, "best") for peer in (PEERS if seed == 100 else ())),
        ]
    ]  # peers only serve to compare the criteria of choosing
    + [
        Job("untrained", seed, "best", target)
        for seed in (100, 101)
        for target in ("sketches", "paintings")
    ],
    "compare": [
        job
        for seed in range(5)
        for job in (
            Job("untrained", seed, "best"),
            Job("kcdp", seed, f"paper, {HEADS}", weights=TRIED),
            *(
                Job(method, seed, f"best, {HEADS}", weights=WEIGHTS.get(method, TRIED))
                for method in ("kcdp", "source_only", *PEERS, "oracle")
            ),
        )
    ],
    "matrix": [
        job
        for seed in (0, 1)
        for source, target in PAIRS
        for job in (
            Job("untrained", seed, "best", target, source),
            *(
                Job("kcdp", seed, f"{recipe}, {HEADS}", target, source, setting)
                for setting in ("da", "uc")
                for recipe in ("best", "paper")
            ),
            *(
                Job(method, seed, f"best, {HEADS}", target, source)
                for method in ("source_only", *SOME)
            ),
        )
    ],
    "sweep": [
        job
        for seed in (0, 1)
        for dials in SWEPT
        for job in (
            Job("untrained", seed, "best", dials=dials),
            *(
                Job(method, seed, f"{recipe}, {HEADS}", dials=dials)
                for recipe in ("best", "paper")
                for method in ("kcdp", "source_only")
            ),
            Job("adabn", seed, f"best, {HEADS}", dials=dials),
        )
    ],
    "art": [
        job
        for seed in range(3)
        for source, target in ART_PAIRS
        for job in (
            Job("untrained", seed, "best", target, source),
            Job("kcdp", seed, f"paper, {HEADS}", target, source),
            *(
                Job(method, seed, f"best, {HEADS}{labels}", target, source)
                for labels in (("", ", labels=hard") if source != "photos" else ("",))
                for method in ("kcdp", "source_only", *SOME)
            ),
        )
    ],
    "probe": [
        Job("standardised_probe", seed, "best", dials=dials)
        for seed in range(5)
        for dials in SWEPT
        if dials == Dials(prior_shift=dials.prior_shift)
    ]
    + [
        Job("standardised_probe", seed, "best", target)
        for seed in (100, 101)
        for target in ("sketches", "paintings")
    ]
    + [
        Job("standardised_probe", seed, "best", target, source)
        for seed in (0, 1)
        for source, target in PAIRS
        if (source, target) != ("photos", "stickers")
    ],
    "few": [
        job
        for seed in (0, 1)
        for pictures in (10, 30, 100, 300, None)
        for job in (
            Job("untrained", seed, "best", pictures=pictures),
            *(Job(method, seed, f"best, {HEADS}", pictures=pictures) for method in ("kcdp", *SOME)),
            Job("kcdp", seed, f"paper, {HEADS}", pictures=pictures),
        )
    ],
    "controls": [Job("controls", seed, f"paper, {HEADS}") for seed in range(5)]
    + [
        Job("oracle", seed, recipe)
        for seed in (0, 1)
        for recipe in (
            f"paper, {HEADS}",
            "paper",
            "paper, trained=lora_all",
            "paper, trained=unet",
            "best",
        )
    ],
    "eye": [
        Job("eye", seed, f"paper, trained=unet, eye={weights}", source, source, pictures=pictures)
        for seed in (0, 1)
        for source in ("photos", "stickers")
        for pictures in LABELS
        for weights in ("diffusion", "untrained")
    ],
    "role": [Job("fine_tuned", seed) for seed in range(5)]
    + [
        Job("fine_tuned", seed, source=source, target=target)
        for seed in (0, 1)
        for source, target in PAIRS
        if (source, target) != ("photos", "stickers")
    ]
    + [
        Job("fine_tuned", seed, source=source, target=target)
        for seed in range(3)
        for source, target in ART_PAIRS
    ],
    "cesa": [Job("cesa", seed, "best") for seed in (0, 1)],
    "ablate": [
        Job("kcdp", seed, ", ".join(filter(None, (recipe, HEADS, changed))))
        for seed in (0, 1)
        for changed in ("", *ABLATED)
        for recipe in ("paper", "best")
    ],
    "rank": [
        Job("kcdp", seed, f"best, lora_rank={rank}") for seed in (0, 1) for rank in (1, 2, 32)
    ],
    "plain": [
        Job(method, seed, f"paper, {HEADS}", weights=WEIGHTS.get(method, TRIED))
        for seed in range(5)
        for method in ("source_only", *PEERS)
    ],
    "adapters": [
        job
        for seed in range(5)
        for job in (
            Job("kcdp", seed, "released"),
            *(Job(method, seed, "best") for method in (*SOME, "kcdp")),
        )
    ],
}


# Method whose line stands for a job that writes several
FIRST = {
    "baselines": "majority",
    "untrained": "linear_probe",
    "controls": "text_encoder",
    "eye": f"eye_after_{LOOKS[0]}",
}


def is_done(job: Job, rows: list[dict]) -> bool:
    """Return whether one of these lines is the job's."""
    return bool(lines_of(job, rows))


def lines_of(job: Job, rows: list[dict], method: str | None = None) -> list[dict]:
    """Select the job's lines of a method, or of the one in `FIRST` if it writes several."""
    wanted = {"method": method or FIRST.get(job.method, job.method), **job.about()}
    alike = [row for row in rows if wanted.items() <= row.items()]
    return [row for row in alike if row.get("pictures") == job.pictures]


@contextmanager
def claim(job: Job):
    """Yield whether this process holds the job's lock, which ends with the process."""
    job.file.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(job.file.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def main(name: str, only: list[int]) -> None:
    """Run every missing job of a grid that no other process has claimed, in order."""
    for job in paths.progress([job for job in GRIDS[name] if not only or job.seed in only], name):
        with claim(job) as mine:
            if mine and not is_done(job, results.of_this_code(results.read(name))):
                note(name, job)


def due() -> None:
    """Print for each grid the jobs that this world, weights and code lack, and their time."""
    hours = 0.0
    for name, jobs in GRIDS.items():
        rows = results.read(name)
        current = results.of_this_code(rows)
        again = [job for job in jobs if not is_done(job, current)]
        seconds = sum(expected_seconds(job, rows) for job in again)
        hours += seconds / 3600
        print(f"{name:10} {len(again):4} of {len(jobs):4} jobs, {seconds / 3600:5.1f} hours")
    print(f"All of it: {hours:.1f} hours of one core. Run: python benchmarks/grid.py GRID")


def expected_seconds(job: Job, rows: list[dict]) -> float:
    """Return the seconds of a job's last run, else the median of its grid, else 0."""
    known = lines_of(job, rows) or rows
    return float(np.median([row["seconds"] for row in known])) if known else 0.0


def note(name: str, job: Job) -> None:
    """Run a job and append its lines to the grid's results."""
    started = time.time()
    found = run(job)
    made = {**results.made(), "seconds": round(time.time() - started, 1)}
    lines = "".join(
        json.dumps({"method": method, **job.about(), "metrics": packed(scores), **made}) + "\n"
        for method, scores in found.items()
    )
    results.FOLDER.mkdir(exist_ok=True)
    # One short write, so that lines of two processes cannot mix
    with (results.FOLDER / f"{name}.jsonl").open("a", encoding="utf-8", newline="\n") as file:
        file.write(lines)
    scores = " ".join(
        f"{method} {entry['target.test']['macro_f1']:.3f}" for method, entry in found.items()
    )
    print(
        f"{job.target} {job.recipe} seed {job.seed} {job.dials}: {scores}, {made['seconds']:.0f} s",
        flush=True,
    )


if __name__ == "__main__":
    name, *seeds = sys.argv[1:] or [""]
    if name not in (*GRIDS, "due"):
        sys.exit(f"Name a grid: {', '.join(GRIDS)}; or due, for what has to run again.")
    if wrong := [seed for seed in seeds if not seed.isdecimal()]:
        sys.exit(f"A seed is a whole number, and {wrong[0]!r} is none.")
    with command():
        due() if name == "due" else main(name, [int(seed) for seed in seeds])
