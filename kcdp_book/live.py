"""The live figure: a trained KCDP as ONNX graphs that a browser runs (chapter "Try it here").

`python -m kcdp_book.live MODEL FOLDER` writes what `live.js` in FOLDER reads: `model.bin` (graphs
and weights), `live.json` (words, rules, where all comes from) and the pictures. The book makes
these files when it is built and they are missing or of other code or weights.

Three graphs: `look`, the VLM's picture tower, how familiar a picture is to it and what it makes one
feel; `say`, one step
of its captions; `perceive`, all the rest: text encoder, VAE, UNet with its attention, experts,
CLIEA.
"""

from __future__ import annotations

import gzip
import io
import json
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from peft.tuners.lora import LoraLayer
from PIL import Image
from torch import nn

from kcdp_book.pictures import few_colours
from kcdp_lib import datasets, figures, triplets, world
from kcdp_lib.adapt.model import KCDP
from kcdp_lib.adapt.record import Answers, cards
from kcdp_lib.command import command
from kcdp_lib.config import PRESETS
from kcdp_lib.datasets import EMOTIONS, Pictures
from kcdp_lib.errors import KCDPError
from kcdp_lib.familiar import UNFAMILIAR, Known, load_known
from kcdp_lib.keys import code_key, modules_of
from kcdp_lib.latents import encode_images
from kcdp_lib.loading import FAMILIAR, place, stack_key
from kcdp_lib.paths import atomic_write, sha
from kcdp_lib.precompute import describe, load_foundations
from kcdp_lib.tokens import fixed_shapes
from kcdp_lib.vision_language import FEELINGS, VLM, vlm_pixels

CODE = ("adapt.model", "familiar", "latents", "triplets")  # modules whose code the files repeat
WASM = Path("ort", "ort-wasm-simd-threaded.wasm.gz.bin")  # beside live.js; it is not made here
STILL = "still.png"
TRIPLETS = 15  # of one picture, at most: a caption of 32 tokens has no room for more
DRAWN = 192  # pixels a side of an example; the model sees 128
LEAST = 1024  # numbers in a tensor that is worth packing; smaller ones stay in the graph
# Two by two places: nearly half of the weights, and what they add hardly moves the answer
COARSE = ("unet.down_blocks.3.", "unet.mid_block.", "unet.up_blocks.0.")
# Steps of their rounding to a root mean square: with a quarter of it, the answer to one picture in
# some hundreds moved by more than a thousandth
GRID = 1024
OPSET = 18


class Look(nn.Module):
    """The VLM's picture tower, how far a picture is from what it has seen, and its feelings."""

    def __init__(self, vlm: VLM, known: Known):
        super().__init__()
        self.vlm, self.visual, self.known = vlm, vlm.model.visual, known

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Image tokens [1, P, W] of pixels [1, 3, S, S] (0 to 255), distance [1] and feelings [3].

        As `vision_language.image_features` and `familiar.Known` have them; the feelings are int32
        places in `vision_language.FEELINGS`, nearest first.
        """
        embedding, image_tokens = self.visual(vlm_pixels(self.vlm, pixels))
        mirrored, _ = self.visual(vlm_pixels(self.vlm, pixels.flip(-1)))
        embedding = F.normalize(embedding, dim=-1)
        both = F.normalize(embedding + F.normalize(mirrored, dim=-1), dim=-1)
        seen = torch.cat([both, image_tokens.mean(1)], 1)
        felt = (embedding @ self.vlm.feelings.T).topk(3).indices[0].int()
        return image_tokens, self.known.distance(seen), felt


class Say(nn.Module):
    """One step of the VLM's captions, as in `vision_language._write`."""

    def __init__(self, vlm: VLM):
        super().__init__()
        self.text, self.text_decoder = vlm.model.text, vlm.model.text_decoder
        barred = torch.zeros(vlm.model.text.vocab_size)
        barred[vlm.forbidden] = -torch.inf
        self.register_buffer("barred", barred)

    def forward(self, ids: torch.Tensor, image_tokens: torch.Tensor) -> torch.Tensor:
        """For each place of a caption the token that follows it.

        ids int32 [1, L - 1] so far, padded to the right, and image tokens [1, P, W] -> int32 [L -
        1].
        """
        scores = self.text_decoder(image_tokens, self.text(ids.long())[1])[0] + self.barred
        return scores.argmax(-1).int()


class Perceive(nn.Module):
    """Everything behind the triplets: text encoder, VAE, KADAP, CLIEA."""

    def __init__(self, model: KCDP):
        super().__init__()
        self.model, self.vae = model, model.foundations.vae
        self.text_encoder = model.foundations.text_encoder.model

    def forward(
        self, pixels: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Probabilities [C], similarities [C] (cosines) and attention [2 L, h, w], finer grid.

        pixels [1, 3, S, S] (0 to 255); ids int32 and float mask (1: a real token), both [1 +
        TRIPLETS, L], of the caption and then its triplets, a row of zeros where there is none.
        """
        encoded, real = self.text_encoder(ids.long()).last_hidden_state, mask[..., None]
        reach = real[1:].sum(0)
        caption, said = encoded[0], encoded[1:]
        known = (said * real[1:]).sum(0) / reach.clamp(min=1)
        tokens = torch.cat([caption, known])[None]
        sight, similarities = self.model(
            encode_images(self.vae, pixels, self.model.recipe),
            tokens,
            torch.cat([mask[0], reach[:, 0]])[None] > 0,
        )
        return self.model.answer(sight, similarities)[0], similarities[0], sight.attention[0][0]


# --------------------------------------------------------------------------------- model -> files


def pack(model: KCDP) -> tuple[bytes, dict]:
    """model.bin and live.json of a model of the preset `tiny`.

    Graphs and weights, and what JavaScript has to know. The model is not to be used afterwards.
    KCDPError for a recipe that the graphs do not compute.
    """
    recipe = model.recipe
    read_otherwise = recipe.triplet_text != "spaced" or recipe.knowledge != "both"
    if recipe.embeddings or read_otherwise or not model.knowledge or model.preset.writer:
        raise KCDPError(
            "The live figure shows the paper's recipe on the preset tiny, not "
            f"{recipe.name!r} on {model.preset.name!r}; give the model of a default run."
        )
    model.foundations = load_foundations(model.preset)
    merge(model)
    graphs, weights = {}, []
    for name, (module, inputs, outputs) in parts(model).items():
        proto = to_onnx(module, inputs, outputs, tidy=name != "look")
        graphs[name] = without_weights(proto, weights)
    kinds, numbers = zip(*(packed(*tensor) for tensor in weights), strict=True)
    about = {
        "graphs": {name: len(graph) for name, graph in graphs.items()},
        "tensors": kinds,
        "side": model.preset.image_size,
        "triplets": TRIPLETS,
        "classes": list(model.classes),
        "words": words(model),
        "rules": rules(),
        "feelings": FEELINGS if recipe.feelings else [],
        "familiar": {
            "distances": [round(of, 4) for of in known_to(model).distances.tolist()],
            "least": UNFAMILIAR,
        },
    }
    return gzip.compress(b"".join([*graphs.values(), *numbers]), 9, mtime=0), about


def parts(model: KCDP) -> dict[str, tuple[nn.Module, dict[str, torch.Tensor], list[str]]]:
    """The three modules that become graphs, each with inputs of its shapes and its outputs' names.

    An input's values do not matter, only its shape, such as pixels [1, 3, S, S].
    """
    vlm, side = model.foundations.vlm, model.preset.image_size
    length = model.foundations.text_encoder.tokenizer.model_max_length
    pixels = torch.zeros(1, 3, side, side)
    ids = torch.ones(1 + TRIPLETS, length, dtype=torch.int32)
    mask = torch.zeros(1 + TRIPLETS, length)
    mask[:, :9] = 1
    look, say, perceive = Look(vlm, known_to(model)), Say(vlm), Perceive(model)
    with torch.no_grad():
        image_tokens, *_ = look(pixels)
    return {
        "look": (look, {"pixels": pixels}, ["image_tokens", "distance", "felt"]),
        "say": (say, {"ids": ids[:1, 1:], "image_tokens": image_tokens}, ["next"]),
        "perceive": (
            perceive,
            {"pixels": pixels, "ids": ids, "mask": mask},
            ["probabilities", "similarities", "attention"],
        ),
    }


def known_to(model: KCDP) -> Known:
    """What the model's VLM has seen. KCDPError where nobody has written that down."""
    if known := load_known(model.preset):
        return known
    raise KCDPError(
        f"Nothing says what {model.preset.vlm} has seen; make its {FAMILIAR} by "
        "`python -m kcdp_lib.pretrain --stage familiar`."
    )


@torch.no_grad()
def merge(model: KCDP) -> None:
    """Add the adapters to the weights they adapt, in place."""
    unet = model.kadap.unet
    for name, module in list(unet.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge()
            unet.set_submodule(name, module.get_base_layer())


def to_onnx(
    module: nn.Module, inputs: dict[str, torch.Tensor], outputs: list[str], tidy: bool = True
) -> onnx.ModelProto:
    """A module as an ONNX graph of fixed shapes, those of its inputs (as in its `forward`).

    inputs by name, such as pixels [1, 3, S, S]. Left out are the exporter's notes on where each
    node came from. Tidied, batch normalisation goes into the weights before it, which are then no
    float16 any more.
    """
    for chatty in ("torch.onnx", "onnxscript"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    with fixed_shapes(), warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module.eval(),
            tuple(inputs.values()),
            input_names=list(inputs),
            output_names=outputs,
            opset_version=OPSET,
            dynamo=True,
            optimize=tidy,
            verbose=False,
        )
    model = program.model_proto
    for message in (
        model,
        model.graph,
        *model.graph.node,
        *model.graph.initializer,
        *model.graph.input,
        *model.graph.output,
        *model.graph.value_info,
    ):
        message.ClearField("metadata_props")
        message.ClearField("doc_string")
    model.graph.ClearField("value_info")
    return model


def without_weights(model: onnx.ModelProto, weights: list[tuple[str, np.ndarray]]) -> bytes:
    """The graph's bytes, its large tensors left out.

    They are appended to `weights` (name, flat float32 [n]), and the graph says where in the file
    "weights" they lie.
    """
    at = 4 * sum(values.size for _, values in weights)
    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.size >= LEAST:
            weights.append((tensor.name, values.ravel()))
            tensor.ClearField("raw_data")
            tensor.data_location = onnx.TensorProto.EXTERNAL
            for name, value in (("location", "weights"), ("offset", at), ("length", values.nbytes)):
                tensor.external_data.add(key=name, value=str(value))
            at += values.nbytes
    return model.SerializeToString()


def packed(name: str, values: np.ndarray) -> tuple[list, bytes]:
    """Of a tensor, flat float32 [N], its line in live.json, [kind, N, step], and its bytes.

    All first bytes come first, then all second ones, which compresses well. Kinds: "float16" where
    that loses nothing, as with all weights that ship; "grid", int16 steps, in the coarsest blocks;
    else "float24", a float32 without its last byte.
    """
    step = 0
    if any(block in name for block in COARSE):
        kind = "grid"
        finest = np.abs(values).max() / 32767
        step = float(np.float32(max(np.sqrt(np.square(values).mean()) / GRID, finest)))
        columns = np.round(values / step).astype(">i2").view(np.uint8).reshape(-1, 2)
    elif np.array_equal(values.astype(np.float16).astype(np.float32), values):
        kind = "float16"
        columns = values.astype(">f2").view(np.uint8).reshape(-1, 2)
    else:
        kind = "float24"
        rounded = (values.view(np.uint32) + np.uint32(0x80)).astype(">u4")
        columns = rounded.view(np.uint8).reshape(-1, 4)[:, :3]
    return [kind, values.size, step], np.ascontiguousarray(columns.T).tobytes()


def unpacked(body: bytes, tensors: list[list]) -> np.ndarray:
    """What `live.js` makes of the tensors' bytes.

    Flat float32 [n], all tensors after one another.
    """
    values, at = [], 0
    for kind, count, step in tensors:
        depth = 3 if kind == "float24" else 2
        planes = np.frombuffer(body, np.uint8, depth * count, at).reshape(depth, count)
        columns = np.ascontiguousarray(planes.T)
        at += depth * count
        if kind == "float24":
            columns = np.pad(columns, ((0, 0), (0, 1)))
            values.append(columns.view(">f4")[:, 0].astype(np.float32))
        elif kind == "float16":
            values.append(columns.view(">f2")[:, 0].astype(np.float32))
        else:
            values.append(columns.view(">i2")[:, 0] * np.float32(step))
    return np.concatenate(values)


def words(model: KCDP) -> dict:
    """What JavaScript has to know of the two tokenizers.

    The text encoder's, which cuts texts into tokens, and the VLM's, whose tokens become a caption.
    """
    texts, vlm = model.foundations.text_encoder.tokenizer, model.foundations.vlm
    tokenizer = json.loads(texts.backend_tokenizer.to_str())
    steps = tokenizer["pre_tokenizer"]["pretokenizers"]
    return {
        "vocabulary": in_order(texts),
        "merges": [list(merge) for merge in tokenizer["model"]["merges"]],
        "split": next(step["pattern"]["Regex"] for step in steps if step["type"] == "Split"),
        "length": texts.model_max_length,
        "start": texts.bos_token_id,
        "end": texts.eos_token_id,
        "pad": texts.pad_token_id,
        "caption": {
            "vocabulary": in_order(vlm.tokenizer.tokenizer),
            "start": vlm.start,
            "end": vlm.end,
            "pad": vlm.model.pad_id,
        },
    }


def in_order(tokenizer) -> list[str]:
    """A tokenizer's pieces, each at the place of its number."""
    return sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)


def rules() -> dict:
    """The word lists and patterns of `triplets.parse_triplets`.

    With them JavaScript has only the order of its steps to repeat.
    """
    return {
        "lead": triplets.LEAD.pattern,
        "clauses": triplets.CLAUSES.pattern,
        "phrases": list(triplets.PHRASES),
        "after_ed": sorted(triplets.AFTER_ED),
        "prepositions": sorted(triplets.PREPOSITIONS),
        "determiners": sorted(triplets.DETERMINERS),
        "particles": sorted(triplets.PARTICLES),
        "be": sorted(triplets.BE),
        "finite": sorted(triplets.FINITE),
        "nouns_in_ing": sorted(triplets.NOUNS_IN_ING),
        "relative": sorted(triplets.RELATIVE),
    }


# ---------------------------------------------------------------------------------- what is shown


def examples(folder: Path) -> list[dict]:
    """Draw the example pictures into `folder`.

    The first test sticker of each emotion, the first two photos, and the first labelled test
    drawing of an emoji and of a character by other hands, so not the best ones. Returns file, alt
    text and true emotion of each.
    """
    shown = []
    for domain, wanted in (("stickers", list(EMOTIONS)), ("photos", [None, None])):
        for index in range(200):
            scene = world.sample_scene("test", 0, index, domain)
            truth = world.label_of(scene.emotion, "six")
            if truth in wanted or None in wanted:
                wanted.remove(truth if truth in wanted else None)
                name = f"{domain}-{truth}-{index}.png"
                atomic_write(folder / name, few_colours(world.render(scene, domain, DRAWN)))
                alt = world.caption(scene, domain).rstrip(" .")
                shown.append({"file": name, "alt": alt, "truth": truth})
    for domain in ("art-twemoji", "art-micah"):
        pictures = datasets.load(domain, "test")
        first = int((pictures.labels >= 0).argmax())
        truth, name = EMOTIONS[pictures.labels[first]], f"{domain}.png"
        drawn = datasets.square(Image.open(pictures.files[first]), DRAWN)
        atomic_write(folder / name, few_colours(drawn))
        alt = f"a drawing by another hand: {datasets.concepts(pictures)[first]}"
        shown.append({"file": name, "alt": alt, "truth": truth})
    return shown


def still(model: KCDP, folder: Path, shown: list[dict]) -> bytes:
    """The figure that stands in where scripts cannot run.

    A PNG of some examples, where a word of each caption attends, and the prediction.
    """
    files = [folder / example["file"] for example in shown]
    labels = np.array([EMOTIONS.index(example["truth"]) for example in shown])
    pictures = Pictures("examples", "test", files, labels, [file.name for file in files])
    probs = model.predict(files).probs  # this loads the frozen models, too
    images = datasets.read_images(files, model.preset.image_size)
    answers = Answers(pictures, describe(images, model.foundations, model.recipe), probs)
    drawn = figures.png(figures.prediction_sheet(cards(model, answers, len(files))))
    return few_colours(Image.open(io.BytesIO(drawn)))


# ------------------------------------------------------------------------------------------ files


def unpack(folder: Path) -> tuple[dict, dict[str, bytes], np.ndarray]:
    """What `live.js` makes of the files.

    What is said about the model, the bytes of each graph, and the weights, float32 [n].
    """
    about = json.loads((folder / "live.json").read_text(encoding="utf-8"))
    body = gzip.decompress((folder / "model.bin").read_bytes())
    graphs, at = {}, 0
    for name, size in about["graphs"].items():
        graphs[name], at = body[at : at + size], at + size
    return about, graphs, unpacked(body[at:], about["tensors"])


def origin(source: Path) -> dict[str, str]:
    """What the files of a trained model are made from: their "from" in live.json."""
    return {
        "model": sha((source / "model.safetensors").read_bytes())[:12],
        "stack": stack_key(PRESETS["tiny"]),
        "seen": sha(Path(place(PRESETS["tiny"].vlm), FAMILIAR).read_bytes())[:12],
        "world": world.world_key(),
        "code": code_key(Path(__file__), *modules_of(*CODE))[:12],
    }


def is_current(source: Path, folder: Path) -> bool:
    """Whether `folder` holds all files of the trained model in `source`, made by this code."""
    try:
        about = json.loads((folder / "live.json").read_text(encoding="utf-8"))
        names = ["model.bin", STILL, *(example["file"] for example in about["examples"])]
        return about["from"] == origin(source) and all((folder / name).is_file() for name in names)
    except (OSError, ValueError, KeyError):  # missing, broken, or of an older layout
        return False


def export(source: Path, folder: Path) -> None:
    """Write the files of a trained model into the folder of `live.js`; about a minute.

    On one machine the same bytes every time. KCDPError if `source` holds no model that can be
    shown, or `folder` not what the browser needs beside it.
    """
    if not (folder / WASM).is_file():
        raise KCDPError(
            f"{folder} does not hold {WASM.as_posix()}, which runs the graphs in a browser; give "
            "book/_static/live or a copy of it."
        )
    with one_thread():
        model = KCDP.from_pretrained(source, "cpu")
        shown = examples(folder)
        atomic_write(folder / STILL, still(model, folder, shown[:4]))
        model_file, about = pack(model)
    atomic_write(folder / "model.bin", model_file)
    about = {
        "bytes": [len(model_file), (folder / WASM).stat().st_size],
        "examples": shown,
        **about,
        "from": origin(source),
    }
    atomic_write(folder / "live.json", json.dumps(about, ensure_ascii=False) + "\n")


@contextmanager
def one_thread() -> Iterator[None]:
    """Inside, torch adds in one order, whatever the number of cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def main(arguments: list[str]) -> None:
    """Write the files and say how large they are. KCDPError unless two folders are given."""
    if len(arguments) != 2:
        raise KCDPError(
            "Give the folder of a trained model and the folder to write to: python -m "
            "kcdp_book.live results/live book/_static/live"
        )
    source, folder = map(Path, arguments)
    export(source, folder)
    size = (folder / "model.bin").stat().st_size
    print(f"{size / 1e6:.1f} MB of graphs and weights in {folder}")


if __name__ == "__main__":
    with command():
        main(sys.argv[1:])
