"""Which images a folder holds."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from ...errors import InvalidInput
from ...io.folders import hash_file

_SUFFIXES = (".png", ".jpg", ".jpeg")
_WANTED = "PNG and JPEG images (.png, .jpg, .jpeg)"


def list_labeled_images(folder: Path) -> tuple[list[str], list[str]]:
    """Return the images in the subfolders of a folder, and the class of each: the name of its subfolder.

    What begins with a dot is passed over, and so is what is no image beside the subfolders.

    Args:
        folder: With a subfolder a class.

    Returns:
        Paths from the folder, with "/" in them, sorted by class and name; and names of classes, one an image.

    Raises:
        InvalidInput: It has no subfolder, one is empty or holds something else, or a link leads out of the folder.
    """
    classes, loose = [], []
    for entry in _scan(folder, folder):
        if entry.is_dir():
            classes.append(entry.name)
        elif _is_image(entry.name):
            loose.append(entry.name)
    if loose:
        raise InvalidInput(f"{folder / loose[0]} is in no subfolder; wanted each image in the subfolder of its class.")
    if not classes:
        raise InvalidInput(f"{folder} has no subfolder; wanted one for each class, with its images.")
    files, labels = list[str](), list[str]()
    for name in classes:
        own = _list_flat(folder / name, folder)
        files += [f"{name}/{file}" for file in own]
        labels += [name] * len(own)
    return files, labels


def list_images(folder: Path) -> list[str]:
    """Return the images in a folder, or, where it has none, in its subfolders.

    Args:
        folder: With images, or with a subfolder a class.

    Returns:
        Paths from the folder, with "/" in them, sorted.

    Raises:
        InvalidInput: As by ``list_labeled_images``.
    """
    if any(entry.is_dir() for entry in _scan(folder, folder)):
        return list_labeled_images(folder)[0]
    return _list_flat(folder, folder)


def hash_images(folder: Path, files: Sequence[str]) -> str:
    """Return the SHA-256 of the names and contents of images.

    Args:
        folder: Where they are.
        files: Paths from there.
    """
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file}\0{hash_file(folder / file)['sha256']}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _list_flat(folder: Path, root: Path) -> list[str]:
    """Return the names of the images in a folder that holds nothing else."""
    names = []
    for entry in _scan(folder, root):
        path = folder / entry.name
        if entry.is_dir():
            raise InvalidInput(f"{path} is a folder in the folder of a class; wanted {_WANTED} alone.")
        if not _is_image(entry.name):
            raise InvalidInput(f"{path} is no image that can be read; wanted {_WANTED} alone. Take it out.")
        names.append(entry.name)
    if not names:
        raise InvalidInput(f"{folder} holds no image; wanted {_WANTED}, or no such folder.")
    return names


def _scan(folder: Path, root: Path) -> list[os.DirEntry[str]]:
    """Return what is in a folder, sorted by name, without what is hidden; links must not lead out of ``root``."""
    try:
        with os.scandir(folder) as entries:
            seen = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        raise InvalidInput(f"Cannot read the folder {folder}: {error.strerror}.") from error
    except ValueError as error:
        raise InvalidInput(f"Cannot read the folder {str(folder)!r}: {error}.") from error
    for entry in seen:
        if not entry.name.isprintable():
            raise InvalidInput(
                f"{folder} holds {entry.name!r}, a name with characters that cannot be shown; rename it."
            )
        if entry.is_symlink() and not Path(entry.path).resolve().is_relative_to(root.resolve()):
            raise InvalidInput(
                f"{folder / entry.name} is a link out of {root}, which is not followed; copy what it leads to."
            )
    return seen


def _is_image(name: str) -> bool:
    return name.lower().endswith(_SUFFIXES)
