"""From picture files to tensors (chapter 01).

A module of its own, because results are cached under the code that reads the pictures.
"""

from __future__ import annotations

import itertools
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from io import BytesIO, IOBase
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps

from ..errors import KCDPError
from ..machine import processors

Image.init()  # without it, Pillow first knows only the most common formats
# Not read: formats that Pillow cannot decode by itself, and PostScript, which is a program.
UNREAD = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
FORMATS = tuple(name for name in Image.ID if name not in UNREAD)
SUFFIXES = frozenset(
    ending
    for ending, name in Image.registered_extensions().items()
    if name in (*FORMATS, "MPO")  # MPO: a JPEG with further pictures, opened as JPEG
)
TURNS = {  # EXIF orientation -> what turns the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
ORIENTATION = 0x0112
PHOTOMETRIC, WHITE_IS_ZERO = 0x0106, 0
SIZES_OF_TYPES = {1: 1, 3: 2, 4: 4}  # of EXIF's integer types, in bytes


def read_images(files: Sequence[str | Path | Image.Image], size: int) -> torch.Tensor:
    """Read pictures as uint8 [N, 3, size, size] (see `square`).

    Raises KCDPError naming the first that cannot be read.
    """
    out = torch.empty(len(files), 3, size, size, dtype=torch.uint8)
    # Threads are enough: Pillow decodes and resizes without holding Python's lock. A PIL image may
    # occur twice, and two threads must not load it at once.
    threads = 1 if any(isinstance(file, Image.Image) for file in files) else processors()
    with warnings.catch_warnings(), ThreadPoolExecutor(threads) as pool:
        warnings.simplefilter("ignore")  # about files that Pillow reads all the same
        for i, picture in enumerate(pool.map(read_image, files, itertools.repeat(size))):
            out[i] = torch.from_numpy(picture).permute(2, 0, 1)
    return out


def read_ahead(batches: Iterable[Sequence[str | Path]], size: int) -> Iterator[torch.Tensor]:
    """Yield `read_images` of each batch, [N, 3, size, size], and read the next one meanwhile."""
    with ThreadPoolExecutor(1) as reader:
        reading = (reader.submit(read_images, batch, size) for batch in batches)
        for ready, _ in itertools.pairwise(itertools.chain(reading, [Future()])):
            yield ready.result()


def read_image(file: str | Path | Image.Image, size: int) -> np.ndarray:
    """Read one picture as uint8 [size, size, 3]; raises KCDPError if it cannot be read."""
    check_picture(file)
    try:
        if isinstance(file, Image.Image):
            return np.array(square(file, size))
        return np.array(decode(Path(file).read_bytes(), size))
    except Exception as error:  # Pillow raises many kinds
        passing = isinstance(error, MemoryError) or getattr(error, "errno", None)
        raise KCDPError(
            f"{file} cannot be read as a picture ({str(error) or type(error).__name__}); "
            + ("check that it can be opened, " if passing else "")
            + "remove it or convert it to PNG."
        ) from error


def check_picture(given: object) -> None:
    """Raise KCDPError for what is neither a path nor a PIL image."""
    if isinstance(given, str | os.PathLike | Image.Image):
        return
    is_file = isinstance(given, bytes | bytearray | IOBase)
    raise KCDPError(
        f"A picture is given by its path or as a PIL image, not as {type(given).__name__}; "
        + ("Image.open reads a file." if is_file else "Image.fromarray makes one from an array.")
    )


def decode(content: bytes, size: int) -> Image.Image:
    """Decode the content of a picture file and return it as `square` does.

    Inspection and reading both use it, so that every accepted file can be read later. Pillow's own
    errors pass through.
    """
    with Image.open(BytesIO(content), formats=FORMATS) as picture:
        return square(picture, size)


def square(picture: Image.Image, size: int) -> Image.Image:
    """Return one picture as RGB of `size` x `size` pixels: the middle of its first frame.

    It is turned as its EXIF says, on white where it is transparent, in 8 bits. Pillow's own errors
    pass through.
    """
    if not all(picture.size):
        raise ValueError("it has no pixels")
    if picture.tell() > 0 and picture.format != "PSD":  # a Photoshop file's first frame is 1
        picture.seek(0)
    picture.load()
    turn = TURNS.get(orientation(picture))
    picture = plain_rgb(picture)
    picture = picture if turn is None else picture.transpose(turn)
    return ImageOps.fit(picture, (size, size), Image.Resampling.BICUBIC)


def plain_rgb(picture: Image.Image) -> Image.Image:
    """Convert a loaded picture to RGB, on white where it is transparent."""
    clear = picture.info.get("transparency")
    if picture.mode.startswith("I") or picture.mode == "F":
        values = np.asarray(picture)
        sixteen = "I;16" in picture.mode or (picture.mode == "I" and picture.format == "PPM")
        grey = eight_bits(values, sixteen)
        if getattr(picture, "tag_v2", {}).get(PHOTOMETRIC) == WHITE_IS_ZERO:
            grey = 255 - grey  # Pillow inverts such a TIFF in 8 bits, and in no others
        if isinstance(clear, int):
            grey[values == clear] = 255
        return Image.fromarray(grey).convert("RGB")
    if isinstance(clear, tuple) and max(clear) > 255:  # from 16 bits; Pillow keeps 8
        picture = picture.copy()
        picture.info["transparency"] = tuple(value >> 8 for value in clear)
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture.convert("RGB")


def eight_bits(values: np.ndarray, sixteen: bool) -> np.ndarray:
    """Convert grey values [H, W] of 16 bits, 32 bits or floats to uint8 [H, W].

    The result is that of an 8-bit copy of the picture. `sixteen`: the range is 0 to 65,535.
    Otherwise it is the smallest of 0 to 1 (floats), 0 to 255 and 0 to 65,535 that holds all values.
    Larger integers count as 31 bits; larger floats are scaled by their maximum. NaN is black.
    """
    largest = values[np.isfinite(values)].max(initial=0)
    floats = values.dtype.kind == "f"
    slack = 1.1 if floats else 1.0  # resized floats go a little beyond their range
    if floats and largest <= slack:
        values = np.rint(values * 255.0)
    elif largest <= 255 * slack and not sixteen:
        values = np.rint(values)
    elif largest <= 65535 * slack:
        values = values // 256
    else:
        values = values // (largest / 255 if floats else 2**23)
    finite = np.nan_to_num(values, nan=0, posinf=255, neginf=0)
    return finite.clip(0, 255).astype(np.uint8)


def orientation(picture: Image.Image) -> int:
    """Return EXIF's orientation, 1 to 8; any other number or none leaves the picture as it is.

    Pillow fails if any entry of the EXIF is broken; then the orientation is read alone.
    """
    try:
        value = picture.getexif().get(ORIENTATION)
    except Exception:  # Pillow raises many kinds for a broken EXIF
        value = None
    return raw_orientation(picture.info.get("exif")) if value is None else value


def raw_orientation(exif: bytes | None) -> int:
    """Return the orientation in an EXIF block's first directory, whatever else it holds."""
    tiff = exif.removeprefix(b"Exif\0\0") if isinstance(exif, bytes) else b""
    if tiff[:2] not in (b"II", b"MM"):
        return 1
    order: Literal["little", "big"] = "little" if tiff[:2] == b"II" else "big"

    def number(start: int, length: int) -> int:
        return int.from_bytes(tiff[start : start + length], order)

    first = number(4, 4) + 2
    for entry in range(first, first + 12 * number(first - 2, 2), 12):
        length = SIZES_OF_TYPES.get(number(entry + 2, 2))
        if number(entry, 2) == ORIENTATION and length:
            return number(entry + 8, length)
    return 1
