"""`python -m kcdp_lib.pretrain.familiar [--out DIR]`: what the miniature VLM has seen.

Writes how the image features of the pictures it was trained on lie beside its weights, for
`kcdp_lib.familiar` to tell what is unlike all of them. `write` does so for any VLM and pictures.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from kcdp_lib import machine, paths, vision_language, world
from kcdp_lib.command import command
from kcdp_lib.config import PRESETS, Preset
from kcdp_lib.familiar import Known
from kcdp_lib.loading import FAMILIAR, model_key, place
from kcdp_lib.pretrain import corpus

DIRECTIONS = 128  # that are kept; the file grows with each, and no committed run compares counts
QUANTILES = 1000
# Seeds and shares of the corpus' pictures: of those that were trained on, and of new ones.
FIT, HELD_OUT = (corpus.SEED, 0.16), (9, 0.06)


def draw(job: tuple[int, str, int]) -> np.ndarray:
    """The corpus' picture of a seed, domain and index, uint8 [S, S, 3]."""
    seed, domain, index = job
    scene = world.sample_scene("pretrain", seed, index, domain, corpus.DIALS)
    return np.asarray(world.render(scene, domain, PRESETS["tiny"].image_size, corpus.DIALS))


def some(seed: int, share: float) -> np.ndarray:
    """A share of every domain of the corpus, drawn with a seed, uint8 [N, S, S, 3]."""
    counts = {domain: round(share * count) for domain, count in corpus.SHARES.items()}
    jobs = [(seed, domain, index) for domain, count in counts.items() for index in range(count)]
    return np.stack(list(paths.progress(machine.side_by_side(draw, jobs), "drawing", len(jobs))))


def features(vlm: vision_language.VLM, pictures: np.ndarray, batch: int = 64) -> torch.Tensor:
    """Image features [N, F] of uint8 pictures [N, S, S, 3] of any size, on the CPU."""
    parts = []
    for start in paths.progress(range(0, len(pictures), batch), "looking", images=batch):
        block = torch.from_numpy(np.ascontiguousarray(pictures[start : start + batch]))
        parts.append(vision_language.image_features(vlm, block.permute(0, 3, 1, 2)).cpu())
    return torch.cat(parts)


def fit(seen: torch.Tensor, held_out: torch.Tensor) -> Known:
    """How known pictures lie, of the features of those that were trained on, [N, F].

    And how far off others of their kind are, [M, F]. Like what is loaded, rounded to float16.
    """
    # A feature that never moves would make everything infinitely far.
    mean, scale = seen.mean(0), seen.std(0).clamp(min=1e-3)
    variances, directions = torch.linalg.eigh(((seen - mean) / scale).T.cov().double())
    variances = variances.flip(0).clamp(min=1e-4)
    count = min(DIRECTIONS, len(variances) - 1)
    axes = directions.flip(1)[:, :count].T
    rest = variances[count:].mean()
    parts = [mean, scale, axes, variances[:count].sqrt(), rest.sqrt(), torch.zeros(1)]
    known = Known(*[part.half().float() for part in parts])
    levels = (torch.arange(QUANTILES) + 0.5) / QUANTILES
    return known._replace(distances=known.distance(held_out).quantile(levels).half().float())


def write(preset: Preset, pictures: np.ndarray, held_out: np.ndarray) -> Path:
    """Write what the preset's VLM has seen beside its weights; returns the file.

    pictures: those it was trained on, or some thousands of them, uint8 [N, S, S, 3]; held_out:
    others of their kind, [M, S, S, 3], that it was not trained on. KCDPError where the VLM cannot
    be loaded.
    """
    vlm, home = vision_language.load_vlm(preset), preset.vlm_pretrained or preset.vlm
    known = fit(features(vlm, pictures), features(vlm, held_out))
    path = Path(place(home), FAMILIAR)
    tensors = {name: part.half() for name, part in known._asdict().items()}
    paths.atomic_save(path, tensors, {"vlm": model_key(home)})
    return path


def train_familiar(work: Path, out: Path, device: str) -> None:
    """The last stage of the pre-training: nothing is trained, `out`/vlm is looked through."""
    preset = replace(PRESETS["tiny"], vlm=f"local-dir:{out / 'vlm'}")
    print(write(preset, some(*FIT), some(*HELD_OUT)), flush=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m kcdp_lib.pretrain.familiar",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=paths.TINY, help="where the models lie")
    train_familiar(paths.CACHE, parser.parse_args().out, "cpu")


if __name__ == "__main__":
    with command():
        main()
