"""Chapter 01: pictures by name, and the classes of two taxonomies."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from kcdp_lib import datasets, world
from kcdp_lib.datasets import EMOTIONS
from kcdp_lib.errors import KCDPError
from kcdp_lib.world import EIGHT, SIX, Dials

COUNT = 16


@pytest.fixture
def few(tmp_path, monkeypatch):
    """Shrink the splits to sixteen pictures, drawn into a cache of their own."""
    monkeypatch.setattr(datasets.paths, "CACHE", tmp_path)
    for split in datasets.SIZES:
        monkeypatch.setitem(datasets.SIZES, split, COUNT)


def by_name(pictures) -> dict:
    """Return {file name: (SHA of its bytes, name of its class)}."""
    return {
        file.name: (key, pictures.classes[label])
        for file, key, label in zip(pictures.files, pictures.keys, pictures.labels, strict=True)
    }


def save(path, mode="RGB", size=(40, 30), colour=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour if colour is not None else hash(path.name) % 200).save(path)
    return path


# ---------------------------------------------------------------- the built-in domains


def test_domains_are_the_benchmarks_and_real_art():
    assert world.BENCHMARK == ("photos", "stickers", "sketches", "paintings")
    assert datasets.DOMAINS == (*world.BENCHMARK, "noto", *datasets.ART) and EMOTIONS == SIX
    with pytest.raises(
        KCDPError,
        match=(
            "'icons' is neither a known domain nor a folder; choose one of photos, stickers, "
            "sketches, paintings, noto, art-noto"
        ),
    ):
        datasets.load("icons", "train")  # for pre-training only


@pytest.mark.parametrize("domain", world.BENCHMARK)
def test_a_built_in_domain_is_loaded_by_name(few, domain):
    train, test = (
        datasets.load(domain, "train", seed=9),
        datasets.load(domain, "test", seed=9, size=32),
    )
    assert (
        len(train) == len(test) == COUNT
        and train.name == domain
        and not train.transductive
        and not train.skipped
    )
    assert datasets.read_images(train.files, 64).shape == (COUNT, 3, 64, 64) and Image.open(
        test.files[0]
    ).size == (32, 32)
    assert (
        not set(train.keys) & set(datasets.load(domain, "train", seed=8).keys)
        and len(set(train.keys)) == COUNT
    )
    scene = world.sample_scene("train", 9, int(train.files[0].stem), domain)
    drawn = world.render(scene, domain, datasets.SOURCE_SIDE)
    assert np.array_equal(np.asarray(drawn), np.asarray(Image.open(train.files[0])))


def test_labels_are_those_of_the_metadata(few):
    pictures = datasets.load("stickers", "train")
    rows = {
        row["file_name"]: row
        for row in map(
            json.loads, (pictures.files[0].parent / "metadata.jsonl").read_text().splitlines()
        )
    }
    assert len(rows) == COUNT
    for name, (_, emotion) in by_name(pictures).items():
        assert rows[name]["label"] in EIGHT and emotion == world.label_of(rows[name]["label"])


# ---------------------------------------------------------------- dials


def test_dials_reach_the_pictures(few):
    far, near = (
        datasets.load("stickers", "train", dials=dials) for dials in (Dials(), Dials(style_gap=0))
    )
    assert not set(far.keys) & set(near.keys)
    assert {name: emotion for name, (_, emotion) in by_name(far).items()} == {
        name: emotion for name, (_, emotion) in by_name(near).items()
    }, "style is no emotion"
    drawn = world.render(
        world.sample_scene("train", 0, 3, "stickers", Dials(style_gap=0)),
        "stickers",
        datasets.SOURCE_SIDE,
        Dials(style_gap=0),
    )
    assert np.array_equal(
        np.asarray(drawn), np.asarray(Image.open(near.files[0].parent / "000003.png"))
    )


def test_the_trap_is_in_the_source_alone(few):
    gaps, trap = Dials(style_gap=0, event_gap=0), Dials(spurious=1)
    photos, stickers = (
        [datasets.load(domain, "train", dials=dials).key for dials in (Dials(), gaps, trap)]
        for domain in ("photos", "stickers")
    )
    assert photos[0] == photos[1] != photos[2] and stickers[0] == stickers[2] != stickers[1]


def test_dials_touch_nothing_that_is_not_built_in(tmp_path):
    save(tmp_path / "x.png")
    for name in (tmp_path, "noto"):
        assert (
            datasets.load(name, "train", dials=Dials(style_gap=0, spurious=1)).key
            == datasets.load(name, "train").key
        )


def test_a_dial_out_of_range_gets_a_sentence(few, tmp_path):
    with pytest.raises(KCDPError, match="style_gap=3 must be a number from 0 to 1"):
        datasets.load("stickers", "train", dials=Dials(style_gap=3))
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------- taxonomies


@pytest.mark.parametrize("domain", ("photos", "paintings"))
def test_both_taxonomies_have_the_same_pictures(few, domain):
    six, eight = (datasets.load(domain, "test", taxonomy=taxonomy) for taxonomy in ("six", "eight"))
    assert six.files == eight.files and six.key == eight.key
    assert (six.taxonomy, six.classes, eight.taxonomy, eight.classes) == (
        "six",
        SIX,
        "eight",
        EIGHT,
    )
    assert [six.classes[label] for label in six.labels] == [
        world.label_of(eight.classes[label]) for label in eight.labels
    ]
    for file, label in zip(eight.files, eight.labels, strict=True):
        assert EIGHT[label] == world.sample_scene("test", 0, int(file.stem), domain).emotion


@pytest.mark.parametrize(
    "word, six, eight",
    [
        ("Joy", "happy", None),
        ("happy", "happy", None),
        ("surprised", "surprise", None),
        ("amused", "happy", "amusement"),
        ("contentment", "happy", "contentment"),
        ("AWE", "surprise", "awe"),
        ("excitement", "surprise", "excitement"),
        ("angry", "anger", "anger"),
        ("sad", "sadness", "sadness"),
        ("afraid", "fear", "fear"),
        ("disgusted", "disgust", "disgust"),
        ("cats", None, None),
    ],
)
def test_folders_are_named_by_words_for_emotions(tmp_path, word, six, eight):
    save(tmp_path / "folders" / word / "x.png")
    save(tmp_path / "told" / "x.png")
    (tmp_path / "told" / "metadata.jsonl").write_text(
        json.dumps({"file_name": "x.png", "label": word})
    )
    for folder in ("folders", "told"):
        found = [
            datasets.load(tmp_path / folder, "train", taxonomy=taxonomy)
            for taxonomy in ("six", "eight")
        ]
        assert [
            pictures.classes[pictures.labels[0]] if pictures.labels[0] >= 0 else None
            for pictures in found
        ] == [six, eight]


def test_every_class_has_its_own_name_as_a_word():
    for taxonomy, classes in world.TAXONOMIES.items():
        index = datasets.class_index(taxonomy)
        assert [index[name] for name in classes] == list(range(len(classes))) and set(
            index.values()
        ) == set(range(len(classes)))


def test_noto_has_no_label_for_what_is_several_of_eight():
    six, eight = datasets.load("noto", "train"), datasets.load("noto", "train", taxonomy="eight")
    assert six.files == eight.files
    names = [
        [pictures.classes[label] if label >= 0 else None for label in pictures.labels]
        for pictures in (six, eight)
    ]
    assert names[1] == [None if name in ("happy", "surprise") else name for name in names[0]]
    test = datasets.load("noto", "test", taxonomy="eight")
    assert np.bincount(test.labels, minlength=8).tolist() == [0, 0, 0, 0, 6, 2, 4, 7]


# ---------------------------------------------------------------- folders


def test_noto_is_whole():
    train, test = datasets.load("noto", "train"), datasets.load("noto", "test")
    assert len(train) == 128 and len(test) == 42 and train.transductive and not train.skipped
    assert np.bincount(test.labels, minlength=6).tolist() == [4, 19, 2, 4, 7, 6]


def test_order_and_split_do_not_depend_on_names(tmp_path):
    for i, emotion in enumerate(EMOTIONS * 2):
        save(tmp_path / "a" / emotion / f"{i}.png", colour=(i, 0, 0))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    for i, path in enumerate(sorted((tmp_path / "b").rglob("*.png"))):
        path.rename(path.with_name(f"{99 - i}.png"))
    a, b = datasets.load(tmp_path / "a", "train"), datasets.load(tmp_path / "b", "train")
    assert a.keys == b.keys and a.key == b.key and a.labels.tolist() == b.labels.tolist()


def test_divided_folders_and_metadata(tmp_path):
    save(tmp_path / "train" / "x.png", colour=1)
    save(tmp_path / "test" / "joy" / "y.png", colour=2)
    save(tmp_path / "test" / "z.png", colour=3)
    (tmp_path / "test" / "metadata.csv").write_text("file_name,label\nz.png,sad\n")
    train, test = datasets.load(tmp_path, "train"), datasets.load(tmp_path, "test")
    assert train.labels.tolist() == [-1] and not test.transductive
    assert {
        file.name: EMOTIONS[label] for file, label in zip(test.files, test.labels, strict=True)
    } == {
        "y.png": "happy",
        "z.png": "sadness",
    }


def test_an_unlabelled_folder_has_no_test(tmp_path):
    save(tmp_path / "x.png")
    assert len(datasets.load(tmp_path, "train")) == 1 and len(datasets.load(tmp_path, "test")) == 0


def test_bad_pictures_are_read_properly_or_skipped_and_counted(tmp_path):
    save(tmp_path / "good.png", colour=(200, 10, 10))
    save(tmp_path / "cmyk.jpg", "CMYK", colour=(0, 200, 200, 0))
    save(tmp_path / "one_pixel.png", size=(1, 1), colour=(1, 2, 3))
    save(tmp_path / "grey16.tif", "I;16", colour=700)
    save(tmp_path / "see_through.png", "RGBA", colour=(0, 0, 0, 0))
    save(tmp_path / "palette.gif", "P", colour=7)
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "animated.gif", save_all=True, append_images=frames[1:])
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    (tmp_path / "truncated.jpg").write_bytes((tmp_path / "cmyk.jpg").read_bytes()[:200])
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("no picture")
    pictures = datasets.load(tmp_path, "train")
    broken = {path.name for path, _ in pictures.skipped}
    assert broken == {"broken.png", "truncated.jpg", "empty.jpg"}
    assert pictures.left_out == {"ending .txt": 1}
    images = datasets.read_images(pictures.files, 32)
    assert images.shape == (7, 3, 32, 32)
    means = {
        path.name: image.float().mean((1, 2)).tolist()
        for path, image in zip(pictures.files, images, strict=True)
    }
    assert means["see_through.png"] == [255, 255, 255] and means["one_pixel.png"] == [1, 2, 3]
    assert means["grey16.tif"] == [2, 2, 2], "700 of 65,535"
    red, _, blue = means["animated.gif"]
    assert red > 250 and blue < 5, "the first frame is the red one"
    with pytest.raises(KCDPError, match="broken.png cannot be read as a picture"):
        datasets.read_images([tmp_path / "broken.png"], 32)


# ---------------------------------------------------------------- shares of the classes


COLUMNS = "file_name,label,Surprise,JOY,disgust,fear,Sad,anger,neutral,comment"


def listed_shares(root, *lines: str, taxonomy: str = "six", header: str = COLUMNS):
    """Write pictures 0.png, 1.png, ... with a metadata row each; return them and their order."""
    files = [save(root / f"{i}.png", colour=(i, 0, 0)) for i in range(len(lines))]
    rows = [f"{file.name},{line}" for file, line in zip(files, lines, strict=True)]
    (root / "metadata.csv").write_text("\n".join([header, *rows]))
    pictures = datasets.load(root, "train", taxonomy=taxonomy)
    return pictures, [pictures.files.index(file) for file in files]


def test_shares_are_read_from_columns_named_after_the_classes(tmp_path):
    pictures, order = listed_shares(
        tmp_path,
        "happy,0,3,0,0,1,0,4,votes",
        ",0.1,0.2,0.1,0.1,0.1,0.4,,people are not sure",
        "fear,,,,,,,,nobody was asked",
        "anger,0,0,0,0,0,0,9,all of them neutral",
    )
    assert pictures.shares.dtype == np.float32 and pictures.shares.shape == (4, 6)
    shares = pictures.shares[order]
    np.testing.assert_allclose(shares[0], [0, 0.75, 0, 0, 0.25, 0])
    np.testing.assert_allclose(shares[1], [0.1, 0.2, 0.1, 0.1, 0.1, 0.4], rtol=1e-6)
    assert np.isnan(shares[2:]).all() and not pictures.notes and not pictures.left_out
    assert [int(label) for label in pictures.labels[order]] == [1, -1, 3, 5]


@pytest.mark.parametrize("bad", ["-0.1", "much", "nan", "inf", ""])
def test_shares_that_cannot_be_used_are_counted_and_the_label_stays(tmp_path, bad):
    pictures, order = listed_shares(
        tmp_path, "happy,0,1,0,0,0,0,0,", f"fear,0,0,0,{bad},1,0,0,", "anger,0,0,0,0,0,2,0,"
    )
    assert np.isnan(pictures.shares[order]).any(1).tolist() == [False, True, False]
    assert pictures.labels[order].tolist() == [1, 3, 5]
    assert not pictures.left_out
    assert pictures.notes == [
        "rows of metadata.csv whose shares cannot be used (1): "
        f"line 3 has {bad!r} for a probability"
    ]


def test_shares_without_a_label_name_the_likeliest_class(tmp_path):
    """Two of the eight columns may be one of the six; text in a synonym's column is no share."""
    pictures, order = listed_shares(
        tmp_path,
        "2,0,2,0,0,0,0,3,a man",
        "0,0,0,0,1,0,0,2,",
        "1,0,0,0,1,0,0,0,",
        header=",".join(["file_name", *EIGHT, "content"]),
    )
    classes = [EMOTIONS[label] if label >= 0 else None for label in pictures.labels[order]]
    assert classes == ["happy", "sadness", None]
    assert pictures.notes == [
        "metadata.csv has no column label or emotion, so the class with the largest share is the "
        "label"
    ]


def test_a_picture_that_most_find_neutral_has_no_label(tmp_path):
    pictures, order = listed_shares(
        tmp_path,
        "0,0,0,0,1,0,9",
        "0,0,0,0,1,0,0",
        header="file_name,surprise,happy,disgust,fear,sad,anger,Neutral",
    )
    assert pictures.labels[order].tolist() == [-1, EMOTIONS.index("sadness")]
    assert pictures.shares[order].argmax(1).tolist() == [4, 4], "shares are those of the classes"


def test_columns_that_are_no_distribution_are_no_shares(tmp_path):
    few, _ = listed_shares(tmp_path / "a", "happy,x,1", header="file_name,label,fear,happy")
    none, _ = listed_shares(tmp_path / "b", "happy,0,0,0,0,0,0,1,")
    assert few.shares is None and none.shares is None and not few.notes and not none.notes


def test_shares_of_eight_are_added_up_for_six_and_not_the_other_way_round(tmp_path):
    header = ",".join(["file_name", "label", *EIGHT])
    line = ",".join(["", *(str(i) for i in range(8))])
    for taxonomy, classes in world.TAXONOMIES.items():
        pictures, _ = listed_shares(tmp_path / taxonomy, line, taxonomy=taxonomy, header=header)
        expected = dict.fromkeys(classes, 0.0)
        for i, word in enumerate(EIGHT):
            expected[world.label_of(word, taxonomy)] += i / 28
        np.testing.assert_allclose(pictures.shares[0], list(expected.values()), rtol=1e-6)
    six, _ = listed_shares(tmp_path / "c", "happy,0,3,0,0,1,0,4,", taxonomy="eight")
    assert six.shares is None


def test_shares_in_json_are_numbers_too(tmp_path):
    save(tmp_path / "x.png")
    shares = dict.fromkeys(SIX, 0) | {"fear": 3, "anger": "1"}
    for anger, told in (("1", [0, 0, 0, 0.75, 0, 0.25]), (True, None)):
        row = {"file_name": "x.png", **shares, "anger": anger}
        (tmp_path / "metadata.jsonl").write_text(json.dumps(row))
        pictures = datasets.load(tmp_path, "train")
        assert (None if pictures.shares is None else pictures.shares[0].tolist()) == told


def test_a_selection_keeps_the_shares_of_its_rows(tmp_path):
    pictures, order = listed_shares(
        tmp_path, "happy,0,1,0,0,0,0,0,", "fear,,,,,,,,", "anger,0,0,0,0,1,3,0,"
    )
    some = pictures.select([order[2], order[1]])
    np.testing.assert_allclose(some.shares[0], [0, 0, 0, 0, 0.25, 0.75])
    assert np.isnan(some.shares[1]).all() and pictures.select([order[1]]).shares is None
    assert datasets.load("noto", "test").shares is None
