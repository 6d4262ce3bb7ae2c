"""Write the cards of the miniature models and the built-in world (chapter "Cards").

`python -m kcdp_book.cards` writes them from the records in the repository. A test checks that the
files are up to date.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from huggingface_hub import DatasetCardData, ModelCardData
from safetensors import safe_open

from kcdp_book import results
from kcdp_lib import datasets, paths
from kcdp_lib.cards import TAGS, rendered
from kcdp_lib.command import command
from kcdp_lib.config import PRESETS
from kcdp_lib.pretrain import packages
from kcdp_lib.world import BENCHMARK, SIX, causes, world_key

HERE = Path(__file__).parent


def of_miniatures() -> str:
    """The card of `models/tiny`, from pretraining.json, the weights and results/miniatures.json."""
    trained = json.loads((paths.TINY / "pretraining.json").read_text(encoding="utf-8"))
    measured = results.benchmark("miniatures")
    files = {
        path.relative_to(paths.TINY).as_posix(): path
        for path in sorted(paths.TINY.rglob("*.safetensors"))
    }
    data = ModelCardData(
        license="apache-2.0",
        library_name="diffusers",
        pipeline_tag="text-to-image",
        language="en",
        tags=[*TAGS, "open_clip", "image-to-text", "miniature"],
    )
    return rendered(
        HERE / "miniatures.md.jinja",
        data,
        image_size=PRESETS["tiny"].image_size,
        trained=trained,
        measured=measured,
        corpus=trained["corpus"].items(),
        packages=[
            (one.kind, f"{one.name} {one.version}", one.licence, one.author)
            for one in packages.PACKAGES
        ],
        trainings=[
            (name, *about, trained["learning_rate"][name])
            for name, about in trained["steps"].items()
        ],
        domains=[
            (
                *(name, of["micro_f1"], of["macro_f1"], of["retrieval"]["image_to_text"]),
                *(of["zero_shot_emotion_macro_f1"], of["vae"]["psnr"]),
            )
            for name, of in measured["domains"].items()
        ],
        drawn=[(name, of["share"], of["of"]) for name, of in measured["drawn_from_words"].items()],
        files=[(name, numbers_in(path), path.stat().st_size) for name, path in files.items()],
        hashes="\n".join(
            f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {name}"
            for name, path in files.items()
        ),
    )


def numbers_in(path: Path) -> int:
    """Return the number of elements in a safetensors file."""
    with safe_open(path, "pt") as file:
        return sum(file.get_tensor(name).numel() for name in file.keys())


def of_world() -> str:
    """The card of the built-in world, from its causal model and results/world.json."""
    frozen = results.benchmark("world")
    domains = {name: causes.domain_at(name, causes.Dials()) for name in BENCHMARK}
    data = DatasetCardData(
        license="apache-2.0",
        pretty_name="The built-in world of KCDP, step by step",
        language="en",
        annotations_creators="machine-generated",
        language_creators="machine-generated",
        multilinguality="monolingual",
        size_categories="1K<n<10K",
        source_datasets=["original"],
        task_categories=["image-classification", "image-to-text"],
        tags=[*TAGS, "synthetic"],
    )
    return rendered(
        HERE / "world.md.jinja",
        data,
        benchmark=BENCHMARK,
        eight=causes.EIGHT,
        six=list(SIX),
        pictures=len(BENCHMARK) * sum(datasets.SIZES.values()),
        side=datasets.SOURCE_SIDE,
        version=world_key(),
        sizes=datasets.SIZES.items(),
        counts={
            name.lower(): len(getattr(causes, name))
            for name in ("FEATURES", "SUBJECTS", "EVENTS", "RESPONSES")
        },
        shown=[
            (
                *(name, f"{of.event:.2f}", f"{of.response:.2f}"),
                "{:.2f} to {:.2f}".format(*of.strength),
                *(f"{of.bare:.2f}", f"{of.humans:.2f}"),
            )
            for name, of in domains.items()
        ],
        priors=[
            (name, *(f"{share_of(label, of.prior):.3f}" for label in SIX))
            for name, of in domains.items()
        ],
        reached=[
            (name, frozen["captions"][name]["macro_f1"], frozen["causes"][name]["macro_f1"])
            for name in BENCHMARK
        ],
    )


def share_of(label: str, prior: tuple[float, ...]) -> float:
    """Return the share of one of the six classes, the sum over the emotions that it unites."""
    shares = zip(causes.EIGHT, prior, strict=True)
    return sum(share for emotion, share in shares if causes.label_of(emotion) == label)


SHIPPED = {paths.TINY / "README.md": of_miniatures, paths.PACKAGE / "world" / "README.md": of_world}


if __name__ == "__main__":
    with command():
        for path, card in SHIPPED.items():
            paths.atomic_write(path, card())
