"""Tables that stay in their file: the rows that are asked for, bit for bit, and no header taken at its word."""

from __future__ import annotations

import copy
import json
import os
import pickle
import re
import struct
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from safekd.errors import InvalidInput
from safekd.io.arrays import PARQUET_ROWS, JoinedRows, SelectedRows, open_rows
from safekd.io.arrays._raw_rows import RawRowSettings

N, V = 500, 3
T_NV = torch.randn(N, V, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
PLACES = [torch.tensor([7, 3, 3, 499, 0]), torch.arange(N), torch.arange(N - 1, -1, -1), torch.tensor([], dtype=int)]


def write(path, rows=T_NV):
    """Write a table in the format that a name says."""
    if path.suffix == ".npy":
        np.save(path, rows.numpy())
    elif path.suffix == ".safetensors":
        save_file({"logits": rows.contiguous()}, path)
    else:
        columns = {str(v): rows[:, v].numpy() for v in range(rows.shape[1])}
        pq.write_table(pa.table(columns), path, row_group_size=64)
    return path


@pytest.mark.parametrize("name", ["t.npy", "t.safetensors", "t.parquet", "T.NPY"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_rows_come_bit_for_bit(name, dtype, tmp_path):
    table = open_rows(write(tmp_path / name.lower(), T_NV.to(dtype)))
    widened = torch.float32 if name == "t.parquet" and dtype == torch.float16 else dtype
    assert (table.shape, table.dtype, len(table)) == ((N, V), widened, N)
    for place in PLACES:
        assert torch.equal(table.read(place), T_NV.to(dtype)[place].to(widened))


def test_rows_of_bfloat16_and_of_several_positions(tmp_path):
    rows = torch.randn(20, 4, 5).to(torch.bfloat16)
    save_file({"other": torch.ones(3), "t": rows}, tmp_path / "t.safetensors")
    table = open_rows(tmp_path / "t.safetensors", tensor="t")
    assert (table.shape, table.dtype) == ((20, 4, 5), torch.bfloat16)
    assert torch.equal(table.read(torch.tensor([19, 2])), rows[[19, 2]])


def test_bytes_in_the_other_order(tmp_path):
    np.save(tmp_path / "t.npy", T_NV.numpy().astype(">f4"))
    assert torch.equal(open_rows(tmp_path / "t.npy").read(torch.tensor([5, 1])), T_NV[[5, 1]].float())


def test_shards_follow_each_other_and_some_rows_are_a_table_too(tmp_path):
    paths = [write(tmp_path / "a.npy", T_NV[:100]), write(tmp_path / "b.safetensors", T_NV[100:].float())]
    table = open_rows(paths)
    place = torch.tensor([99, 100, 499, 0])
    assert isinstance(table, JoinedRows)
    assert torch.allclose(table.read(place), T_NV[place], atol=1e-6)
    part = SelectedRows(table, torch.tensor([499, 99]))
    assert torch.equal(part.read(torch.tensor([1])), T_NV[[99]])
    with pytest.raises(InvalidInput, match=r"c.npy has rows of shape \(2,\), .*a.npy of \(3,\)"):
        open_rows([paths[0], write(tmp_path / "c.npy", T_NV[:, :2])])


@pytest.mark.parametrize("name", ["t.npy", "t.safetensors", "t.parquet"])
def test_a_table_travels_by_its_path_and_is_the_same_there(name, tmp_path):
    path = write(tmp_path / name)
    table = open_rows(path)
    for other in (pickle.loads(pickle.dumps(table)), copy.deepcopy(table)):
        assert torch.equal(other.read(PLACES[0]), T_NV[PLACES[0]])
    sent = pickle.dumps(table)
    write(path, T_NV[:400])
    with pytest.raises(InvalidInput, match="was changed while it was in use"):
        pickle.loads(sent)


CHANGES = {
    "replaced": lambda path: write(path.with_name(f"new{path.suffix}")).replace(path),
    "cut short": lambda path: os.truncate(path, 300),
    "written to": lambda path: path.write_bytes(path.read_bytes()[:-1] + b"x"),
    "removed": lambda path: path.unlink(),
}


@pytest.mark.parametrize("name", ["t.npy", "t.safetensors", "t.parquet"])
@pytest.mark.parametrize("how", CHANGES)
def test_a_file_that_changes_during_a_run_is_noticed(name, how, tmp_path):
    path = write(tmp_path / name)
    table = open_rows(path)
    before = table.fingerprint()
    os.utime(path, ns=(1, 1))
    table = open_rows(path)
    table.read(PLACES[0])
    CHANGES[how](path)
    for use in (lambda: table.read(PLACES[1]), table.fingerprint):
        with pytest.raises(InvalidInput, match=rf"{name} was (changed while|open, and cannot)"):
            use()
    if how == "replaced":  # the same content in a new file
        assert open_rows(path).fingerprint() == before
    elif how == "written to" and name != "t.parquet":
        assert open_rows(path).fingerprint() != before


# ------------------------------------------------------------------------------------------------------------ memory


@pytest.mark.parametrize("name", ["t.npy", "t.safetensors"])
def test_memory_does_not_grow_with_the_table(name, tmp_path):
    """Two batches of a table of 48 MB take less than one megabyte."""
    rows, draw = torch.rand(1_200_000, 10), torch.Generator().manual_seed(0)
    table = open_rows(write(tmp_path / name, rows))
    tracemalloc.start()
    for _ in range(20):
        place = torch.randint(len(rows), (256,), generator=draw)
        assert torch.equal(table.read(place), rows[place])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def test_a_parquet_file_keeps_few_row_groups(tmp_path, monkeypatch):
    monkeypatch.setattr("safekd.io.arrays._parquet_rows.PARQUET_ROWS", type(PARQUET_ROWS)(kept_bytes=3 * 64 * V * 8))
    table = open_rows(write(tmp_path / "t.parquet"))
    assert torch.equal(table.read(torch.arange(N)), T_NV)
    assert list(table._kept) == [5, 6, 7]
    monkeypatch.setattr("safekd.io.arrays._parquet_rows.PARQUET_ROWS", type(PARQUET_ROWS)(group_bytes=1000))
    with pytest.raises(InvalidInput, match=r"row group of 64 rows, 1,536 bytes.*wanted at most 1,000"):
        open_rows(tmp_path / "t.parquet")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (pa.table({"a": [0.5] * 3, "b": [0.5, None, 0.5]}), "row 2, column 'b': found an empty cell, wanted a number"),
        (pa.table({"a": pa.array([], pa.float32())}), r"holds a table of shape \(0, 1\); wanted at least one row"),
    ],
)
def test_a_table_with_holes_or_without_rows_is_refused(rows, message, tmp_path):
    pq.write_table(rows, tmp_path / "t.parquet")
    with pytest.raises(InvalidInput, match=message):
        open_rows(tmp_path / "t.parquet").read(torch.arange(3))


def test_a_row_group_that_holds_fewer_rows_than_it_speaks_of_is_damaged(tmp_path, monkeypatch):
    table = open_rows(write(tmp_path / "t.parquet"))
    held = pa.table({str(v): [0.5] for v in range(V)})
    monkeypatch.setattr(table._parquet, "read_row_group", lambda *given, **more: held, raising=False)
    with pytest.raises(InvalidInput, match="is damaged: row group 1 holds 1 rows; wanted 64, as it says"):
        table.read(torch.tensor([64]))


def test_what_names_no_file_or_too_long_rows_is_refused(tmp_path, monkeypatch):
    with pytest.raises(InvalidInput, match="The list of files is empty; wanted at least one"):
        open_rows([])
    monkeypatch.setattr("safekd.io.arrays._raw_rows.RAW_ROWS", RawRowSettings(row_bytes=20))
    with pytest.raises(InvalidInput, match="has rows of 24 bytes, each read as a whole; wanted at most 20"):
        open_rows(write(tmp_path / "t.npy"))


# ------------------------------------------------------------------------------------------------------- hostile files


def npy(header, data=b""):
    text = header.encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def tensors(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


class Bomb:
    """Leaves a mark when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("exploded",)


def write_objects(path):
    np.save(path, np.array([[Bomb(), 1.0]], dtype=object), allow_pickle=True)
    return path.read_bytes()


def write_checkpoint(path):
    torch.save({"t": Bomb()}, path)
    return path.read_bytes()


FULL = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
HOSTILE = {
    "a pickle in an array": ("t.npy", write_objects, "holds objects of Python"),
    "a checkpoint of torch": ("t.safetensors", write_checkpoint, "is what torch.save or pickle writes"),
    "a checkpoint of torch called npy": ("t.npy", write_checkpoint, "is what torch.save or pickle writes"),
    "a bare pickle": ("t.safetensors", pickle.dumps(Bomb()), "is what torch.save or pickle writes"),
    "terabytes": ("t.npy", npy("{'descr': '<f4', 'fortran_order': False, 'shape': (10**12, 10)}"), "header is damaged"),
    "terabytes, said plainly": (
        "t.npy",
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 10), }\n"),
        "speaks of 1,000,000,000,000 rows of 40 bytes, and the file has",
    ),
    "a negative size": ("t.npy", npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 10), }\n"), "(-1, 10)"),
    "truth for a size": ("t.npy", npy("{'descr': '<f4', 'fortran_order': False, 'shape': (True, 1), }\n"), "True"),
    "column after column": ("t.npy", np.asfortranarray(T_NV.numpy()), "stored column after column"),
    "whole numbers": ("t.npy", np.ones((2, 3), int), "numbers of type int64; wanted float16"),
    "no axis": ("t.npy", np.float64(3), "a table of shape ()"),
    "no rows": ("t.npy", np.ones((0, 3)), "a table of shape (0, 3)"),
    "code in a header": ("t.npy", npy("__import__('os').mkdir('exploded')"), "header is damaged"),
    "a header of brackets": ("t.npy", npy("(" * 9000), "header is damaged"),
    "a long header": ("t.npy", b"\x93NUMPY\x02\x00\xff\xff\xff\xff{", "header is damaged"),
    "a text": ("t.npy", b"a,b\n0.5,0.5\n", "is not a .npy file"),
    "nothing": ("t.npy", b"", "is not a .npy file"),
    "nothing at all": ("t.safetensors", b"", "has 0 bytes"),
    "a header of exabytes": ("t.safetensors", b"\xff" * 8 + b"{}", "speak of a header of 18,446,744,073,709,551,615"),
    "offsets of terabytes": (
        "t.safetensors",
        tensors({"t": {**FULL, "shape": [10**12, 3], "data_offsets": [0, 12 * 10**12]}}),
        "speaks of 12,000,000,000",
    ),
    "a shape of its own": ("t.safetensors", tensors({"t": {**FULL, "shape": [9, 3]}}, bytes(24)), "size of its shape"),
    "offsets backwards": ("t.safetensors", tensors({"t": {**FULL, "data_offsets": [24, 0]}}, bytes(24)), "is none"),
    "a huge number": ("t.safetensors", tensors({"t": {**FULL, "shape": [10**30, 3]}}, bytes(24)), "is none"),
    "a name twice": ("t.safetensors", tensors(b'{"t": 1, "t": 2}'), "stands there twice"),
    "deep nesting": ("t.safetensors", tensors(b"[" * 100_000), "header is damaged"),
    "no object": ("t.safetensors", tensors(b"[1]"), "it is no object"),
    "no UTF-8": ("t.safetensors", tensors(b'{"\xff": 1}'), "header is damaged"),
    "two tensors": ("t.safetensors", tensors({"a": FULL, "b": FULL}, bytes(24)), "holds 2 tensors; it holds: 'a', 'b'"),
    "no tensor": ("t.safetensors", tensors({}), "it holds: none"),
    "whole tensors": ("t.safetensors", tensors({"t": {**FULL, "dtype": "I32"}}, bytes(24)), "of type I32"),
    "more than was written": ("t.safetensors", tensors({"t": FULL}, bytes(30)), "was cut off or added to"),
    "a text called Parquet": ("t.parquet", b"a,b\n0.5,0.5\n", "cannot be read as Parquet"),
    "a mark alone": ("t.parquet", b"PAR1PAR1", "cannot be read as Parquet"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_file_is_refused_by_name(kind, tmp_path, monkeypatch):
    name, content, message = HOSTILE[kind]
    monkeypatch.chdir(tmp_path)
    path = tmp_path / name
    if callable(content):
        path.write_bytes(content(path))
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content)
    with pytest.raises(InvalidInput, match=f"{re.escape(str(path))}.*{re.escape(message)}"):
        open_rows(path)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("name", ["t.npy", "t.safetensors", "t.parquet"])
@pytest.mark.parametrize("kind", ["folder", "pipe", "socket", "device", "missing", "NUL", "long name"])
def test_what_is_no_file_is_refused_at_once(name, kind, tmp_path, make_no_file):
    with pytest.raises(InvalidInput, match=r"Cannot read"):
        open_rows(make_no_file(tmp_path / name, kind))


@pytest.mark.parametrize("name", ["t.npy", "t.safetensors", "t.parquet"])
def test_every_truncation_and_turned_bits_of_a_header_are_refused_or_right(name, tmp_path):
    data = write(tmp_path / name, T_NV[:4]).read_bytes()
    rng, nameless = np.random.default_rng(0), []
    for length in [*range(min(len(data), 200)), len(data) - 1]:
        (tmp_path / name).write_bytes(data[:length])
        with pytest.raises(InvalidInput, match=re.escape(name)):
            open_rows(tmp_path / name).read(torch.arange(4))
    for _ in range(300):
        turned = bytearray(data)
        turned[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
        (tmp_path / name).write_bytes(turned)
        try:
            table = open_rows(tmp_path / name)
            table.read(torch.arange(len(table)))
        except InvalidInput as error:
            nameless = [*nameless, *[str(error)] * (name not in str(error))]
    assert nameless == []
