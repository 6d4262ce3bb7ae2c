"""Chapter 01: the real data sets, as miniature folders in their published layouts."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kcdp_lib import adapt, datasets
from kcdp_lib.config import Config
from kcdp_lib.datasets import EMOTIONS, layouts
from kcdp_lib.errors import KCDPError
from kcdp_lib.world import EIGHT

SIX_OF_EIGHT = {
    "amusement": "happy",
    "contentment": "happy",
    "awe": "surprise",
    "excitement": "surprise",
    "anger": "anger",
    "disgust": "disgust",
    "fear": "fear",
    "sadness": "sadness",
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.paths, "CACHE", tmp_path / "cache")


def picture(path, number=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 16), (number % 251, number // 251, 7)).save(
        path, "PNG"
    )  # under any name: JPEG would merge neighbouring colours


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def emoset(root, nested=True, items=4, numbers=False, each=3):
    root = root / "EmoSet-118K"
    table = {"label2idx": {name: i for i, name in enumerate(EIGHT)}}
    write_json(root / "info.json", {"emotion": table, "scene": {}} if nested else table)
    for s, split in enumerate(("train", "val", "test")):
        rows = []
        for i, name in enumerate(EIGHT):
            for n in range(each):
                file = f"image/{name}/{name}_{s * 100 + n:05}.jpg"
                picture(root / file, 1000 * s + 10 * i + n)
                write_json(
                    root / f"annotation/{name}/{name}_{s * 100 + n:05}.json", {"brightness": 0.5}
                )
                label = i if numbers else name
                rows.append(
                    [
                        label,
                        *([f"{name}_{n}"] if items == 4 else []),
                        file,
                        f"annotation/{name}/{name}_{s * 100 + n:05}.json",
                    ]
                )
        write_json(root / f"{split}.json", rows)
    return root


def ser30k(root, categories=None, classes=None):
    root = root / "SER30K"
    for s, split in enumerate(("train", "val", "test")):
        rows = []
        for n in range(14):
            row = {
                "topic": f"topic {n % 2}",
                "file_name": f"{split}{n}.jpg",
                "text": "hi",
                "anno1": 1,
                "anno2": 1,
                "anno3": 2,
                "anno": n % 7 + 1,
            }
            picture(root / "Images" / row["topic"] / row["file_name"], 1000 * s + n)
            rows.append(row)
        write_json(
            root / "Annotations" / "image-level" / f"{split}.json",
            {"annotations": rows, **({"categories": categories} if categories else {})},
        )
    if classes:
        (root / "classes.txt").write_text("\n".join(classes))
    return root


def fi(root, below=False, slash="/"):
    root = root / "FI"
    names = ["Amusement", "Anger", "Awe", "Contentment", "Disgust", "Excitement", "Fear", "Sadness"]
    for s, split in enumerate(("train", "test")):
        for i, name in enumerate(names):
            picture((root / split if below else root) / name / f"{split}{i}.jpg", 100 * s + i)
        write_json(
            root / f"{split}.json",
            [[f"{name}{slash}{split}{i}.jpg", i] for i, name in enumerate(names)],
        )
    return root


def emo8(root):
    for s, split in enumerate(("train", "val", "test")):
        for i, name in enumerate(EIGHT):
            picture(root / "emo8" / split / name / f"{i}.png", 100 * s + i)
    return root / "emo8"


def emotionroi(root):
    root = root / "EmotionROI"
    for s, name in enumerate(("training", "testing")):
        lines = []
        for i, emotion in enumerate(("anger", "disgust", "fear", "joy", "sadness", "surprise")):
            picture(root / "images" / emotion / f"{s}.jpg", 100 * s + i)
            lines.append(f"{emotion}/{s}.jpg")
        (root / "training_testing_split").mkdir(exist_ok=True)
        (root / "training_testing_split" / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return root


def emotion6(root, shares=None):
    root = root / "Emotion6"
    lines = [
        "file\tvalence\tarousal\t"
        + "\t".join(f"prob. of {name}" for name in layouts.EMOTION6_CLASSES)
        + "\tprob. of neutral"
    ]
    for i, emotion in enumerate(layouts.EMOTION6_CLASSES):
        for n in range(10):
            picture(root / "images" / emotion / f"{n}.jpg", 100 * i + n)
            told = shares or [0.5 if j == i else 0.1 for j in range(6)]
            lines.append("\t".join(map(str, [f"{emotion}/{n}.jpg", 5.0, 4.0, *told, 0.0])))
    (root / "ground_truth.txt").write_text("\n".join(lines) + "\n")
    return root


WRITERS = {
    "emoset": emoset,
    "ser30k": ser30k,
    "fi": fi,
    "emo8": emo8,
    "emotionroi": emotionroi,
    "emotion6": emotion6,
}


def words(pictures):
    return {
        file.name: pictures.classes[label]
        for file, label in zip(pictures.files, pictures.labels, strict=True)
    }


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("items, numbers", [(4, False), (3, False), (3, True)])
def test_emoset_in_every_form_that_is_about(tmp_path, nested, items, numbers):
    emoset(tmp_path, nested, items, numbers)
    for taxonomy, of in (("six", SIX_OF_EIGHT), ("eight", {name: name for name in EIGHT})):
        pictures = datasets.load("emoset", "test", tmp_path, taxonomy=taxonomy)
        assert len(pictures) == 24 and not pictures.transductive and not pictures.skipped
        assert all(word == of[file.split("_")[0]] for file, word in words(pictures).items())


@pytest.mark.parametrize(
    "categories, classes, of_number_1, note",
    [
        (None, None, "surprise", "assumed"),
        (
            [
                {"id": 2, "name": "happy"},
                {"id": 1, "name": "anger"},
                *(
                    {"id": i, "name": name}
                    for i, name in enumerate(
                        ("fear", "sadness", "disgust", "surprise", "neutral"), 3
                    )
                ),
            ],
            None,
            "anger",
            "categories",
        ),
        (
            ["fear", "happy", "anger", "sadness", "disgust", "surprise", "neutral"],
            None,
            "fear",
            "categories",
        ),
        (
            ["fear", "happy", "anger", "sadness", "disgust", "surprise", "neutral"],
            ["disgust", "happy", "fear", "sadness", "anger", "surprise", "neutral"],
            "disgust",
            "classes.txt",
        ),
    ],
)
def test_ser30k_numbers_its_classes_from_one_in_an_order_that_can_be_set(
    tmp_path, categories, classes, of_number_1, note
):
    ser30k(tmp_path, categories, classes)
    pictures = datasets.load("ser30k", "train", tmp_path)
    assert words(pictures)["train0.jpg"] == of_number_1 == words(pictures)["train7.jpg"]
    assert len(pictures) == 12 and pictures.of_no_class == 2, "neutral is left out"
    neutral, order = pictures.notes
    assert note in order and neutral.endswith(
        "no class of taxonomy='six' (2 pictures): neutral (2)"
    )


def test_the_annotations_of_ser30k_may_number_their_classes_as_they_like(tmp_path):
    named = ("surprise", "happy", "anger", "fear", "sadness", "disgust", "neutral")
    ser30k(tmp_path, [{"id": 10 * i, "name": name} for i, name in enumerate(named, 1)])
    for path in tmp_path.rglob("*.json"):
        content = json.loads(path.read_text())
        for row in content["annotations"]:
            row["anno"] *= 10
        path.write_text(json.dumps(content))
    pictures = datasets.load("ser30k", "train", tmp_path)
    assert words(pictures)["train1.jpg"] == "happy" and len(pictures) == 12


def test_stickers_of_ser30k_that_are_several_of_eight_are_left_out(tmp_path):
    ser30k(tmp_path)
    assert (
        datasets.load("ser30k", "test", tmp_path, taxonomy="eight").of_no_class == 3 * 2
    )  # neutral, happy, surprise


@pytest.mark.parametrize("below, slash", [(False, "/"), (True, "\\")])
def test_fi_with_slashes_of_either_kind_and_pictures_in_either_place(tmp_path, below, slash):
    fi(tmp_path, below, slash)
    assert words(datasets.load("fi", "test", tmp_path, taxonomy="eight")) == {
        f"test{i}.jpg": name for i, name in enumerate(layouts.FI_CLASSES)
    }


def test_emo8_and_emotionroi(tmp_path):
    emo8(tmp_path), emotionroi(tmp_path)
    assert words(datasets.load("emo8", "val", tmp_path, taxonomy="eight")) == {
        f"{i}.png": name for i, name in enumerate(EIGHT)
    }
    found = datasets.load("emotionroi", "test", tmp_path)
    assert sorted(
        zip(
            (file.parent.name for file in found.files),
            (EMOTIONS[label] for label in found.labels),
            strict=True,
        )
    ) == sorted((name, {"joy": "happy"}.get(name, name)) for name in layouts.EMOTION6_CLASSES)
    with pytest.raises(KCDPError, match="EmotionROI has no split 'val'; choose one of train, test"):
        datasets.load("emotionroi", "val", tmp_path)


def test_emotion6_takes_the_likeliest_and_names_ties(tmp_path):
    emotion6(tmp_path / "a")
    train, test = (datasets.load("emotion6", split, tmp_path / "a") for split in ("train", "test"))
    assert (
        len(train) + len(test) == 60
        and not set(train.keys) & set(test.keys)
        and 5 <= len(test) <= 20
        and not train.notes
    )
    assert all(
        EMOTIONS[label] == {"joy": "happy"}.get(file.parent.name, file.parent.name)
        for file, label in zip(train.files, train.labels, strict=True)
    )
    emotion6(tmp_path / "b", [0.1, 0.3, 0.3, 0.1, 0.1, 0.1])
    tied = datasets.load("emotion6", "train", tmp_path / "b")
    assert set(tied.labels) == {EMOTIONS.index("disgust")}
    assert f"several likeliest emotions, which take the first ({len(tied)})" in tied.notes[0]
    assert "(disgust = fear)" in tied.notes[0]


def test_emotion6_gives_its_distribution_without_neutral(tmp_path):
    emotion6(tmp_path, [0.1, 0.3, 0.2, 0.1, 0.05, 0.05])  # the remaining fifth is neutral
    pictures = datasets.load("emotion6", "train", tmp_path)
    told = {"anger": 0.1, "disgust": 0.3, "fear": 0.2, "happy": 0.1, "sadness": 0.05}
    expected = [told.get(name, 0.05) / 0.8 for name in EMOTIONS]
    np.testing.assert_allclose(pictures.shares, [expected] * len(pictures), rtol=1e-6)
    eight = datasets.load("emotion6", "train", tmp_path, taxonomy="eight")
    assert eight.shares is None and len(eight) == len(pictures)


@pytest.mark.parametrize("name", WRITERS)
def test_data_root_may_be_the_folder_itself(tmp_path, name):
    root = WRITERS[name](tmp_path)
    assert datasets.load(name, "train", tmp_path).key == datasets.load(name, "train", root).key


@pytest.mark.parametrize("name", WRITERS)
def test_labels_and_order_do_not_reach_a_model_by_the_order(tmp_path, name):
    WRITERS[name](tmp_path)
    pictures = datasets.load(name, "train", tmp_path)
    assert pictures.keys == sorted(pictures.keys) and (pictures.labels >= 0).all()


@pytest.mark.parametrize("name, layout", layouts.REAL.items())
def test_a_wrong_root_is_told_what_was_expected(tmp_path, name, layout):
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(KCDPError, match="lacks .*; expected are") as told:
        datasets.load(name, "train", tmp_path / "elsewhere")
    assert all(part in str(told.value) for part in layout.expected) and "\n" not in str(told.value)
    with pytest.raises(
        KCDPError, match=f"set data_root to the folder that holds {layout.folders[0]}/"
    ):
        Config(target=name).check()
    WRITERS[name](tmp_path)
    Config(target=name, data_root=str(tmp_path)).check()


def test_a_report_counts_what_is_missing_unreadable_and_of_no_class(tmp_path):
    root = ser30k(tmp_path)
    (root / "Images" / "topic 0" / "train0.jpg").unlink()
    (root / "Images" / "topic 1" / "train1.jpg").write_bytes(b"no picture")
    table, notes = datasets.report("ser30k", tmp_path)
    assert table.loc["train"].to_dict() == {
        "copies": 0,
        "pictures": 10,
        "missing": 1,
        "unreadable": 1,
        "no class": 2,
        "surprise": 1,
        "happy": 1,
        "disgust": 2,
        "fear": 2,
        "sadness": 2,
        "anger": 2,
    }
    assert (
        list(table.index) == ["train", "val", "test"]
        and table.loc["test", "pictures"] == 12
        and len(notes) == 2
    )
    for split in ("train", "test"):
        picture(tmp_path / "mine" / split / "joy" / "a.png", 3)
    assert datasets.report(tmp_path / "mine")[0].loc["test", ["pictures", "happy"]].tolist() == [
        1,
        1,
    ]


def test_adaptation_from_emoset_to_ser30k(tmp_path):
    """Run the real command on pictures without content.

    It matters only that every part takes the real layouts.
    """
    emoset(tmp_path), ser30k(tmp_path)
    found = adapt(
        source="emoset",
        target="ser30k",
        data_root=str(tmp_path),
        out_dir=str(tmp_path / "run"),
        epochs=1,
    )
    assert (
        found["source"]["pictures"] == 24
        and found["target"]["pictures"] == 12
        and not found["target"]["transductive"]
    )
    assert found["target"]["test"]["n"] == 12 and (tmp_path / "run" / "predictions.jsonl").exists()


# ---------------------------------------------------------------- incomplete lists


@pytest.mark.parametrize("below", ("image-level", ""))
@pytest.mark.parametrize("folder", ("SER30K", "SER_Dataset", "ser_dataset", "SER30K/SER_Dataset"))
def test_ser30k_as_its_readme_and_as_its_loader_have_it(tmp_path, folder, below):
    unpacked = ser30k(tmp_path / "download")
    annotations = unpacked / "Annotations"
    for file in (annotations / "image-level").iterdir():
        file.rename(annotations / below / file.name)
    root = tmp_path / "data" / folder
    root.parent.mkdir(parents=True)
    unpacked.rename(root)
    for data_root in (tmp_path / "data", root):
        for split in ("train", "val", "test"):
            assert len(datasets.load("ser30k", split, data_root)) == 12


def rewrite(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def spoil_lines(path, *lines: str):
    path.write_text("\n".join([*path.read_text().splitlines(), *lines]))


def spoil_emoset(root):
    rows = [[None, "image/awe/awe_00000.jpg", "a"], ["awe", None, "a"], [8, "b.jpg", "a"], "awe"]
    rewrite(root / "train.json", lambda content: content.extend([*rows, ["awe", "c.jpg"]]))


def spoil_ser30k(root):
    def change(content):
        rows = content["annotations"]
        for row, label in zip(rows, (None, "", 11, "12", 2.5, True, [1, 2]), strict=False):
            row["anno"] = label
        del rows[7]["topic"], rows[8]["anno"]
        rows[9]["anno"], rows[10]["anno"] = " 2 ", 3.0  # these two still count as numbers

    rewrite(root / "Annotations" / "image-level" / "train.json", change)


def spoil_fi(root):
    rows = [["Awe/a.jpg"], ["Awe/b.jpg", -2], [3, 3], None, ["Awe/c.jpg", None]]
    rewrite(root / "train.json", lambda content: content.extend(rows))


def spoil_emotionroi(root):
    spoil_lines(root / "training_testing_split" / "training.txt", "7.jpg", "  ", "", "/")


def spoil_emotion6(root):
    for name in ("anger/0.jpg", "anger/1.jpg"):
        for split in ("", "x"):  # one of the two names is hashed into training
            spoil_lines(root / "ground_truth.txt", f"{name}{split}\t5.0\t4.0\t0.1\tnan\t0.1")


@pytest.mark.parametrize(
    "name, spoil, kept, unusable, named",
    [
        ("emoset", spoil_emoset, 24, 5, "row 25 has no label"),
        (
            "ser30k",
            spoil_ser30k,
            5,
            9,
            "row 1 has no label, row 2 has no label, row 3 has the label 11",
        ),
        ("fi", spoil_fi, 8, 5, "row 9 is no pair of picture and number"),
        ("emotionroi", spoil_emotionroi, 6, 2, "row 7 has no class before its file name"),
    ],
)
def test_a_row_that_cannot_be_used_is_counted_and_named(
    tmp_path, name, spoil, kept, unusable, named
):
    spoil(WRITERS[name](tmp_path))
    pictures = datasets.load(name, "train", tmp_path)
    assert len(pictures) + pictures.of_no_class == kept
    assert pictures.counts()["left_out"]["row that cannot be used"] == unusable
    assert any(f"that cannot be used ({unusable}): {named}" in note for note in pictures.notes)
    if name == "ser30k":
        assert (
            words(pictures)["train9.jpg"] == "happy" and words(pictures)["train10.jpg"] == "disgust"
        )


def test_a_line_of_emotion6_that_cannot_be_used_is_counted(tmp_path):
    root = emotion6(tmp_path)
    whole = [len(datasets.load("emotion6", split, tmp_path)) for split in ("train", "test")]
    spoil_emotion6(root)
    counts = [datasets.load("emotion6", split, tmp_path).counts() for split in ("train", "test")]
    assert [of["pictures"] for of in counts] == whole
    assert sum(of["left_out"].get("row that cannot be used", 0) for of in counts) == 4
    assert any("has 'nan' for a probability" in note for of in counts for note in of["notes"])


@pytest.mark.parametrize("header", (True, False))
def test_emotion6_with_and_without_its_header(tmp_path, header):
    root = emotion6(tmp_path)
    if not header:
        first, *lines = (root / "ground_truth.txt").read_text().splitlines()
        (root / "ground_truth.txt").write_text("\r\n".join(lines))
    assert sum(len(datasets.load("emotion6", split, tmp_path)) for split in ("train", "test")) == 60


@pytest.mark.parametrize("name", WRITERS)
def test_folders_and_names_may_differ_in_case_and_slashes(tmp_path, name):
    root = WRITERS[name](tmp_path / "a")
    keys = {split: datasets.load(name, split, root).key for split in ("train", "test")}
    for path in sorted(root.rglob("*"), key=lambda path: -len(path.parts)):
        path.rename(path.with_name(path.name.swapcase()))
    moved = root.rename(tmp_path / root.name.swapcase())
    for data_root in (tmp_path, moved):
        for split, key in keys.items():
            assert datasets.load(name, split, data_root).key == key


def test_emo8_leaves_out_what_is_in_no_class_or_no_picture(tmp_path):
    root = emo8(tmp_path)
    picture(root / "train" / "loose.png", 900)
    picture(root / "train" / "awe" / ".thumbs" / "x.png", 901)
    picture(root / "train" / "awe" / "pack" / "deep.png", 902)
    (root / "train" / "awe" / "a.txt").write_text("x")
    pictures = datasets.load("emo8", "train", tmp_path, taxonomy="eight")
    assert words(pictures)["deep.png"] == "awe" and len(pictures) == 9
    assert pictures.counts()["left_out"] == {"no class": 1, "hidden folder": 1, "ending .txt": 1}


def test_pictures_of_two_splits_and_two_classes_are_told_in_a_report(tmp_path):
    root = emo8(tmp_path)
    copy = (root / "train" / "awe" / "1.png").read_bytes()
    (root / "train" / "fear" / "copy.png").write_bytes(copy)
    (root / "test" / "awe" / "copy.png").write_bytes(copy)
    table, notes = datasets.report("emo8", tmp_path)
    assert table.loc["train", "copies"] == 1 and table.loc["train", "fear"] == 2
    assert any(
        "under two classes" in note and "awe/1.png = fear/copy.png" in note for note in notes
    )
    assert "pictures of emo8 (train) that are also in emo8 (test): 1" in notes


# ---------------------------------------------------------------- repeated reads


def test_what_was_read_is_not_read_again_until_it_changes(tmp_path, monkeypatch):
    looked = []
    look = datasets.index._look
    monkeypatch.setattr(datasets.index, "_look", lambda path: looked.append(path) or look(path))
    emo8(tmp_path)
    first = datasets.load("emo8", "train", tmp_path)
    assert (
        len(looked) == 8
        and datasets.load("emo8", "train", tmp_path).keys == first.keys
        and len(looked) == 8
    )
    picture(first.files[0], 99999)
    again = datasets.load("emo8", "train", tmp_path)
    assert looked[8:] == [first.files[0]] and set(first.keys) - set(again.keys) == {first.keys[0]}


def test_a_name_is_another_picture_in_another_folder(tmp_path, monkeypatch):
    """Two working directories hold a file with the same relative name, size and time."""
    found = []
    for i, folder in enumerate((tmp_path / "a", tmp_path / "b")):
        folder.mkdir()
        Image.new("RGB", (4, 4), (i, 0, 0)).save(
            folder / "x.bmp"
        )  # uncompressed, so both have one size
        os.utime(folder / "x.bmp", ns=(10**18, 10**18))
        monkeypatch.chdir(folder)
        found.append(datasets.index.inspect([Path("x.bmp")])[Path("x.bmp")][0])
    assert found[0] and found[1] and found[0] != found[1]


def test_a_first_reading_that_is_killed_goes_on(tmp_path, monkeypatch):
    files = [tmp_path / f"{i}.png" for i in range(1500)]
    for i, file in enumerate(files):
        picture(file, i)
    look = datasets.index._look

    def killed(path):
        if path == files[1200]:
            raise KeyboardInterrupt
        return look(path)

    with monkeypatch.context() as patch:
        patch.setattr(datasets.index, "_look", killed)
        with pytest.raises(KeyboardInterrupt):
            datasets.index.inspect(files)
    looked = []
    monkeypatch.setattr(datasets.index, "_look", lambda path: looked.append(path) or look(path))
    assert (
        len({sha for sha, error in datasets.index.inspect(files).values() if error is None}) == 1500
        and len(looked) == 500
    )
    assert np.unique([path.name for path in looked]).size == 500
