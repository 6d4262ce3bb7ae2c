"""Grids of trainings, one JSON line for each method's scores in results/<grid>.jsonl.

`python benchmarks/grid.py GRID [SEED ...]` runs the missing jobs (of all seeds by default), so it
may be interrupted. Started twice, the two processes share the work. On two cores, two processes
with OMP_NUM_THREADS=1 are fastest. A target's labels are read only to score a finished run. The
oracle, which trains on them, is not a method but an upper limit.

switches   the paper recipe, the released one, and the paper's with each single switch as released:
           for the chapter on differences
gain       KCDP, all baselines and the oracle on stickers and on real artwork, with five seeds: how
           far the method comes
dials      KCDP and all baselines while one dial of the world is turned, or all gaps together: where
           the gain comes from
develop    parts of the recipe "best", on photos to sketches and to paintings, with seeds that no
           reported result uses: how it was chosen
compare    KCDP and its peers on frozen features, five seeds, each with three weights and all epochs
           to choose from without a label; and the methods that need no training
plain      the peers on the paper's features alone, without the VLM's embeddings, chosen like those
           of `compare`, which has KCDP's line
matrix     every built-in domain to every other and to real artwork, with the target's pictures (DA)
           and without (UC), two seeds, weight 1 and the last epoch
sweep      KCDP and some peers on frozen features while one dial of the world is turned: style,
           expression, events, class frequencies
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
adapters   KCDP and its peers with adapters in the UNet, weight 1 and the last epoch; and the
           released recipe, which trains the whole UNet
"""

import json
import sys
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock, Timeout
from safetensors.torch import load_file
from sklearn.preprocessing import StandardScaler

from kcdp_book import eye, fine_tuned, results, subspace
from kcdp_book.compare import CHOICE, choose, criteria
from kcdp_book.lines import packed
from kcdp_lib import datasets, metrics, paths
from kcdp_lib.adapt.baselines import (
    baseline,
    baseline_probs,
    frozen_for,
    in_blocks,
    knowledge_of,
    learn,
    share_weights,
    standardised_probe,
    text_encoder_probs,
    untrained_probs,
)
from kcdp_lib.adapt.model import evaluate, settle
from kcdp_lib.adapt.peers import PEERS
from kcdp_lib.adapt.record import shares_score
from kcdp_lib.adapt.run import load_all
from kcdp_lib.checkout import code_key, commit
from kcdp_lib.command import command
from kcdp_lib.config import RECIPES, SWITCHES, Config
from kcdp_lib.counterfactuals import prompts, together
from kcdp_lib.datasets import Pictures
from kcdp_lib.knowledge import encode_texts, knowledge_tokens, load_text_encoder
from kcdp_lib.loading import stack_key
from kcdp_lib.metrics import linear_classifier
from kcdp_lib.precompute import Frozen, freeze
from kcdp_lib.pretrain.coca import imagenet
from kcdp_lib.pretrain.task import Task
from kcdp_lib.shards import SHARD
from kcdp_lib.tokens import masked_mean
from kcdp_lib.vision_language import load_vlm, zero_shot
from kcdp_lib.world import BENCHMARK, Dials, world_key

STOPS = (0.0, 0.25, 0.5, 0.75, 1.0)
ALONE = [f"paper, {switch}={getattr(RECIPES['released'], switch)}" for switch in SWITCHES]
TURNED = [
    Dials(),
    *(replace(Dials(), **{dial: stop}) for dial in (*results.GAPS, "spurious") for stop in STOPS),
    *(Dials(**dict.fromkeys(results.GAPS, stop)) for stop in STOPS),
]


@dataclass(frozen=True)
class Job:
    """One training run; with several `weights`, the candidates to choose from.

    The methods "baselines" and "untrained" stand for all that KCDP is compared with.
    """

    method: str
    seed: int
    recipe: str = "paper"
    target: str = "stickers"
    source: str = "photos"
    setting: str = "da"
    pictures: int | None = None  # of the target in training; None: all
    dials: Dials = Dials()
    epochs: int | None = None
    weights: tuple[float, ...] = ()

    @property
    def config(self) -> Config:
        """Parameters of the run."""
        turned = ", ".join(f"{name}={value}" for name, value in asdict(self.dials).items())
        return Config(
            source=self.source,
            target=self.target,
            setting=self.setting,
            recipe=self.recipe,
            dials=turned,
            seed=self.seed,
            epochs=self.epochs,
        ).check()

    @property
    def file(self) -> Path:
        """Path of its checkpoint and its lock, without suffix."""
        return paths.CACHE / "grid" / paths.sha(repr(self))[:12]

    def about(self) -> dict:
        """Return the entries of its line of results, except for the scores."""
        config = self.config
        return {
            name: getattr(config, name)
            for name in ("recipe", "source", "target", "setting", "seed")
        } | {
            "dials": asdict(self.dials),
            "epochs": config.run_epochs,
            **({"pictures": self.pictures} if self.pictures else {}),
        }


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
# Labels that the perception model is trained on, and steps after which it is evaluated
LABELS, LOOKS = (60, 300, 1200, 6000), (100, 300, 1000)
SWEPT = [
    Dials(),
    *(
        replace(Dials(), **{dial: stop})
        for dial, stops in (
            ("event_gap", (0.0, 0.5)),
            ("prior_shift", (0.0, 0.35, 1.0)),
            ("style_gap", (0.0, 0.5)),
            ("expression_gap", (0.0, 0.5)),
        )
        for stop in stops
    ),
]
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
    "dials": [
        Job(method, seed, dials=dials)
        for seed in (0,)
        for dials in dict.fromkeys(TURNED)
        for method in ("kcdp", "baselines")
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
                Job(method, seed, f"best, {HEADS}", dials=dials)
                for method in ("kcdp", "source_only", *SOME)
            ),
            Job("kcdp", seed, f"paper, {HEADS}", dials=dials),
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
            *(Job(method, seed, "best") for method in (*PEERS, "kcdp")),
        )
    ],
}


def run(job: Job) -> dict[str, dict]:
    """Train and score a job.

    Returns {method: {"source.test" and "target.test": result of `metrics.scores`, "pseudo_labels":
    their scores}}; baselines are scored on the target alone.
    """
    config = job.config
    source, target, source_test, target_test = load_all(config)
    if job.method == "eye":
        return eyes(job, target_test)
    if job.pictures is not None:
        target = target.select(range(job.pictures))  # ordered by content hash, so a random sample
    if job.method == "baselines":
        return {
            name: {
                "target.test": metrics.scores(target_test.labels, probs, config.classes, job.seed)
            }
            for name, probs in baseline_probs(config, source, target_test, "cpu").items()
        }
    if job.method == "untrained":
        frozen = [
            freeze(pictures, config.sizes, config.switches)
            for pictures in (source, target, target_test)
        ]
        found = untrained_probs(config, frozen[0], source.labels, frozen[2], "cpu")
        found["standardised_probe"] = standardised_probe(
            frozen[0], source.labels, *frozen[1:], len(config.classes), job.seed
        )
        found["probe_and_vlm"] = joined(found["standardised_probe"], found["zero_shot_vlm"])
        return {
            name: {"target.test": described(probs, target_test, job)}
            for name, probs in found.items()
        }
    if job.method == "standardised_probe":
        return probes(job, source, target, target_test)
    if job.method == "fine_tuned":
        return role(job, source, target, source_test, target_test)
    if job.method == "cesa":
        return subspaces(job, source, target, target_test)
    if job.method == "controls":
        return controls(job, source, target, target_test)
    checkpoint, variant = (
        job.file.with_suffix(".safetensors"),
        {"kcdp": "full", "oracle": "source_only"}.get(job.method, job.method),
    )
    teacher, domain = (target, "target") if job.method == "oracle" else (source, "source")
    if job.setting == "uc":
        return unseen(job, source, source_test, target_test)
    if job.weights:
        return {job.method: chosen(job, variant, teacher, target, source_test, target_test)}
    trained = learn(config, variant, teacher, target, checkpoint, "cpu")
    scores = {
        "source.test": described(
            evaluate(trained.model, frozen_for(variant, source_test, config, "cpu"), domain),
            source_test,
            job,
        ),
        "target.test": described(
            evaluate(trained.model, frozen_for(variant, target_test, config, "cpu")),
            target_test,
            job,
        ),
    }
    if trained.pseudo_labels is not None:
        scores["pseudo_labels"] = metrics.pseudo_label_scores(target.labels, trained.pseudo_labels)
    checkpoint.unlink(missing_ok=True)
    return {job.method: scores}


def subspaces(
    job: Job, source: Pictures, target: Pictures, target_test: Pictures
) -> dict[str, dict]:
    """Return the scores of `subspace.align`, and the CKA of image and text."""
    frozen = [
        freeze(pictures, job.config.sizes, job.config.switches)
        for pictures in (source, target, target_test)
    ]
    prompted = encode_texts(prompts(job.config.classes), load_text_encoder(job.config.sizes))
    found = {
        name: subspace.align(frozen[0], source.labels, *frozen[1:], *prompted, interventions)
        for name, interventions in (("cesa", False), ("cesa_interventions", True))
    }
    return {
        name: {
            "target.test": described(of.probs, target_test, job),
            "cka": {"before": round(of.cka_before, 6), "shared": round(of.cka, 6)},
        }
        for name, of in found.items()
    }


def probes(job: Job, source: Pictures, target: Pictures, target_test: Pictures) -> dict[str, dict]:
    """Return the scores of the standardised probe with several averages of the target.

    They are the target's own; reweighted to the source's class frequencies, by the VLM's
    predictions or by the target's labels (a diagnosis, not a method); and the source's. A last
    entry joins the probe's prediction with the VLM's.
    """
    config, classes = job.config, len(job.config.classes)
    taught, seen, asked = (
        freeze(pictures, config.sizes, config.switches)
        for pictures in (source, target, target_test)
    )
    vlm, shares = (
        load_vlm(config.sizes, "cpu"),
        np.bincount(source.labels, minlength=classes) / len(source),
    )
    of_seen, of_asked = (
        zero_shot(vlm, of.image_embeddings[:], config.classes) for of in (seen, asked)
    )

    def probe(averaged=seen, weights=None):
        return standardised_probe(
            taught, source.labels, averaged, asked, classes, job.seed, weights
        )

    found = {
        "standardised_probe": probe(),
        "probe_vlm_shares": probe(weights=share_weights(of_seen.numpy(), shares)),
        "probe_true_shares": probe(
            weights=share_weights(np.eye(classes + 1)[target.labels][:, :classes], shares)
        ),
        "probe_source_averages": probe(taught),
    }
    found["probe_and_vlm"] = joined(found["standardised_probe"], of_asked)
    return {
        name: {"target.test": described(probs, target_test, job)} for name, probs in found.items()
    }


def joined(probe: np.ndarray, vlm: np.ndarray | torch.Tensor) -> np.ndarray:
    """Join the probabilities [N, C] of the probe with those of the VLM, as KCDP's answer does."""
    return together(torch.as_tensor(probe), torch.as_tensor(vlm)).numpy()


def controls(
    job: Job, source: Pictures, target: Pictures, target_test: Pictures
) -> dict[str, dict]:
    """Return the scores of linear classifiers on KCDP's inputs, and of its zero-shot text encoder.

    Each classifier counts twice: standardised by the source's averages, and each domain by its own.
    """
    config, classes = job.config, len(job.config.classes)
    taught, seen, asked = (
        frozen_for("full", pictures, config, "cpu") for pictures in (source, target, target_test)
    )
    answers = {"text_encoder": text_encoder_probs(asked, config, "cpu")}
    for name, read in GIVEN.items():
        features, unlabelled, to_answer = map(read, (taught, seen, asked))
        of_source, of_target = (StandardScaler().fit(of) for of in (features, unlabelled))
        features = of_source.transform(features)
        classify = linear_classifier(features, source.labels, classes, job.seed)
        answers[f"{name}_probe"] = classify(of_source.transform(to_answer))
        answers[f"{name}_probe_standardised"] = classify(of_target.transform(to_answer))
    return {
        name: {"target.test": described(probs, target_test, job)} for name, probs in answers.items()
    }


def pooled_maps(frozen: Frozen) -> np.ndarray:
    """Return [N, W]: mean and maximum over all places of the four maps, attention included."""
    blocks = torch.arange(len(frozen)).split(SHARD)
    pooled = [
        torch.cat([torch.cat([of.mean((2, 3)), of.amax((2, 3))], 1) for of in levels], 1)
        for levels in ([map_[rows] for map_ in frozen.maps] for rows in blocks)
    ]
    return torch.cat(pooled).numpy()


GIVEN = {
    "knowledge": lambda frozen: in_blocks(frozen, masked_mean),
    "parts": knowledge_of,
    "maps": pooled_maps,
    "knowledge_and_maps": lambda frozen: np.concatenate(
        [knowledge_of(frozen), pooled_maps(frozen)], 1
    ),
}


def eyes(job: Job, test: Pictures) -> dict[str, dict]:
    """Return the scores of the UNet as a perception model, after each of the `LOOKS`.

    The labelled pictures come from seeds that no other grid uses.
    """
    config, classes = job.config, len(job.config.classes)
    assert job.pictures is not None, "the grid is about numbers of labels"
    sets, found = [], 0
    while found < job.pictures:
        seed = 1000 * (1 + job.seed) + len(sets)
        sets.append(datasets.load(job.source, "train", seed=seed))
        found += len(sets[-1])
    labels = np.concatenate([pictures.labels for pictures in sets])[: job.pictures]
    latents, asked = (
        torch.cat([freeze(one, config.sizes, config.switches).latents[:] for one in some])
        for some in (sets, [test])
    )
    nothing = knowledge_tokens([""], [[]], config.switches, load_text_encoder(config.sizes))
    torch.manual_seed(job.seed)
    model = eye.Eye(config.sizes, config.switches, nothing, classes)
    return {
        f"eye_after_{step}": {"target.test": described(eye.answer(one, asked), test, job)}
        for step, one in eye.train(model, latents[: job.pictures], labels, LOOKS, job.seed)
    }


def role(
    job: Job, source: Pictures, target: Pictures, source_test: Pictures, target_test: Pictures
) -> dict[str, dict]:
    """Return the scores of an ImageNet backbone fine-tuned on the source, and the same with AdaBN.

    It is trained once for all targets, and its weights are kept beside the checkpoints. Learning
    rate and epoch are chosen on the source's test pictures, so "source.test" is biased upwards.
    """
    size, classes = job.config.sizes.image_size, len(job.config.classes)
    images, unlabelled, held, asked = (
        datasets.read_images(pictures.files, size)
        for pictures in (source, target, source_test, target_test)
    )
    key = paths.sha(source.key, source_test.key, str(job.seed), code_key(Path(fine_tuned.__file__)))
    file = paths.CACHE / "grid" / f"fine_tuned-{key[:12]}.safetensors"
    if file.exists():
        model = fine_tuned.new_backbone(classes)
        model.load_state_dict(load_file(file))
    else:
        work = paths.CACHE / "pretrain"
        weights = imagenet(Task(work, work))
        model = fine_tuned.fine_tune(
            weights, images, source.labels, held, source_test.labels, classes, job.seed
        )
        paths.atomic_save(file, model.state_dict())
    adapted = fine_tuned.with_averages_of(model, unlabelled)
    on_source = described(fine_tuned.answer(model, held), source_test, job)
    return {
        name: {
            "source.test": on_source,
            "target.test": described(fine_tuned.answer(one, asked), target_test, job),
        }
        for name, one in (("fine_tuned", model), ("fine_tuned_adabn", adapted))
    }


def unseen(
    job: Job, source: Pictures, source_test: Pictures, target_test: Pictures
) -> dict[str, dict]:
    """Return the scores of a model trained without target pictures, once for all targets.

    If features are standardised, the same model is scored again with the averages of the test
    pictures.
    """
    model = baseline(job.config, "source_only", source, "cpu").model
    held, asked = (
        frozen_for("source_only", pictures, job.config, "cpu")
        for pictures in (source_test, target_test)
    )
    on_source = described(evaluate(model, held, "source"), source_test, job)
    found = {
        job.method: {
            "source.test": on_source,
            "target.test": described(evaluate(model, asked), target_test, job),
        }
    }
    if job.config.switches.domain_norm:
        settle(model, asked)
        found[f"{job.method}_test_time"] = {
            "source.test": on_source,
            "target.test": described(evaluate(model, asked), target_test, job),
        }
    return found


def described(probs: np.ndarray, pictures: Pictures, job: Job) -> dict:
    """Return `metrics.scores` of probabilities [N, C], and the calibration error.

    It adds predicted and true classes, one digit for each labelled picture, so that methods can be
    compared picture by picture, and the agreement with the shares of the pictures that have any.
    """
    known = pictures.labels >= 0
    return {
        **metrics.scores(pictures.labels, probs, job.config.classes, job.seed),
        "calibration_error": metrics.calibration(pictures.labels, probs)["error"],
        "predicted": "".join(map(str, probs.argmax(1)[known])),
        "labels": "".join(map(str, pictures.labels[known])),
        **shares_score(pictures, probs, job.seed),
    }


def chosen(
    job: Job,
    variant: str,
    teacher: Pictures,
    target: Pictures,
    source_test: Pictures,
    target_test: Pictures,
) -> dict:
    """Train with every weight and evaluate after every epoch.

    The scores are those of the candidate that `CHOICE` takes without labels. `candidates` holds
    each one's criteria and its macro-F1, which is only reported.
    """
    config, checkpoint = job.config, job.file.with_suffix(".safetensors")
    held, unlabelled, asked = (
        frozen_for(variant, pictures, config, "cpu")
        for pictures in (source_test, target, target_test)
    )
    tried, validation, seen, answers = [], [], [], []
    for weight in job.weights:
        checkpoint.unlink(missing_ok=True)  # a resumed training would skip the epochs before

        def look(model, epoch, weight=weight):
            tried.append({"weight": weight, "epoch": epoch})
            validation.append(
                metrics.scores(
                    source_test.labels, evaluate(model, held, "source"), config.classes, job.seed
                )["macro_f1"]
            )
            seen.append(evaluate(model, unlabelled))
            answers.append(evaluate(model, asked))

        learn(config, variant, teacher, target, checkpoint, "cpu", weight, look)
    checkpoint.unlink(missing_ok=True)
    scored = [
        {
            "macro_f1": metrics.scores(target_test.labels, probs, config.classes, job.seed)[
                "macro_f1"
            ]
        }
        for probs in answers
    ]
    candidates = [
        {**told, **{name: round(value, 6) for name, value in by.items()}, **score}
        for told, by, score in zip(tried, criteria(seen, validation), scored, strict=True)
    ]
    taken = choose(candidates, "macro_f1" if job.method == "oracle" else CHOICE)
    return {
        "target.test": described(answers[candidates.index(taken)], target_test, job),
        "candidates": candidates,
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


def lines_of(job: Job, rows: list[dict]) -> list[dict]:
    """Select the job's lines; for a job that writes several, those of the method in `FIRST`."""
    first = FIRST.get(job.method, job.method)
    wanted = {"method": first, **job.about()}
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
    made = {
        "world": world_key(),
        "stack": stack_key(job.config.sizes),
        "code": results.code_now(),
        "commit": commit(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "seconds": round(time.time() - started, 1),
    }
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
