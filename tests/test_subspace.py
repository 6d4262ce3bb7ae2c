"""CESA: a shared subspace of pictures and texts, and the similarity of two spaces."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from kcdp_book import subspace

C, L, T, H = 3, 4, 6, 16


def test_cka_is_one_up_to_rotation_scale_and_place_and_near_zero_for_noise():
    random = np.random.default_rng(0)
    x = random.normal(size=(500, 6))
    turn, _ = np.linalg.qr(random.normal(size=(6, 6)))
    assert (
        subspace.cka(x, 3 * x @ turn + 7) == pytest.approx(1)
        and subspace.cka(x, random.normal(size=(500, 6))) < 0.05
    )
    kernels = [(of - of.mean(0)) @ (of - of.mean(0)).T for of in (x, x**2)]
    assert subspace.cka(x, x**2) == pytest.approx(
        (kernels[0] * kernels[1]).sum() / np.sqrt((kernels[0] ** 2).sum() * (kernels[1] ** 2).sum())
    ), "by its definition, over pairs of pictures"


@pytest.fixture
def texts():
    torch.manual_seed(0)
    return (
        torch.randn(40, T, H),
        torch.arange(T) < torch.randint(1, T + 1, (40, 1)),
        torch.randn(C, L, H),
        torch.arange(L) < torch.tensor([[2], [4], [3]]),
    )


def test_a_reading_is_the_mean_of_prompt_and_knowledge(texts):
    tokens, mask, prompt_tokens, prompt_mask = texts
    found = subspace.readings(*texts)
    assert found.shape == (40, C, H)
    for i, c in ((0, 0), (7, 2), (39, 1)):
        np.testing.assert_allclose(
            found[i, c],
            torch.cat([prompt_tokens[c][prompt_mask[c]], tokens[i][mask[i]]]).mean(0),
            atol=1e-5,
        )


@pytest.mark.parametrize("interventions", [True, False])
def test_what_pictures_and_texts_share_is_found_and_answers(texts, interventions):
    """Pictures hold their class and their text, and each domain is shifted as a whole.

    If only the class is shared, nearly all are predicted correctly, in either domain.
    """
    prompt_tokens, prompt_mask = (
        texts[2],
        torch.ones(C, L, dtype=torch.bool),
    )  # different lengths would also change the weight of the knowledge
    random, centres = (
        torch.Generator().manual_seed(1),
        torch.randn(C, 70, generator=torch.Generator().manual_seed(2)),
    )

    def some(count, place):
        labels = torch.arange(count) % C
        tokens = torch.randn(count, T, H, generator=random)
        pictures = (
            centres[labels]
            + torch.cat([tokens.mean(1), torch.zeros(count, 70 - H)], 1)
            + 0.3 * torch.randn(count, 70, generator=random)
        )
        return SimpleNamespace(
            embeddings=pictures + place, tokens=tokens, mask=torch.ones(count, T, dtype=torch.bool)
        ), labels.numpy()

    (source, labels), (target, _), (asked, true) = some(240, 0.0), some(120, 40.0), some(90, 40.0)
    found = subspace.align(source, labels, target, asked, prompt_tokens, prompt_mask, interventions)
    assert found.probs.shape == (90, C) and found.probs.sum(1) == pytest.approx(
        np.ones(90), abs=1e-5
    )
    assert (found.probs.argmax(1) == true).mean() > (
        0.95 if interventions else 0.5
    ) and 0 <= found.cka_before < found.cka <= 1
    there = subspace.align(source, labels, source, asked, prompt_tokens, prompt_mask, interventions)
    assert (there.probs.argmax(1) == true).mean() < (found.probs.argmax(1) == true).mean(), (
        "a target taken for the source lies elsewhere"
    )
