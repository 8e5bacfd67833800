"""Parquet files of weights: every type of number, and files that are damaged, cut off or something else.

Axes: N rows, K teachers.
"""

from __future__ import annotations

import io
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ._input import ACCEPTED, EITHER, REFUSED, HostileInput, project_rows_by_hand

Rng = np.random.Generator
NAMES = ("a", "b", "c")


def draw_parquet_input(rng: Rng) -> HostileInput:
    """Return one input: a good table, and one thing done to it."""
    makers = (_of_a_type, _of_a_type, _with_a_bad_column, _damaged, _damaged, _beside_an_index, _something_else)
    return makers[int(rng.integers(len(makers)))](rng)


def _write(table: pa.Table, rng: Rng) -> bytes:
    stream = io.BytesIO()
    compression = str(rng.choice(["none", "snappy", "gzip", "zstd"]))
    pq.write_table(table, stream, compression=compression, row_group_size=int(rng.integers(1, 5)))
    return stream.getvalue()


def _draw_numbers(rng: Rng) -> list[list[str]]:
    """Return rows of texts of two digits that sum to 1, as a table of money has them."""
    rows = []
    for _ in range(int(rng.integers(2, 7))):
        a, b = sorted(rng.integers(1, 99, 2).tolist())
        rows.append([f"{a / 100:.2f}", f"{(b - a) / 100:.2f}", f"{(100 - b) / 100:.2f}"])
    return rows


TYPES: dict[str, Any] = {
    "float64": lambda texts: pa.array([float(text) for text in texts]),
    "float32": lambda texts: pa.array(np.array([float(text) for text in texts], np.float32)),
    "float16": lambda texts: pa.array(np.array([float(text) for text in texts], np.float16)),
    "decimal128": lambda texts: pa.array([Decimal(text) for text in texts], pa.decimal128(12, 4)),
    "decimal256": lambda texts: pa.array([Decimal(text) for text in texts], pa.decimal256(60, 30)),
    "dictionary": lambda texts: pa.array([float(text) for text in texts]).dictionary_encode(),
    "whole": lambda texts: pa.array([round(100 * float(text)) for text in texts], pa.int64()),
    "uint8": lambda texts: pa.array([round(100 * float(text)) for text in texts], pa.uint8()),
}


def _of_a_type(rng: Rng) -> HostileInput:
    rows = _draw_numbers(rng)
    kinds = [str(rng.choice(list(TYPES))) for _ in NAMES]
    columns = {
        name: TYPES[kind](column) for name, kind, column in zip(NAMES, kinds, zip(*rows, strict=True), strict=True)
    }
    columns["note"] = pa.array(["=x", None, "é", "", "b", "c"][: len(rows)])
    narrow = all(kind in ("float32", "float16") for kind in kinds)
    # what Python makes of each number, from the digits themselves
    read_NK = np.array([[_read(text, kind) for text, kind in zip(row, kinds, strict=True)] for row in rows])
    lower, upper = float(rng.choice([0.0, 0.1])), float(rng.choice([1.0, 0.5]))

    def look(folder: Path) -> str:
        copied = pq.read_table(folder / "out.parquet")
        got_NK = np.stack([copied[name].to_numpy() for name in NAMES], axis=1)
        if str(got_NK.dtype) != ("float32" if narrow else "float64"):
            return f"written as {got_NK.dtype}"
        if copied["note"].to_pylist() != columns["note"].to_pylist():
            return "another column changed"
        off = abs(got_NK - project_rows_by_hand(read_NK, lower, upper)).max()
        return "" if off < (1e-5 if narrow else 1e-9) else f"weights are off by {off}"

    arguments = (
        "project",
        "in.parquet",
        "-o",
        "out.parquet",
        "--teacher",
        "a,b,c",
        "--lower",
        str(lower),
        "--upper",
        str(upper),
    )
    story = f"numbers of types {', '.join(kinds)}"
    files = {"in.parquet": _write(pa.table(columns), rng)}
    return HostileInput("parquet", story, ACCEPTED, files, arguments, look=look, appears=("out.parquet",))


def _read(text: str, kind: str) -> float:
    if kind in ("whole", "uint8"):
        return float(round(100 * float(text)))
    if kind in ("float32", "float16"):
        return float(np.dtype(kind).type(float(text)))
    return float(text)


def _with_a_bad_column(rng: Rng) -> HostileInput:
    rows = _draw_numbers(rng)
    count = len(rows)
    bad = {
        "text": pa.array([text for text, *_ in rows]),
        "a null": pa.array([None, *[0.5] * (count - 1)], pa.float64()),
        "all null": pa.array([None] * count),
        "NaN": pa.array([float("nan")] * count),
        "infinite": pa.array([float("inf")] * count),
        "booleans": pa.array([True] * count),
        "lists": pa.array([[0.5]] * count),
        "records": pa.array([{"x": 0.5}] * count),
        "dates": pa.array([0] * count, pa.date32()),
        "times": pa.array([2**62] * count, pa.timestamp("ns")),
        "bytes": pa.array([b"\xff"] * count),
        "text that is none": pa.array([b"\xff"] * count).cast(pa.binary()).view(pa.string()),
        "a null in a dictionary": pa.array([None, *["x"] * (count - 1)]).dictionary_encode(),
    }
    story = str(rng.choice(list(bad)))
    columns = {name: TYPES["float64"](column) for name, column in zip(NAMES, zip(*rows, strict=True), strict=True)}
    arguments = ["project", "in.parquet", "-o", "out.parquet", "--teacher", "a,b,c"]
    if rng.random() < 0.7:
        columns["b"] = bad[story]
    else:  # booleans are what such a column wants
        columns["flag"] = pa.array([2] * count) if story == "booleans" else bad[story]
        arguments += ["--order", "a>=b", "--critical-column", "flag"]
    files = {"in.parquet": _write(pa.table(columns), rng), "out.parquet": b"what was there"}
    return HostileInput("parquet", f"a column of {story}", REFUSED, files, tuple(arguments))


def _beside_an_index(rng: Rng) -> HostileInput:
    rows = _draw_numbers(rng)
    columns = {name: TYPES["float64"](column) for name, column in zip(NAMES, zip(*rows, strict=True), strict=True)}
    name = str(rng.choice(["__index_level_0__", "id", "total", ""]))
    extra = [1.0] * len(rows) if name == "total" else list(range(1, len(rows) + 1))
    table = pa.table({name: pa.array(extra), **columns})
    files = {"in.parquet": _write(table, rng), "out.parquet": b"what was there"}
    return HostileInput("parquet", f"beside '{name}'", REFUSED, files, ("project", "in.parquet", "-o", "out.parquet"))


def _damaged(rng: Rng) -> HostileInput:
    """Bits turned, the end cut off, a name that is no text: what pyarrow reads of it whole is right, or a refusal."""
    rows = _draw_numbers(rng)
    columns = {name: TYPES["float64"](column) for name, column in zip(NAMES, zip(*rows, strict=True), strict=True)}
    data = bytearray(_write(pa.table({**columns, "longname": columns["a"]}), rng))
    how = rng.random()
    if how < 0.15:
        del data[int(rng.integers(len(data))) :]
    elif how < 0.3:
        data = bytearray(bytes(data).replace(b"longname", b"long\xff\xfeme"))
    else:
        start = 0 if rng.random() < 0.5 else max(0, len(data) - 300)  # the footer decides on everything
        for _ in range(int(rng.integers(1, 6))):
            data[int(rng.integers(start, len(data)))] = int(rng.integers(256))

    def look(folder: Path) -> str:
        copied = pq.read_table(folder / "out.parquet")
        got_NK = np.stack([copied[name].to_numpy() for name in NAMES], axis=1)
        if not np.isfinite(got_NK).all() or not (abs(got_NK.sum(axis=1) - 1) < 1e-9).all():
            return f"rows that do not conform: {got_NK.tolist()}"
        try:
            read_NK = np.stack([pq.read_table(io.BytesIO(data))[name].to_numpy() for name in NAMES], axis=1)
        except (pa.ArrowException, OSError, ValueError, KeyError):
            return ""  # a column that nobody asked for is damaged
        scale = max(1.0, float(abs(read_NK).max()))
        off = abs(got_NK - project_rows_by_hand(read_NK, 0.0, 1.0)).max() if scale < 1e6 else 0.0
        return "" if off < 1e-9 * scale else f"weights are off by {off}"

    arguments = ("project", "in.parquet", "-o", "out.parquet", "--teacher", "a,b,c")
    files = {"in.parquet": bytes(data)}
    return HostileInput("parquet", "damaged", EITHER, files, arguments, look=look, appears=("out.parquet",))


def _something_else(rng: Rng) -> HostileInput:
    good = _write(pa.table({"a": [0.5], "b": [0.5]}), rng)
    spoiled = {
        "CSV": b"a,b\n0.5,0.5\n",
        "empty": b"",
        "its mark alone": b"PAR1PAR1",
        "encrypted": b"PARE" + good[4:-4] + b"PARE",
        "random": rng.bytes(300),
        "no rows": _write(pa.table({"a": pa.array([], pa.float64())}), rng),
        "no columns": _write(pa.table({}), rng),
        "a name twice": _write(pa.table([pa.array([0.5]), pa.array([0.5])], names=["a", "a"]), rng),
        "a footer of 4 GB": good[:-8] + b"\xff\xff\xff\xff" + b"PAR1",
    }
    story = str(rng.choice(list(spoiled)))
    files = {"in.parquet": spoiled[story], "out.parquet": b"what was there"}
    return HostileInput("parquet", story, REFUSED, files, ("project", "in.parquet", "-o", "out.parquet"))
