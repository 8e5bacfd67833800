"""Parquet files batch by batch: types, values and metadata of other columns stay, bad cells are named by their row."""

from __future__ import annotations

import decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import safekd as kd
from safekd.errors import InvalidInput
from safekd.io import _parquet, open_table


@pytest.fixture
def file(tmp_path):
    """Return a function that writes columns to a Parquet file and returns its path."""

    def write(columns: dict, name: str = "t.parquet", **options):
        path = tmp_path / name
        pq.write_table(pa.table(columns), path, **options)
        return path

    return write


OTHERS = {
    "text": pa.array(["=1", None, "é"]),
    "whole": pa.array([1, None, 2**62]),
    "time": pa.array([0, 1, None], pa.timestamp("ns", tz="UTC")),
    "list": pa.array([[1, 2], [], None]),
    "record": pa.array([{"a": 1, "b": "x"}, None, {"a": None, "b": ""}]),
    "category": pa.array(["a", "b", "a"]).dictionary_encode(),
    "bytes": pa.array([b"\xff\0", b"", None]),
    "exact": pa.array([decimal.Decimal("1.10"), None, decimal.Decimal("-3.00")]),
    "nan": pa.array([np.nan, None, -0.0]),
}


def test_other_columns_and_metadata_stay(file, tmp_path):
    columns = {**OTHERS, "x": [0.5, 0.25, 1.0]}
    source = pa.table(columns).replace_schema_metadata({"who": "me"})
    pq.write_table(source, tmp_path / "in.parquet")
    source = pq.read_table(tmp_path / "in.parquet")  # Parquet has its own name for the items of a list
    with open_table(tmp_path / "in.parquet") as table, table.copy(tmp_path / "out.parquet", ["x"]) as write:
        for block in table.blocks():
            write(block, block.numbers(["x"]) / 2)
    copied = pq.read_table(tmp_path / "out.parquet")
    assert copied.schema.equals(source.schema, check_metadata=True)
    assert copied.drop_columns(["x", "nan"]).equals(source.drop_columns(["x", "nan"]))
    assert str(copied["nan"].to_pylist()) == "[nan, None, -0.0]"
    assert copied["x"].to_pylist() == [0.25, 0.125, 0.5]


@pytest.mark.parametrize(
    ("kinds", "wanted"),
    [
        ([pa.float64(), pa.float64()], "double"),
        ([pa.float32(), pa.float32()], "float"),
        ([pa.float16(), pa.float32()], "float"),
        ([pa.float32(), pa.float64()], "double"),
        ([pa.int8(), pa.int64()], "double"),
        ([pa.decimal128(5, 2), pa.float32()], "double"),
    ],
)
def test_numbers_of_all_types(kinds, wanted, file, tmp_path):
    ones = pa.array([1, 0, 1], pa.int8())
    path = file({name: ones.cast(kind, safe=False) for name, kind in zip("ab", kinds, strict=True)})
    with open_table(path) as table, table.copy(tmp_path / "out.parquet", ["a", "b"]) as write:
        for block in table.blocks():
            x_NK = block.numbers(["b", "a"])
            assert x_NK.tolist() == [[1, 1], [0, 0], [1, 1]]
            write(block, block.numbers(["a", "b"]))
    assert [str(kind) for kind in pq.read_schema(tmp_path / "out.parquet").types] == [wanted, wanted]


DECIMALS = [
    (pa.decimal128(10, 2), ["0.20", "0.70", "0.10", "1234567.89"]),
    (pa.decimal128(38, 37), ["0.1000000000000000055511151231257827021", "0.3", "1e-30", "0"]),
    (pa.decimal256(70, 60), ["0.7", "0.333333333333333333333333333333333333333333333333333333333333", "-2.5", "9e9"]),
]


@pytest.mark.parametrize(("kind", "texts"), DECIMALS)
def test_decimals_are_read_as_the_nearest_double(kind, texts, file):
    """As the same digits in a CSV file are; a bound of 0.7 then holds for a weight of 0.70."""
    with decimal.localcontext() as context:
        context.prec = 100
        path = file({"x": pa.array([decimal.Decimal(text) for text in texts], kind)})
    with open_table(path) as table:
        (block,) = table.blocks()
        assert block.numbers(["x"])[:, 0].tolist() == [float(text) for text in texts]


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        (pa.array([0.2, 0.7]).dictionary_encode(), [0.2, 0.7]),
        (pa.array([0, 255], pa.uint8()), [0, 255]),
        (pa.array([2**53 + 1, 2**63 - 1]), [float(2**53), float(2**63)]),  # halves go to the even one
        (pa.array([2**64 - 1, 2**53 + 3], pa.uint64()), [float(2**64), float(2**53 + 4)]),
        (pa.array(np.array([0.2, 0.7], np.float16)), [0.199951171875, 0.7001953125]),
    ],
)
def test_numbers_of_unusual_types_are_the_nearest_floats(values, wanted, file, tmp_path):
    path = file({"x": values, "other": values})
    with open_table(path) as table, table.copy(tmp_path / "out.parquet", ["x"]) as write:
        (block,) = table.blocks()
        assert block.numbers(["x"])[:, 0].tolist() == wanted
        write(block, block.numbers(["x"]))
    assert pq.read_table(tmp_path / "out.parquet")["other"].to_pylist() == pq.read_table(path)["other"].to_pylist()


def test_the_same_digits_conform_in_both_formats(file, tmp_path):
    cells = {"a": ["0.20", "0.70"], "b": ["0.70", "0.10"], "c": ["0.10", "0.20"]}
    pairs = {name: pa.array([decimal.Decimal(cell) for cell in column]) for name, column in cells.items()}
    (tmp_path / "w.csv").write_text("a,b,c\n0.20,0.70,0.10\n0.70,0.10,0.20\n")
    for path in (file(pairs), tmp_path / "w.csv"):
        assert kd.audit_file(path, {"lower": 0.1, "upper": 0.7}).holds()
        assert not kd.audit_file(path, {"upper": 0.7 - 1e-15}).holds()


def test_a_name_that_is_no_text_is_told(file):
    path = file({"aaaa": [0.5], "b": [0.5]})
    path.write_bytes(path.read_bytes().replace(b"aaaa", b"a\xff\xfea"))
    with pytest.raises(InvalidInput, match="a column whose name is not UTF-8 text"), open_table(path):
        pass


@pytest.mark.parametrize(
    ("values", "fragment"),
    [
        ([0.5, None, 0.5], "row 2, column 'x': found an empty cell, wanted a finite number"),
        ([0.5, 0.5, float("nan")], "row 3, column 'x': found 'nan', wanted a finite number"),
        ([float("-inf"), 0.5, 0.5], "row 1, column 'x': found '-inf', wanted a finite number"),
        (["0.5", "1", "2"], "column 'x': found values of type string, wanted numbers"),
        ([True, False, True], "column 'x': found values of type bool, wanted numbers"),
        ([None, None, None], "column 'x': found values of type null, wanted numbers"),
    ],
)
def test_what_is_no_number_is_named(values, fragment, file):
    path = file({"x": values})
    with pytest.raises(InvalidInput) as caught, open_table(path) as table:
        [block.numbers(["x"]) for block in table.blocks()]
    assert str(caught.value).startswith(str(path))
    assert fragment in str(caught.value)


@pytest.mark.parametrize(
    ("read", "message"),
    [
        ("truths", "column 'x': found text that is not UTF-8"),
        ("names", "column 'x': found text that is not UTF-8"),
        ("texts", "column 'x': a cell cannot be read: 'utf-8' codec can't decode byte 0xff"),
    ],
)
def test_text_that_is_none_is_told(read, message, file):
    ends, cells = np.array([0, 2, 4], np.int32), b"ok\xff\xfe"
    broken = pa.Array.from_buffers(pa.string(), 2, [None, pa.py_buffer(ends), pa.py_buffer(cells)])
    with open_table(file({"x": broken})) as table, pytest.raises(InvalidInput, match=message):
        [getattr(block, read)("x") for block in table.blocks()]


def test_a_row_without_a_name_is_told(file):
    with (
        open_table(file({"x": ["a", None]})) as table,
        pytest.raises(InvalidInput, match="row 2, column 'x': found an e"),
    ):
        [block.names("x") for block in table.blocks()]


def test_rows_are_counted_across_batches(file, monkeypatch):
    monkeypatch.setattr(_parquet, "_ROWS", 10)
    path = file({"x": [0.5] * 36 + [float("inf")]}, row_group_size=25)
    with pytest.raises(InvalidInput, match="row 37, column 'x': found 'inf'"), open_table(path) as table:
        [block.numbers(["x"]) for block in table.blocks()]


@pytest.mark.parametrize("values", [[True, False], [1, 0], [1.0, 0.0], ["TRUE", "0"], pa.array(["1", "false"])])
def test_truths_of_all_types(values, file):
    with open_table(file({"x": values})) as table:
        assert [block.truths("x").tolist() for block in table.blocks()] == [[True, False]]


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([1.0, 0.9999999], "'0.9999999'"),
        (pa.array(["1", None]).dictionary_encode(), "an empty cell"),
        ([1, 2], "'2'"),
        ([True, None], "an empty cell"),
        ([0.0, 0.5], "'0.5'"),
    ],
)
def test_what_is_no_truth_is_named(values, shown, file):
    with (
        pytest.raises(InvalidInput, match=f"row 2, column 'x': found {shown}"),
        open_table(file({"x": values})) as table,
    ):
        [block.truths("x") for block in table.blocks()]


def test_a_name_or_the_first_bytes_tell(file, tmp_path):
    path = file({"x": [0.5]}, "no_suffix")
    with open_table(path) as table:
        assert table.columns == ("x",)
    (tmp_path / "text.parquet").write_text("x\n0.5\n")
    with (
        pytest.raises(InvalidInput, match=r"text.parquet cannot be read as Parquet"),
        open_table(tmp_path / "text.parquet"),
    ):
        pass


def test_damage_is_told(file):
    path = file({"x": list(range(100_000))}, compression="none")
    content = bytearray(path.read_bytes())
    content[:8] = b"PAR1\xff\xff\xff\xff"
    content[100:5000] = bytes(4900)
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match="cannot be read as Parquet"), open_table(path) as table:
        list(table.blocks())


def test_no_rows_and_names_twice(file, tmp_path):
    with (
        pytest.raises(InvalidInput, match="has columns but no rows"),
        open_table(file({"x": pa.array([], pa.int8())})) as t,
    ):
        list(t.blocks())
    pq.write_table(pa.table([pa.array([1]), pa.array([2])], names=["x", "x"]), tmp_path / "twice.parquet")
    with pytest.raises(InvalidInput, match="two columns named 'x'"), open_table(tmp_path / "twice.parquet"):
        pass


def test_an_error_leaves_what_was_there(file, tmp_path):
    target = tmp_path / "out.parquet"
    target.write_text("what was there")
    path = file({"x": [0.5, None]})
    with pytest.raises(InvalidInput), open_table(path) as table, table.copy(target, ["x"]) as write:  # noqa: PT012
        for block in table.blocks():
            write(block, block.numbers(["x"]))
    assert target.read_text() == "what was there"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["out.parquet", "t.parquet"]


def test_a_column_of_lists_says_nothing_of_truth(file):
    path = file({"x": pa.array([[1]])})
    with open_table(path) as table, pytest.raises(InvalidInput, match="column 'x': found values of type list"):
        [block.truths("x") for block in table.blocks()]


@pytest.mark.parametrize("held", [0, 2])
def test_a_file_that_holds_fewer_rows_than_it_speaks_of_is_damaged(held, tmp_path, monkeypatch):
    pq.write_table(pa.table({"a": [0.5, 0.25, 0.25]}), tmp_path / "w.parquet")
    batches = pa.table({"a": [0.5, 0.25][:held]}, schema=pa.schema({"a": pa.float64()})).to_batches() * bool(held)
    with open_table(tmp_path / "w.parquet") as table:
        monkeypatch.setattr(table._file, "iter_batches", lambda **_: iter(batches), raising=False)
        with pytest.raises(InvalidInput, match=f"w.parquet is damaged: it speaks of 3 rows and holds {held}"):
            list(table.blocks())
