"""Chapter 01: users' own folders: what is understood, and that the rest is counted."""

import json
import os
import shutil
import unicodedata

import pytest
from PIL import Image

from kcdp_lib import datasets
from kcdp_lib.datasets import folders, words
from kcdp_lib.errors import KCDPError


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.paths, "CACHE", tmp_path / "cache")


@pytest.fixture
def root(tmp_path):
    """Return the path of a user's own folder."""
    return tmp_path / "mine"


def fill(root, *names: str, first: int = 0) -> None:
    """Write pictures with these names, no two alike."""
    for shade, name in enumerate(names, first):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6, 6), (shade, 1, 2)).save(root / name, "PNG")


def labels(root, split: str = "train", taxonomy: str = "six") -> dict[str, str | None]:
    """Return {relative name: class} of the loaded pictures."""
    pictures = datasets.load(root, split, taxonomy=taxonomy)
    return {
        file.relative_to(root).as_posix(): pictures.classes[label] if label >= 0 else None
        for file, label in zip(pictures.files, pictures.labels, strict=True)
    }


def notes(root, split: str = "train", taxonomy: str = "six") -> str:
    return "\n".join(datasets.load(root, split, taxonomy=taxonomy).notes)


# ---------------------------------------------------------------- words


@pytest.mark.parametrize(
    "written, six",
    [
        ("Fearful", "fear"),
        ("scared", "fear"),
        ("Disgusted", "disgust"),
        ("Surprised", "surprise"),
        ("suprise", "surprise"),
        ("RAGE", "anger"),
        ("sorrow", "sadness"),
        ("contented", "happy"),
        ("joyful", "happy"),
        ("0_anger", "anger"),
        ("01-happy", "happy"),
        ("1. sad", "sadness"),
        ("(3) Awe", "surprise"),
        ("happy2", "happy"),
        ("Sadness ", "sadness"),
        (" \t'Amusement'/", "happy"),
        ("ｆｅａｒ", "fear"),
        ("hap\u200bpy", "happy"),
        ("\ufeffanger", "anger"),
    ],
)
def test_words_are_known_in_any_dress(written, six):
    index = datasets.class_index()
    assert datasets.EMOTIONS[index[words.plain_word(written)]] == six


def test_words_that_are_no_class_are_told_with_their_counts(root):
    fill(root, "happy/a.png", *(f"cats/{i}.png" for i in range(3)), "Neutral/b.png", "7/c.png")
    pictures = datasets.load(root, "train")
    assert pictures.words == {"cats": 3, "Neutral": 1, "7": 1}
    assert pictures.notes == [
        "labels that are not known as words for emotions (3 pictures): cats (3)",
        "labels that are no class of taxonomy='six' (1 pictures): Neutral (1)",
        "labels that are numbers, and nothing says what they mean (1 pictures): 7 (1)",
    ]
    assert labels(root)["happy/a.png"] == "happy" and list(labels(root).values()).count(None) == 5


def test_many_words_are_counted_and_few_are_shown(root):
    fill(root, *(f"pack {chr(97 + i)}/a.png" for i in range(25)))
    pictures = datasets.load(root, "train")
    assert len(pictures.words) == 21 and pictures.words["(other words)"] == 5
    assert "(25 pictures)" in pictures.notes[0] and pictures.notes[0].endswith("and 20 more")


def test_a_word_of_several_classes_is_told_and_not_guessed(root):
    fill(root, "joy/a.png", "amazed/b.png", "shocked/c.png")
    assert labels(root) == {"joy/a.png": "happy", "amazed/b.png": "surprise", "shocked/c.png": None}
    assert "could be several classes of taxonomy='six' (1 pictures): shocked (1)" in notes(root)
    assert set(labels(root, taxonomy="eight").values()) == {None}
    told = notes(root, taxonomy="eight")
    assert "could be several classes of taxonomy='eight' (3 pictures)" in told and "joy (1)" in told
    fill(root, "joy/amusement/d.png", first=9)
    assert labels(root, taxonomy="eight")["joy/amusement/d.png"] == "amusement"
    assert "two labels" not in notes(root, taxonomy="eight")


def test_codes_are_believed_together_and_not_alone(root):
    fill(root, "SA/a.png", "DI/b.png")
    assert set(labels(root).values()) == {None} and "SA (1)" in notes(root)
    fill(root, "AN/c.png", "AF/d.png", "NE/e.png", first=9)
    assert labels(root) == {
        "SA/a.png": "sadness",
        "DI/b.png": "disgust",
        "AN/c.png": "anger",
        "AF/d.png": "fear",
        "NE/e.png": None,
    }
    assert "af, an, di, ne, sa are read as codes of emotions" in notes(root)


# ---------------------------------------------------------------- trees


def test_the_nearest_folder_that_names_a_class_counts(root):
    fill(root, "happy/pack1/a.png", "sad/2020/05/b.png", "set/anger/c.png", "happy/other/d.png")
    assert labels(root) == {
        "happy/pack1/a.png": "happy",
        "sad/2020/05/b.png": "sadness",
        "set/anger/c.png": "anger",
        "happy/other/d.png": "happy",
    }
    fill(root, "happy/anger/e.png", first=9)
    assert labels(root)["happy/anger/e.png"] == "anger"
    assert "folders of two labels, of which the nearest class counts (2)" in notes(root)


def test_hidden_files_and_folders_are_no_part_of_a_data_set(root):
    hidden = (
        *(".thumbs/x.png", "happy/.ipynb_checkpoints/a-checkpoint.png", "@eaDir/SYNO.png"),
        *("__MACOSX/happy/._a.png", "Thumbs/t.png", "happy/._a.png"),
    )
    fill(root, "happy/a.png", *hidden)
    (root / "Thumbs.db").write_bytes(b"x")
    assert set(labels(root)) == {"happy/a.png"}
    assert datasets.load(root, "train").left_out == {"hidden folder": 5, "hidden file": 2}


@pytest.mark.parametrize("name", (".cache", "@eaDir", "__MACOSX"))
def test_a_root_may_lie_in_a_hidden_folder(tmp_path, name):
    fill(tmp_path / name / "mine", "happy/a.png")
    assert labels(tmp_path / name / "mine") == {"happy/a.png": "happy"}
    assert labels(tmp_path / name) == {"mine/happy/a.png": "happy"}


def test_other_files_are_counted_by_their_ending(root):
    fill(root, "a.png")
    for name in ("b.svg", "c.SVG", "d.mp4", "README", "notes.txt"):
        (root / name).write_text("x")
    assert datasets.load(root, "train").left_out == {
        "no ending": 1,
        "ending .svg": 2,
        "ending .mp4": 1,
        "ending .txt": 1,
    }
    table, told = datasets.report(root)
    assert table.loc["train", ["pictures", "ending .svg"]].tolist() == [1, 2] and not told


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_links_are_followed_once_and_never_in_circles(root, tmp_path):
    fill(root, "happy/a.png"), fill(tmp_path / "elsewhere", "b.png", first=5)
    (root / "sad").symlink_to(tmp_path / "elsewhere")
    (root / "again").symlink_to(root / "happy")
    (root / "happy" / "up").symlink_to(root)
    (root / "everything").symlink_to(tmp_path)
    (root / "gone.png").symlink_to(root / "nothing.png")
    (root / "loop.png").symlink_to(root / "loop.png")
    assert labels(root) == {"happy/a.png": "happy", "sad/b.png": "sadness"}
    pictures = datasets.load(root, "train")
    assert pictures.left_out["link to a folder that is read already"] == 3
    assert pictures.left_out["broken link"] == 1
    assert [file.name for file, _ in pictures.skipped] == ["loop.png"]


@pytest.mark.skipif(os.name == "nt", reason="no such files there")
def test_what_is_no_file_is_counted_and_not_opened(root):
    fill(root, "a.png")
    os.mkfifo(root / "pipe.png")  # opening it would block
    (root / "folder.png").mkdir()
    pictures = datasets.load(root, "train")
    assert len(pictures) == 1 and pictures.left_out == {"neither file nor folder": 1}


def test_a_folder_that_cannot_be_opened_is_named(root, monkeypatch):
    fill(root, "happy/a.png", "sad/b.png")
    scan = os.scandir

    def closed(folder):
        if os.path.basename(folder) == "sad":
            raise PermissionError(13, "Permission denied")
        return scan(folder)

    monkeypatch.setattr(folders.os, "scandir", closed)
    pictures = datasets.load(root, "train")
    assert len(pictures) == 1 and pictures.left_out == {"unreadable folder": 1}
    assert pictures.notes == ["folders that cannot be opened (1): sad (Permission denied)"]


# ---------------------------------------------------------------- train and test


@pytest.mark.parametrize(
    "train, test", (("train", "test"), ("Train", "TEST"), ("training", "Testing"))
)
def test_a_divided_folder(root, train, test):
    fill(root, f"{train}/happy/a.png", f"{test}/sad/b.png", "val/sad/c.png", "d.png")
    assert labels(root) == {f"{train}/happy/a.png": "happy"}
    assert labels(root, "test") == {f"{test}/sad/b.png": "sadness"}
    pictures = datasets.load(root, "test")
    assert not pictures.transductive and pictures.left_out == {"beside train/ and test/": 2}


def test_train_without_test_does_not_divide_a_folder_and_is_told(root):
    fill(root, "train/happy/a.png", "validation/sad/b.png")
    assert len(labels(root)) == 2
    assert notes(root) == (
        "read as one: only train/ beside test/ in the given folder divides (2): train, validation"
    )
    fill(root / "turned", "happy/train/a.png", "happy/test/b.png", first=9)
    assert set(labels(root / "turned").values()) == {"happy"}
    assert "divides (2): test, train" in notes(root / "turned")


def test_splits_in_other_words_do_not_divide_a_folder_and_are_told(root):
    fill(root, "1. Train/happy/a.png", "test_set/sad/b.png")
    assert len(labels(root)) == 2 and "divides (2): 1. Train, test_set" in notes(root)


def test_a_table_may_have_empty_fields_at_its_end(root):
    fill(root, "a.png", "b.png")
    (root / "metadata.csv").write_text("file_name,label\na.png,happy,\nb.png,sad,more\n")
    assert labels(root) == {"a.png": "happy", "b.png": None}
    assert "line 3 has more fields than the header" in notes(root)


def test_a_list_that_names_no_files_is_told_its_columns(root):
    fill(root, "a.png")
    (root / "metadata.csv").write_text("url,Emotion Label\na.png,happy\n")
    with pytest.raises(KCDPError, match="needs a file_name, add the column to url, emotionlabel"):
        datasets.load(root, "train")


def test_pictures_in_train_and_test_are_told(root, tmp_path):
    fill(root, "train/happy/a.png", "train/sad/b.png", "test/sad/c.png")
    shutil.copy(root / "train/happy/a.png", root / "test/sad/copy.png")
    _, told = datasets.report(root)
    assert "pictures of mine (train) that are also in mine (test): 1" in told
    source, test = datasets.load(root, "train"), datasets.load(root, "test")
    fill(tmp_path / "other", "happy/x.png", first=50)
    target = datasets.load(tmp_path / "other", "train")
    transductive = datasets.load(tmp_path / "other", "test")
    assert datasets.overlaps(source, target, test, transductive) == [
        "pictures of mine (train) that are also in mine (test): 1"
    ]
    assert len(datasets.overlaps(target, target, transductive, transductive)) == 3, "one folder"
    assert not datasets.overlaps(target, source, target.select([]), test.select([]))


# ---------------------------------------------------------------- copies


def test_copies_under_two_classes_are_told_and_keep_their_labels(root):
    fill(root, "happy/a.png", "sad/b.png")
    shutil.copy(root / "happy/a.png", root / "happy/again.png")
    assert datasets.load(root, "train").counts()["copies"] == 1 and not notes(root)
    shutil.copy(root / "happy/a.png", root / "sad/copy.png")
    table, told = datasets.report(root)
    assert table.loc["train", ["pictures", "copies", "happy", "sadness"]].tolist() == [4, 2, 2, 2]
    assert told == [
        "pictures that lie under two classes, where each copy keeps its label (1): "
        "happy/a.png = happy/again.png = sad/copy.png"
    ]


# ---------------------------------------------------------------- lists


@pytest.mark.parametrize(
    "name, content",
    [
        ("metadata.csv", "file_name, label\nsub/b.png, happy\n"),
        ("metadata.csv", "File Name,Label\nsub/b.png,Happy \n"),
        ("Metadata.CSV", "filename;emotion\r\nsub/b.png;joy\r\n"),
        ("metadata.csv", "image_path\tclass\nsub/b.png\thappy\n"),
        ("metadata.tsv", "file\tcaption\tlabel\nsub/b.png\ta, b; c\thappy\n"),
        ("metadata.csv", "sep=;\nfile_name;label\nsub/b.png;happy\n"),
        ("metadata.csv", "\ufefffile_name,label\nsub\\b.png,happy\n"),
        ("metadata.csv", '"file_name","text","label"\n"./sub/b.png","a, ""b""\nand c","happy"\n'),
        ("metadata.csv", "label,file_name\n01-Happy,SUB/B.PNG\n"),
        ("metadata.csv", "file_name,label,emotion\n sub/b.png ,,happiness\n"),
        ("metadata.csv", "file_name,label,emotion\nsub//b.png,17,happiness\n"),
        ("metadata.csv", "file_name,label,comment\nsub/b.png,happy\n"),
        ("metadata.csv", "file_name,label,emotion\nsub/b.png,nan,happy\n"),
        ("metadata.jsonl", '{"file_name": "sub/b.png", "label": null, "emotion": "happy"}'),
        ("metadata.jsonl", '\n{"FileName": "./sub/../sub/b.png", "Label": ["happy"]}\n\n'),
        ("metadata.jsonl", '{"file_name": "sub/b.png", "text": "a\u2028b", "label": "happy"}'),
        ("sub/metadata.csv", "file_name,label\nb.png,happy\n"),
    ],
)
def test_a_list_labels_pictures_in_any_dress(root, name, content):
    fill(root, "a.png", "sub/b.png")
    for encoding in ("utf-8", "utf-16"):
        (root / name).write_bytes(content.encode(encoding))
        assert labels(root) == {"a.png": None, "sub/b.png": "happy"}


def test_a_list_may_name_files_absolutely_and_in_another_unicode_form(root):
    fill(root, unicodedata.normalize("NFD", "fröh.png"), "b.png")
    rows = f"file_name,label\nfröh.png,happy\n{root / 'b.png'},sad\n"
    (root / "metadata.csv").write_text(rows, encoding="utf-8")
    assert sorted(labels(root).values()) == ["happy", "sadness"]


@pytest.mark.parametrize("value", ("1", "2.0", '"3"'))
def test_a_number_is_no_label_and_is_told(root, value):
    fill(root, "a.png")
    (root / "metadata.jsonl").write_text(f'{{"file_name": "a.png", "label": {value}}}')
    assert labels(root) == {"a.png": None} and "labels that are numbers" in notes(root)


@pytest.mark.parametrize("value", ('["happy", "sad"]', '{"name": "happy"}', "true", '"very happy"'))
def test_what_is_no_word_is_no_label_and_is_told(root, value):
    fill(root, "a.png")
    (root / "metadata.jsonl").write_text(f'{{"file_name": "a.png", "label": {value}}}')
    assert labels(root) == {"a.png": None} and "not known as words for emotions" in notes(root)


def test_files_and_rows_without_each_other_are_told(root):
    fill(root, "a.png", "b.png", "c.png")
    rows = "file_name,label\na.png,happy\n,sad\nnowhere.png,sad\nalso nowhere.png,sad\na,b,c\n"
    (root / "metadata.csv").write_text(rows)
    pictures = datasets.load(root, "train")
    assert pictures.notes == [
        "rows of metadata.csv that cannot be used (2): line 3 has no file_name, "
        "line 6 has more fields than the header",
        "pictures that are not in metadata.csv (2): b.png, c.png",
        "files that are in metadata.csv and not there (2): "
        + ", ".join(str(root / name) for name in ("nowhere.png", "also nowhere.png")),
    ]
    assert pictures.counts()["left_out"] == {"missing": 2, "row that cannot be used": 2}
    assert datasets.report(root)[0].loc["train", "missing"] == 2


def test_a_row_that_could_mean_several_files_is_told(root):
    fill(root, "a.png", "A.PNG")
    if len(list(root.iterdir())) < 2:
        pytest.skip("this file system knows no case")
    (root / "metadata.csv").write_text("file_name,label\nA.png,happy\na.png,sad\n")
    assert labels(root) == {"a.png": "sadness", "A.PNG": None}
    assert "line 2 (A.png may be A.PNG, a.png)" in notes(root)


def test_two_labels_for_one_picture_are_told(root):
    fill(root, "a.png", "happy/b.png", "c.png")
    rows = (
        "file_name,label,emotion\na.png,happy,\na.png,sad,\nhappy/b.png,anger,\nc.png,joy,happy\n"
    )
    (root / "metadata.csv").write_text(rows)
    assert labels(root) == {"a.png": None, "happy/b.png": "anger", "c.png": "happy"}
    told = notes(root)
    assert "two labels in lists, and so have none (1): a.png" in told
    assert "another label in a list than by their folder; the list counts (1): happy/b.png" in told


@pytest.mark.parametrize("name", ("labels.csv", "sub/annotations.tsv", "metadata.xlsx"))
def test_a_list_of_another_name_is_told(root, name):
    fill(root, "sub/a.png")
    (root / name).write_text("file_name,label\nsub/a.png,happy\n")
    assert labels(root) == {"sub/a.png": None}
    assert "lists that are not called metadata.jsonl or metadata.csv" in notes(root)
    assert f"and not read (1): {name}" in notes(root)


def test_a_list_without_labels_or_beside_another_is_told(root):
    fill(root, "happy/a.png")
    (root / "metadata.csv").write_text("file_name,Sentiment\nhappy/a.png,sad\n")
    assert labels(root) == {"happy/a.png": "happy"}
    assert notes(root) == "metadata.csv has no column label or emotion"
    (root / "metadata.jsonl").write_text('{"file_name": "happy/a.png", "label": "anger"}')
    assert labels(root) == {"happy/a.png": "anger"}
    assert "metadata.csv is not read beside metadata.jsonl" in notes(root)


def test_a_list_above_train_and_test_labels_both(root):
    fill(root, "train/a.png", "test/b.png")
    rows = "file_name,label\ntrain/a.png,happy\ntest/b.png,sad\ntest/gone.png,sad\n"
    (root / "metadata.csv").write_text(rows)
    assert labels(root) == {"train/a.png": "happy"}
    assert labels(root, "test") == {"test/b.png": "sadness"}
    assert not datasets.load(root, "train").skipped and datasets.load(root, "test").skipped


# ---------------------------------------------------------------- names and records


def test_a_folder_named_like_a_domain_is_written_with_a_slash(root, monkeypatch):
    fill(root, *(f"stickers/happy/{i}.png" for i in range(4)))
    for name in ("./stickers", "stickers/", root / "stickers"):
        assert len(datasets.load(name, "train", root)) == 4
    monkeypatch.chdir(root)
    monkeypatch.setitem(datasets.SIZES, "train", 2)
    assert len(datasets.load("./stickers", "train")) == 4
    drawn = datasets.load("stickers", "train")
    assert len(drawn) == 2 and drawn.notes == [
        "'stickers' is the built-in domain; the folder is written ./stickers"
    ]


def test_the_counts_of_a_set_are_plain(root):
    fill(root, "happy/a.png", "happy/b.png", "cats/c.png", ".x/d.png")
    (root / "happy" / "e.png").write_bytes(b"broken")
    shutil.copy(root / "happy/a.png", root / "happy/copy.png")
    counts = datasets.load(root, "train").counts()
    assert (
        json.loads(json.dumps(counts))
        == counts
        == {
            "pictures": 4,
            "unlabelled": 1,
            "copies": 1,
            "left_out": {"unreadable": 1, "hidden folder": 1},
            "words_of_no_class": {"cats": 1},
            "notes": ["labels that are not known as words for emotions (1 pictures): cats (1)"],
        }
    )
    test = datasets.load(root, "test").counts()
    assert test["pictures"] == 3 and test["left_out"]["no label, so not in the test"] == 1


def test_built_in_pictures_leave_nothing_out(monkeypatch):
    monkeypatch.setitem(datasets.SIZES, "train", 8)
    counts = datasets.load("photos", "train").counts()
    assert counts == {
        "pictures": 8,
        "unlabelled": 0,
        "copies": 0,
        "left_out": {},
        "words_of_no_class": {},
        "notes": [],
    }
    assert datasets.load("noto", "train").notes == []


@pytest.mark.skipif(os.name == "nt", reason="no such names there")
def test_an_odd_name_stays_in_one_line(root):
    fill(root, "a\nb/x.png", "d.png")
    (root / "metadata.csv").write_text("file_name,label\nd.png,sad\n")
    assert all("\n" not in note for note in datasets.load(root, "train").notes)
    assert "a\\nb (1)" in notes(root)
