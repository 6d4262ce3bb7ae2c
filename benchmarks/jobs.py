"""The jobs of the grids: each trains and scores one method, or several that need no training.

A module of its own, because lines of results are kept under the code that computes them
(`results.code_now`). `grid.py` lists which jobs there are and writes their lines.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from sklearn.preprocessing import StandardScaler

from kcdp_book import eye, fine_tuned, subspace
from kcdp_book.compare import CHOICE, choose, criteria
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
from kcdp_lib.adapt.record import shares_score
from kcdp_lib.adapt.run import load_all
from kcdp_lib.checkout import code_key
from kcdp_lib.config import Config
from kcdp_lib.counterfactuals import prompts, together
from kcdp_lib.datasets import Pictures
from kcdp_lib.knowledge import encode_texts, knowledge_tokens, load_text_encoder
from kcdp_lib.metrics import linear_classifier
from kcdp_lib.precompute import Frozen, freeze
from kcdp_lib.pretrain.coca import imagenet
from kcdp_lib.pretrain.task import Task
from kcdp_lib.shards import SHARD
from kcdp_lib.tokens import masked_mean
from kcdp_lib.vision_language import load_vlm, zero_shot
from kcdp_lib.world import Dials


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


# Steps after which the perception model of the grid `eye` is evaluated
LOOKS = (100, 300, 1000)


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
