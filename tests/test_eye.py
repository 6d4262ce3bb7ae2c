"""The UNet as a perception model trained on labels (`python benchmarks/grid.py eye`)."""

import numpy as np
import pytest
import torch
from blank import blank_preset

from kcdp_book import eye
from kcdp_lib.config import read_recipe
from kcdp_lib.knowledge import knowledge_tokens, load_text_encoder

pytestmark = pytest.mark.usefixtures("one_thread")
RECIPE = read_recipe("paper, trained=unet")


@pytest.fixture(scope="module")
def nothing():
    return knowledge_tokens([""], [[]], RECIPE, load_text_encoder(blank_preset()))


@pytest.fixture
def model(nothing):
    torch.manual_seed(0)
    return eye.Eye(blank_preset(), RECIPE, nothing, 2)


@pytest.fixture
def pictures(model):
    """Return latents [40, Z, 8, 8] of two classes, bright in different places, and labels [40]."""
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(40, model.kadap.unet.config.in_channels, 8, 8, generator=generator)
    labels = np.arange(40) % 2
    latents[labels == 1, :, :4] += 3
    return latents, labels


def test_it_is_read_by_mean_and_maximum_of_the_four_maps(model, pictures, nothing):
    latents, _ = pictures
    model.eval()
    tokens, mask = (of.expand(2, *of.shape[1:]) for of in nothing)
    with torch.no_grad():
        maps, _ = model.kadap.look(latents[:2], tokens, mask)
        norm, _, linear = model.head
        rows = [
            torch.cat([torch.cat([of[i].mean((1, 2)), of[i].amax((1, 2))]) for of in maps])
            for i in range(2)
        ]
        expected = linear(norm(torch.stack(rows)))
        torch.testing.assert_close(model(latents[:2]), expected, atol=1e-4, rtol=1e-4)


def test_it_learns_and_is_looked_at_when_it_was_asked_to(model, pictures, monkeypatch):
    latents, labels = pictures
    monkeypatch.setattr(eye, "BATCH", 8)
    before = model.kadap.unet.conv_in.weight.clone()
    steps, right = [], []
    for step, one in eye.train(model, latents, labels, (1, 30), seed=0):
        probs = eye.answer(one, latents)
        assert probs.shape == (40, 2) and np.allclose(probs.sum(1), 1, atol=1e-5)
        steps.append(step)
        right.append((probs.argmax(1) == labels).mean())
    assert steps == [1, 30] and right[-1] > 0.9
    assert not torch.equal(before, model.kadap.unet.conv_in.weight), "the whole UNet learns"


def test_no_picture_comes_twice_before_all_have_come(model, pictures, monkeypatch):
    latents, labels = pictures
    monkeypatch.setattr(eye, "BATCH", 8)
    shown = []
    look = model.kadap.look
    monkeypatch.setattr(
        model.kadap, "look", lambda seen, *rest: shown.append(seen) or look(seen, *rest)
    )
    list(eye.train(model, latents, labels, (5,), seed=0))
    means = torch.cat(shown).mean((1, 2, 3))
    assert len(shown) == 5 and len(means.unique()) == 40
