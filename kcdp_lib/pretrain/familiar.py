"""`python -m kcdp_lib.pretrain --stage familiar`: what the miniature VLM has seen.

Writes how the image features of the pictures it was trained on lie beside its weights, for
`kcdp_lib.familiar` to tell what is unlike all of them. `write` does so for any VLM and pictures.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from kcdp_lib import machine, paths, vision_language, world
from kcdp_lib.config import PRESETS, Preset
from kcdp_lib.familiar import Known
from kcdp_lib.loading import FAMILIAR, model_key, place
from kcdp_lib.pretrain import IMAGE_SIZE, corpus
from kcdp_lib.pretrain.task import Task, mixture, read_drawings

DIRECTIONS = 128  # that are kept; the file grows with each, and no committed run compares counts
QUANTILES = 1000
SEED, NEW = 9, 0.06  # of the world's pictures that are held out, and their share of the corpus
APART = 10  # one drawing in so many is held out, in all of its pictures
MOST = 12_000  # pictures to fit on


def draw(job: tuple[str, int]) -> np.ndarray:
    """A picture of the world that nothing was trained on, uint8 [S, S, 3]."""
    domain, index = job
    scene = world.sample_scene("pretrain", SEED, index, domain, corpus.DIALS)
    return np.asarray(world.render(scene, domain, IMAGE_SIZE, corpus.DIALS))


def new_scenes() -> np.ndarray:
    """A share of every domain of the corpus from another seed, uint8 [N, S, S, 3]."""
    jobs = corpus.jobs({domain: round(NEW * count) for domain, count in corpus.SHARES.items()})
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


def train_familiar(task: Task) -> None:
    """The last stage of the pre-training: nothing is trained, `task.out`/vlm is looked through.

    Held out are scenes that nothing was trained on, and one drawing in ten, which the VLM was shown
    and this measure was not.
    """
    pictures, told = mixture(task)
    rows, drawn = np.arange(len(told)), len(read_drawings(task).about)
    first = len(told) - drawn
    apart = (rows >= first) & ((rows - first) % APART == 0)
    fitted = rows[~apart][:: -(-len(rows) // MOST)]
    preset = replace(PRESETS["tiny"], vlm=f"local-dir:{task.out / 'vlm'}")
    held_out = np.concatenate([new_scenes(), pictures[rows[apart]]])
    print(write(preset, pictures[fitted], held_out), flush=True)
