"""Cards of what ships: the miniature models and the built-in world (chapter "Cards").

`python -m kcdp_book.cards` writes them from the records in the repository; a test compares them
with the files that are there.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from huggingface_hub import DatasetCardData, ModelCardData
from safetensors import safe_open

from kcdp_book import results
from kcdp_lib import datasets, paths
from kcdp_lib.cards import NOT_FOR_PEOPLE, PAPER, TAGS, table, written
from kcdp_lib.config import PRESETS
from kcdp_lib.world import BENCHMARK, SIX, causes, world_key


def of_miniatures() -> str:
    """The card of `models/tiny`, from pretraining.json, the weights and results/miniatures.json."""
    trained, measured = (
        json.loads((paths.TINY / "pretraining.json").read_text()),
        results.benchmark("miniatures"),
    )
    files = sorted(paths.TINY.rglob("*.safetensors"))
    drawn, hashes = (
        measured["drawn_from_words"],
        "\n".join(
            f"{hashlib.sha256(path.read_bytes()).hexdigest()}  "
            f"{path.relative_to(paths.TINY).as_posix()}"
            for path in files
        ),
    )
    data = ModelCardData(
        license="apache-2.0",
        library_name="diffusers",
        pipeline_tag="text-to-image",
        language="en",
        tags=[*TAGS, "open_clip", "image-to-text", "miniature"],
    )
    return written(
        data,
        f"""
# Miniature foundation models for KCDP

A latent diffusion pipeline (`diffusion/`, loaded by diffusers) and a CoCa (`vlm/`, loaded by open_clip as `local-dir:`), in the layouts of the real ones and small enough for two CPU cores. Pictures are {
            PRESETS["tiny"].image_size
        } pixels a side.
The tower of the CoCa is registered by `import kcdp_lib.towers`.

## Use

To learn, teach and test the method of {
            PAPER
        } where no GPU and no network is. They know one program's pictures and a few hundred words: outside of it they are no use, as captioners, as eyes or as painters. {
            NOT_FOR_PEOPLE
        }

## Training

From nothing, by `python -m kcdp_lib.pretrain` (seed {
            trained["seed"]
        }), on pictures of the built-in world {
            measured["world"]
        } with captions and sentences by the same program; no picture of a benchmark domain was ever set beside a word for an emotion, icons were.

{table(("Domain", "Pictures"), list(trained["corpus"].items()))}

{
            table(
                ("Model", "Steps", "Batch", "Learning rate"),
                [
                    (name, *trained["steps"][name], trained["learning_rate"][name])
                    for name in trained["steps"]
                ],
            )
        }

## Evaluation

By `python -m kcdp_lib.pretrain.measure`, on {
            measured["pictures"]
        } unseen pictures a domain: what captions name of what is there (F1 over attributes), the nearest of {
            measured["domains"]["photos"]["retrieval"]["candidates"]
        } captions, the emotion asked for directly (macro-F1 over six), the VAE's round trip.

{
            table(
                (
                    "Domain",
                    "Captions, micro-F1",
                    "macro-F1",
                    "Picture to text",
                    "Emotion, zero-shot",
                    "VAE, dB",
                ),
                [
                    (
                        name,
                        of["micro_f1"],
                        of["macro_f1"],
                        of["retrieval"]["image_to_text"],
                        of["zero_shot_emotion_macro_f1"],
                        of["psnr"],
                    )
                    for name, of in measured["domains"].items()
                ],
            )
        }

And what the captioner finds again in pictures drawn from words:

{
            table(
                ("Asked for", "Found again", "Of"),
                [(name, of["share"], of["of"]) for name, of in drawn.items()],
            )
        }

## Limits

The UNet has hardly learnt to draw: medium and subject follow the prompt more often than not, events and responses hardly ever. The captioner knows the program that draws the benchmark, which flatters everything that is built on captions.
Looks were drawn by chance and independent of the emotion; nothing of this is a model of real people.

## Files

{
            table(
                ("File", "Numbers", "Bytes"),
                [
                    (path.relative_to(paths.TINY).as_posix(), numbers_in(path), path.stat().st_size)
                    for path in files
                ],
            )
        }

For `sha256sum --check`; results name all files together as `{measured["stack"][:12]}` and on:

```text
{hashes}
```
""",
    )


def numbers_in(path: Path) -> int:
    """How many numbers a safetensors file holds."""
    with safe_open(path, "pt") as file:
        return sum(file.get_tensor(name).numel() for name in file.keys())


def of_world() -> str:
    """The card of the built-in world, from its causal model and results/world.json."""
    frozen, shares = (
        results.benchmark("world"),
        {name: causes.domain_at(name, causes.Dials()) for name in BENCHMARK},
    )
    pictures = len(BENCHMARK) * sum(datasets.SIZES.values())
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
    return written(
        data,
        f"""
# The built-in world

Pictures with known causes, drawn by a program: {", ".join(BENCHMARK)}. {
            pictures
        } of them at the default sizes and one seed, {
            datasets.SOURCE_SIDE
        } pixels a side, and as many more as anyone asks for. Version {
            world_key()
        }, a hash of the code that draws.

## Use

To measure domain adaptation for emotion recognition where every cause is known and every gap can be turned: `style_gap`, `expression_gap`, `event_gap`, `prior_shift`, and the trap `spurious`. A result here shows how a method works, not how well it does on real pictures. {
            NOT_FOR_PEOPLE
        }

## Structure

`kcdp_lib.datasets.load("stickers", "test")`, or on disk, as `kcdp_lib.world.build` leaves it: an image folder with `metadata.jsonl`, a line a picture. `file_name` is a number, `label` one of {
            ", ".join(causes.EIGHT)
        }; the six classes {", ".join(SIX)} are unions of these. The rest are the causes:
`emotion`, `undertone` (a second emotion, or null), `intensity`, `looks`, `face` ({
            len(causes.FEATURES)
        } numbers), `event`, `response`, `place`, `light`, and `shown`, what the domain lets through.

{table(("Split", "Pictures of each domain"), list(datasets.SIZES.items()))}

There are {len(causes.SUBJECTS)} subjects, {len(causes.EVENTS)} events, {
            len(causes.RESPONSES)
        } responses. Domains differ in what they show; at the default dials:

{
            table(
                (
                    "Domain",
                    "Event shown",
                    "Response shown, if any",
                    "Strength of the face",
                    "No brows",
                    "People",
                ),
                [
                    (
                        name,
                        f"{of.event:.2f}",
                        f"{of.response:.2f}",
                        "{:.2f} to {:.2f}".format(*of.strength),
                        f"{of.bare:.2f}",
                        f"{of.humans:.2f}",
                    )
                    for name, of in shares.items()
                ],
            )
        }

{
            table(
                ("Domain", *SIX),
                [
                    (
                        name,
                        *(
                            f"{sum(share for emotion, share in zip(causes.EIGHT, of.prior) if causes.label_of(emotion) == label):.3f}"
                            for label in SIX
                        ),
                    )
                    for name, of in shares.items()
                ],
            )
        }

## How it was made

An emotion is drawn, then event, face and response given the emotion, then what the domain shows, then the picture. Nobody labelled anything: a label is a cause. Shares of classes follow what is known of EmoSet and SER30K; everything else was chosen by hand, and frozen by what was measured without the method. No picture, name or likeness of anybody was used.
What a classifier of the six classes can reach, macro-F1 on unseen scenes:

{
            table(
                ("Domain", "From all that a caption can say", "From all visible causes"),
                [
                    (name, frozen["captions"][name]["macro_f1"], frozen["causes"][name]["macro_f1"])
                    for name in BENCHMARK
                ],
            )
        }

## Limits

Six or eight words for emotions, one culture's signs for them, one program's hand. Skin, hair and clothes are drawn by chance, apart from the emotion, and so say nothing about biases of real sets. What a sign means is as the program has it; where it disagrees with you, the program is wrong.
""",
    )


SHIPPED = {paths.TINY / "README.md": of_miniatures, paths.PACKAGE / "world" / "README.md": of_world}


if __name__ == "__main__":
    for path, card in SHIPPED.items():
        paths.atomic_write(path, card())
