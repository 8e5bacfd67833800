"""Tables of stored teachers in files: .npy, .safetensors and Parquet, damaged, forged, poisoned, or changed in use.

Axes: N rows, V classes.
"""

from __future__ import annotations

import json
import struct
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import save

import safekd as kd

from ._damage import OUTSIDE, damage_file, write_bomb
from ._forged_json import VALUES
from ._input import ACCEPTED, EITHER, REFUSED, HostileInput

Rng = np.random.Generator
FORMATS = ("npy", "safetensors", "parquet")
_DTYPES = {"npy": ("float16", "float32", "float64"), "safetensors": ("float16", "bfloat16", "float32", "float64")}


def draw_table_input(rng: Rng) -> HostileInput:
    """Return one file, and what must come of reading it as a teacher."""
    makers = (_good, _damaged, _damaged, _damaged, _forged, _forged, _forged, _poisoned, _changed_in_use)
    return makers[int(rng.integers(len(makers)))](rng)


def _draw_table(rng: Rng, form: str) -> tuple[torch.Tensor, bytes]:
    """Return a table of distributions and a file that holds it."""
    shape = (int(rng.integers(1, 40)), int(rng.integers(1, 6)))
    names = _DTYPES.get(form, ("float32", "float64"))
    dtype = getattr(torch, names[int(rng.integers(len(names)))])
    rows_NV = torch.from_numpy(rng.dirichlet(np.ones(shape[1]), shape[0])).to(dtype)
    stream = BytesIO()
    if form == "npy":
        np.save(stream, rows_NV.numpy())
    elif form == "safetensors":
        stream.write(save({"table": rows_NV}))
    else:
        columns = {f"c{v}": pa.array(rows_NV[:, v].numpy()) for v in range(shape[1])}
        pq.write_table(pa.table(columns), stream, row_group_size=int(rng.integers(1, 50)))
    return rows_NV, stream.getvalue()


def _ask(path: Path, rows: int) -> torch.Tensor:
    """Return what a teacher of the file says of each row, log-probabilities."""
    return _ask_teacher(kd.teachers.StoredTeacher("t", path), rows)


def _ask_teacher(teacher: kd.teachers.StoredTeacher, rows: int) -> torch.Tensor:
    split = kd.Split("train", torch.zeros(rows, 1), torch.zeros(rows, dtype=torch.long))
    teacher.fingerprint()
    return teacher.log_probabilities(split.batch(), "train")


def _compare(path: Path, rows_NV: torch.Tensor) -> str:
    said_NV = _ask(path, len(rows_NV)).exp()
    if said_NV.shape != rows_NV.shape:
        return f"a table of shape {tuple(said_NV.shape)}, was {tuple(rows_NV.shape)}"
    wide_NV = rows_NV.double().clamp_min(1e-6)
    off = float((said_NV.double() - wide_NV / wide_NV.sum(1, keepdim=True)).abs().max())
    return "" if off < 1e-5 else f"probabilities are off by {off}"


def _require_distributions(path: Path, rows: int) -> str:
    """Say what is wrong with what a damaged file was taken for: its rows must still be distributions."""
    said_NV = _ask(path, rows).exp().double()
    good = bool(said_NV.isfinite().all()) and bool(((said_NV.sum(-1) - 1).abs() < 1e-3).all())
    return "" if good else f"rows that are no distributions: {said_NV.tolist()[:2]}"


def _pick_format(rng: Rng) -> str:
    return FORMATS[int(rng.integers(len(FORMATS)))]


def _good(rng: Rng) -> HostileInput:
    form = _pick_format(rng)
    rows_NV, data = _draw_table(rng, form)
    name = f"t.{form}"
    return HostileInput("table", f"a good {name}", ACCEPTED, {name: data}, call=lambda f: _compare(f / name, rows_NV))


def _damaged(rng: Rng) -> HostileInput:
    form, seed = _pick_format(rng), int(rng.integers(2**32))
    rows_NV, data = _draw_table(rng, form)
    name = f"t.{form}"

    def prepare(folder: Path) -> tuple[str, str]:
        (folder / OUTSIDE).mkdir()
        (folder / name).write_bytes(data)
        how, same = damage_file(np.random.default_rng(seed), folder / name)
        content = how in ("bits turned", "swapped with its neighbor")  # no hash says what the numbers were
        return how, EITHER if same or content else REFUSED

    def call(folder: Path) -> str:
        return _require_distributions(folder / name, len(rows_NV))

    return HostileInput("table", f"damaged {name}", EITHER, call=call, prepare=prepare, names=(name,))


def _poisoned(rng: Rng) -> HostileInput:
    name = f"t.{_pick_format(rng)}"
    files = {name: write_bomb(rng)}
    return HostileInput(
        "table",
        f"a pickle called {name}",
        REFUSED,
        files,
        call=lambda f: _require_distributions(f / name, 3),
        names=(name,),
    )


def _changed_in_use(rng: Rng) -> HostileInput:
    """The file is replaced after the teacher was made: by one that is good too, even."""
    form = _pick_format(rng)
    rows_NV, data = _draw_table(rng, form)
    _, other = _draw_table(rng, form)
    name, how = f"t.{form}", int(rng.integers(4))

    def call(folder: Path) -> str:
        teacher, path = kd.teachers.StoredTeacher("t", folder / name), folder / name
        if rng.random() < 0.5:
            _ask_teacher(teacher, len(rows_NV))
        if how == 0:
            path.unlink()
        elif how == 1:
            path.write_bytes(data[: len(data) // 2])
        else:
            (folder / "new").write_bytes(other if how == 2 else data)
            (folder / "new").replace(path)
        try:
            _ask_teacher(teacher, len(rows_NV))
        finally:
            path.write_bytes(data)
        return ""

    story = ["removed", "cut short", "replaced by another", "replaced by its copy"][how]
    return HostileInput("table", f"{name} was {story} in use", REFUSED, {name: data}, call=call, names=(name,))


def _forged(rng: Rng) -> HostileInput:
    form = ("npy", "safetensors")[int(rng.integers(2))]
    data, story, wanted = (_forge_npy if form == "npy" else _forge_safetensors)(rng)
    name = f"t.{form}"
    return HostileInput(
        "table",
        f"{name}: {story}",
        wanted,
        {name: data},
        call=lambda f: _require_distributions(f / name, 2),
        names=(name,),
    )


_SIZES: list[Any] = [0, 1, 2, 3, -1, 10**6, 10**12, 2**31, 2**63 - 1, 2**63, 10**30, True, 2.0, "2", None, (2,)]


def _pick(rng: Rng, values: list[Any]) -> Any:
    return values[int(rng.integers(len(values)))]


def _forge_npy(rng: Rng) -> tuple[bytes, str, str]:
    """Return a header with one entry of its own, before the bytes of two distributions over two classes."""
    header: dict[str, Any] = {"descr": "<f4", "fortran_order": False, "shape": (2, 2)}
    key, wanted = str(rng.choice(["descr", "fortran_order", "shape", "more", "text"])), EITHER
    descriptions = ["|O", "<f8", "<f2", ">f4", "<i4", "<c8", "|S4", "<U9", "|V4", "<M8[s]", "x", "", 3, [("a", "<f4")]]
    if key == "descr":
        header[key] = _pick(rng, [*descriptions, "f4,f4", "<f16", ["<f4"], None, "O" * 100])
    elif key == "fortran_order":
        header[key] = _pick(rng, [True, 1, 0, None, "False", 2.0])
    elif key == "shape":
        header[key] = _pick(
            rng, [(_pick(rng, _SIZES), 2), (2, _pick(rng, _SIZES)), (_pick(rng, _SIZES),) * 40, 4, "x", []]
        )
    elif key == "more":
        header[_pick(rng, ["more", "", "descr2", "\0", "x" * 3000])] = _pick(rng, VALUES)
        wanted = REFUSED
    texts = ["__import__('os').mkdir('exploded')", "(" * 5000, "{", "", "\0" * 64, "{'descr': " * 50, "1" * 9000, "[]"]
    text = _pick(rng, [*texts, "lambda: 0", "é" * 10, "{'a'}"]) if key == "text" else str(header)
    encoded = text.encode("utf-8", "replace") + b"\n"
    version = _pick(rng, [(1, 0), (1, 0), (2, 0), (3, 0), (9, 9)])
    length = len(encoded) if rng.random() < 0.85 else int(_pick(rng, [0, 1, 65535, len(encoded) + 20]))
    size = struct.pack("<H" if version == (1, 0) else "<I", length)
    data = np.array([[0.5, 0.5], [0.25, 0.75]], np.float32).tobytes()
    return b"\x93NUMPY" + bytes(version) + size + encoded + data, f"{key} of a header: {text[:60]!r}", wanted


def _forge_safetensors(rng: Rng) -> tuple[bytes, str, str]:
    entry: dict[str, Any] = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
    key = str(rng.choice(["dtype", "shape", "data_offsets", "name", "entry", "length", "text"]))
    header: dict[str, Any] = {"t": entry}
    if key == "dtype":
        entry[key] = _pick(rng, ["F16", "F64", "I32", "BOOL", "F8_E4M3", "", 3, None, "x" * 1000, ["F32"]])
    elif key == "shape":
        entry[key] = _pick(
            rng, [[_pick(rng, _SIZES), 2], [2, _pick(rng, _SIZES)], [4], [], "x", None, [1] * 50 + [2, 2]]
        )
    elif key == "data_offsets":
        entry[key] = _pick(
            rng, [[0, _pick(rng, _SIZES)], [_pick(rng, _SIZES), 16], [16, 0], [0], [0, 8, 16], None, "ab"]
        )
    elif key == "name":
        header = {str(_pick(rng, ["../../x", "\0", "", "é", "x" * 10_000, "__metadata__", "a\nb"])): entry}
    elif key == "entry":
        header["t"] = _pick(rng, VALUES)
    text = json.dumps(header).encode()
    if key == "text":
        odd = [b"", b"[]", b"null", b"{", b"[" * 100_000, b'{"t": 1, "t": 2}', b"\xff\xfe{}", b"\xef\xbb\xbf{}", b"NaN"]
        text = _pick(rng, [*odd, b'{"a":' * 50_000, b"9" * 10_000])
    length = len(text)
    if key == "length":
        length = int(_pick(rng, [0, 1, length - 1, length + 1, 2**32, 2**63, 2**64 - 1, 100_000_000]))
    data = np.array([[0.5, 0.5], [0.25, 0.75]], np.float32).tobytes()
    wanted = REFUSED if key in ("text", "length", "entry") else EITHER
    return struct.pack("<Q", length) + text + data, f"{key} of a header: {text[:60]!r}", wanted
