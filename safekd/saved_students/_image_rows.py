"""New images in a folder, as rows of pixels that a saved student of images takes.  Axes: N images, F pixels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data import Split
from ..errors import InvalidInput
from ..experiment.images import ImageShape, list_images, list_labeled_images, read_images
from ..io import list_names
from ._saved_student import SavedStudent

_ROWS = 256  # images decoded at once


def read_image_blocks(student: SavedStudent, folder: Path) -> Iterator[tuple[list[str], NDArray[Any], int]]:
    """Yield the images of a folder in parts: their paths from it, their pixels (N, F), and how many there are in all.

    Args:
        student: Which takes them.
        folder: With images, or with subfolders of them.

    Yields:
        Paths, pixels, number of all images.

    Raises:
        InvalidInput: The student takes no images, or one cannot be read.
    """
    shape = _require_images(student, folder)
    files = list_images(folder)
    for start in range(0, len(files), _ROWS):
        part = files[start : start + _ROWS]
        yield part, read_images(folder, part, shape), len(files)


def read_labeled_images(student: SavedStudent, folder: Path) -> Split:
    """Return the images of a folder with a subfolder a class as a split that ``certify`` takes.

    Args:
        student: Which takes them.
        folder: Subfolders are called like the student's classes.

    Raises:
        InvalidInput: The student takes no images, a subfolder is none of its classes, or an image cannot be read.
    """
    shape, spec = _require_images(student, folder), student.require_spec()
    files, labels = list_labeled_images(folder)
    if unknown := sorted(set(labels) - set(spec.classes)):
        raise InvalidInput(
            f"{folder / unknown[0]} is the folder of none of the student's classes; these are: "
            f"{list_names(spec.classes)}."
        )
    x_NF = read_images(folder, files, shape)
    return student.build_split(folder.name, x_NF, labels, np.zeros(len(files), dtype=np.int64))


def _require_images(student: SavedStudent, folder: Path) -> ImageShape:
    shape = student.require_spec().images
    if shape is None:
        raise InvalidInput(
            f"{folder} is a folder, and the student takes the rows of a table; give a CSV or Parquet file."
        )
    return shape
