"""Chapter 03: the attention to single words.

Which tokens belong to a word, and how much of its attention falls into a region.
"""

import math

import pytest
import torch
from blank import blank_preset
from transformers import CLIPTokenizer

from kcdp_lib.perception import word_focus, word_positions


@pytest.fixture(scope="module")
def tokenizer():
    return CLIPTokenizer.from_pretrained(blank_preset().diffusion, subfolder="tokenizer")


def test_positions_hold_the_word(tokenizer):
    """The tokens at the positions decode to the word.

    A word of several tokens has as many positions.
    """
    caption = "a photo of a boy with a smile , unwrapping a gift box ."
    ids = torch.tensor(tokenizer(caption)["input_ids"])
    for word in ("photo", "boy", "smile", ",", "unwrapping", "box", "."):
        assert tokenizer.decode(ids[word_positions(caption, word, tokenizer)]).strip() == word
    assert len(word_positions(caption, "unwrapping", tokenizer)) > 1
    assert word_positions(caption, "a", tokenizer).tolist() == [1]  # the first of several


def test_absent_and_truncated_words_have_no_position(tokenizer):
    length = tokenizer.model_max_length
    assert len(word_positions("a photo of a boy .", "grave", tokenizer)) == 0
    assert len(word_positions("", "grave", tokenizer)) == 0
    assert (
        len(word_positions("boy " * length + "grave", "grave", tokenizer)) == 0
    )  # beyond the last token
    assert word_positions("boy " * (length - 3) + "grave", "grave", tokenizer).tolist() == [
        length - 2
    ]


@pytest.mark.parametrize("grid", [4, 8])
def test_focus_is_density_inside_over_density_everywhere(grid):
    region = torch.zeros(64, 64, dtype=torch.bool)
    region[:, 48:] = True  # a quarter of the picture
    attention = torch.full((3, grid, grid), 0.2)
    attention[1] = 0
    attention[1, :, -grid // 4 :] = 0.5  # all of it inside
    attention[2, :, -grid // 4 :] = (
        0.6  # three times as much inside: 0.6 / (0.75 * 0.2 + 0.25 * 0.6)
    )
    focus = [word_focus(attention, torch.tensor([word]), region) for word in range(3)]
    assert focus == pytest.approx([1, 4, 2])
    assert word_focus(attention, torch.tensor([1]), ~region) == 0
    assert word_focus(attention, torch.tensor([0, 1]), region.numpy()) == pytest.approx(
        (0.2 + 0.5) / (0.2 + 0.125)
    )  # a word of two tokens


def test_focus_of_all_tokens_together_is_chance():
    attention, region = torch.rand(10, 8, 8).softmax(0), torch.rand(64, 64) > 0.7
    assert word_focus(attention, torch.arange(10), region) == pytest.approx(1, abs=1e-5)
    assert math.isnan(word_focus(attention, torch.arange(0), region)) and math.isnan(
        word_focus(attention, torch.arange(3), torch.zeros(64, 64))
    )
