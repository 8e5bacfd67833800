"""Models that do not fit side by side: each is in memory while it is asked, and on the processor or the disk otherwise.

Teachers that share one model share its place too.  Weights on disk are safetensors in a folder that only this user can
read, removed with the model or at the end of the process.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from ..._fingerprint import Fingerprint, fingerprint_tensors
from ...errors import InvalidInput

Park = Literal["cpu", "disk"] | None


class ModelPlace:
    """Where one model's weights are.

    ``ModelPlace.of(model)`` gives every user of the model the same one.
    """

    _known: ClassVar[weakref.WeakKeyDictionary[nn.Module, ModelPlace]] = weakref.WeakKeyDictionary()

    def __init__(self) -> None:
        self._users = 0
        self._folder: Path | None = None
        self._files = 0
        self._written: list[Fingerprint] | None = None
        self._absent = False

    @classmethod
    def of(cls, model: nn.Module) -> ModelPlace:
        """Return the place of a model.

        Args:
            model: The model itself, not what it is wrapped in.
        """
        return cls._known.setdefault(model, cls())

    @contextmanager
    def awake(self, model: nn.Module, device: torch.device | None, park: Park, who: str) -> Iterator[None]:
        """Have a model's weights on a device inside the block.

        Args:
            model: The model.
            device: Where it is asked; None where it is not to be moved.
            park: Where its weights go when nobody needs them: "cpu", "disk", or None to let them stay.
            who: What messages call it.

        Yields:
            Nothing.

        Raises:
            InvalidInput: The disk is full, or what was written there is gone.
        """
        self._users += 1
        try:
            if self._absent:
                self._read(model, device or torch.device("cpu"), who)
            if device is not None:
                move_model(model, device)
            yield
        finally:
            self._users -= 1
            self.park(model, park, who)

    def park(self, model: nn.Module, park: Park, who: str) -> None:
        """Put a model's weights away, unless somebody uses them.

        Args:
            model: The model.
            park: Where they go; None lets them stay.
            who: What messages call it.

        Raises:
            InvalidInput: The disk is full.
        """
        if not self._users and park is not None and not self._absent:
            move_model(model, torch.device("cpu")) if park == "cpu" else self._write(model, who)

    def _write(self, model: nn.Module, who: str) -> None:
        """Put the weights on disk, unless they are there already, and let go of the memory."""
        named = dict(model.named_parameters())
        now = fingerprint_tensors(named.values())
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="safekd-teacher-"))
            weakref.finalize(model, shutil.rmtree, self._folder, ignore_errors=True)
        if now != self._written:
            before, self._files = self._file, self._files + 1  # weights in memory may still rest on the file before
            try:
                save_file({name: value.detach().contiguous() for name, value in named.items()}, self._file)
            except (OSError, SafetensorError) as error:
                raise InvalidInput(
                    f"{who} cannot be parked in '{self._folder}': {error}. Free some space, set TMPDIR to a larger "
                    "disk, or use park='cpu'."
                ) from error
            self._written = now
            before.unlink(missing_ok=True)
        for value in named.values():
            value.data = torch.empty(0, dtype=value.dtype)
        self._absent = True

    def _read(self, model: nn.Module, device: torch.device, who: str) -> None:
        try:
            weights = load_file(self._file, device=str(device))
        except (OSError, SafetensorError) as error:
            raise InvalidInput(
                f"{who} was parked in '{self._folder}', and cannot be read back: {error}. Load the model anew; use "
                "park='cpu' where temporary files are removed."
            ) from error
        for name, value in model.named_parameters():
            value.data = weights[name]
        self._absent = False

    @property
    def _file(self) -> Path:
        return (self._folder or Path()) / f"weights-{self._files}.safetensors"


def require_park(park: object, who: str) -> Park:
    """Return where a model is parked.

    Args:
        park: "cpu", "disk" or None.
        who: What messages call the model.

    Raises:
        InvalidInput: It is something else.
    """
    if park is None or park == "cpu" or park == "disk":
        return park
    raise InvalidInput(f"{who}: `park` is {park!r}; wanted 'cpu', 'disk', or None to stay where it is asked.")


def find_device(model: nn.Module) -> torch.device:
    """Return where a model's first parameter is.

    Args:
        model: Any module.
    """
    return next((value.device for value in model.parameters()), torch.device("cpu"))


def move_model(model: nn.Module, device: torch.device) -> None:
    """Move a model, unless all of it is there: one that is spread over devices is not to be touched.

    Args:
        model: Any module.
        device: Where to.
    """
    if any(value.device != device for value in (*model.parameters(), *model.buffers())):
        model.to(device)
