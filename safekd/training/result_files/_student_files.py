"""What a result leaves on disk, piece by piece: tensors that cannot carry code, and which student they fit.

Students that are the same to the last bit are written once; ``verdict.json`` says which.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save, save_file
from torch import Tensor, nn

from ...errors import InvalidInput
from ...io import FILE_LIMITS, open_regular_file, write_atomically
from ...io.folders import Manifest

TRACE_LINES, TRACE_TABLE, VERDICT, ROUNDS = "trace.jsonl", "trace.csv", "verdict.json", "tightening.csv"
RUN = "run"  # of a manifest: the folder of one result
State = Mapping[str, Tensor]


def save_student(student: nn.Module, path: str | os.PathLike[str]) -> None:
    """Write a module's parameters and buffers as safetensors; tied ones are written under each of their names.

    Args:
        student: Any module.
        path: A file that ends in .safetensors.
    """
    save_tensors(student.state_dict(), path)


def save_tensors(tensors: State, path: str | os.PathLike[str]) -> None:
    """Write named tensors as safetensors; the file appears whole or not at all.

    Args:
        tensors: By name.
        path: A file that ends in .safetensors.

    Raises:
        InvalidInput: The file cannot be written, or does not hold such tensors.
    """
    require_tensors(tensors, f"{os.fspath(path)}")
    state = {name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in tensors.items()}
    with write_atomically(path) as temporary:
        try:
            save_file(state, temporary)
        except SafetensorError as error:
            raise InvalidInput(
                f"Cannot write {os.fspath(path)}: {error}. Make room there, or choose another folder."
            ) from error


def require_tensors(tensors: Mapping[str, Any], what: str) -> None:
    """Raise InvalidInput naming the first entry that a safetensors file cannot hold.

    Args:
        tensors: By name, as ``state_dict`` gives them.
        what: What messages call them.

    Raises:
        InvalidInput: An entry is no tensor, is sparse, or has a type that such files do not know.
    """
    for name, value in tensors.items():
        if not isinstance(value, Tensor) or value.layout != torch.strided:
            kind = f"a tensor of layout {value.layout}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
            raise InvalidInput(
                f"{what} cannot hold '{name}', which is {kind}; wanted dense tensors. Leave run_dir out and keep the "
                "student by torch.save, or turn that entry into a buffer."
            )
        try:
            save({"x": torch.empty(0, dtype=value.dtype)})
        except (KeyError, SafetensorError, ValueError) as error:
            raise InvalidInput(
                f"{what} cannot hold '{name}': a safetensors file knows no {value.dtype}. Leave run_dir out and keep "
                "the student by torch.save."
            ) from error


def write_states(states: Mapping[str, State], folder: Path, sharing: Collection[str]) -> dict[str, str]:
    """Write each state as a file of its name.

    Args:
        states: Named tensors by name of the file; those without tensors are left out.
        folder: Where to.
        sharing: Names of those that get no file of their own where another one before them is equal.

    Returns:
        Of each state that has no file of its own, the state whose file holds it.
    """
    written: dict[str, State] = {}
    same_as = {}
    for name, state in states.items():
        twin = next((other for other, known in written.items() if _are_equal(state, known)), None)
        if twin is not None and name in sharing:
            same_as[name] = twin
        elif state:
            save_tensors(state, folder / f"{name}.safetensors")
            written[name] = state
    return same_as


def read_state(manifest: Manifest, name: str, same_as: Mapping[str, str]) -> dict[str, Tensor] | None:
    """Return a state that ``write_states`` wrote, None where there is none of that name.

    Args:
        manifest: Of the folder; a file that it does not list is none of the result's.
        name: Of the state.
        same_as: What ``write_states`` returned.

    Raises:
        InvalidInput: The file cannot be read.
    """
    file = f"{same_as.get(name, name)}.safetensors"
    return load_tensors(manifest.folder / file) if file in manifest.files else None


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file, by name.

    Args:
        path: The file.

    Raises:
        InvalidInput: It is no such file; the message names it.
    """
    with open_regular_file(path) as stream:
        head = stream.read(8)
        header = int.from_bytes(head, "little")
    if len(head) < 8 or header > FILE_LIMITS.json_bytes:
        raise InvalidInput(
            f"{path} is no safetensors file: its first eight bytes speak of a header of {header:,} bytes; wanted at "
            f"most {FILE_LIMITS.json_bytes:,}. What torch.save or pickle wrote is never read."
        )
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, RuntimeError, AttributeError) as error:
        raise InvalidInput(f"{path} cannot be read as safetensors: {' '.join(str(error).split())[:200]}.") from error


def describe_structure(student: nn.Module) -> list[str]:
    """Return the modules of a student as torch prints them, line by line, without addresses in memory.

    Args:
        student: Any module.
    """
    return re.sub(r" at 0x[0-9a-f]+", "", str(student)).splitlines()


def require_same_student(student: nn.Module, state: State, structure: list[str], folder: Path) -> None:
    """Raise InvalidInput where a student is not of the architecture whose parameters were kept, naming what differs.

    Args:
        student: To be filled.
        state: Its parameters and buffers as they were kept.
        structure: The modules as they were printed.
        folder: What messages call the place where they were kept.

    Raises:
        InvalidInput: A name, shape, type or module differs.
    """
    own, wrong = student.state_dict(), []
    for name in [*state, *(name for name in own if name not in state)]:
        if name not in own or name not in state:
            wrong.append(f"it has {'' if name in own else 'no '}'{name}', which was {'not ' * (name in own)}kept")
        elif not isinstance(own[name], Tensor) or own[name].shape != state[name].shape:
            found = tuple(own[name].shape) if isinstance(own[name], Tensor) else type(own[name]).__name__
            wrong.append(f"'{name}' has shape {found}, kept was {tuple(state[name].shape)}")
        elif own[name].dtype != state[name].dtype:
            wrong.append(f"'{name}' is {own[name].dtype}, kept was {state[name].dtype}")
    pairs = zip(describe_structure(student), structure, strict=False)
    wrong += [f"it has {mine.strip()}, kept was {kept.strip()}" for mine, kept in pairs if mine != kept]
    if wrong:
        more = f"; and {len(wrong) - 4} more" if len(wrong) > 4 else ""
        raise InvalidInput(
            f"The student is not of the architecture that {folder} holds: {'; '.join(wrong[:4])}{more}. "
            "Build it as it was built for that run."
        )


def _are_equal(one: State, other: State) -> bool:
    if one.keys() != other.keys():
        return False
    pairs = [(one[name], other[name]) for name in one]
    same = all(a.dtype == b.dtype and a.shape == b.shape for a, b in pairs)
    return same and all(torch.equal(_read_bytes(a), _read_bytes(b)) for a, b in pairs)


def _read_bytes(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
