"""Chapter 01: how a picture's file is decoded, and what is remembered of it."""

import json
import os
import sqlite3
import struct
import subprocess
import sys
import unicodedata
import zlib
from contextlib import closing
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from kcdp_lib import KCDPError, datasets
from kcdp_lib.datasets import images, index

GREYS = np.tile(np.arange(256, dtype=np.uint8), (256, 1))


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.paths, "CACHE", tmp_path / "cache")


def saved(picture: Image.Image, kind: str, **options) -> bytes:
    file = BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def pixels(content: bytes | Image.Image, size: int = 32) -> np.ndarray:
    """Return a file, or a picture, as it is read: int [size, size, 3]."""
    given = isinstance(content, Image.Image)
    picture = images.square(content, size) if given else images.decode(content, size)
    return np.asarray(picture).astype(int)


def rotated(picture: Image.Image, orientation: int = 6) -> Image.Exif:
    exif = picture.getexif()
    exif[images.ORIENTATION] = orientation
    return exif


# ---------------------------------------------------------------- 8 bits


def reference(picture: Image.Image, size: int) -> np.ndarray:
    """Read a picture as the library did when it handled 8 bits only."""
    picture = ImageOps.exif_transpose(picture)
    if picture.mode in ("RGBA", "LA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return np.asarray(ImageOps.fit(picture.convert("RGB"), (size, size), Image.Resampling.BICUBIC))


@pytest.mark.parametrize(
    "mode, kinds",
    [
        ("1", "PNG GIF TIFF BMP"),
        ("L", "PNG JPEG GIF TIFF WEBP PPM"),
        ("P", "PNG GIF TIFF BMP"),
        ("LA", "PNG TIFF WEBP"),
        ("RGB", "PNG JPEG GIF TIFF WEBP BMP AVIF JPEG2000 MPO"),
        ("RGBA", "PNG TIFF WEBP ICO"),
        ("CMYK", "JPEG TIFF"),
        ("YCbCr", "JPEG TIFF"),
    ],
)
def test_eight_bits_are_read_as_they_always_were(mode, kinds):
    draw = np.random.default_rng(0)
    for number, kind in enumerate(kinds.split() * 4):
        width, height = draw.integers(1, 60, 2)
        picture = Image.fromarray(draw.integers(0, 256, (height, width, 4), dtype=np.uint8), "RGBA")
        picture = picture if mode == "RGBA" else picture.convert("RGB").convert(mode)
        options = {}
        if kind in ("PNG", "JPEG", "TIFF", "WEBP", "AVIF"):
            options["exif"] = rotated(picture, number % 10)
        if mode in ("L", "P") and kind in ("PNG", "GIF"):
            options["transparency"] = 3
        content = saved(picture, kind, **options)
        with Image.open(BytesIO(content)) as opened:
            assert np.array_equal(pixels(content, 24), reference(opened, 24)), (kind, options)
        assert np.array_equal(pixels(picture, 24), reference(picture, 24))


# ---------------------------------------------------------------- other depths

TWINS = {
    "16 bits": lambda: Image.fromarray(GREYS.astype(np.uint16) * 257),
    "16 bits, the upper byte": lambda: Image.fromarray(GREYS.astype(np.uint16) << 8),
    "16 bits, big-endian": lambda: Image.frombytes(
        "I;16B", (256, 256), (GREYS.astype(">u2") * 257).tobytes()
    ),
    "16 bits in 32": lambda: Image.fromarray(GREYS.astype(np.int32) * 257),
    "8 bits in 32": lambda: Image.fromarray(GREYS.astype(np.int32)),
    "31 bits": lambda: Image.fromarray(GREYS.astype(np.int32) << 23),
    "floats to 1": lambda: Image.fromarray(GREYS.astype(np.float32) / 255),
    "floats to 255": lambda: Image.fromarray(GREYS.astype(np.float32)),
    "floats that overshoot": lambda: Image.fromarray(
        np.where(GREYS == 255, 1.02, GREYS / 255).astype(np.float32)
    ),
}


@pytest.mark.parametrize("make", TWINS.values(), ids=TWINS)
def test_any_depth_reads_as_its_8_bit_twin(make):
    assert np.array_equal(pixels(make()), pixels(Image.fromarray(GREYS)))


@pytest.mark.parametrize("kind", ("PNG", "TIFF", "PPM", "JPEG2000"))
def test_16_bits_from_a_file(kind):
    content = saved(TWINS["16 bits"](), kind)
    assert np.array_equal(pixels(content), pixels(Image.fromarray(GREYS)))


def test_a_tiff_whose_zero_is_white():
    def tiff(values: np.ndarray) -> bytes:
        data, bits = values.tobytes(), 8 * values.itemsize
        tags = {256: 256, 257: 256, 258: bits, 259: 1, 262: 0, 273: 122, 277: 1, 278: 256}
        tags[279] = len(data)
        entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
        return struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + bytes(4) + data

    read = pixels(tiff(GREYS))
    assert read[0, 0, 0] > 240 and np.array_equal(read, pixels(tiff(GREYS.astype("<u2") * 257)))


def test_16_bits_are_not_stretched_to_their_own_range():
    dark = (GREYS.astype(np.uint16) * 257) // 4
    assert pixels(Image.fromarray(dark), 256).max() == 63
    assert pixels(saved(Image.fromarray(np.full((8, 8), 40000, np.uint16)), "PNG")).min() == 156
    assert pixels(saved(Image.fromarray(np.full((8, 8), 200, np.uint16)), "PPM")).max() == 0


def test_what_is_no_number_is_black_and_what_is_endless_white():
    values = (GREYS / 255).astype(np.float32)
    values[:64], values[64:128], values[128:192] = np.nan, np.inf, -np.inf
    read = pixels(Image.fromarray(values), 256)
    assert read[:60].max() == 0 and read[68:124].min() == 255 and read[132:188].max() == 0
    assert np.array_equal(read[200:], pixels(Image.fromarray(GREYS), 256)[200:])
    for empty in (np.nan, np.inf, -np.inf):
        assert pixels(Image.fromarray(np.full((8, 8), empty, np.float32))).shape == (32, 32, 3)


def png_of_16_bits(colour: int) -> bytes:
    """Return a 16-bit RGB PNG of a single colour, which is transparent."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    value = struct.pack(">HHH", colour, colour, colour)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress((b"\0" + value * 4) * 4))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"tRNS", value) + data + chunk(b"IEND", b"")


def of_palette(colours: list[int], mode: str) -> Image.Image:
    picture = Image.new("P", (8, 8), 1)
    picture.putpalette(colours, mode)
    return picture


CLEAR = {
    "RGBA": lambda: saved(Image.new("RGBA", (8, 8), (1, 2, 3, 0)), "PNG"),
    "LA": lambda: saved(Image.new("LA", (8, 8), (1, 0)), "PNG"),
    "RGB and a colour": lambda: saved(
        Image.new("RGB", (8, 8), "red"), "PNG", transparency=(255, 0, 0)
    ),
    "RGB of 16 bits and a colour": lambda: png_of_16_bits(0x1234),
    "16 bits and a value": lambda: saved(
        Image.fromarray(np.full((8, 8), 700, np.uint16)), "PNG", transparency=700
    ),
    "1 bit and a value": lambda: saved(Image.new("1", (8, 8), 0), "PNG", transparency=0),
    "palette and an index": lambda: saved(Image.new("P", (8, 8), 7), "GIF", transparency=7),
    "palette and bytes": lambda: saved(
        of_palette([0, 0, 0, 10, 20, 30], "RGB"), "PNG", transparency=b"\xff\0"
    ),
    "palette of RGBA": lambda: of_palette([0, 0, 0, 255, 10, 20, 30, 0], "RGBA"),
    "PA": lambda: Image.new("PA", (8, 8), (1, 0)),
}


@pytest.mark.parametrize("make", CLEAR.values(), ids=CLEAR)
def test_what_is_transparent_lies_on_white(make):
    assert pixels(make()).min() == 255


# ---------------------------------------------------------------- EXIF


def with_exif(entries: list[tuple[int, int, int, bytes]], order: str = "<") -> bytes:
    """Return a JPEG, dark on its left, whose EXIF has these entries (tag, type, count, value)."""
    tiff = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}IH", 8, len(entries))
    for tag, kind, count, value in entries:
        tiff += struct.pack(f"{order}HHI", tag, kind, count) + value
    app = b"Exif\0\0" + tiff + struct.pack(f"{order}Iii", 0, -1, 0)
    jpeg = saved(Image.fromarray(GREYS).convert("RGB"), "JPEG")
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(app) + 2) + app + jpeg[2:]


def is_turned(content: bytes) -> bool:
    read = pixels(content)
    return abs(read[0].mean() - read[-1].mean()) > abs(read[:, 0].mean() - read[:, -1].mean())


BROKEN = {
    "a signed fraction by zero": (0x11A, 10, 1, struct.pack("<I", 38)),
    "a fraction for text": (0x10F, 5, 1, struct.pack("<I", 38)),
    "a float for a number": (0x128, 11, 1, struct.pack("<f", 2.5)),
    "text beyond the end": (0x10F, 2, 50, struct.pack("<I", 99_999)),
    "more text than there can be": (0x10F, 2, 0xFFFFFFFF, struct.pack("<I", 8)),
    "an unknown type": (0x10F, 99, 1, b"abcd"),
}


@pytest.mark.filterwarnings("ignore:Tag data")
@pytest.mark.parametrize("first", (True, False), ids=("before", "after"))
@pytest.mark.parametrize("entry", BROKEN.values(), ids=BROKEN)
def test_a_picture_is_turned_whatever_else_its_exif_holds(entry, first):
    turn = (images.ORIENTATION, 3, 1, struct.pack("<HH", 6, 0))
    assert is_turned(with_exif([entry, turn] if first else [turn, entry]))


def test_a_broken_orientation_leaves_a_picture_as_it_lies():
    for order in "<>":
        assert is_turned(with_exif([(0x112, 3, 1, struct.pack(f"{order}HH", 6, 0))], order))
        for entry in ((0x112, 3, 1, struct.pack(f"{order}HH", 77, 0)), (0x112, 2, 2, b"6\0\0\0")):
            assert not is_turned(with_exif([entry], order))
    assert images.raw_orientation(b"Exif\0\0II*\0") == images.raw_orientation(None) == 1


# ---------------------------------------------------------------- what is accepted is read


def test_whatever_is_accepted_can_be_read(tmp_path, capfd):
    """Small pictures of many kinds with some bytes changed are either read or skipped."""
    draw = np.random.default_rng(1)
    picture = Image.fromarray(GREYS[:12, ::20])
    for number in range(300):
        kind = ("PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", "PPM", "TGA")[number % 8]
        made = TWINS["16 bits"]().resize((9, 7)) if number % 16 == 0 else picture.convert("RGB")
        content = bytearray(saved(made, kind))
        for place in draw.integers(0, len(content), 4):
            content[place] = draw.integers(0, 256)
        (tmp_path / f"{number}.{kind.lower()}").write_bytes(content[: draw.integers(9, 9999)])
    pictures = datasets.load(tmp_path, "train")
    assert 30 < len(pictures) < 270 and len(pictures) + len(pictures.skipped) == 300
    assert all(why for _, why in pictures.skipped)
    assert datasets.read_images(pictures.files, 8).shape == (len(pictures), 3, 8, 8)
    assert capfd.readouterr() == ("", "")


def test_every_format_that_pillow_decodes_here_is_read(tmp_path):
    kinds = {
        "jfif": "JPEG",
        "jpe": "JPEG",
        "JPG": "JPEG",
        "avif": "AVIF",
        "mpo": "MPO",
        "dib": "DIB",
    }
    for number, (ending, kind) in enumerate(kinds.items()):
        content = saved(Image.new("RGB", (8, 8), (40 * number, 9, 9)), kind)
        (tmp_path / f"a.{ending}").write_bytes(content)
    for ending in ("svg", "heic", "mp4", "eps"):
        (tmp_path / f"b.{ending}").write_bytes(b"%!PS")
    pictures = datasets.load(tmp_path, "train")
    assert len(pictures) == len(kinds) and not pictures.skipped
    assert pictures.left_out == {
        "ending .eps": 1,
        "ending .heic": 1,
        "ending .mp4": 1,
        "ending .svg": 1,
    }
    (tmp_path / "program.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    assert datasets.load(tmp_path, "train").skipped[0][0].name == "program.png", (
        "not handed to a shell"
    )


def test_pictures_read_ahead_are_those_read_alone(tmp_path):
    files = [tmp_path / f"{number}.png" for number in range(7)]
    for number, file in enumerate(files):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(file)
    batches = [files[:3], files[3:6], files[6:]]
    read = list(images.read_ahead(iter(batches), 4))
    assert [len(batch) for batch in read] == [3, 3, 1]
    assert torch.cat(read)[:, 0, 0, 0].tolist() == list(range(7))
    assert list(images.read_ahead([], 4)) == []


def test_a_picture_given_many_times_is_loaded_by_one_thread(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "processors", lambda: 8)
    file = tmp_path / "a.png"
    Image.effect_noise((600, 600), 90).save(file)
    with Image.open(file) as lazy:
        read = images.read_images([lazy] * 16, 64)
    assert (read == images.read_images([file] * 16, 64)).all()


def test_one_batch_is_read_ahead_and_no_more(tmp_path):
    file = tmp_path / "a.png"
    Image.new("RGB", (8, 8)).save(file)
    begun = []

    def batches():
        for number in range(5):
            begun.append(number)
            yield [file]

    read = images.read_ahead(batches(), 4)
    next(read)
    assert begun == [0, 1]
    read.close()
    assert begun == [0, 1]


def test_a_picture_that_cannot_be_read_ahead_is_named(tmp_path):
    (tmp_path / "broken.png").write_text("x")
    with pytest.raises(KCDPError, match="broken.png cannot be read as a picture"):
        list(images.read_ahead([[tmp_path / "broken.png"]], 4))


@pytest.mark.parametrize("size", ((0, 5), (5, 0), (0, 0)))
def test_a_picture_without_pixels_gets_a_sentence(size):
    with pytest.raises(KCDPError, match="cannot be read as a picture .it has no pixels.; remove"):
        datasets.read_images([Image.new("RGB", size)], 8)


def test_a_picture_too_large_to_be_true_is_skipped(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    Image.new("1", (300, 300)).save(tmp_path / "bomb.png")
    Image.new("1", (40, 40)).save(tmp_path / "large.png")  # above Pillow's warning limit, and read
    pictures = datasets.load(tmp_path, "train")
    assert [file.name for file in pictures.files] == ["large.png"]
    assert "DecompressionBombError" in pictures.skipped[0][1]


# ---------------------------------------------------------------- what is remembered


def picture(path, shade: int = 0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 6), (shade, 1, 2)).save(path)
    return path


@pytest.mark.parametrize("error", (PermissionError(13, "no"), OSError(5, "I/O"), MemoryError()))
def test_an_error_of_the_moment_is_not_remembered(tmp_path, monkeypatch, error):
    good, bad = picture(tmp_path / "good.png", 1), picture(tmp_path / "bad.png", 2)
    shade = (2, 1, 2)
    decode = images.decode

    def failing(content, size):
        read = decode(content, size)
        if read.getpixel((0, 0)) == shade:
            raise error
        return read

    with monkeypatch.context() as patch:
        patch.setattr(images, "decode", failing)
        now = datasets.load(tmp_path, "train")
        assert now.files == [good] and type(error).__name__ in now.skipped[0][1]
    assert set(datasets.load(tmp_path, "train").files) == {good, bad}


def spoil(content: bytes):
    return lambda file: file.write_bytes(content)


def cut(file):
    file.write_bytes(file.read_bytes()[:3000])


def other_columns(file):
    file.unlink()
    with closing(sqlite3.connect(file)) as table, table:
        table.execute("CREATE TABLE readable (name TEXT)")


def a_folder(file):
    file.unlink()
    file.mkdir()


def no_cache(file):
    file.unlink()
    file.parent.rmdir()
    file.parent.write_text("a file where the cache should be")


@pytest.mark.parametrize(
    "damage, is_mended",
    [
        (cut, True),
        (spoil(b"no data base"), True),
        (spoil(b""), True),
        (other_columns, True),
        (a_folder, False),
        (no_cache, False),
    ],
)
def test_a_damaged_index_is_begun_anew_or_done_without(tmp_path, monkeypatch, damage, is_mended):
    for shade in range(3):
        picture(tmp_path / "mine" / f"{shade}.png", shade)
    keys = datasets.load(tmp_path / "mine", "train").keys
    damage(tmp_path / "cache" / "pictures.sqlite")
    assert datasets.load(tmp_path / "mine", "train").keys == keys
    monkeypatch.setattr(index, "_look", lambda path: (None, "was forgotten"))
    if is_mended:
        assert datasets.load(tmp_path / "mine", "train").keys == keys
    else:
        with pytest.raises(KCDPError, match="There are no pictures"):
            datasets.load(tmp_path / "mine", "train")


CONNECT = sqlite3.connect


def read_only(file, timeout):
    return CONNECT(f"file:{file}?mode=ro", uri=True)


def full(file, timeout):
    table = CONNECT(file)
    table.execute("PRAGMA max_page_count = 1")
    return table


def locked(file, timeout):
    return CONNECT(file, timeout=0)


@pytest.mark.parametrize("connect", (read_only, full, locked))
def test_an_index_that_cannot_be_written_is_done_without(tmp_path, monkeypatch, connect):
    old = picture(tmp_path / "mine" / "old.png", 1)
    datasets.load(tmp_path / "mine", "train")
    for shade in range(60):  # more than fits into the existing pages
        picture(tmp_path / "mine" / f"{shade}-{'x' * 200}.png", 100 + shade)
    monkeypatch.setattr(index.sqlite3, "connect", connect)
    with closing(CONNECT(tmp_path / "cache" / "pictures.sqlite")) as other:
        if connect is locked:
            other.execute("BEGIN EXCLUSIVE")
        pictures = datasets.load(tmp_path / "mine", "train")
    assert len(pictures) == 61 and old in pictures.files


def test_another_reader_looks_again(tmp_path, monkeypatch):
    """Results of another version of Pillow, or of our code, must not be reused."""
    picture(tmp_path / "a.png")
    datasets.load(tmp_path, "train")
    looked = []
    monkeypatch.setattr(index, "_look", lambda path: looked.append(path) or ("0" * 64, None))
    datasets.load(tmp_path, "train")
    assert not looked
    monkeypatch.setattr(index, "READER", "another")
    datasets.load(tmp_path, "train")
    assert looked == [tmp_path / "a.png"]


def test_content_that_changes_under_the_same_size_and_time_is_read_again(tmp_path):
    file = tmp_path / "a.bmp"
    keys = []
    for shade in (1, 2):
        Image.new("RGB", (6, 6), (shade, 1, 2)).save(file)
        os.utime(file, ns=(10**18, 10**18))
        keys += datasets.load(tmp_path, "train").keys
    assert keys[0] != keys[1]


# ---------------------------------------------------------------- names


@pytest.mark.skipif(os.name == "nt" or sys.platform == "darwin", reason="names are Unicode there")
def test_a_name_that_is_not_utf_8_is_a_name(tmp_path):
    picture(tmp_path / "happy" / "a.png", 1)
    odd = tmp_path / "happy" / os.fsdecode(b"fr\xf6hlich.png")
    picture(tmp_path / "b.png", 2).rename(odd)
    (tmp_path / "happy" / os.fsdecode(b"\xf6.png")).write_bytes(b"broken")
    pictures = datasets.load(tmp_path, "train")
    assert odd in pictures.files and len(pictures) == 2 and pictures.labels.tolist() == [1, 1]
    assert len(datasets.read_images(pictures.files, 8)) == 2
    with pytest.raises(KCDPError) as told:
        datasets.read_images([pictures.skipped[0][0]], 8)
    assert "\\udcf6.png cannot be read" in str(told.value)
    (tmp_path / "metadata.csv").write_bytes(b"file_name,label\nhappy/fr\xf6hlich.png,sad\n")
    pictures = datasets.load(tmp_path, "train")
    assert pictures.classes[pictures.labels[pictures.files.index(odd)]] == "sadness"
    assert all(note.isascii() for note in pictures.notes) and "\\udcf6" in pictures.notes[0]


def test_a_record_of_such_a_name_is_json(tmp_path):
    name = os.fsdecode(b"fr\xf6hlich.png") if sys.platform == "linux" else "fr\udcf6hlich.png"
    datasets.paths.atomic_write(tmp_path / "a.json", json.dumps([name], ensure_ascii=False))
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == [name]


SCRIPT = """
import sys
from pathlib import Path
from kcdp_lib import datasets
pictures = datasets.load(Path(sys.argv[1]), "train")
assert len(datasets.read_images(pictures.files, 8)) == len(pictures) == 2, pictures
print([pictures.classes[label] for label in pictures.labels], pictures.notes)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the C locale is UTF-8 elsewhere")
def test_names_and_lists_in_a_locale_without_utf_8(tmp_path):
    root = tmp_path / "größe"
    picture(root / "süß" / "ä.png", 1), picture(root / "süß" / "ö.png", 2)
    name = unicodedata.normalize("NFD", "süß/ä.png")
    (root / "metadata.csv").write_text(f"file_name,label\n{name},Happy\n", encoding="utf-8")
    environment = {
        **os.environ,
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "KCDP_CACHE": str(tmp_path / "c"),
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, root], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert "happy" in done.stdout and "not in metadata.csv (1)" in done.stdout
