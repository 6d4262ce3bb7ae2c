"""The live figure computes what Python computes.

That holds for the exported graphs, the page's JavaScript, and the page itself in a browser. Missing
or outdated files of the figure are exported here, as by the book.
"""

import base64
import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from _ext import live_figure
from browser import serve
from PIL import Image
from sphinx.errors import ExtensionError

from kcdp_book import live
from kcdp_lib import KCDP, world
from kcdp_lib.config import RECIPES
from kcdp_lib.datasets import read_images
from kcdp_lib.errors import KCDPError
from kcdp_lib.familiar import UNFAMILIAR, familiarity, load_known
from kcdp_lib.knowledge import encode_texts, with_feelings
from kcdp_lib.perception import word_attention, word_positions
from kcdp_lib.precompute import describe, load_foundations
from kcdp_lib.tokens import fixed_shapes, used_positions
from kcdp_lib.triplets import parse_triplets
from kcdp_lib.vision_language import named

ROOT = Path(__file__).resolve().parents[1]
LIVE, MODEL = ROOT / "book" / "_static" / "live", ROOT / "results" / "live"
NEAR = 1e-3
STEPS = 5e-3  # for familiarities, which come in thousandths
SECONDS = 2
MEGABYTES = 40  # of weights and onnxruntime together; the built site may have 60
SENTENCES = (
    "a girl with a smile at a party while holding a cup .",
    "in a field , a man is running and a dog who is barking jumps .",
    "a cat that has big eyes sits on top of a box .",
    "there is a boy surrounded by flies",
    "two dogs , barking",
    "a man is smiling",
    "a morning in a wedding with a growling dog and raised eyebrows",
    "a man hit by a ball and a woman as painted in a storm ; it is raining",
    "",
    "smile",
    "the cat's ear : it's wide",
)
pytestmark = pytest.mark.usefixtures("one_thread", "made")


@pytest.fixture(scope="module")
def made() -> None:
    """Export the files, which takes a minute, if they are missing or outdated."""
    if not live.is_current(MODEL, LIVE):
        live.export(MODEL, LIVE)


@pytest.fixture(scope="module")
def model() -> KCDP:
    """Return the model that the figure shows."""
    model = KCDP.from_pretrained(MODEL, "cpu")
    model.foundations = load_foundations(model.preset)
    return model


@pytest.fixture(scope="module")
def about(made) -> dict:
    return json.loads((LIVE / "live.json").read_text(encoding="utf-8"))


@torch.no_grad()
def by_python(model: KCDP, file) -> dict:
    """Return Python's results for one picture."""
    frozen = describe(read_images([file], model.preset.image_size), model.foundations, model.recipe)
    sight, similarities = model(frozen.latents, frozen.tokens, frozen.mask)
    return {
        "caption": frozen.captions[0],
        "triplets": [list(triplet) for triplet in frozen.triplets[0]],
        "probabilities": model.answer(sight, similarities)[0].numpy(),
        "similarities": similarities[0].numpy(),
        "attention": sight.attention[0][0].numpy(),
        "familiarity": familiarity(load_known(model.preset), frozen)[0],
    }


@pytest.fixture(scope="module")
def odd(tmp_path_factory) -> Path:
    """Return a user's PNG of 300 x 200 pixels: no square and no multiple of 64."""
    path = tmp_path_factory.mktemp("own") / "own.png"
    world.render(world.sample_scene("test", 3, 5, "stickers"), "stickers", 300).crop(
        (0, 40, 300, 240)
    ).save(path)
    return path


# ---------------------------------------------------------------- the files


def test_the_files_are_of_this_library(model, about):
    assert about["from"] == live.origin(MODEL)
    assert about["words"] == json.loads(json.dumps(live.words(model)))
    assert about["rules"] == live.rules()
    assert about["classes"] == list(model.classes)
    assert about["side"] == model.preset.image_size


def test_the_files_are_small_enough(about):
    files = [LIVE / "model.bin", LIVE / live.WASM]
    assert about["bytes"] == [file.stat().st_size for file in files]
    assert sum(file.stat().st_size for file in LIVE.rglob("*")) <= MEGABYTES * 1e6


@pytest.fixture
def copy(about, tmp_path) -> Path:
    """Return a folder with links to the figure's files, which may be damaged."""
    for name in ("model.bin", live.STILL, *(example["file"] for example in about["examples"])):
        (tmp_path / name).symlink_to(LIVE / name)
    (tmp_path / "live.json").write_text(json.dumps(about), encoding="utf-8")
    return tmp_path


def test_files_are_kept_while_they_are_right(copy):
    assert live.is_current(MODEL, copy)


@pytest.mark.parametrize("kind", ("model", "stack", "world", "code"))
def test_files_of_something_else_are_made_anew(copy, about, kind):
    other = {**about, "from": {**about["from"], kind: "other"}}
    (copy / "live.json").write_text(json.dumps(other), encoding="utf-8")
    assert not live.is_current(MODEL, copy)


@pytest.mark.parametrize("name", ("model.bin", "live.json", live.STILL))
def test_missing_files_are_made_anew(copy, name):
    (copy / name).unlink()
    assert not live.is_current(MODEL, copy)


@pytest.mark.parametrize("text", ("", "{}", "[", '{"examples": []}'))
def test_a_broken_list_is_made_anew(copy, text):
    (copy / "live.json").write_text(text, encoding="utf-8")
    assert not live.is_current(MODEL, copy)


def sphinx(kind: str = "html", model: str = "results/live") -> SimpleNamespace:
    """Return what the extension reads of Sphinx."""
    config = SimpleNamespace(live_model=model)
    return SimpleNamespace(srcdir=ROOT, config=config, builder=SimpleNamespace(format=kind))


@pytest.mark.parametrize(
    "kind, current, expected", [("html", False, 1), ("html", True, 0), ("latex", False, 0)]
)
def test_the_book_makes_the_files_where_they_are_not_right(monkeypatch, kind, current, expected):
    exported = []
    monkeypatch.setattr(live, "is_current", lambda *_: current)
    monkeypatch.setattr(live, "export", lambda *folders: exported.append(folders))
    live_figure.make(sphinx(kind))
    assert exported == [(MODEL, LIVE)] * expected


def test_a_book_with_a_model_that_is_none_says_so():
    with pytest.raises(ExtensionError, match="results does not hold a model of this version"):
        live_figure.make(sphinx(model="results"))


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        ([], "Give the folder of a trained model and the folder to write to: "),
        (["a", "b", "c"], "Give the folder of a trained model and the folder to write to: "),
        (["results/live", "results"], "results does not hold ort/"),
        (["results", "book/_static/live"], f"{ROOT / 'results'} does not hold a model"),
    ],
)
def test_wrong_arguments_are_told_in_a_sentence(monkeypatch, arguments, sentence):
    monkeypatch.chdir(ROOT)
    with pytest.raises(KCDPError, match=f"^{re.escape(sentence)}"):
        live.main(arguments)


def test_the_command_ends_in_a_sentence():
    command = [sys.executable, "-m", "kcdp_book.live", "results/live"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 1
    assert run.stderr.startswith("Give the folder of") and run.stderr.count("\n") == 1


def test_what_is_packed_comes_back():
    values = np.random.default_rng(0).normal(size=5000).astype(np.float32)
    names = {
        "a": values.astype(np.float16).astype(np.float32),
        "b": values,
        live.COARSE[0] + "c": values,
        "d": np.float32([2e-7, -6e-8, 0, -0.0] * 300),
    }
    lines, numbers = zip(*(live.packed(*tensor) for tensor in names.items()), strict=True)
    back = np.split(
        live.unpacked(b"".join(numbers), lines), np.cumsum([line[1] for line in lines])[:-1]
    )
    assert [line[0] for line in lines] == ["float16", "float24", "grid", "float24"]
    assert np.array_equal(back[0], names["a"])
    assert np.abs(back[1] / values - 1).max() < 2**-15
    assert np.abs(back[2] - values).max() <= lines[2][2] / 2 * 1.001


@pytest.mark.parametrize("name", ("best", "released"))
def test_only_the_papers_recipe_is_exported(model, name):
    other = SimpleNamespace(recipe=RECIPES[name], preset=model.preset, knowledge=True)
    with pytest.raises(KCDPError, match=f"shows the paper's recipe .*, not '{name}' on 'tiny'"):
        live.pack(other)


# ---------------------------------------------------------------- the graphs, in Python


def test_fixed_shapes_keep_padding_and_change_no_number(model, odd):
    images = read_images([odd], model.preset.image_size)
    frozen = describe(images, model.foundations, model.recipe)
    length, real = frozen.mask.shape[1], int(frozen.mask.sum())
    assert len(used_positions(frozen.mask)) == real < length
    with torch.no_grad():
        _, expected = model(frozen.latents, frozen.tokens, frozen.mask)
        with fixed_shapes():
            assert used_positions(frozen.mask).tolist() == list(range(length))
            _, similarities = model(frozen.latents, frozen.tokens, frozen.mask)
    assert len(used_positions(frozen.mask)) == real
    torch.testing.assert_close(similarities, expected, atol=1e-6, rtol=0)


@pytest.fixture(scope="module")
def sessions(about) -> dict:
    """Return the three graphs, ready to run."""
    _, graphs, weights = live.unpack(LIVE)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    ready = {}
    for name, graph in graphs.items():
        proto = onnx.load_from_string(graph)
        for tensor in proto.graph.initializer:
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                tensor.CopyFrom(with_weights(tensor, weights))
        ready[name] = onnxruntime.InferenceSession(
            proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    return ready


def with_weights(tensor: onnx.TensorProto, weights: np.ndarray) -> onnx.TensorProto:
    """Return a tensor that is stored outside its graph."""
    where = {entry.key: entry.value for entry in tensor.external_data}
    start, count = int(where["offset"]) // 4, int(where["length"]) // 4
    values = weights[start : start + count].reshape(tuple(tensor.dims))
    return onnx.numpy_helper.from_array(values, tensor.name)


def caption_of(model: KCDP, sessions: dict, pixels: np.ndarray) -> str:
    """Caption a picture, float32 [1, 3, S, S], greedily with the graphs."""
    vlm = model.foundations.vlm
    length = model.foundations.text_encoder.tokenizer.model_max_length
    image_tokens, _, felt = sessions["look"].run(None, {"pixels": pixels})
    ids, said = np.full((1, length - 1), vlm.model.pad_id, np.int32), [vlm.start]
    while len(said) <= ids.shape[1] and said[-1] != vlm.end:
        ids[0, : len(said)] = said
        (following,) = sessions["say"].run(None, {"ids": ids, "image_tokens": image_tokens})
        said.append(int(following[len(said) - 1]))
    caption = " ".join(vlm.tokenizer.tokenizer.decode(said[1:-1]).split())
    return with_feelings(caption, named(felt))


def test_the_graphs_compute_what_the_model_computes(model, about, sessions, odd):
    texts = model.foundations.text_encoder
    for file in [*(LIVE / example["file"] for example in about["examples"]), odd]:
        expected = by_python(model, file)
        pixels = read_images([file], about["side"]).float().numpy()
        assert caption_of(model, sessions, pixels) == expected["caption"]
        _, distance, _ = sessions["look"].run(None, {"pixels": pixels})
        known = np.array(about["familiar"]["distances"])
        assert abs((known >= distance).mean() - expected["familiarity"]) < STEPS
        lines = [expected["caption"], *map(" ".join, expected["triplets"])]
        _, real = encode_texts(lines, texts)
        encoded = texts.tokenizer(
            lines, padding="max_length", truncation=True, return_tensors="np"
        ).input_ids
        ids = np.zeros((1 + live.TRIPLETS, encoded.shape[1]), np.int32)
        mask = ids.astype(np.float32)
        ids[: len(lines)], mask[: len(lines)] = encoded, real.numpy()
        values = sessions["perceive"].run(None, {"pixels": pixels, "ids": ids, "mask": mask})
        for name, computed in zip(
            ("probabilities", "similarities", "attention"), values, strict=True
        ):
            assert np.abs(computed - expected[name]).max() < NEAR, f"{name} of {file.name}"


# ---------------------------------------------------------------- the page, in a browser


@pytest.fixture(scope="module")
def site(made, tmp_path_factory):
    """Serve the chapter's own markup in a subfolder; yield the folder and the address."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "some" / "book").mkdir(parents=True)
    (folder / "some" / "_static").symlink_to(ROOT / "book" / "_static")
    chapter = (ROOT / "book" / "live.md").read_text(encoding="utf-8")
    markup = re.search(r"```\{raw\} html\n(.*?)```", chapter, re.S)[1]
    (folder / "some" / "book" / "live.html").write_text(
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" '
        f'content="width=device-width"><title>live</title><body>{markup}</body></html>',
        encoding="utf-8",
    )
    with serve(folder) as address:
        yield folder, f"{address}some/book/live.html"


@pytest.fixture(scope="module")
def page(chromium, site):
    """Open the figure and load its model.

    `page.asked` holds every requested address, `page.errors` every script error.
    """
    page = chromium.new_page()
    page.set_viewport_size({"width": 1000, "height": 900})
    page.asked, page.errors = [], []
    page.on("request", lambda request: page.asked.append(request.url))
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.goto(site[1])
    page.wait_for_selector(".live-ready")
    page.light = list(page.asked)
    page.click(".live-load")
    says(page, "The model is loaded")
    return page


def says(page, beginning: str) -> None:
    """Wait until the figure's status begins with this text."""
    page.wait_for_function(
        "beginning => document.querySelector('.live-status').textContent.startsWith(beginning)",
        arg=beginning,
        timeout=60_000,
    )


def shown(page, act) -> dict:
    """Return the figure's results for the picture that `act` gives it."""
    page.evaluate("document.querySelector('.live-status').textContent = ''")
    act()
    says(page, "Caption: ")
    return page.evaluate("document.querySelector('.live-result').found")


def same(computed: dict, expected: dict) -> None:
    assert computed["caption"] == expected["caption"]
    assert computed["triplets"] == expected["triplets"]
    for name in ("probabilities", "similarities"):
        assert np.abs(np.array(computed[name]) - expected[name]).max() < NEAR, name
    assert abs(computed["familiarity"] - expected["familiarity"]) < STEPS
    attention = np.array(computed["attention"]["data"])
    assert np.abs(attention - expected["attention"].ravel()).max() < NEAR


def test_nothing_heavy_is_fetched_unasked_and_nothing_from_elsewhere(page, site):
    assert not [url for url in page.light if url.endswith((".bin", ".mjs"))]
    assert [url for url in page.asked if url.endswith("model.bin")]
    assert all(
        url.startswith(("blob:", site[1].split("/some/")[0] + "/some/")) for url in page.asked
    )


def test_the_examples_are_seen_as_in_python(page, model, about):
    seconds = []
    for i, example in enumerate(about["examples"]):
        found = shown(page, page.locator(".live-example").nth(i).click)
        same(found, by_python(model, LIVE / example["file"]))
        seconds.append(found["seconds"])
        answer = about["classes"][int(np.argmax(found["probabilities"]))]
        assert page.inner_text(".live-best .live-mark >> nth=1") == "answer"
        assert answer in page.inner_text(".live-verdict strong")
    assert min(seconds) < SECONDS  # the fastest: a busy machine delays some
    assert not page.errors


def test_a_readers_own_picture_is_seen_as_in_python(page, model, odd):
    same(shown(page, lambda: page.set_input_files(".live-file", odd)), by_python(model, odd))


def test_a_picture_can_be_dropped(page, model, odd):
    drop = """bytes => {
        const data = new DataTransfer();
        data.items.add(new File([new Uint8Array(bytes)], "own.png", {type: "image/png"}));
        const drop = new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true});
        document.querySelector(".live-drop").dispatchEvent(drop);
    }"""
    same(shown(page, lambda: page.evaluate(drop, list(odd.read_bytes()))), by_python(model, odd))


def test_noise_is_called_unlike_anything(page, about, tmp_path):
    assert about["familiar"]["least"] == UNFAMILIAR
    noise = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    shown(page, page.locator(".live-example").first.click)
    assert page.inner_text(".live-familiar").startswith("Familiar: ")
    shown(page, lambda: page.set_input_files(".live-file", tmp_path / "noise.png"))
    assert page.inner_text(".live-strange").startswith("Unlike anything that the model knows.")


def test_what_is_no_picture_is_told_in_a_sentence(page, tmp_path):
    (tmp_path / "no.png").write_text("no picture")
    page.set_input_files(".live-file", tmp_path / "no.png")
    says(page, "This file cannot be read as a picture; choose a PNG")


def test_keyboard_and_screen_reader(page):
    page.locator(".live-example").first.focus()
    shown(page, lambda: page.keyboard.press("Enter"))
    assert (
        page.get_attribute(".live-status", "role") == "status"
        and page.get_attribute(".live-example >> nth=0", "aria-pressed") == "true"
    )
    assert all(
        page.locator(".live-example img").nth(i).get_attribute("alt")
        for i in range(page.locator(".live-example").count())
    )
    before = page.get_attribute(".live-picture canvas", "aria-label")
    assert re.match(r"The picture, with a map of the attention to “\w+”: strongest at the ", before)
    page.locator(".live-words input:checked").focus()
    page.keyboard.press("ArrowLeft")
    after = page.get_attribute(".live-picture canvas", "aria-label")
    assert after != before and page.get_attribute(".live-picture canvas", "role") == "img"
    assert (
        page.locator(".live-bars").count() == 2
        and page.locator(".live-bars th[scope=row]").count() == 12
    )


def test_the_map_is_pythons(page, model, about):
    found = shown(page, page.locator(".live-example").nth(2).click)
    expected = by_python(model, LIVE / about["examples"][2]["file"])
    # Of repeated words the first, as in Python.
    for place in {place["word"]: place for place in found["places"][::-1]}.values():
        heat = page.evaluate(
            "async ([place, size]) => (await import(new URL('../_static/live/live.js', "
            "location))).heat(document.querySelector('.live-result').found.attention, place, size)",
            [place, 64],
        )
        positions = word_positions(
            found["caption"], place["word"], model.foundations.text_encoder.tokenizer
        )
        assert positions.tolist() == list(range(place["first"], place["last"]))
        map_ = word_attention(torch.from_numpy(expected["attention"]), positions, 64).numpy()
        # The map is stretched to 0 and 1, and the error with it.
        assert np.abs(np.array(heat).reshape(64, 64) - map_).max() < 5 * NEAR


def test_nothing_is_wider_than_a_phone(page):
    page.set_viewport_size({"width": 390, "height": 800})
    shown(page, page.locator(".live-example").nth(3).click)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.set_viewport_size({"width": 1000, "height": 900})


def test_words_and_triplets_are_pythons(page, model):
    """Compare captions of hundreds of scenes in all domains, and hand-written sentences.

    The sentences take all branches of the parser.
    """
    captions = [
        world.caption(world.sample_scene(split, 1, i, domain), domain)
        for split in ("pretrain", "test")
        for domain in world.BENCHMARK
        for i in range(80)
    ]
    texts = [*dict.fromkeys(captions), *SENTENCES]
    script = """async texts => {
        const {language} = await import(new URL('../_static/live/live.js', location));
        const about = await (await fetch('../_static/live/live.json')).json();
        const {tokenize, parse} = language(about);
        return texts.map(text => [tokenize(text).ids, tokenize(text).real, parse(text)]);
    }"""
    found = page.evaluate(script, texts)
    read = model.foundations.text_encoder.tokenizer(
        texts, padding="max_length", truncation=True, max_length=32
    )
    assert len(texts) > 300
    for text, (ids, real, triplets), expected, mask in zip(
        texts, found, read["input_ids"], read["attention_mask"], strict=True
    ):
        assert ids == expected and real == sum(mask), text
        assert triplets == [list(triplet) for triplet in parse_triplets(text)], text


@pytest.mark.parametrize(
    "size",
    [
        (300, 200),
        (64, 64),
        (65, 90),
        (65, 66),
        (65, 67),
        (100, 136),
        (100, 137),
        (31, 40),
        (31, 70),
        (321, 240),
        (64, 200),
        (80, 64),
    ],
)
def test_pictures_are_scaled_as_pillow_does(page, size):
    values = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 4), np.uint8)
    values[..., 3] = 255
    script = """async ([text, width, height]) => {
        const data = Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
        const {fit} = await import(new URL('../_static/live/live.js', location));
        return [...fit({data, width, height}, 64)];
    }"""
    found = page.evaluate(script, [base64.b64encode(values.tobytes()).decode(), *size])
    assert np.array_equal(
        np.array(found).reshape(3, 64, 64),
        read_images([Image.fromarray(values[..., :3])], 64)[0].numpy(),
    )


def test_a_page_opened_as_a_file_says_what_to_do(chromium, site):
    page = chromium.new_page()
    page.goto((site[0] / "some" / "book" / "live.html").as_uri())
    page.wait_for_timeout(300)
    assert (
        "python -m http.server" in page.inner_text(".kcdp-live")
        and page.locator(".live-ready").count() == 0
    )
    assert page.evaluate(
        "document.querySelector('.kcdp-live img').naturalWidth"
    ) > 300 and page.get_attribute(".kcdp-live img", "alt")
