"""Record what the miniature VLM has seen: `python -m kcdp_lib.pretrain --stage familiar`.

Writes the distribution of the image features of its training pictures beside its weights;
`kcdp_lib.familiar` compares other pictures with it. `write` works for any VLM and pictures.
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

DIRECTIONS = 128  # kept; the file grows with each, and no committed run compares numbers of them
QUANTILES = 1000
SEED, NEW = 9, 0.06  # of held-out pictures of the world, and their share of the corpus
APART = 10  # one drawing in this many is held out, with all its pictures
MOST = 12_000  # pictures to fit on, at most


def draw(job: tuple[str, int]) -> np.ndarray:
    """Draw a picture of the world that no model was trained on, uint8 [S, S, 3]."""
    domain, index = job
    scene = world.sample_scene("pretrain", SEED, index, domain, corpus.DIALS)
    return np.asarray(world.render(scene, domain, IMAGE_SIZE, corpus.DIALS))


def new_scenes() -> np.ndarray:
    """Draw a share of every domain of the corpus from another seed, uint8 [N, S, S, 3]."""
    jobs = corpus.jobs({domain: round(NEW * count) for domain, count in corpus.SHARES.items()})
    return np.stack(list(paths.progress(machine.side_by_side(draw, jobs), "drawing", len(jobs))))


def features(vlm: vision_language.VLM, pictures: np.ndarray, batch: int = 64) -> torch.Tensor:
    """Return image features [N, F] of uint8 pictures [N, S, S, 3] of any size, on the CPU."""
    parts = []
    for start in paths.progress(range(0, len(pictures), batch), "looking", images=batch):
        block = torch.from_numpy(np.ascontiguousarray(pictures[start : start + batch]))
        parts.append(vision_language.image_features(vlm, block.permute(0, 3, 1, 2)).cpu())
    return torch.cat(parts)


def fit(seen: torch.Tensor, held_out: torch.Tensor) -> Known:
    """Fit the distribution of features [N, F] of training pictures.

    held_out: features [M, F] of similar pictures, whose distances are stored for comparison. All
    tensors are rounded to float16, as when they are loaded.
    """
    # A constant feature would make every distance infinite.
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
    """Write what the preset's VLM has seen beside its weights; return the file.

    pictures: those it was trained on, or some thousands of them, uint8 [N, S, S, 3]; held_out:
    similar ones, [M, S, S, 3], that it was not trained on. KCDPError if the VLM cannot be loaded.
    """
    vlm, home = vision_language.load_vlm(preset), preset.vlm_pretrained or preset.vlm
    known = fit(features(vlm, pictures), features(vlm, held_out))
    path = Path(place(home), FAMILIAR)
    tensors = {name: part.half() for name, part in known._asdict().items()}
    paths.atomic_save(path, tensors, {"vlm": model_key(home)})
    return path


def train_familiar(task: Task) -> None:
    """Run the last stage of the pre-training, which trains nothing and measures `task.out`/vlm.

    Held out are scenes that no model was trained on, and one drawing in ten; the VLM was trained on
    these drawings, but this fit is not.
    """
    pictures, told = mixture(task)
    rows, drawn = np.arange(len(told)), len(read_drawings(task).about)
    first = len(told) - drawn
    apart = (rows >= first) & ((rows - first) % APART == 0)
    fitted = rows[~apart][:: -(-len(rows) // MOST)]
    preset = replace(PRESETS["tiny"], vlm=f"local-dir:{task.out / 'vlm'}")
    held_out = np.concatenate([new_scenes(), pictures[rows[apart]]])
    print(write(preset, pictures[fitted], held_out), flush=True)
