"""Export a trained KCDP as ONNX graphs that a browser runs (chapter "Try it here").

`python -m kcdp_book.live MODEL FOLDER` writes the files that `live.js` in FOLDER reads: `model.bin`
(graphs and weights), `live.json` (words, rules, origin) and the pictures. The book's build makes
these files if they are missing or come from other code or weights.

There are three graphs. `look` is the VLM's image tower and returns the picture's familiarity and
feelings, too. `say` is one step of captioning. `perceive` is all the rest: text encoder, VAE, UNet
with its attention, experts, CLIEA.
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
from kcdp_lib.checkout import code_key
from kcdp_lib.command import command
from kcdp_lib.config import PRESETS
from kcdp_lib.datasets import EMOTIONS, Pictures
from kcdp_lib.errors import KCDPError
from kcdp_lib.familiar import UNFAMILIAR, Known, load_known
from kcdp_lib.keys import modules_of
from kcdp_lib.latents import encode_images
from kcdp_lib.loading import FAMILIAR, place, stack_key
from kcdp_lib.paths import atomic_write, sha
from kcdp_lib.precompute import describe, load_foundations
from kcdp_lib.tokens import fixed_shapes
from kcdp_lib.vision_language import FEELINGS, VLM, nearest_feelings, vlm_pixels

CODE = ("adapt.model", "familiar", "latents", "triplets")  # modules whose code goes into the files
WASM = Path("ort", "ort-wasm-simd-threaded.wasm.gz.bin")  # beside live.js; not made here
STILL = "still.png"
TRIPLETS = 15  # at most, for one picture: a caption of 32 tokens has no room for more
DRAWN = 192  # pixels per side of an example; the model sees 128
LEAST = 1024  # size from which a tensor is packed; smaller ones stay in the graph
# Blocks on the 2 x 2 grid: nearly half of the weights, with hardly any effect on the prediction
COARSE = ("unet.down_blocks.3.", "unet.mid_block.", "unet.up_blocks.0.")
# Rounding steps per root mean square. With a quarter of them, the prediction for one picture in
# some hundreds moved by more than a thousandth.
GRID = 1024
OPSET = 18


class Look(nn.Module):
    """Compute the VLM's image tokens, the distance from its training pictures, and feelings."""

    def __init__(self, vlm: VLM, known: Known):
        super().__init__()
        self.vlm, self.visual, self.known = vlm, vlm.model.visual, known

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return image tokens [1, P, W], distance [1] and feelings [3] of pixels [1, 3, S, S].

        Pixels are 0 to 255. Tokens and distance are as in `vision_language.image_features` and
        `familiar.Known`; feelings are int32 indices into `vision_language.FEELINGS`, nearest first.
        """
        embedding, image_tokens = self.visual(vlm_pixels(self.vlm, pixels))
        mirrored, _ = self.visual(vlm_pixels(self.vlm, pixels.flip(-1)))
        embedding = F.normalize(embedding, dim=-1)
        both = F.normalize(embedding + F.normalize(mirrored, dim=-1), dim=-1)
        seen = torch.cat([both, image_tokens.mean(1)], 1)
        felt = nearest_feelings(self.vlm, embedding)[0].int()
        return image_tokens, self.known.distance(seen), felt


class Say(nn.Module):
    """Take one step of the VLM's captioning, as in `vision_language._write`."""

    def __init__(self, vlm: VLM):
        super().__init__()
        self.text, self.text_decoder = vlm.model.text, vlm.model.text_decoder
        barred = torch.zeros(vlm.model.text.vocab_size)
        barred[vlm.forbidden] = -torch.inf
        self.register_buffer("barred", barred)

    def forward(self, ids: torch.Tensor, image_tokens: torch.Tensor) -> torch.Tensor:
        """Return the next token for each place of a caption, int32 [L - 1].

        ids int32 [1, L - 1]: the tokens so far, padded on the right; image tokens [1, P, W].
        """
        scores = self.text_decoder(image_tokens, self.text(ids.long())[1])[0] + self.barred
        return scores.argmax(-1).int()


class Perceive(nn.Module):
    """Compute everything after the triplets: text encoder, VAE, KADAP, CLIEA."""

    def __init__(self, model: KCDP):
        super().__init__()
        self.model, self.vae = model, model.foundations.vae
        self.text_encoder = model.foundations.text_encoder.model

    def forward(
        self, pixels: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return probabilities [C], similarities [C] (cosines) and attention [2 L, h, w].

        pixels [1, 3, S, S] (0 to 255); ids int32 and float mask (1: a real token), both
        [1 + TRIPLETS, L], of the caption and then its triplets, padded with rows of zeros. The
        attention is the finer grid's.
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
    """Return model.bin and live.json of a model of the preset `tiny`.

    They hold graphs and weights, and what JavaScript needs to know. The model must not be used
    afterwards. KCDPError for a recipe that the graphs do not compute.
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
    """Return the three modules that become graphs, with example inputs and names of outputs.

    Only the shapes of the inputs matter, such as pixels [1, 3, S, S].
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
    """Load the statistics of what the model's VLM has seen. KCDPError if they are missing."""
    if known := load_known(model.preset):
        return known
    raise KCDPError(
        f"Nothing says what {model.preset.vlm} has seen; make its {FAMILIAR} by "
        "`python -m kcdp_lib.pretrain --stage familiar`."
    )


@torch.no_grad()
def merge(model: KCDP) -> None:
    """Merge the LoRA adapters into the UNet's weights, in place."""
    unet = model.kadap.unet
    for name, module in list(unet.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge()
            unet.set_submodule(name, module.get_base_layer())


def to_onnx(
    module: nn.Module, inputs: dict[str, torch.Tensor], outputs: list[str], tidy: bool = True
) -> onnx.ModelProto:
    """Export a module as an ONNX graph with the fixed shapes of its inputs.

    inputs: by name, such as pixels [1, 3, S, S]. The exporter's notes on each node's origin are
    removed. `tidy` folds batch normalisation into the weights before it, which are then no longer
    exact in float16.
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
    """Return the graph's bytes without its large tensors.

    These are appended to `weights` (name, flat float32 [n]), and the graph refers to their place in
    the file "weights".
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
    """Return the entry in live.json, [kind, N, step], and the bytes of a flat float32 tensor [N].

    All first bytes come first, then all second ones, which compresses well. Kinds: "grid", int16
    steps, in the coarsest blocks; "float16" where it loses nothing, as for all weights in the
    repository; else "float24", a float32 without its last byte.
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
    """Decode the tensors' bytes as `live.js` does: flat float32 [n], all tensors in sequence."""
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
    """Return what JavaScript needs to know of the two tokenizers.

    The text encoder's splits texts into tokens; the VLM's turns its tokens into a caption.
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
    """Return a tokenizer's vocabulary, sorted by token id."""
    return sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)


def rules() -> dict:
    """Return the word lists and patterns of `triplets.parse_triplets`.

    JavaScript then only repeats the order of its steps.
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
    """Draw the example pictures into `folder`; return the file, alt text and true emotion of each.

    They are not selected for quality: the first test sticker of each emotion, the first two photos,
    and the first labelled test drawing of an emoji set and of a character set by other artists.
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
        alt = f"a drawing by another artist: {datasets.concepts(pictures)[first]}"
        shown.append({"file": name, "alt": alt, "truth": truth})
    return shown


def still(model: KCDP, folder: Path, shown: list[dict]) -> bytes:
    """Draw the figure shown where scripts cannot run, as a PNG.

    It shows some examples, where a word of each caption attends, and the prediction.
    """
    files = [folder / example["file"] for example in shown]
    labels = np.array([EMOTIONS.index(example["truth"]) for example in shown])
    pictures = Pictures("examples", "test", files, labels, [file.name for file in files])
    probs = model.predict(files).probs  # also loads the frozen models
    images = datasets.read_images(files, model.preset.image_size)
    answers = Answers(pictures, describe(images, model.foundations, model.recipe), probs)
    drawn = figures.png(figures.prediction_sheet(cards(model, answers, len(files))))
    return few_colours(Image.open(io.BytesIO(drawn)))


# ------------------------------------------------------------------------------------------ files


def unpack(folder: Path) -> tuple[dict, dict[str, bytes], np.ndarray]:
    """Read the files as `live.js` does.

    Returns live.json, the bytes of each graph, and the weights, float32 [n].
    """
    about = json.loads((folder / "live.json").read_text(encoding="utf-8"))
    body = gzip.decompress((folder / "model.bin").read_bytes())
    graphs, at = {}, 0
    for name, size in about["graphs"].items():
        graphs[name], at = body[at : at + size], at + size
    return about, graphs, unpacked(body[at:], about["tensors"])


def origin(source: Path) -> dict[str, str]:
    """Return the keys of all that a model's files are made from, the "from" of live.json."""
    return {
        "model": sha((source / "model.safetensors").read_bytes())[:12],
        "stack": stack_key(PRESETS["tiny"]),
        "seen": sha(Path(place(PRESETS["tiny"].vlm), FAMILIAR).read_bytes())[:12],
        "world": world.world_key(),
        "code": code_key(Path(__file__), *modules_of(*CODE))[:12],
    }


def is_current(source: Path, folder: Path) -> bool:
    """Return whether `folder` holds all files of the model in `source`, made by this code."""
    try:
        about = json.loads((folder / "live.json").read_text(encoding="utf-8"))
        names = ["model.bin", STILL, *(example["file"] for example in about["examples"])]
        return about["from"] == origin(source) and all((folder / name).is_file() for name in names)
    except (OSError, ValueError, KeyError):  # missing, broken, or of an older layout
        return False


def export(source: Path, folder: Path) -> None:
    """Write the files of a trained model into the folder of `live.js`; takes about a minute.

    On one machine the bytes are the same every time. KCDPError if `source` holds no model that can
    be shown, or if `folder` lacks what the browser needs.
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
    """Run torch on one thread, so that sums do not depend on the number of cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def main(arguments: list[str]) -> None:
    """Write the files and print their size. KCDPError unless two folders are given."""
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
