"""The vision-language model: captions and embeddings of pictures (chapter 02).

An open_clip CoCa writes the captions of eq-caption, unless a writer (`kcdp_lib.writer`) does. Its
embeddings give the words for feelings; the zero-shot baseline and some recipes use them, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import open_clip
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

import kcdp_lib.towers  # noqa: F401  (registers the miniature VLM's image tower)
from kcdp_lib.config import Preset
from kcdp_lib.decoding import Decoder
from kcdp_lib.errors import KCDPError
from kcdp_lib.loading import check_finite, check_words, loading, place
from kcdp_lib.writer import Writer, write

# open_clip's own name, and the name in the full-size CoCa's repository
VLM_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors")
# Words for feelings, some for each class of two taxonomies: Ekman's six emotions, and Mikels'
# eight, which EmoSet and FI use. None is the name of a class, and the miniature VLM knows all of
# them.
FEELINGS = tuple(
    "surprised astonished amazed joyful glad cheerful disgusted nauseated revolted afraid scared "
    "terrified sad unhappy gloomy angry furious annoyed amused entertained contented peaceful "
    "satisfied awed awestruck excited thrilled exhilarated".split()
)
ZERO_SHOT_PROMPTS = ("a {} photo", "a {} sticker", "a picture that feels {}")


class VLM(NamedTuple):
    """A frozen open_clip CoCa (chapter 02)."""

    model: Any
    tokenizer: Any
    start: int  # token ids around a caption
    end: int
    forbidden: list[int]  # token ids that no caption may contain
    feelings: torch.Tensor  # [W, D], embeddings of `FEELINGS`


def load_vlm(preset: Preset, device: str = "cpu") -> VLM:
    """Load the preset's CoCa in float32, the VLM of eq-caption (method chapter).

    KCDPError unless all of its weights were loaded: captions from random weights mean nothing.
    """
    what, home = f"The vision-language model {preset.vlm}", preset.vlm_pretrained or preset.vlm
    with loading(what, home):
        model = open_clip.create_model(
            preset.vlm, pretrained=_vlm_weights(preset), require_pretrained=True, device=device
        )
        tokenizer = open_clip.get_tokenizer(preset.vlm)
    if not hasattr(model, "text_decoder"):
        raise KCDPError(f"{what} cannot write captions; choose a CoCa.")
    check_finite(model, what, home)
    # open_clip wraps Hugging Face's tokenizers, but not its own.
    words = getattr(tokenizer, "tokenizer", tokenizer)
    if words is tokenizer:
        start, end = words.sot_token_id, words.eot_token_id
    else:
        check_words(words, model.text.vocab_size, f"the vision-language model {preset.vlm}", home)
        start, end = words.bos_token_id, words.eos_token_id
    forbidden = [i for i in {start, model.pad_id} if i != end]
    model.eval().requires_grad_(False)
    fold_norms(model.visual)
    model.to(memory_format=torch.channels_last)  # faster on a CPU
    vlm = VLM(model, tokenizer, start, end, forbidden, torch.empty(0))
    return vlm._replace(feelings=_class_centres(vlm, FEELINGS))


def fold_norms(module: nn.Module) -> None:
    """Fold batch norms into the convolutions right before them, in eval mode.

    The outputs agree up to rounding, in two thirds of the time on a CPU. timm's norms contain the
    activation that follows, which stays.
    """
    for part in module.modules():
        for (first, convolution), (second, norm) in pairwise(list(part.named_children())):
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(part, first, fuse_conv_bn_eval(convolution, norm))
                setattr(part, second, getattr(norm, "act", nn.Identity()))


def _vlm_weights(preset: Preset) -> str | None:
    """Return the file of weights for an architecture.

    None for a "local-dir:FOLDER", which open_clip searches itself, in the same order. OSError
    without safetensors, because open_clip would take a pickle instead.
    """
    folder = place(preset.vlm_pretrained or preset.vlm)
    files = [file for name in VLM_WEIGHTS if (file := Path(folder, name)).is_file()]
    if not files:
        raise FileNotFoundError(f"there is no {' and no '.join(VLM_WEIGHTS)}")
    return str(files[0]) if preset.vlm_pretrained else None


def vlm_pixels(vlm: VLM, images: torch.Tensor) -> torch.Tensor:
    """Prepare uint8 images [N, 3, S, S] as the image tower was trained on them (chapter 02)."""
    config = vlm.model.visual.preprocess_cfg
    size = config["size"] if isinstance(config["size"], int) else config["size"][0]
    pixels = images.to(next(vlm.model.parameters()).device).float() / 255
    if pixels.shape[-1] != size:
        pixels = F.interpolate(pixels, (size, size), mode="bicubic", antialias=True).clamp(0, 1)
    mean = pixels.new_tensor(config["mean"]).view(3, 1, 1)
    std = pixels.new_tensor(config["std"]).view(3, 1, 1)
    return (pixels - mean) / std


@torch.no_grad()
def _look(vlm: VLM, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return normalised embeddings [N, D] and image tokens [N, P, W].

    One pass of the image tower serves captions and embeddings.
    """
    output = vlm.model(vlm_pixels(vlm, images))
    return output["image_features"], output["image_embs"]


@torch.no_grad()
def _write(vlm: VLM, image_tokens: torch.Tensor) -> list[str]:
    """Write captions for a batch by greedy decoding.

    A row leaves the batch at its end token; the loop ends with the last row or at the context
    length.
    """
    count = len(image_tokens)
    written: list[list[int]] = [[] for _ in range(count)]
    decoder, rows = Decoder(vlm.model, image_tokens), list(range(count))
    ids = torch.full((count,), vlm.start, device=image_tokens.device)
    for _ in range(vlm.model.context_length - 1):
        if not rows:
            break
        scores = decoder.scores(ids)
        scores[:, vlm.forbidden] = -torch.inf
        ids = scores.argmax(-1)
        for row, word in zip(rows, ids.tolist(), strict=True):
            written[row].append(word)
        going = ids != vlm.end
        if not going.all():
            decoder.keep(going)
            rows = [row for row in rows if written[row][-1] != vlm.end]
            ids = ids[going]
    return [_text(vlm, [word for word in words if word != vlm.end]) for words in written]


def _text(vlm: VLM, ids: list[int]) -> str:
    return " ".join(getattr(vlm.tokenizer, "tokenizer", vlm.tokenizer).decode(ids).split())


def caption(vlm: VLM, images: torch.Tensor) -> list[str]:
    """Write one caption for each of the uint8 images [N, 3, S, S], by greedy decoding.

    Method chapter, eq-caption; paper, figure 2, left. The model sees pixels only, never a file's
    name, which contains the label in some data sets.
    """
    return _write(vlm, _look(vlm, images)[1])


def feelings(vlm: VLM, embeddings: torch.Tensor) -> list[str]:
    """Return the three of `FEELINGS` nearest to each picture, nearest first, as `named` joins them.

    The nearest have the largest cosine with embeddings [N, D] from `embed_images`. A caption says
    what is there; the authors also ask their VLM for the emotional meaning (method chapter,
    eq-caption).
    """
    return [named(places) for places in nearest_feelings(vlm, embeddings).tolist()]


def nearest_feelings(vlm: VLM, embeddings: torch.Tensor) -> torch.Tensor:
    """Return indices into `FEELINGS`, int64 [N, 3], nearest to embeddings [N, D] first.

    Method chapter, eq-caption.
    """
    return (embeddings.to(vlm.feelings) @ vlm.feelings.T).topk(3).indices


def named(places: Sequence[int]) -> str:
    """Join three of `FEELINGS`, by their indices, as in a caption: "sad , gloomy and unhappy"."""
    first, second, third = (FEELINGS[i] for i in places)
    return f"{first} , {second} and {third}"


def embed_images(vlm: VLM, images: torch.Tensor) -> torch.Tensor:
    """Return contrastive embeddings [N, D] of uint8 images [N, 3, S, S], of length one.

    A product with `embed_texts` is a cosine. Used by the zero-shot baseline (chapter 05).
    """
    return _look(vlm, images)[0]


@torch.no_grad()
def embed_texts(vlm: VLM, texts: Sequence[str]) -> torch.Tensor:
    """Return contrastive embeddings [N, D] of N texts, of length one, on the model's device.

    Used by the zero-shot baseline (chapter 05).
    """
    device = next(vlm.model.parameters()).device
    return vlm.model.encode_text(vlm.tokenizer(list(texts)).to(device), normalize=True)


def _class_centres(vlm: VLM, classes: Sequence[str]) -> torch.Tensor:
    """Return [C, D], of length one: the mean embedding of the prompts that name each class."""
    prompts = [prompt.format(name) for name in classes for prompt in ZERO_SHOT_PROMPTS]
    embeddings = embed_texts(vlm, prompts).unflatten(0, (len(classes), -1))
    return F.normalize(embeddings.mean(1), dim=-1)


@torch.no_grad()
def zero_shot(vlm: VLM, image_embeddings: torch.Tensor, classes: Sequence[str]) -> torch.Tensor:
    """Predict class probabilities [N, C] without training, on the CPU.

    Each class is the mean embedding of a few prompts that name it. image_embeddings [N, D] from
    `embed_images`. A baseline of chapter 05, not part of the method.
    """
    centres = _class_centres(vlm, classes)
    scaled = vlm.model.logit_scale.exp() * image_embeddings.to(centres.device)
    return (scaled @ centres.T).softmax(-1).cpu()


def embedding_width(preset: Preset) -> int:
    """Return 4 D, the width of `Frozen.embeddings`, without loading the preset's VLM."""
    return 4 * open_clip.get_model_config(preset.vlm)["embed_dim"]


@lru_cache(maxsize=2)
def class_embeddings(preset: Preset, classes: tuple[str, ...], device: str = "cpu") -> torch.Tensor:
    """Return the class embeddings of `zero_shot`, [C, D] on the device, times the VLM's scale.

    Their product with an embedding gives logits (chapter "A fair comparison"). KCDPError if the VLM
    cannot be loaded.
    """
    vlm = load_vlm(preset, device)
    return vlm.model.logit_scale.exp() * _class_centres(vlm, classes)


def see_and_say(
    vlm: VLM, writer: Writer | None, images: torch.Tensor
) -> tuple[torch.Tensor, list[str], torch.Tensor]:
    """Return embeddings, captions and features of uint8 images [N, 3, S, S], on the CPU.

    The embeddings [N, D] have length one. The captions are the writer's, if there is one (method
    chapter, eq-caption). The features [N, 4 D], not in the paper, are for recipes that use the
    VLM's embeddings: the embedding of a picture and its mirror image together, of length one; the
    mean and the maximum of its image tokens, which keep small details; and the caption's embedding.
    """
    embeddings, image_tokens = _look(vlm, images)
    captions = write(writer, images) if writer else _write(vlm, image_tokens)
    seen = _features(vlm, images, embeddings, image_tokens)
    together = torch.cat([seen, image_tokens.amax(1), embed_texts(vlm, captions)], 1)
    return embeddings.cpu(), captions, together.cpu()


def _features(
    vlm: VLM, images: torch.Tensor, embeddings: torch.Tensor, image_tokens: torch.Tensor
) -> torch.Tensor:
    """Return the first half [N, 2 D] of `see_and_say`'s features, from what `_look` returned."""
    mirrored, _ = _look(vlm, images.flip(-1))
    both = F.normalize(embeddings + mirrored, dim=-1)
    return torch.cat([both, image_tokens.mean(1)], 1)


def image_features(vlm: VLM, images: torch.Tensor) -> torch.Tensor:
    """Return the first half [N, 2 D] of `see_and_say`'s features of uint8 images [N, 3, S, S].

    `kcdp_lib.familiar` uses them to measure how familiar a picture is to the VLM (chapter 02).
    """
    return _features(vlm, images, *_look(vlm, images))
