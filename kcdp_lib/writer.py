"""Writer: a model that describes a picture in free English.

It is InstructBLIP, the paper's VLM (chapter 02; paper, section KADAP), through transformers.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from transformers import InstructBlipForConditionalGeneration, InstructBlipProcessor

from kcdp_lib.loading import check_words, load_whole, loading, place

# the four things that the authors ask for, in our words
INSTRUCTION = (
    "Who or what is in this picture? Describe the facial expression, the movement of the body, and "
    "the feeling that they convey."
)
BEAMS, SHORTEST, LONGEST = 5, 30, 50  # the authors' beams and numbers of new tokens


class Writer(NamedTuple):
    """A frozen InstructBLIP with its processor."""

    model: InstructBlipForConditionalGeneration
    processor: InstructBlipProcessor


def load_writer(name: str, device: str = "cpu") -> Writer:
    """Load an InstructBLIP by its name (`loading.place`), in bfloat16 on a GPU, else in float32.

    KCDPError, with the command that downloads it, if it cannot be loaded completely.
    """
    model: InstructBlipForConditionalGeneration = load_whole(
        InstructBlipForConditionalGeneration,
        name,
        "InstructBLIP",
        dtype=torch.bfloat16 if torch.device(device).type == "cuda" else torch.float32,
    )
    with loading(f"The processor of {name}", name):
        processor = InstructBlipProcessor.from_pretrained(place(name))
    check_words(
        processor.tokenizer,
        model.config.text_config.vocab_size,
        f"the InstructBLIP of {name}",
        name,
    )
    check_words(
        processor.qformer_tokenizer,
        model.config.qformer_config.vocab_size,
        f"the Q-Former of {name}",
        name,
    )
    return Writer(model.to(device), processor)


@torch.no_grad()
def write(writer: Writer, images: torch.Tensor) -> list[str]:
    """Describe each of the uint8 images [N, 3, S, S] in 30 to 50 new tokens, with 5 beams.

    Method chapter, eq-caption. The model sees pixels and the instruction, never a file's name.
    """
    inputs = writer.processor(
        images=list(images), text=[INSTRUCTION] * len(images), return_tensors="pt"
    ).to(writer.model.device, writer.model.dtype)
    ids = writer.model.generate(
        **inputs, num_beams=BEAMS, min_new_tokens=SHORTEST, max_new_tokens=LONGEST, do_sample=False
    )
    return [
        " ".join(text.split())
        for text in writer.processor.batch_decode(ids, skip_special_tokens=True)
    ]
