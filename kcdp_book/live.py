"""The live figure: what a trained KCDP computes for one picture, as ONNX graphs that a browser runs
(chapter "Try it here").

`python -m kcdp_book.live MODEL FOLDER` writes `model.bin` (graphs and weights) and `live.json`
  (words, rules, where all comes from); `live.js` in FOLDER is what reads them.
Three graphs: `look`, the VLM's picture tower; `say`, one step of its captions; `perceive`, all the
  rest: text encoder, VAE, UNet with its attention, experts, CLIEA.
"""

from __future__ import annotations

import gzip
import io
import json
import logging
import sys
import warnings
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import numpy as np
import onnx
import torch
from peft.tuners.lora import LoraLayer
from PIL import Image
from torch import nn

from kcdp_lib import counterfactuals, datasets, figures, perception, triplets, world
from kcdp_lib.adapt.model import KCDP
from kcdp_lib.adapt.record import Answers, cards, commit
from kcdp_lib.datasets import EMOTIONS, Pictures
from kcdp_lib.errors import KCDPError
from kcdp_lib.latents import encode_images
from kcdp_lib.loading import stack_key
from kcdp_lib.paths import atomic_write, sha
from kcdp_lib.precompute import describe, load_foundations
from kcdp_lib.vision_language import VLM, _vlm_pixels

TRIPLETS = 15  # of one picture, at most: a caption of 32 tokens has no room for more
DRAWN = 192  # pixels a side of an example; the model sees 64
LEAST = 1024  # numbers in a tensor that is worth packing; smaller ones stay in the graph
COARSE = (
    "unet.down_blocks.3.",
    "unet.mid_block.",
    "unet.up_blocks.0.",
)  # two by two places: nearly half of the weights, and what they add hardly moves the answer
# Steps of their rounding to a root mean square: with a quarter of it, the answer to one picture in
# some hundreds moved by more than a thousandth
GRID = 1024
OPSET = 18


class Look(nn.Module):
    """The VLM's picture tower."""

    def __init__(self, vlm: VLM):
        super().__init__()
        self.vlm, self.visual = vlm, vlm.model.visual

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """pixels [1, 3, S, S] (0 to 255) -> image tokens [1, P, W]."""
        return self.visual(_vlm_pixels(self.vlm, pixels))[1]


class Say(nn.Module):
    """One step of the VLM's captions, as in `vision_language._write`."""

    def __init__(self, vlm: VLM):
        super().__init__()
        self.text, self.text_decoder = vlm.model.text, vlm.model.text_decoder
        self.register_buffer(
            "barred",
            torch.zeros(vlm.model.text.vocab_size).index_fill(
                0, torch.tensor(vlm.forbidden), -torch.inf
            ),
        )

    def forward(self, ids: torch.Tensor, image_tokens: torch.Tensor) -> torch.Tensor:
        """ids int32 [1, L - 1] so far, padded to the right, and image tokens [1, P, W] -> int32 [L
        - 1], for each place the token that follows it.
        """
        return (
            (self.text_decoder(image_tokens, self.text(ids.long())[1])[0] + self.barred)
            .argmax(-1)
            .int()
        )


class Perceive(nn.Module):
    """Everything behind the triplets: text encoder, VAE, KADAP, CLIEA."""

    def __init__(self, model: KCDP):
        super().__init__()
        self.model, self.vae, self.text_encoder = (
            model,
            model.foundations.vae,
            model.foundations.text_encoder.model,
        )

    def forward(
        self, pixels: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """pixels [1, 3, S, S] (0 to 255), ids int32 [1 + TRIPLETS, L] and float mask [1 + TRIPLETS, L] (1: a real token) of the caption and then its triplets, a row of zeros where there is none

        -> probabilities [C], similarities [C] (cosines), and attention [2 L, h, w] on the finer
          grid.
        """
        known, real = self.text_encoder(ids.long()).last_hidden_state, mask[..., None]
        reach = real[1:].sum(0)
        tokens = torch.cat([known[0], (known[1:] * real[1:]).sum(0) / reach.clamp(min=1)])[None]
        seen, similarities = self.model(
            encode_images(self.vae, pixels, self.model.recipe),
            tokens,
            torch.cat([mask[0], reach[:, 0]])[None] > 0,
        )
        return self.model.answer(seen, similarities)[0], similarities[0], seen.attention[0][0]


# --------------------------------------------------------------------------------- model -> files


def pack(model: KCDP) -> tuple[bytes, dict]:
    """model.bin and live.json of a model of the preset `tiny`.

    Graphs and weights, and what JavaScript has to know. The model is not to be used afterwards.
    KCDPError for a recipe that the graphs do not compute.
    """
    if (
        model.recipe.embeddings
        or model.recipe.triplet_text != "spaced"
        or model.recipe.knowledge != "both"
        or not model.knowledge
        or model.preset.writer
    ):
        raise KCDPError(
            "The live figure shows the paper's recipe on the preset tiny, not "
            f"{model.recipe.name!r} on {model.preset.name!r}; give the model of a default run."
        )
    model.foundations = load_foundations(model.preset)
    vlm, texts, side = (
        model.foundations.vlm,
        model.foundations.text_encoder,
        model.preset.image_size,
    )
    merge(model)
    pixels, length = (
        torch.randint(0, 256, (1, 3, side, side)).float(),
        texts.tokenizer.model_max_length,
    )
    ids, mask = (
        torch.ones(1 + TRIPLETS, length, dtype=torch.int32),
        torch.zeros(1 + TRIPLETS, length),
    )
    mask[:, :9] = 1
    with torch.no_grad():
        image_tokens = Look(vlm)(pixels)
    parts = {
        "look": (Look(vlm), {"pixels": pixels}, ["image_tokens"]),
        "say": (Say(vlm), {"ids": ids[:1, 1:], "image_tokens": image_tokens}, ["next"]),
        "perceive": (
            Perceive(model),
            {"pixels": pixels, "ids": ids, "mask": mask},
            ["probabilities", "similarities", "attention"],
        ),
    }
    graphs, weights = {}, []
    for name, (module, inputs, outputs) in parts.items():
        graphs[name] = without_weights(
            to_onnx(module, inputs, outputs, tidy=name != "look"), weights
        )
    kinds, numbers = zip(*(packed(*tensor) for tensor in weights))
    model_file = gzip.compress(b"".join([*graphs.values(), *numbers]), 9, mtime=0)
    about = {
        "graphs": {name: len(graph) for name, graph in graphs.items()},
        "tensors": kinds,
        "side": side,
        "triplets": TRIPLETS,
        "classes": list(model.classes),
        "words": words(model),
        "rules": rules(),
        "from": {"stack": stack_key(model.preset), "world": world.world_key(), "commit": commit()},
    }
    return model_file, about


@torch.no_grad()
def merge(model: KCDP) -> None:
    """Add the adapters to the weights they adapt, in place."""
    unet = model.kadap.unet
    for name, module in list(unet.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge()
            unet.set_submodule(name, module.get_base_layer())


@contextmanager
def fixed_shapes():
    """Inside, no code looks at values to decide on shapes.

    Padding is masked and not dropped, and CLIEA does not ask whether there is any. That changes
    nothing but the time it takes.
    """

    def everywhere(mask):
        return torch.arange(mask.shape[1])

    with (
        patch.object(counterfactuals, "used_positions", everywhere),
        patch.object(perception, "used_positions", everywhere),
        patch.object(torch.Tensor, "all", lambda *_: False),
    ):
        yield


def to_onnx(
    module: nn.Module, inputs: dict[str, torch.Tensor], outputs: list[str], tidy: bool = True
) -> onnx.ModelProto:
    """A module as an ONNX graph of fixed shapes, those of its inputs (each as in the module's
    `forward`, like [1, 3, S, S]), without the exporter's notes on where each node came from.

    Tidied, batch normalisation goes into the weights before it, which are then no float16 any more.
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
    for thing in (
        model,
        model.graph,
        *model.graph.node,
        *model.graph.initializer,
        *model.graph.input,
        *model.graph.output,
        *model.graph.value_info,
    ):
        thing.ClearField("metadata_props")
        thing.ClearField("doc_string")
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
    """Of a tensor, flat float32 [N].

    Its line in live.json, (kind, N, step), and its bytes, all first ones, then all second ones,
    which compresses well.

    "float16" where that loses nothing, as with all weights that ship; "grid", int16 steps, in the
    coarsest blocks; else "float24", a float32 without its last byte.
    """
    if any(block in name for block in COARSE):
        step = float(
            np.float32(max(np.sqrt(np.square(values).mean()) / GRID, np.abs(values).max() / 32767))
        )
        line, numbers = (
            ["grid", values.size, step],
            np.round(values / step).astype(">i2").view(np.uint8).reshape(-1, 2),
        )
    elif np.array_equal(values.astype(np.float16).astype(np.float32), values):
        line, numbers = (
            ["float16", values.size, 0],
            values.astype(">f2").view(np.uint8).reshape(-1, 2),
        )
    else:
        rounded = (values.view(np.uint32) + np.uint32(0x80)).astype(">u4")
        line, numbers = ["float24", values.size, 0], rounded.view(np.uint8).reshape(-1, 4)[:, :3]
    return line, np.ascontiguousarray(numbers.T).tobytes()


def unpacked(body: bytes, tensors: list[list]) -> np.ndarray:
    """What `live.js` makes of the tensors' bytes.

    Flat float32 [n], all tensors after one another.
    """
    found, at = [], 0
    for kind, count, step in tensors:
        depth = 3 if kind == "float24" else 2
        numbers = np.ascontiguousarray(
            np.frombuffer(body, np.uint8, depth * count, at).reshape(depth, count).T
        )
        at += depth * count
        if kind == "float24":
            found.append(np.pad(numbers, ((0, 0), (0, 1))).view(">f4")[:, 0].astype(np.float32))
        else:
            found.append(
                numbers.view(">f2")[:, 0].astype(np.float32)
                if kind == "float16"
                else numbers.view(">i2")[:, 0] * np.float32(step)
            )
    return np.concatenate(found)


def words(model: KCDP) -> dict:
    """What JavaScript has to know of the two tokenizers.

    The text encoder's, which cuts texts into tokens, and the VLM's, whose tokens become a caption.
    """
    texts, vlm = model.foundations.text_encoder.tokenizer, model.foundations.vlm
    told = json.loads(texts._tokenizer.to_str())
    split = next(
        step["pattern"]["Regex"]
        for step in told["pre_tokenizer"]["pretokenizers"]
        if step["type"] == "Split"
    )
    return {
        "vocabulary": in_order(texts),
        "merges": [list(merge) for merge in told["model"]["merges"]],
        "split": split,
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
    """The word lists and patterns of `triplets.parse_triplets`, so that JavaScript has only the
    order of its steps to repeat.
    """
    sets = {
        name: sorted(getattr(triplets, f"_{name.upper()}"))
        for name in (
            "prepositions",
            "determiners",
            "particles",
            "be",
            "finite",
            "nouns_in_ing",
            "relative",
        )
    }
    after_ed = next(
        value for value in triplets._is_verb.__code__.co_consts if isinstance(value, frozenset)
    )  # the one list without a name of its own
    return {
        "lead": triplets._LEAD.pattern,
        "clauses": triplets._CLAUSES.pattern,
        "phrases": list(triplets._PHRASES),
        "after_ed": sorted(after_ed),
        **sets,
    }


# ---------------------------------------------------------------------------------- what is shown


def examples(folder: Path) -> list[dict]:
    """Draw the example pictures into `folder`.

    The first test sticker of each emotion and the first two photos, so not the best ones. Returns
    file, alt text and true emotion of each.
    """
    found = []
    for domain, wanted in (("stickers", list(EMOTIONS)), ("photos", [None, None])):
        for index in range(200):
            scene = world.sample_scene("test", 0, index, domain)
            truth = world.label_of(scene.emotion, "six")
            if truth in wanted or None in wanted:
                wanted.remove(truth if truth in wanted else None)
                name = f"{domain}-{truth}-{index}.png"
                atomic_write(folder / name, few_colours(world.render(scene, domain, DRAWN)))
                found.append(
                    {"file": name, "alt": world.caption(scene, domain).rstrip(" ."), "truth": truth}
                )
    return found


def still(model: KCDP, folder: Path, shown: list[dict]) -> bytes:
    """The figure that stands in where scripts cannot run.

    A PNG of some examples, where a word of each caption attends, and the prediction.
    """
    files = [folder / example["file"] for example in shown]
    found = model.predict(files)
    pictures = Pictures(
        "examples",
        "test",
        files,
        np.array([EMOTIONS.index(example["truth"]) for example in shown]),
        [file.name for file in files],
    )
    frozen = describe(
        datasets.read_images(files, model.preset.image_size), model.foundations, model.recipe
    )
    drawn = figures.png(
        figures.prediction_sheet(cards(model, Answers(pictures, frozen, found.probs), len(files)))
    )
    return few_colours(Image.open(io.BytesIO(drawn)))


def few_colours(picture: Image.Image) -> bytes:
    """A picture as a PNG of at most 128 colours, a third of the size."""
    buffer = io.BytesIO()
    picture.convert("RGB").quantize(
        128, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE
    ).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


# ------------------------------------------------------------------------------------------ files


def unpack(folder: Path) -> tuple[dict, dict[str, bytes], np.ndarray]:
    """What `live.js` makes of the files.

    What is said about the model, the bytes of each graph, and the weights, float32 [n].
    """
    about, body = (
        json.loads((folder / "live.json").read_text()),
        gzip.decompress((folder / "model.bin").read_bytes()),
    )
    graphs, at = {}, 0
    for name, size in about["graphs"].items():
        graphs[name], at = body[at : at + size], at + size
    return about, graphs, unpacked(body[at:], about["tensors"])


def trained(folder: Path) -> str:
    """Which trained model it is: 12 hex digits of a SHA over its weights."""
    return sha((folder / "model.safetensors").read_bytes())[:12]


def main(source: str, target: str) -> None:
    """Write the files of a trained model into a folder that holds `ort/`.

    model.bin, live.json, the examples and the still picture.
    """
    folder, model = Path(target), KCDP.from_pretrained(source, "cpu")
    shown = examples(folder)
    atomic_write(folder / "still.png", still(model, folder, shown[:4]))
    packed_model, about = pack(model)
    about["from"]["model"] = trained(Path(source))
    atomic_write(folder / "model.bin", packed_model)
    wasm = (folder / "ort" / "ort-wasm-simd-threaded.wasm.gz.bin").stat().st_size
    atomic_write(
        folder / "live.json",
        json.dumps(
            {"bytes": [len(packed_model), wasm], "examples": shown, **about}, ensure_ascii=False
        )
        + "\n",
    )
    print(f"{len(packed_model) / 1e6:.1f} MB of graphs and weights in {folder}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(
            "Give the folder of a trained model and the folder to write to: python -m "
            "kcdp_book.live results/live book/_static/live"
        )
    try:
        main(*sys.argv[1:])
    except KCDPError as error:
        sys.exit(str(error))
