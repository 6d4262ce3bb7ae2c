"""Knowledge: what a vision-language model says about a picture, as tokens (chapter 02; paper,
figure 2, left).

Picture -> caption (CoCa, or InstructBLIP as in the paper) -> (subject, verb, object) triplets -> k
= [caption ; triplets] by the diffusion model's own text encoder. All of it is frozen, so it is
computed once for a set of pictures and cached.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, Sequence

import open_clip
import torch
import torch.nn.functional as F
from transformers import CLIPTextModel, CLIPTokenizer

import kcdp_lib.towers  # noqa: F401  (registers the miniature VLM's image tower)
from kcdp_lib import datasets, paths, shards
from kcdp_lib.config import Preset, Recipe
from kcdp_lib.errors import KCDPError
from kcdp_lib.perception import (
    check_finite,
    check_words,
    encode_images,
    load_part,
    load_vae,
    loading,
)
from kcdp_lib.shards import Rows
from kcdp_lib.tokens import used_positions
from kcdp_lib.triplets import Parser, Triplet, load_parser
from kcdp_lib.writer import Writer, load_writer, write

VLM_WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
)  # open_clip's own name, and the one in the full-size CoCa's repository
ZERO_SHOT_PROMPTS = ("a {} photo", "a {} sticker", "a picture that feels {}")


class VLM(NamedTuple):
    """A frozen open_clip CoCa (chapter 02). start, end: the token ids around a caption.

    forbidden: ids that no caption may hold.
    """

    model: torch.nn.Module
    tokenizer: object
    start: int
    end: int
    forbidden: list[int]


class TextEncoder(NamedTuple):
    """The diffusion model's frozen CLIP text encoder, tau of eq-knowledge (method chapter).

    The tokenizer's model_max_length is L.
    """

    tokenizer: CLIPTokenizer
    model: CLIPTextModel
    known: dict[
        str, tuple[torch.Tensor, torch.Tensor]
    ]  # text -> tokens [L, H] and mask [L], of all that was encoded so far


class Knowledge(NamedTuple):
    """k = [c ; t] of N pictures, as `knowledge_tokens` makes it (method chapter, eq-knowledge)."""

    tokens: torch.Tensor  # [N, 2 L, H] float32
    mask: torch.Tensor  # [N, 2 L] bool, True = a real token


class Foundations(NamedTuple):
    """Every frozen model that looks at a picture before training (paper, figure 2, left)."""

    vlm: VLM
    writer: Writer | None
    parse: Parser
    text_encoder: TextEncoder
    vae: torch.nn.Module


TENSORS = (
    "latents",
    "tokens",
    "mask",
    "image_embeddings",
    "embeddings",
)  # of Frozen; what else it holds is text, and maps


@dataclass
class Frozen:
    """All that is known of N pictures before training (method chapter, eq-caption to eq-latents).

    Rows in the pictures' order, tensors on the CPU or, from `freeze`, on disk.
    """

    latents: torch.Tensor | Rows  # [N, Z, h, w] float32
    tokens: torch.Tensor | Rows  # [N, 2 L, H] float32
    mask: torch.Tensor | Rows  # [N, 2 L] bool
    image_embeddings: torch.Tensor | Rows  # [N, D] float32, normalised
    captions: list[str]
    triplets: list[list[Triplet]]
    embeddings: torch.Tensor | Rows | None = (
        None  # [N, 4 D] float32, all that the VLM knows of a picture (`see_and_say`)
    )
    maps: list[Rows] | None = (
        # Four [N, channels, h, w] float32, where nothing is trained before them
        # (`baselines.with_maps`)
        None
    )

    def __len__(self) -> int:
        return len(self.captions)

    def __getitem__(self, rows: slice) -> Frozen:
        """Some pictures, read into memory; `frozen[:]` is all of them. Without their maps."""
        return Frozen(
            **{
                field.name: value[rows]
                for field in fields(self)
                if (value := getattr(self, field.name)) is not None and field.name != "maps"
            }
        )


# ----------------------------------------------------------------------------- picture -> caption


def load_vlm(preset: Preset, device: str = "cpu") -> VLM:
    """The preset's CoCa in float32, the VLM of eq-caption (method chapter).

    KCDPError unless all of its weights were loaded: random weights would caption fluently, and mean
    nothing.
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
    words = getattr(
        tokenizer, "tokenizer", tokenizer
    )  # open_clip wraps Hugging Face's tokenizers, its own it does not
    if words is not tokenizer:
        check_words(words, model.text.vocab_size, f"the vision-language model {preset.vlm}", home)
    start, end = (
        (words.sot_token_id, words.eot_token_id)
        if words is tokenizer
        else (words.bos_token_id, words.eos_token_id)
    )
    return VLM(
        model.eval().requires_grad_(False),
        tokenizer,
        start,
        end,
        forbidden=[i for i in {start, model.pad_id} if i != end],
    )


def _vlm_weights(preset: Preset) -> str | None:
    """The file of weights for an architecture.

    None for a "local-dir:FOLDER", which open_clip searches itself, in the same order. OSError
    without safetensors: there it would take a pickle.
    """
    folder = paths.place(preset.vlm_pretrained or preset.vlm)
    files = [file for name in VLM_WEIGHTS if (file := Path(folder, name)).is_file()]
    if not files:
        raise FileNotFoundError(f"there is no {' and no '.join(VLM_WEIGHTS)}")
    return str(files[0]) if preset.vlm_pretrained else None


def _vlm_pixels(vlm: VLM, images: torch.Tensor) -> torch.Tensor:
    """uint8 [N, 3, S, S] -> what the image tower was trained on."""
    config = vlm.model.visual.preprocess_cfg
    size = config["size"] if isinstance(config["size"], int) else config["size"][0]
    pixels = images.to(next(vlm.model.parameters()).device).float() / 255
    if pixels.shape[-1] != size:
        pixels = F.interpolate(pixels, (size, size), mode="bicubic", antialias=True).clamp(0, 1)
    return (pixels - pixels.new_tensor(config["mean"]).view(3, 1, 1)) / pixels.new_tensor(
        config["std"]
    ).view(3, 1, 1)


@torch.no_grad()
def _see(vlm: VLM, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Normalised embedding [N, D] and image tokens [N, P, W].

    One pass of the image tower serves captions and embeddings.
    """
    seen = vlm.model(_vlm_pixels(vlm, images))
    return seen["image_features"], seen["image_embs"]


@torch.no_grad()
def _write(vlm: VLM, image_tokens: torch.Tensor) -> list[str]:
    """Greedy decoding for a batch.

    A row leaves the batch with its end token, the loop ends with the last row or at the context
    length.
    """
    ids = torch.full((len(image_tokens), 1), vlm.start, device=image_tokens.device)
    captions, rows = [""] * len(ids), torch.arange(len(ids), device=ids.device)
    for _ in range(vlm.model.context_length - 1):
        if not len(rows):
            break
        # image_latent is only handed through by open_clip; given, it saves a second look at the
        # image
        scores = vlm.model(
            None, ids, image_latent=image_tokens, image_embs=image_tokens[rows], output_labels=False
        )["logits"][:, -1]
        scores[:, vlm.forbidden] = -torch.inf
        ids = torch.cat([ids, scores.argmax(-1, keepdim=True)], dim=1)
        going = ids[:, -1] != vlm.end
        for row, words in zip(rows[~going].tolist(), ids[~going].tolist()):
            captions[row] = _text(vlm, words[1:-1])
        rows, ids = rows[going], ids[going]
    for row, words in zip(rows.tolist(), ids.tolist()):
        captions[row] = _text(vlm, words[1:])
    return captions


def _text(vlm: VLM, ids: list[int]) -> str:
    return " ".join(getattr(vlm.tokenizer, "tokenizer", vlm.tokenizer).decode(ids).split())


def caption(vlm: VLM, images: torch.Tensor) -> list[str]:
    """One caption for each of the uint8 images [N, 3, S, S], decoded greedily (method chapter,
    eq-caption; paper, figure 2, left).

    The model sees pixels only, never a file's name: in some data sets it holds the label.
    """
    return _write(vlm, _see(vlm, images)[1])


def embed_images(vlm: VLM, images: torch.Tensor) -> torch.Tensor:
    """Contrastive embeddings [N, D] of uint8 images [N, 3, S, S], of length one.

    A product with `embed_texts` is a cosine. For the zero-shot baseline (chapter 05).
    """
    return _see(vlm, images)[0]


@torch.no_grad()
def embed_texts(vlm: VLM, texts: Sequence[str]) -> torch.Tensor:
    """Contrastive embeddings [N, D] of N texts, of length one, on the model's device.

    For the zero-shot baseline (chapter 05).
    """
    device = next(vlm.model.parameters()).device
    return vlm.model.encode_text(vlm.tokenizer(list(texts)).to(device), normalize=True)


def _class_centres(vlm: VLM, classes: Sequence[str]) -> torch.Tensor:
    """[C, D], of length one: the mean embedding of the prompts that name a class."""
    texts = embed_texts(
        vlm, [prompt.format(name) for name in classes for prompt in ZERO_SHOT_PROMPTS]
    )
    return F.normalize(texts.unflatten(0, (len(classes), -1)).mean(1), dim=-1)


@torch.no_grad()
def zero_shot(vlm: VLM, image_embeddings: torch.Tensor, classes: Sequence[str]) -> torch.Tensor:
    """Class probabilities [N, C] without training, on the CPU.

    Each class is the mean embedding of a few prompts that name it.

    image_embeddings [N, D] as `embed_images` gives them. A baseline of chapter 05, no part of the
    method.
    """
    centres = _class_centres(vlm, classes)
    return (
        (vlm.model.logit_scale.exp() * image_embeddings.to(centres.device) @ centres.T)
        .softmax(-1)
        .cpu()
    )


def embedding_width(preset: Preset) -> int:
    """4 D, the numbers in `Frozen.embeddings`, without loading the preset's VLM."""
    return 4 * open_clip.get_model_config(preset.vlm)["embed_dim"]


@lru_cache(maxsize=2)
def class_embeddings(preset: Preset, classes: tuple[str, ...], device: str = "cpu") -> torch.Tensor:
    """[C, D] on the device: what `zero_shot` compares pictures with, times the VLM's scale, so that
    a product with an embedding gives logits (chapter "A fair comparison").

    KCDPError if the VLM cannot be loaded.
    """
    vlm = load_vlm(preset, device)
    return vlm.model.logit_scale.exp() * _class_centres(vlm, classes)


# --------------------------------------------------------------------------------- text -> tokens


@lru_cache(maxsize=2)  # one a device
def load_text_encoder(preset: Preset, device: str = "cpu") -> TextEncoder:
    """Tokenizer and text encoder of the preset's diffusion model, in float32.

    KCDPError if they cannot be loaded whole.

    The last one stays loaded, and with it what it has read: in a whole run no text is encoded
    twice.
    """
    model = load_part(CLIPTextModel, preset, "text_encoder").to(device)
    with loading(f"The tokenizer of {preset.diffusion}", preset.diffusion):
        tokenizer = CLIPTokenizer.from_pretrained(
            paths.place(preset.diffusion),
            subfolder="tokenizer",
            model_max_length=model.config.max_position_embeddings,
        )
    check_words(tokenizer, model.config.vocab_size, preset.diffusion, preset.diffusion)
    return TextEncoder(tokenizer, model, known={})


@torch.no_grad()
def encode_texts(
    texts: Sequence[str], text_encoder: TextEncoder, batch_size: int = 64
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens [N, L, H] float32 and bool mask [N, L] (True from the start to the end token) of N
    texts, on the CPU: tau of eq-knowledge (method chapter).

    What is longer than L tokens is cut. What was encoded before is not encoded again.
    """
    tokenizer, model, known = text_encoder
    distinct, rows = _distinct(texts)
    new, length = [text for text in distinct if text not in known], tokenizer.model_max_length
    for i in range(0, len(new), batch_size):
        batch = tokenizer(
            new[i : i + batch_size],
            padding="max_length",
            truncation=True,
            max_length=length,
            return_tensors="pt",
        )
        tokens = model(batch.input_ids.to(model.device)).last_hidden_state.float().cpu()
        known.update(zip(new[i : i + batch_size], zip(tokens, batch.attention_mask.bool())))
    if not distinct:
        return torch.zeros(0, length, model.config.hidden_size), torch.zeros(
            0, length, dtype=torch.bool
        )
    tokens, masks = zip(*(known[text] for text in distinct))
    return torch.stack(tokens)[rows], torch.stack(masks)[rows]


def _distinct(items: Sequence) -> tuple[list, torch.Tensor]:
    """The different items in order of appearance, and for each item the row of its like."""
    places = {item: row for row, item in enumerate(dict.fromkeys(items))}
    return list(places), torch.tensor([places[item] for item in items], dtype=torch.long)


def token_words(text: str, text_encoder: TextEncoder) -> list[str]:
    """The L pieces the text encoder sees, as text: to find which positions belong to a word."""
    tokenizer = text_encoder.tokenizer
    ids = tokenizer(
        text, padding="max_length", truncation=True, max_length=tokenizer.model_max_length
    ).input_ids
    return [piece.replace("</w>", "") for piece in tokenizer.convert_ids_to_tokens(ids)]


def knowledge_tokens(
    captions: Sequence[str],
    triplets: Sequence[Sequence[Triplet]],
    recipe: Recipe,
    text_encoder: TextEncoder,
) -> Knowledge:
    """k = [c ; t] of N pictures, tokens [N, 2 L, H] and mask [N, 2 L] (method chapter,
    eq-knowledge; paper, figure 2, left).

    First the caption's L tokens, then the L tokens of all its triplets together. "spaced": each
    triplet is encoded alone and the encodings are averaged position by position over the triplets
    that reach it; the mask is their union, empty without triplets. "glued": written without spaces
    and summed, padding included; without triplets the caption stands in again, and nothing is
    masked, because padding is text like any other there. A recipe that leaves a part of the
    knowledge out reads an empty caption, or no triplets.
    """
    captions, triplets = told(captions, triplets, recipe)
    caption_tokens, caption_mask = encode_texts(captions, text_encoder)
    glued = recipe.triplet_text == "glued"
    owners = torch.tensor(
        [row for row, of_row in enumerate(triplets) for _ in of_row], dtype=torch.long
    )
    texts, places = _distinct(
        [("" if glued else " ").join(triplet) for of_row in triplets for triplet in of_row]
    )
    tokens, mask = encode_texts(texts, text_encoder)
    # A picture's triplets are summed by one product with the sparse [N, texts] table of who holds
    # what; no [triplets, L, H] copy is made.
    holds = torch.sparse_coo_tensor(
        torch.stack([owners, places]),
        torch.ones(len(places)),
        (len(captions), len(texts)),
        check_invariants=True,
    ).coalesce()
    if glued:
        none = torch.tensor([not of_row for of_row in triplets], dtype=torch.bool)[:, None, None]
        summed = torch.where(none, caption_tokens, _sparse_product(holds, tokens))
        caption_mask = reached = torch.ones_like(caption_mask)
    else:
        reach = _sparse_product(holds, mask.float())
        summed, reached = (
            _sparse_product(holds, tokens * mask[..., None]) / reach.clamp(min=1)[..., None],
            reach > 0,
        )
    return Knowledge(torch.cat([caption_tokens, summed], 1), torch.cat([caption_mask, reached], 1))


def told(
    captions: Sequence[str], triplets: Sequence[Sequence[Triplet]], recipe: Recipe
) -> tuple[Sequence[str], Sequence[Sequence[Triplet]]]:
    """What a recipe lets be known of N pictures.

    Captions and triplets as they are, or without one of them or both, or each picture's from its
    neighbour (chapter "A fair comparison").
    """
    if recipe.knowledge == "another":
        return [*captions[-1:], *captions[:-1]], [*triplets[-1:], *triplets[:-1]]
    return (
        captions if recipe.knowledge in ("both", "caption") else [""] * len(captions),
        triplets if recipe.knowledge in ("both", "triplets") else [[]] * len(triplets),
    )


def _sparse_product(table: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """[N, M] sparse times [M, ...] -> [N, ...]."""
    if not len(values):
        return values.new_zeros(table.shape[0], *values.shape[1:])
    return torch.sparse.mm(table, values.flatten(1)).unflatten(1, values.shape[1:])


def without_knowledge(frozen: Frozen, recipe: Recipe, text_encoder: TextEncoder) -> Frozen:
    """The same pictures under an empty caption and no triplets.

    What the model would see if nobody told it anything. A baseline of chapter 05.
    """
    nothing = knowledge_tokens([""], [[]], recipe, text_encoder)
    tokens, mask = (
        Rows([of_one], index=torch.zeros(len(frozen), dtype=torch.long)) for of_one in nothing
    )  # one row for all
    embeddings = Rows(
        [torch.zeros_like(frozen.embeddings[:1])], index=torch.zeros(len(frozen), dtype=torch.long)
    )  # the VLM's embeddings are knowledge, too
    return replace(
        frozen,
        tokens=tokens,
        mask=mask,
        captions=[""] * len(frozen),
        triplets=[[] for _ in range(len(frozen))],
        embeddings=embeddings,
    )


# -------------------------------------------------------------------------- once for each picture


def load_foundations(preset: Preset, device: str = "cpu") -> Foundations:
    """All frozen models but the UNet (paper, figure 2, left).

    KCDPError if one cannot be loaded whole.
    """
    writer = load_writer(preset.writer, device) if preset.writer else None
    return Foundations(
        load_vlm(preset, device),
        writer,
        load_parser(preset.parser),
        load_text_encoder(preset, device),
        load_vae(preset, device),
    )


def see_and_say(
    vlm: VLM, writer: Writer | None, images: torch.Tensor
) -> tuple[torch.Tensor, list[str], torch.Tensor]:
    """What the VLM knows of uint8 images [N, 3, S, S], on the CPU: normalised embeddings [N, D].

    Captions, by the writer where there is one (method chapter, eq-caption); and all of it together
    [N, 4 D].

    The last is not in the paper and for the recipe that looks at the VLM's embeddings: the
    embedding of a picture and its mirror image together, of length one, the mean and the maximum of
    its image tokens, which still know of small things, and the caption's embedding.
    """
    (seen, image_tokens), (mirrored, _) = _see(vlm, images), _see(vlm, images.flip(-1))
    captions = write(writer, images) if writer else _write(vlm, image_tokens)
    known = torch.cat(
        [
            F.normalize(seen + mirrored, dim=-1),
            image_tokens.mean(1),
            image_tokens.amax(1),
            embed_texts(vlm, captions),
        ],
        1,
    )
    return seen.cpu(), captions, known.cpu()


def describe(images: torch.Tensor, foundations: Foundations, recipe: Recipe) -> Frozen:
    """Everything there is to know of uint8 images [N, 3, S, S], without the cache.

    One batch (eq-caption, eq-knowledge, eq-latents).

    S is the preset's image_size; `datasets.read_images` makes such images.
    """
    embeddings, captions, known = see_and_say(foundations.vlm, foundations.writer, images)
    triplets = foundations.parse(captions)
    tokens, mask = knowledge_tokens(captions, triplets, recipe, foundations.text_encoder)
    return Frozen(
        encode_images(foundations.vae, images, recipe).cpu(),
        tokens,
        mask,
        embeddings,
        captions,
        triplets,
        known,
    )


def freeze(
    pictures, preset: Preset, recipe: Recipe, device: str = "cpu", progress: bool = True
) -> Frozen:
    """`describe` for a whole set of pictures (datasets.Pictures), from the cache what was ever
    computed by the same code, models and pictures (chapter 02).

    Captions, latents and tokens are cached apart, in shards, so that a recipe that changes one of
    them finds the others. Labels and names of the pictures are not looked at. The tensors stay on
    disk (`shards.Rows`). KCDPError for a set without pictures.
    """
    if not len(pictures.files):
        raise KCDPError(
            f"There is no picture in {pictures.name} ({pictures.split}); give a data set or folder "
            "with at least one."
        )
    blocks = [
        slice(start, start + shards.SHARD) for start in range(0, len(pictures.files), shards.SHARD)
    ]
    names = {
        kind: [f"{kind}-{paths.sha(key, *pictures.keys[block])}" for block in blocks]
        for kind, key in frozen_keys(preset, recipe).items()
    }

    def batches(i: int, what: str):
        files = pictures.files[blocks[i]]
        some = [
            files[start : start + preset.batch_size]
            for start in range(0, len(files), preset.batch_size)
        ]
        of = f"{what} of {pictures.name} {pictures.split}, {i + 1} of {len(blocks)}"
        return (
            datasets.read_images(batch, preset.image_size)
            for batch in (paths.progress(some, of, images=preset.batch_size) if progress else some)
        )

    @lru_cache(1)
    def speakers():
        return load_vlm(preset, device), load_writer(
            preset.writer, device
        ) if preset.writer else None

    def captions(i: int):
        seen, written, known = zip(
            *(see_and_say(*speakers(), images) for images in batches(i, "captions"))
        )
        return {"image_embeddings": torch.cat(seen), "embeddings": torch.cat(known)}, [
            text for batch in written for text in batch
        ]

    @lru_cache(1)
    def vae():
        return load_vae(preset, device)

    def latents(i: int):
        return {
            "latents": torch.cat(
                [encode_images(vae(), images, recipe).cpu() for images in batches(i, "latents")]
            )
        }, []

    def tokens(i: int):
        triplets = load_parser(preset.parser)(said[i].texts)
        known = knowledge_tokens(said[i].texts, triplets, recipe, load_text_encoder(preset, device))
        # What is padding in every picture of the shard is never read: most of what would be stored
        used = used_positions(known.mask)
        return {"tokens": known.tokens[:, used], "mask": known.mask, "used": used}, triplets

    said = shards.compute(names["captions"], captions)
    seen = shards.compute(names["latents"], latents)
    known = shards.compute(names["tokens"], tokens)
    masks = [shard.tensors["mask"] for shard in known]
    return Frozen(
        latents=shards.Rows([shard.tensors["latents"] for shard in seen]),
        mask=shards.Rows(masks),
        tokens=shards.Rows(
            [shard.tensors["tokens"] for shard in known],
            [shard.tensors["used"] for shard in known],
            masks[0].shape[1],
        ),
        image_embeddings=shards.Rows([shard.tensors["image_embeddings"] for shard in said]),
        embeddings=shards.Rows([shard.tensors["embeddings"] for shard in said]),
        captions=[text for shard in said for text in shard.texts],
        triplets=[
            [tuple(triplet) for triplet in of_row] for shard in known for of_row in shard.texts
        ],
    )


def frozen_keys(preset: Preset, recipe: Recipe) -> dict[str, str]:
    """What a cache entry depends on beside the pictures.

    The model's bytes, the numbers and switches that matter, and the code that computes it.
    """
    code, diffusion = (
        paths.code_key("knowledge.py", "shards.py", "towers.py", "writer.py", "datasets/images.py"),
        paths.sha(model_key(preset.diffusion), str(preset.variant)),
    )
    captions = paths.sha(
        model_key(preset.vlm),
        str(preset.vlm_pretrained and model_key(preset.vlm_pretrained)),
        preset.writer and model_key(preset.writer) or "",
        str(preset.image_size),
        code,
    )
    latents = paths.sha(
        diffusion,
        str(preset.image_size),
        recipe.image_range,
        str(recipe.latent_scaling),
        code,
        paths.code_key("perception.py"),
    )
    return {
        "captions": captions,
        "latents": latents,
        "tokens": paths.sha(
            captions,
            diffusion,
            recipe.triplet_text,
            recipe.knowledge,
            preset.parser,
            paths.code_key("triplets.py"),
        ),
    }


def model_key(name: str) -> str:
    """SHA over a model folder's files, but for hidden ones, where `hf download --local-dir` notes
    its times; of a hub id, which names its content by the commit in it, the id itself.
    """
    folder = Path(name.removeprefix("local-dir:"))
    if paths.at_revision(name)[1] or not folder.is_dir():
        return paths.sha(name)
    parts = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        within, about = path.relative_to(folder), path.stat()
        if not any(part.startswith(".") for part in within.parts):
            parts += [within.as_posix(), _digest(path, about.st_size, about.st_mtime_ns)]
    return paths.sha(*parts)


@lru_cache(None)
def _digest(path: Path, size: int, changed: int) -> str:
    """SHA-256 of a file.

    A run asks some ten times, and the full-size models are gigabytes: it is computed once, while
    size and time stay.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
