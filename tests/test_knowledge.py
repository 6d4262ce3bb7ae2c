"""Chapter 02: captions, triplets, tokens, and the cache."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from blank import blank_preset

from kcdp_lib import knowledge, paths, precompute, shards, towers, vision_language, world
from kcdp_lib.config import RECIPES
from kcdp_lib.knowledge import encode_texts, knowledge_tokens
from kcdp_lib.pretrain.stack import HIDDEN
from kcdp_lib.triplets import parse_triplets

pytestmark = pytest.mark.usefixtures("one_thread")
PAPER, RELEASED = RECIPES["paper"], RECIPES["released"]


@pytest.fixture(scope="module")
def foundations():
    return precompute.load_foundations(blank_preset())


@pytest.fixture(scope="module")
def images():
    return torch.randint(
        0, 256, (5, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


# -- captions


def greedy_by_hand(vlm, image):
    """Decode greedily, one picture at a time and without dropping finished rows."""
    ids, seen = [vlm.start], vlm.model(vision_language.vlm_pixels(vlm, image[None]))
    while len(ids) < vlm.model.context_length and (len(ids) == 1 or ids[-1] != vlm.end):
        scores = vlm.model(
            None,
            torch.tensor([ids]),
            image_latent=seen["image_features"],
            image_embs=seen["image_embs"],
            output_labels=False,
        )["logits"][0, -1]
        scores[vlm.forbidden] = -torch.inf
        ids.append(int(scores.argmax()))
    return " ".join(vlm.tokenizer.tokenizer.decode([i for i in ids[1:] if i != vlm.end]).split())


@torch.no_grad()
def test_captions_of_a_batch_are_those_of_each_picture(foundations, images):
    captions = vision_language.caption(foundations.vlm, images)
    assert captions[:2] == [greedy_by_hand(foundations.vlm, image) for image in images[:2]]
    assert vision_language.caption(foundations.vlm, images[2:3]) == captions[2:3]


@torch.no_grad()
def test_folded_norms_change_nothing(images):
    torch.manual_seed(0)
    tower = towers.EfficientTokens().eval()
    for module in tower.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 2)
            torch.nn.init.normal_(module.bias, std=0.1)
    pixels = images.float() / 127.5 - 1
    before = tower(pixels)
    vision_language.fold_norms(tower)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in tower.modules())
    for one, other in zip(before, tower(pixels), strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)


def test_captions_end_at_the_end_token(foundations, images, monkeypatch):
    """One row ends early, the others late.

    Rows do not affect each other, and the batch shrinks.
    """
    vlm, sizes = foundations.vlm, []
    assert {vlm.start, vlm.model.pad_id} == set(vlm.forbidden) and vlm.end not in vlm.forbidden
    word = vlm.tokenizer.tokenizer.convert_tokens_to_ids("photo</w>")

    class EndsAfter:
        """End row r of three pictures after as many words as its first number says."""

        def __init__(self, model, image_tokens):
            self.lengths = image_tokens[:, 0, 0]

        def scores(self, ids):
            sizes.append(len(ids))
            scores = torch.zeros(len(ids), vlm.model.text.vocab_size)
            scores[:, word] = 1
            scores[:, vlm.forbidden] = 5  # start and padding must never be chosen
            scores[self.lengths < len(sizes), vlm.end] = 2
            return scores

        def keep(self, rows):
            self.lengths = self.lengths[rows]

    monkeypatch.setattr(vision_language, "Decoder", EndsAfter)
    rows = torch.tensor([3.0, 1.0, 2.0])[:, None, None].expand(3, 4, 128)
    assert vision_language._write(vlm, rows) == ["photo photo photo", "photo", "photo photo"]
    assert sizes == [3, 3, 2, 1]


def test_embeddings_are_normalised_and_zero_shot_sums_to_one(foundations, images):
    embeddings = vision_language.embed_images(foundations.vlm, images)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(5))
    texts = vision_language.embed_texts(foundations.vlm, ["a happy cat", "a sad cat"])
    torch.testing.assert_close(texts.norm(dim=1), torch.ones(2))
    probs = vision_language.zero_shot(foundations.vlm, embeddings, ["happy", "fear", "anger"])
    assert probs.shape == (5, 3)
    torch.testing.assert_close(probs.sum(1), torch.ones(5))


def test_feelings_are_the_three_words_nearest_to_a_picture(foundations, images):
    vlm = foundations.vlm
    embeddings = vision_language.embed_images(vlm, images)
    words = vision_language.FEELINGS
    assert len(set(words)) == len(words) == len(vlm.feelings) and set(words) <= {
        word for of_class in world.EMOTION_WORDS.values() for word in of_class
    }
    by_word = vision_language.zero_shot(vlm, embeddings, words)
    nearest = by_word.argsort(descending=True)[:, :3]
    expected = ["{} , {} and {}".format(*(words[i] for i in of)) for of in nearest.tolist()]
    assert vision_language.feelings(vlm, embeddings) == expected


def test_a_caption_begins_with_feelings_which_can_be_taken_out_again():
    written, felt = "a photo of a cat , shedding tears .", "sad , gloomy and unhappy"
    told = knowledge.with_feelings(written, felt)
    assert told == "feeling sad , gloomy and unhappy , a photo of a cat , shedding tears ."
    for places in ((0, 1, 2), (27, 3, 9), (12, 20, 26)):
        felt = vision_language.named(places)
        assert knowledge.without_feelings(knowledge.with_feelings(written, felt)) == written
        assert knowledge.without_feelings(knowledge.with_feelings("", felt)) == ""
    for nothing_to_take in (
        written,
        "feeling sad , a cat .",
        "a cat , feeling sad , low and ill .",
    ):
        assert knowledge.without_feelings(nothing_to_take) == nothing_to_take
    silent = replace(PAPER, feelings=False)
    said = [("a dog .", felt), (written, "sad , gloomy and unhappy")]
    assert precompute.captions_used(said, silent) == ["a dog .", written]
    assert precompute.captions_used(said, PAPER)[1] == told
    assert precompute.captions_used([("It is sad.", "")], PAPER) == ["It is sad."]
    embeddings = torch.zeros(2, 4)
    assert precompute.feelings_of(embeddings, None, writer=SimpleNamespace()) == ["", ""]


@torch.no_grad()
def test_embeddings_hold_picture_mirror_and_image_tokens(foundations, images):
    """Recompute each picture alone. Mirroring keeps the first part; the caption comes last."""
    vlm = foundations.vlm
    _, captions, found = vision_language.see_and_say(vlm, None, images)
    width = found.shape[1] // 4
    for i, image in enumerate(images):
        seen, mirrored = (
            vlm.model(vision_language.vlm_pixels(vlm, one[None])) for one in (image, image.flip(-1))
        )
        both = seen["image_features"][0] + mirrored["image_features"][0]
        torch.testing.assert_close(
            found[i, : 3 * width],
            torch.cat(
                [both / both.norm(), seen["image_embs"][0].mean(0), seen["image_embs"][0].amax(0)]
            ),
            atol=1e-4,
            rtol=1e-4,
        )
    torch.testing.assert_close(
        vision_language.see_and_say(vlm, None, images.flip(-1))[2][:, :width],
        found[:, :width],
        atol=1e-5,
        rtol=1e-4,
    )
    torch.testing.assert_close(
        found[:, 3 * width :], vision_language.embed_texts(vlm, captions), atol=1e-5, rtol=1e-4
    )
    assert found.shape[1] == vision_language.embedding_width(blank_preset())


def test_class_embeddings_give_the_zero_shot_answer(foundations, images):
    embeddings, classes = (
        vision_language.embed_images(foundations.vlm, images),
        ("happy", "fear", "anger"),
    )
    told = (embeddings @ vision_language.class_embeddings(blank_preset(), classes).T).softmax(-1)
    torch.testing.assert_close(
        told, vision_language.zero_shot(foundations.vlm, embeddings, classes)
    )


# -- triplets


@pytest.mark.parametrize(
    "caption, expected",
    [
        (
            "a photo of a girl with a smile , beside a birthday cake .",
            [("girl", "has", "smile"), ("girl", "beside", "birthday cake")],
        ),
        (
            "a sticker of a cat with an open mouth and closed eyes , shedding tears .",
            [
                ("cat", "has", "open mouth"),
                ("cat", "has", "closed eyes"),
                ("cat", "shedding", "tears"),
            ],
        ),
        (
            "a painting of a dog with a frown , trembling .",
            [("dog", "has", "frown"), ("dog", "is", "trembling")],
        ),
        (
            "a sketch of an egg , surrounded by hearts , under fireworks .",
            [("egg", "surrounded by", "hearts"), ("egg", "under", "fireworks")],
        ),
        (
            "a photo of a cup , in front of a plate of bugs .",
            [("cup", "in front of", "plate of bugs")],
        ),
        (
            "a girl at a birthday party , crying big tears .",
            [("girl", "at", "birthday party"), ("girl", "crying", "big tears")],
        ),
        (
            "an icon of a dog with raised eyebrows , sweating .",
            [("dog", "has", "raised eyebrows"), ("dog", "is", "sweating")],
        ),
        ("a photo of a man facing a growling dog .", [("man", "facing", "growling dog")]),
        (
            "a man riding a wave on top of a surfboard .",
            [("man", "riding", "wave"), ("man", "on top of", "surfboard")],
        ),
        (
            "A black and white photo of a man and a woman standing in the rain.",
            [("man and woman", "standing in", "rain")],
        ),
        (
            "There is a cat sitting on a chair and looking at a dog",
            [("cat", "sitting on", "chair"), ("cat", "looking at", "dog")],
        ),
        (
            "A cat sits on a chair while a dog sleeps on the floor.",
            [("cat", "sits on", "chair"), ("dog", "sleeps on", "floor")],
        ),
        (
            "a woman who is holding a cup while smiling at the camera",
            [("woman", "holding", "cup"), ("woman", "smiling at", "camera")],
        ),
        ("a smiling girl in a living room", [("smiling girl", "in", "living room")]),
        (
            "a bathroom with a toilet, sink and bathtub .",
            [
                ("bathroom", "has", "toilet"),
                ("bathroom", "has", "sink"),
                ("bathroom", "has", "bathtub"),
            ],
        ),
        ("two people are happy", [("two people", "are", "happy")]),
        (
            "a girl with a hat and a girl with a hat",
            [("girl", "has", "hat"), ("girl", "has", "girl")],
        ),
        ("a photo of a boy .", []),
        ("crying", []),
        ("", []),
        (" , . and with of ; ", []),
        ("ÄÖ 漢字 \n 😀", []),
    ],
)
def test_triplets(caption, expected):
    assert parse_triplets(caption) == expected


# -- tokens


def test_encoded_texts_are_those_of_the_encoder_each_once(foundations, monkeypatch):
    tokenizer, model = foundations.text_encoder.tokenizer, foundations.text_encoder.model
    texts = ["a photo of a kite .", "", "a kite", "a photo of a kite ."] + ["long " * 60]
    foundations.text_encoder.known.clear()
    ids = tokenizer(
        texts, padding="max_length", truncation=True, max_length=32, return_tensors="pt"
    )
    expected = model(ids.input_ids).last_hidden_state
    seen = []
    monkeypatch.setattr(
        model,
        "forward",
        lambda ids, _real=model.forward, **options: seen.append(len(ids)) or _real(ids, **options),
    )
    tokens, mask = encode_texts(texts, foundations.text_encoder, batch_size=3)
    torch.testing.assert_close(tokens, expected, atol=1e-5, rtol=0)
    assert seen == [3, 1]
    again, _ = encode_texts(["a snail", *texts[::-1]], foundations.text_encoder)
    assert seen == [3, 1, 1] and torch.equal(again[1:], tokens.flip(0)), (
        "only what was never read is encoded"
    )
    assert torch.equal(mask, ids.attention_mask.bool()) and mask[1].sum() == 2 and mask[4].all()


CAPTIONS = ["a cat with a hat .", "a dog", "a girl at a party with a cake ."]
TRIPLETS = [
    [("cat", "has", "hat")],
    [],
    [("girl", "at", "party"), ("girl", "has", "cake on a table")],
]


def test_knowledge_of_the_paper_recipe(foundations):
    tokens, mask = knowledge_tokens(CAPTIONS, TRIPLETS, PAPER, foundations.text_encoder)
    captions, caption_mask = encode_texts(CAPTIONS, foundations.text_encoder)
    assert tokens.shape == (3, 64, HIDDEN) and mask.shape == (3, 64)
    assert torch.equal(tokens[:, :32], captions) and torch.equal(mask[:, :32], caption_mask)
    alone, alone_mask = encode_texts(
        ["cat has hat", "girl at party", "girl has cake on a table"], foundations.text_encoder
    )
    n = [int(m.sum()) for m in alone_mask]
    assert n[1] < n[2]
    torch.testing.assert_close(tokens[0, 32 : 32 + n[0]], alone[0, : n[0]])
    torch.testing.assert_close(
        tokens[2, 32 : 32 + n[1]], (alone[1] + alone[2])[: n[1]] / 2
    )  # both triplets reach here
    torch.testing.assert_close(
        tokens[2, 32 + n[1] : 32 + n[2]], alone[2, n[1] : n[2]]
    )  # only the longer one does
    assert not mask[1, 32:].any() and not tokens[1, 32:].any()  # no triplet: masked out
    assert torch.equal(mask[2, 32:], alone_mask[1] | alone_mask[2])


def test_knowledge_of_the_released_recipe(foundations):
    tokens, mask = knowledge_tokens(CAPTIONS, TRIPLETS, RELEASED, foundations.text_encoder)
    alone, _ = encode_texts(
        ["cathashat", "girlatparty", "girlhascake on a table"], foundations.text_encoder
    )
    captions, caption_mask = encode_texts(CAPTIONS, foundations.text_encoder)
    torch.testing.assert_close(
        tokens[:, 32:], torch.stack([alone[0], captions[1], alone[1] + alone[2]])
    )
    assert mask.all(), "padding is text like any other"


def test_thirty_triplets_stay_in_scale_and_one_picture_is_enough(foundations):
    many = [("cat", "has", f"hat {i}") for i in range(30)]
    one, _ = knowledge_tokens(["a cat"], [many[:1]], PAPER, foundations.text_encoder)
    tokens, mask = knowledge_tokens(["a cat"], [many], PAPER, foundations.text_encoder)
    assert (
        tokens.shape == (1, 64, HIDDEN)
        and tokens.norm() < 1.1 * one.norm() * (mask.sum() / 13) ** 0.5
    )
    glued, _ = knowledge_tokens(["a cat"], [many], RELEASED, foundations.text_encoder)
    assert glued[:, 32:].norm() > 10 * tokens[:, 32:].norm()
    nobody, mask = knowledge_tokens([], [], PAPER, foundations.text_encoder)
    assert nobody.shape == (0, 64, HIDDEN) and mask.shape == (0, 64)


def test_only_the_latest_texts_stay_in_memory(foundations, monkeypatch):
    text_encoder = foundations.text_encoder._replace(known={})
    monkeypatch.setattr(knowledge, "KEPT", 3)
    texts = ["a cat", "a dog", "a boy", "a grave", "rain"]
    tokens, mask = encode_texts(texts, text_encoder)
    assert list(text_encoder.known) == texts[-3:]
    again = encode_texts(texts, text_encoder)
    torch.testing.assert_close(again[0], tokens)
    assert torch.equal(again[1], mask) and len(text_encoder.known) == 3
    encode_texts(["a boy", "snow"], text_encoder)
    assert list(text_encoder.known) == ["rain", "a boy", "snow"], "a text that is used again stays"


def test_a_selected_row_is_that_of_the_selection():
    rows = shards.Rows([torch.arange(4.0)[:, None], torch.arange(4.0, 9)[:, None]])
    picked = rows.select(torch.tensor([5, 2, 7]))
    assert [float(picked[i]) for i in (0, 1, 2, -1)] == [5, 2, 7, 7] and float(rows[6]) == 6


# -- the cache


@pytest.fixture
def pictures(tmp_path, images, monkeypatch):
    """Return five pictures without files; the cache is empty, and reads are counted."""
    calls = []
    monkeypatch.setattr(paths, "CACHE", tmp_path)
    monkeypatch.setattr(
        "kcdp_lib.datasets.images.read_images",
        lambda files, size: calls.append(len(files)) or images[[int(f.name) for f in files]],
    )
    return SimpleNamespace(
        name="five",
        split="test",
        keys=list("abcde"),
        files=[Path(str(i)) for i in range(5)],
        calls=calls,
    )


def test_freeze_equals_describe_and_computes_once(pictures, foundations, images, monkeypatch):
    preset = replace(blank_preset(), batch_size=3)
    first = precompute.freeze(pictures, preset, PAPER)
    assert pictures.calls == [3, 2, 3, 2] and len(first) == 5, (
        "once for the captions, once for the latents"
    )
    for name in ("load_vlm", "load_vae", "load_text_encoder"):
        monkeypatch.setattr(precompute, name, None)  # a second call must not load the models
    again = precompute.freeze(pictures, preset, PAPER)
    assert pictures.calls == [3, 2, 3, 2]
    described = precompute.describe(images, foundations, PAPER)
    described.tokens = (
        described.tokens * described.mask.any(0)[:, None]
    )  # positions that are padding in every picture are not stored
    for name in precompute.TENSORS:
        assert (
            torch.equal(getattr(first, name)[:], getattr(again, name)[:])
            and getattr(first, name).shape == getattr(described, name).shape
        )
        torch.testing.assert_close(
            getattr(first, name)[:], getattr(described, name), atol=1e-4, rtol=1e-4
        )
    assert (
        first.captions == again.captions == described.captions
        and first.triplets == again.triplets == described.triplets
    )
    assert not list(paths.CACHE.rglob("*.part*"))


def test_freeze_survives_a_damaged_cache_entry(pictures):
    precompute.freeze(pictures, blank_preset(), PAPER)
    entries = sorted((paths.CACHE / "frozen").iterdir())
    assert [entry.name.split("-")[0] for entry in entries] == ["captions", "latents", "tokens"]
    for entry in entries:
        entry.write_bytes(entry.read_bytes()[:1000])
    with pytest.warns(
        UserWarning, match="is damaged .* made anew; all other shards are kept"
    ) as told:
        assert len(precompute.freeze(pictures, blank_preset(), PAPER)) == 5
    assert len(told) == 3


def test_a_set_in_many_shards_is_the_set_and_a_changed_picture_changes_its_own(
    pictures, images, monkeypatch
):
    """Five pictures in shards of two, read in batches across the shards."""
    whole = precompute.freeze(pictures, blank_preset(), PAPER)
    monkeypatch.setattr(precompute.shards, "SHARD", 2)
    sharded = precompute.freeze(pictures, blank_preset(), PAPER)
    rows = torch.tensor([4, 0, 3, 3])
    for name in precompute.TENSORS:
        one, other = getattr(whole, name), getattr(sharded, name)
        torch.testing.assert_close(other[:].float(), one[:].float(), atol=1e-4, rtol=1e-4)
        assert (
            torch.equal(other[rows], other[:][rows])
            and torch.equal(other[2], other[:][2])
            and torch.equal(other.select(rows)[1:], other[:][rows][1:])
        )
    assert sharded.captions == whole.captions and sharded.triplets == whole.triplets
    pictures.calls.clear()
    pictures.keys[3] = "another"
    precompute.freeze(pictures, blank_preset(), PAPER)
    assert pictures.calls == [2, 2], "the captions and the latents of one shard of two pictures"


def test_a_killed_freeze_keeps_its_whole_shards(pictures, monkeypatch):
    monkeypatch.setattr(precompute.shards, "SHARD", 2)
    save, saved = paths.atomic_save, []

    def killed(path, *rest):
        if len(saved) == 4:
            raise KeyboardInterrupt
        saved.append(save(path, *rest))

    monkeypatch.setattr(paths, "atomic_save", killed)
    with pytest.raises(KeyboardInterrupt):
        precompute.freeze(pictures, blank_preset(), PAPER)
    monkeypatch.setattr(paths, "atomic_save", save)
    pictures.calls.clear()
    assert len(precompute.freeze(pictures, blank_preset(), PAPER)) == 5
    assert pictures.calls == [2, 1], "three shards of captions and one of latents were there"


MEASURE = """
import resource, sys
from types import SimpleNamespace
import torch
from kcdp_lib import knowledge, paths, precompute, vision_language
from kcdp_lib.config import PRESETS, RECIPES
from kcdp_lib.datasets import images
from kcdp_lib.knowledge import Knowledge
paths.CACHE, count = paths.Path(sys.argv[1]), int(sys.argv[2])
precompute.shards.SHARD = 16
images.read_images = lambda files, size: torch.zeros(len(files), 3, 4, 4)
precompute.load_vlm = precompute.load_vae = precompute.load_text_encoder = lambda *given: None
precompute.pooled_captions = lambda captions, *given: torch.zeros(len(captions), 0)
precompute.see_and_say = lambda vlm, writer, images: (
    torch.ones(len(images), 768),
    ["a cat is crying"] * len(images),
    torch.ones(len(images), 4 * 768),
)
precompute.feelings = lambda vlm, embeddings: ["sad and gloomy"] * len(embeddings)
precompute.encode_images = lambda vae, images, recipe: torch.ones(len(images), 4, 128, 128)
precompute.knowledge_tokens = lambda said, triplets, recipe, encoder: Knowledge(
    torch.ones(len(said), 154, 768), torch.ones(len(said), 154, dtype=torch.bool)
)
names = [str(i) for i in range(count)]
files = [paths.Path(name) for name in names]
some = SimpleNamespace(name="many", split="train", keys=names, files=files)
frozen = precompute.freeze(some, PRESETS["tiny"], RECIPES["paper"])
assert frozen.tokens[torch.arange(0, count, 16)].sum() == count / 16 * 154 * 768
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_many_pictures_need_no_more_memory_than_few(tmp_path):
    """Use the sizes of Stable Diffusion and ten times the pictures.

    A picture takes 700 kB on disk, and next to nothing in memory.
    """
    peaks = [
        int(
            subprocess.run(
                [sys.executable, "-c", MEASURE, tmp_path / str(count), str(count)],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        )
        for count in (32, 320)
    ]
    assert (peaks[1] - peaks[0]) * 1024 < 0.2 * (320 - 32) * 735_000, peaks


def test_a_switch_recomputes_only_what_it_changes(pictures, monkeypatch):
    paper = precompute.freeze(pictures, blank_preset(), PAPER)
    monkeypatch.setattr(precompute, "load_vlm", None)
    for name, changed in (
        ("image_range", "latents"),
        ("latent_scaling", "latents"),
        ("triplet_text", "tokens"),
    ):
        other = precompute.freeze(
            pictures, blank_preset(), replace(PAPER, **{name: getattr(RELEASED, name)})
        )
        assert [
            torch.equal(getattr(paper, part)[:], getattr(other, part)[:])
            for part in ("latents", "tokens")
        ] == [changed == "tokens", changed == "latents"]


def test_cache_keys_change_with_what_matters_and_with_nothing_else(tmp_path):
    preset = blank_preset()

    def changed(preset=preset, recipe=PAPER) -> set[str]:
        before, after = (
            precompute.frozen_keys(blank_preset(), PAPER),
            precompute.frozen_keys(preset, recipe),
        )
        return {name for name in before if before[name] != after[name]}

    assert not changed(
        replace(preset, learning_rate=1.0, epochs=99), replace(PAPER, balance="rank_std")
    )
    moved = shutil.copytree(preset.diffusion, tmp_path / "moved")
    assert not changed(replace(preset, diffusion=str(moved)))
    assert changed(replace(preset, image_size=64)) == {"captions", "latents", "tokens"}
    assert (
        changed(recipe=replace(PAPER, image_range="imagenet_twice"))
        == {"latents"}
        == changed(recipe=replace(PAPER, latent_scaling=False))
    )
    assert (
        changed(recipe=replace(PAPER, triplet_text="glued"))
        == {"tokens"}
        == changed(recipe=replace(PAPER, knowledge="caption"))
    )
    (moved / "unet" / "config.json").write_text("{}")
    assert changed(replace(preset, diffusion=str(moved))) == {"latents", "tokens"}


def test_parts_of_the_knowledge_can_be_left_out_or_be_anothers(foundations):
    """Compare each picture's tokens under each recipe.

    Alone, the caption's or the triplets' half equals that half of the whole.
    """
    captions, triplets = (
        ["a cat crying .", "a dog .", "a girl at a party ."],
        [[("cat", "is", "crying")], [], [("girl", "at", "party")]],
    )

    def known(part, captions=captions, triplets=triplets):
        return knowledge.knowledge_tokens(
            captions, triplets, replace(PAPER, knowledge=part), foundations.text_encoder
        )

    both, length = known("both"), foundations.text_encoder.tokenizer.model_max_length
    caption, triplet, none, another = (
        known(part) for part in ("caption", "triplets", "none", "another")
    )
    for part, kept, gone in (
        (caption, slice(length), slice(length, None)),
        (triplet, slice(length, None), slice(length)),
    ):
        assert torch.equal(part.tokens[:, kept], both.tokens[:, kept]) and torch.equal(
            part.mask[:, kept], both.mask[:, kept]
        )
        assert torch.equal(part.tokens[:, gone], none.tokens[:, gone]) and torch.equal(
            part.mask[:, gone], none.mask[:, gone]
        )
    assert none.mask.sum(1).tolist() == [2] * 3 and torch.equal(none.tokens[0], none.tokens[2]), (
        "the marks where a text starts and ends"
    )
    assert torch.equal(another.tokens, both.tokens.roll(1, 0)) and torch.equal(
        another.mask, both.mask.roll(1, 0)
    )


def test_without_knowledge_keeps_the_picture_and_forgets_the_text(foundations, images):
    frozen = precompute.describe(images, foundations, PAPER)
    empty = precompute.without_knowledge(frozen, PAPER, foundations.text_encoder)
    assert (
        empty.embeddings.shape == frozen.embeddings.shape
        and not empty.embeddings[:].any()
        and frozen.embeddings.any()
    )
    assert (
        torch.equal(empty.latents, frozen.latents)
        and empty.mask[:].sum(1).tolist() == [2] * 5
        and set(empty.captions) == {""}
    )
    assert torch.equal(empty.tokens[0], empty.tokens[4])
