"""Train the diffusion model's text encoder."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import CLIPTokenizer

from kcdp_lib.pretrain import sentences, stack
from kcdp_lib.pretrain.language import TextSide
from kcdp_lib.pretrain.stage import Stage
from kcdp_lib.pretrain.task import Task, read_drawings


class Encoder(nn.Module):
    """The diffusion model's text encoder, with a head for the teacher's embeddings."""

    def __init__(self, encoder: Any):
        super().__init__()
        self.encoder = encoder
        self.thoughts = nn.Linear(stack.HIDDEN, sentences.WIDTH)


def train_text(task: Task) -> None:
    """Train on text only: `TextSide`, and next-token prediction (a causal language model)."""
    tokenizer = CLIPTokenizer.from_pretrained(task.out / "diffusion" / "tokenizer")
    drawn = read_drawings(task)
    model = Encoder(stack.new_text_encoder(len(tokenizer)))
    end = tokenizer.eos_token_id

    def tokenize(some: Sequence[str]) -> torch.Tensor:
        return tokenizer(
            list(some), padding="max_length", truncation=True, return_tensors="pt"
        ).input_ids

    side = TextSide(task, drawn, tokenize, end)
    stage = Stage("text", task, model)

    def loss(rng, batch):
        spoken: list[torch.Tensor] = []

        def encode(ids: torch.Tensor) -> torch.Tensor:
            states = model.encoder(ids)
            words = model.encoder.get_input_embeddings().weight
            logits = states.last_hidden_state[:, :-1] @ words.T * stack.HIDDEN**-0.5
            # the first end token is a label, the padding is not
            ended = (ids[:, :-1] == end).cumsum(1) > 0
            labels = ids[:, 1:].masked_fill(ended, -100)
            spoken.append(F.cross_entropy(logits.transpose(1, 2), labels))
            return states.pooler_output

        words = side.words(encode, rng)
        return side.loss(encode, model.thoughts, words, rng, batch) + 0.3 * sum(spoken)

    stage.run(loss)
    stack.save_diffusion(model.encoder.cpu(), "text_encoder", task.out)
