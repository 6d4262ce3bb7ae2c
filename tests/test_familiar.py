"""Familiarity: unusual pictures get a low score, and without a reference file none is given."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.spatial.distance import mahalanobis

from kcdp_lib import datasets, familiar, loading, paths, vision_language, world
from kcdp_lib.adapt.__main__ import unfamiliar_lines
from kcdp_lib.adapt.model import KCDP
from kcdp_lib.config import PRESETS, RECIPES
from kcdp_lib.errors import KCDPError
from kcdp_lib.familiar import UNFAMILIAR, Known, load_known
from kcdp_lib.loading import FAMILIAR, model_key
from kcdp_lib.precompute import Frozen
from kcdp_lib.pretrain import familiar as pretrained
from kcdp_lib.pretrain.blank import write_blank

TINY = PRESETS["tiny"]
SHIPPED = paths.TINY / "vlm" / FAMILIAR

pytestmark = pytest.mark.usefixtures("one_thread")


def noise(count: int, size: int = TINY.image_size) -> np.ndarray:
    """Return uint8 [N, S, S, 3] of independent random pixels."""
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def drawn(domain: str, count: int) -> list:
    """Draw unseen pictures of a domain."""
    scenes = [world.sample_scene("test", 3, i, domain) for i in range(count)]
    return [world.render(scene, domain, TINY.image_size) for scene in scenes]


def frozen_of(embeddings: torch.Tensor) -> Frozen:
    """Return a `Frozen` of which only the embeddings are used."""
    empty = torch.zeros(len(embeddings), 0)
    texts = [""] * len(embeddings)
    return Frozen(empty, empty, empty, empty, texts, [[] for _ in texts], embeddings)


@pytest.fixture(scope="module")
def random_stack(tmp_path_factory):
    """Return a preset on a random VLM, with a file of the pictures that it has seen."""
    folder = write_blank(tmp_path_factory.mktemp("stack"))
    preset = replace(TINY, diffusion=str(folder / "diffusion"), vlm=f"local-dir:{folder / 'vlm'}")
    assert load_known(preset) is None, "there is no file yet"
    key = model_key(preset.vlm)
    small = np.stack([np.asarray(image) for image in drawn("photos", 12)])
    file = pretrained.write(preset, small[:8], small[8:])
    assert file == folder / "vlm" / FAMILIAR and model_key(preset.vlm) == key
    return preset


# ---------------------------------------------------------------- the measure


def test_the_distance_is_that_of_mahalanobis():
    """With all directions kept, it equals scipy's distance from the covariance."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.eye(6) + 0.3 * torch.randn(6, 6, generator=generator)
    seen = torch.randn(500, 6, generator=generator) @ mixing
    known = pretrained.fit(seen, seen)
    asked = torch.randn(5, 6, generator=generator)
    inverse = np.linalg.inv(np.cov(seen.T.numpy()))
    expected = [mahalanobis(one, seen.mean(0).numpy(), inverse) for one in asked.numpy()]
    # axes and scales are kept in half precision
    assert known.axes.shape == (5, 6)
    assert known.distance(asked).numpy() == pytest.approx(expected, rel=0.02)


def test_small_directions_count_alike(monkeypatch):
    """All directions beyond the leading ones share one standard deviation."""
    monkeypatch.setattr(pretrained, "DIRECTIONS", 1)
    seen = torch.randn(2000, 4, generator=torch.Generator().manual_seed(1))
    known = pretrained.fit(seen, seen)
    beside = known.mean + known.scale * torch.linalg.svd(known.axes).Vh[1:]
    assert known.distance(beside).numpy() == pytest.approx(1 / known.rest.item(), rel=0.02)


def test_familiarity_is_the_share_of_known_pictures_at_least_as_far_off():
    known = Known(
        mean=torch.zeros(2),
        scale=torch.ones(2),
        axes=torch.tensor([[1.0, 0.0]]),
        spread=torch.ones(1),
        rest=torch.tensor(1.0),
        distances=torch.tensor([1.0, 2.0, 3.0, 4.0]),
    )
    asked = torch.tensor([[0.0, 0.0], [0.0, 2.0], [2.5, 0.0], [4.0, 0.0], [3.0, 4.0]])
    assert known.familiarity(asked).tolist() == [1, 0.75, 0.5, 0.25, 0]
    assert known.familiarity(asked[:0]).shape == (0,)


def test_a_feature_that_never_moves_makes_nothing_infinite():
    seen = torch.cat([torch.randn(50, 3), torch.ones(50, 1)], 1)
    known = pretrained.fit(seen, seen)
    assert known.distance(seen + 1).isfinite().all() and (known.distances > 0).all()


# ---------------------------------------------------------------- the shipped file


def test_the_shipped_file_is_small_and_belongs_to_the_shipped_weights():
    known = load_known(TINY)
    assert known is not None and SHIPPED.stat().st_size <= 0.3e6
    assert len(known.distances) == 1000 and (known.distances.diff() >= 0).all()
    assert {part.dtype for part in load_file(SHIPPED).values()} == {torch.float16}


def test_pictures_of_the_world_come_before_noise():
    known, vlm = load_known(TINY), vision_language.load_vlm(TINY)
    kinds = [*(drawn(domain, 6) for domain in world.BENCHMARK), noise(6)]
    seen = [
        pretrained.features(vlm, np.stack([np.asarray(image) for image in images]))
        for images in kinds
    ]
    distances = [known.distance(of_kind) for of_kind in seen]
    assert max(map(torch.max, distances[:-1])) < distances[-1].min()
    assert (known.familiarity(seen[-1]) < UNFAMILIAR).all()
    assert torch.cat([known.familiarity(of_kind) for of_kind in seen[:-1]]).mean() > 0.25


def test_what_is_read_of_a_picture_is_what_the_run_has_computed_anyway():
    vlm, images = vision_language.load_vlm(TINY), datasets.read_images(drawn("stickers", 3), 64)
    _, _, together = vision_language.see_and_say(vlm, None, images)
    features = vision_language.image_features(vlm, images)
    assert torch.equal(together[:, : features.shape[1]], features)
    found = familiar.familiarity(load_known(TINY), frozen_of(together))
    assert found.shape == (3,) and (found == load_known(TINY).familiarity(features).numpy()).all()
    for count in (0, 1):
        assert len(familiar.familiarity(load_known(TINY), frozen_of(together[:count]))) == count


def test_predict_has_the_column():
    torch.manual_seed(0)
    said = KCDP(TINY, RECIPES["paper"]).predict([*drawn("photos", 2), *drawn("stickers", 1)])
    assert said.familiarity.shape == (3,) and said.unfamiliar.dtype == bool
    assert ((said.familiarity >= 0) & (said.familiarity <= 1)).all()


# ---------------------------------------------------------------- missing and wrong files


def test_any_vlm_gets_its_file(random_stack):
    known = load_known(random_stack)
    vlm = vision_language.load_vlm(random_stack)
    found = known.familiarity(pretrained.features(vlm, noise(1, 40)))
    assert found.shape == (1,) and 0 <= found.item() <= 1


def test_without_the_file_nothing_is_said(random_stack, tmp_path):
    folder = shutil.copytree(Path(random_stack.vlm.removeprefix("local-dir:")), tmp_path / "vlm")
    bare = replace(random_stack, vlm=f"local-dir:{folder}")
    assert load_known(bare) is not None, "a copy is the same model"
    (folder / FAMILIAR).unlink()
    assert familiar.familiarity(load_known(bare), frozen_of(torch.zeros(2, 512))) is None


def test_a_file_of_other_weights_is_left_aside(random_stack):
    folder = Path(random_stack.vlm.removeprefix("local-dir:"))
    own = (folder / FAMILIAR).read_bytes()
    try:
        shutil.copy(SHIPPED, folder / FAMILIAR)
        with pytest.warns(UserWarning, match="belongs to other weights"):
            assert load_known(random_stack) is None
        (folder / FAMILIAR).write_bytes(own[:-100])
        with pytest.raises(KCDPError, match="has seen could not be loaded"):
            load_known(random_stack)
    finally:
        (folder / FAMILIAR).write_bytes(own)


# ---------------------------------------------------------------- what a run prints


@pytest.mark.parametrize(
    "target, printed",
    [
        ({}, []),
        (
            {"unfamiliar": {"n": 0, "of": 42}},
            ["0 of 42 target pictures are unlike anything the stack was trained on"],
        ),
        (
            {"unfamiliar": {"n": 12, "of": 206}},
            [
                "12 of 206 target pictures are unlike anything the stack was trained on; mistrust "
                "their answers (familiarity in predictions.jsonl)"
            ],
        ),
    ],
)
def test_a_run_says_how_many_pictures_are_strange(target, printed):
    assert unfamiliar_lines(target) == printed


def test_the_committed_rates_are_of_the_shipped_file():
    found = json.loads((paths.ROOT / "results" / "familiar.json").read_text(encoding="utf-8"))
    assert found["world"] == world.world_key() and found["stack"] == loading.stack_key(TINY)
    assert found["reference"] == paths.sha(SHIPPED.read_bytes())
    strange = {kind: row["unfamiliar"] for kind, row in found["kinds"].items()}
    assert all(strange[domain] < 0.05 for domain in world.BENCHMARK)
    assert all(strange[kind] > 0.9 for kind in ("gaussian noise", "shuffled photos", "one colour"))
