"""From files to tensors (chapter 01).

Apart from the rest of the data sets, because what is computed from pictures is cached under the
code that reads them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from ..errors import KCDPError


def read_images(files: Sequence[str | Path | Image.Image], size: int) -> torch.Tensor:
    """Pictures as uint8 [N, 3, size, size].

    RGB, alpha laid on white, first frame of an animation, centre-cropped to a square of `size`
    pixels.

    Raises KCDPError naming the first that cannot be read.
    """
    out = torch.empty(len(files), 3, size, size, dtype=torch.uint8)
    for i, file in enumerate(files):
        if not isinstance(file, (str, Path, Image.Image)):
            raise KCDPError(
                f"A picture is given by its path or as a PIL image, not as {type(file).__name__}; "
                "Image.fromarray makes one from an array."
            )
        try:
            picture = file if isinstance(file, Image.Image) else Image.open(file)
            out[i] = torch.from_numpy(np.array(square(picture, size))).permute(2, 0, 1)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise KCDPError(
                f"{file} cannot be read as a picture ({error}); remove it or convert it to PNG."
            ) from error
    return out


def square(picture: Image.Image, size: int) -> Image.Image:
    """One picture as RGB of `size` x `size` pixels.

    Turned as its EXIF says, on white, the middle of it. Pillow's own errors pass through.
    """
    picture.seek(0) if getattr(picture, "is_animated", False) else None
    picture = ImageOps.exif_transpose(picture)
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    if (
        picture.mode.startswith("I") or picture.mode == "F"
    ):  # 16 bits or floats: Pillow's own conversion would clip them
        values = np.asarray(picture, np.float32)
        picture = Image.fromarray(
            np.uint8(255 * (values - values.min()) / max(np.ptp(values), 1e-9))
        )
    return ImageOps.fit(picture.convert("RGB"), (size, size), Image.Resampling.BICUBIC)
