"""What an image file shows, as numbers.  Axes: N images, F pixels: channels x height x width."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...errors import InvalidInput
from ...io import open_regular_file

_CHANNELS = {1: ("gray",), 3: ("red", "green", "blue")}
_MODES = ("1", "L", "LA", "P", "RGB", "RGBA")  # of Pillow: black and white, gray, palette, color, and with transparency


@dataclass(frozen=True)
class ImageSettings:
    """How much of an image is taken into memory; ``tests/safekd/experiment/test_image_folders.py`` notices.

    Attributes:
        most_pixels: Of a file when decoded: more than any camera's, 300 MB.
        memory_share: Of the machine's memory that the features of all images may take.
    """

    most_pixels: int = 100_000_000
    memory_share: float = 0.5


SETTINGS = ImageSettings()


class ImageShape(NamedTuple):
    """How images are seen: scaled to one size, whatever their own.

    Attributes:
        channels: 3 for red, green and blue, 1 for gray.
        height: Rows of pixels.
        width: Pixels of a row.
    """

    channels: int
    height: int
    width: int


def name_pixels(shape: ImageShape) -> list[str]:
    """Return the names of features: "red_0_31" is the red of row 0, column 31.

    Args:
        shape: Of the images.
    """
    places = [f"{row}_{column}" for row in range(shape.height) for column in range(shape.width)]
    return [f"{channel}_{place}" for channel in _CHANNELS[shape.channels] for place in places]


def read_images(folder: Path, files: Sequence[str], shape: ImageShape) -> NDArray[np.float64]:
    """Return the pixels of images, from 0 to 1, channel by channel, (N, F).

    Args:
        folder: Where they are.
        files: Paths from there.
        shape: What they are scaled to.

    Raises:
        InvalidInput: One cannot be used, which is named, or together they are too many for the memory.
    """
    size = shape.channels * shape.height * shape.width
    needed = 8 * size * len(files)
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else needed
    if needed > SETTINGS.memory_share * memory:
        raise InvalidInput(
            f"{folder} holds {len(files):,} images, which take {needed / 1e9:,.1f} GB as {shape.width} x "
            f"{shape.height} pixels, and this machine has {memory / 1e9:,.1f} GB; take a smaller data.image_size."
        )
    x_NF = np.empty((len(files), size))
    for n, file in enumerate(files):
        x_NF[n] = _read_image(folder / file, shape)
    return x_NF


def _read_image(path: Path, shape: ImageShape) -> NDArray[np.float64]:
    """Return the pixels of one image, (F,)."""
    from PIL import Image  # takes a moment to import, and most experiments have no images

    with open_regular_file(path) as stream, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of sizes, which are looked at below
        try:
            with Image.open(stream, formats=("PNG", "JPEG")) as image:
                _require_plain(path, image)
                image.load()
                plain = _convert(path, image, "L" if shape.channels == 1 else "RGB")
        except InvalidInput:
            raise
        except Exception as error:  # Pillow's parts for formats raise whatever a damaged file leads them to
            bomb = isinstance(error, Image.DecompressionBombError)
            reason = "it is far too large when decoded" if bomb else str(error).splitlines()[0] if str(error) else ""
            kind = type(error).__name__
            raise InvalidInput(
                f"{path} cannot be read as a PNG or JPEG image: {(reason or kind).rstrip('.')}. Mend it or take it out."
            ) from error
    if plain.size != (shape.width, shape.height):
        plain = plain.resize((shape.width, shape.height), Image.Resampling.BILINEAR)
    pixels = np.asarray(plain, dtype=np.float64).reshape(shape.height, shape.width, shape.channels)
    return pixels.transpose(2, 0, 1).reshape(-1) / 255


def _require_plain(path: Path, image: Any) -> None:
    """Refuse, before anything is decoded, what is too large, of several pictures, or of colors that are not ours."""
    width, height = image.size
    if width * height > SETTINGS.most_pixels:
        raise InvalidInput(
            f"{path} has {width:,} x {height:,} pixels; wanted at most {SETTINGS.most_pixels:,} in all. Scale it down."
        )
    if image.mode not in _MODES:
        raise InvalidInput(
            f"{path} has colors of mode '{image.mode}'; wanted red, green and blue, or gray, of 8 bits. Convert it."
        )
    if image.format == "PNG" and image.n_frames != 1:  # of several in a JPEG file, cameras put the picture first
        raise InvalidInput(f"{path} is an animation of {image.n_frames} pictures; wanted one picture.")


def _convert(path: Path, image: Any, mode: str) -> Any:
    """Return an image the right way up and in the wanted mode; what shines through is refused."""
    from PIL import ImageOps

    if image.mode in ("LA", "RGBA") or "transparency" in image.info:
        if image.convert("RGBA").getchannel("A").getextrema()[0] < 255:
            raise InvalidInput(
                f"{path} has transparent pixels, whose color depends on what is behind them; wanted opaque ones. Give "
                "it a background."
            )
        image = image.convert("RGBA")
    return ImageOps.exif_transpose(image).convert(mode)
