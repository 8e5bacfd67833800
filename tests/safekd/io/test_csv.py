"""CSV files block by block: the csv module is the reference, for what is read, refused and written."""

from __future__ import annotations

import csv
import io
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import safekd as kd
from safekd.errors import InvalidInput
from safekd.io import _csv, open_table, read_table

# what decides on where cells and rows end, more often than chance would have it
TEXTS = st.text(st.sampled_from('abé1,,,\n\n\r"" =-'), max_size=40)
CHUNKS = st.sampled_from([1, 2, 3, 7, 64])


@pytest.fixture
def chunk(monkeypatch):
    """Return a function that sets how many bytes are read at a time."""
    return lambda size: monkeypatch.setattr(_csv, "_CHUNK", size)


def by_csv_module(text: str) -> list[list[str]] | None:
    """Return header and rows as the csv module reads them, None for what is no table."""
    try:
        rows = [cells for cells in csv.reader(io.StringIO(text, newline=""), strict=True) if cells]
    except csv.Error:
        return None
    whole = len(rows) > 1 and len(set(rows[0])) == len(rows[0]) and len({len(cells) for cells in rows}) == 1
    return rows if whole else None


def ours(path) -> list[list[str]] | None:
    try:
        table = read_table(path)
    except InvalidInput:
        return None
    return [list(table.columns), *table.to_numpy().tolist()]


@settings(max_examples=150)
@given(text=TEXTS, size=CHUNKS)
def test_cells_are_those_of_the_csv_module(tmp_path_factory, text, size):
    """All that is a table to the one is the same table to the other, wherever blocks begin."""
    path = tmp_path_factory.getbasetemp() / "law.csv"
    path.write_bytes(text.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_csv, "_CHUNK", size)
        assert ours(path) == by_csv_module(text)


CELLS = st.text(st.sampled_from('ab1,\n"é =+-@\t'), max_size=6)


@given(rows=st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=6), size=CHUNKS, end=st.sampled_from(["\n", "\r\n"]))
def test_what_is_not_replaced_is_copied(tmp_path_factory, rows, size, end):
    """The copy reads as the original does, but for apostrophes before formulas, and its numbers are the new ones."""
    folder = tmp_path_factory.getbasetemp()
    with (folder / "in.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator=end)
        writer.writerow(["left", "x", "right"])
        writer.writerows([left, "0.25", right] for left, right in rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_csv, "_CHUNK", size)
        with open_table(folder / "in.csv") as table, table.copy(folder / "out.csv", ["x"]) as write:
            for block in table.blocks():
                write(block, block.numbers(["x"]) + 0.5)
    with (folder / "out.csv").open(newline="", encoding="utf-8") as stream:
        copied = list(csv.reader(stream, strict=True))
    assert copied == [["left", "x", "right"], *([guarded(left), "0.75", guarded(right)] for left, right in rows)]


def guarded(cell: str) -> str:
    """Spelled out anew: a formula begins with one of five signs and does not read as a number."""
    try:
        float(cell)
    except ValueError:
        return "'" + cell if cell.startswith(("=", "+", "-", "@", "\t")) else cell
    return cell


BYTES = {
    "leading zeros": b"007,0.5,1e5\n",
    "needless quotes": b'"plain",0.5,"007"\n',
    "line breaks in quotes": b'"a\nb\r\nc\rd",0.5,x\n',
    "doubled quotes": b'"say ""hi""",0.5,x\n',
    "quotes inside": b'a"b,0.5,"c,d"\n',
    "empty cells": b",0.5,\n",
    "blanks": b" a ,0.5, .\t\n",
    "negative numbers": b"-1e-3,0.5,+7\n",
    "text of all kinds": "名,0.5,🙂\n".encode(),
    "no number": b"NA,0.5,null\n",
    "nul": b"a\0b,0.5,c\n",
}


def half(source, target):
    """Copy a table with 0.25 in column x."""
    with open_table(source) as table, table.copy(target, ["x"]) as write:
        for block in table.blocks():
            write(block, block.numbers(["x"]) / 2)


@pytest.mark.parametrize("kind", BYTES)
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_other_columns_are_the_same_bytes(kind, mark, tmp_path):
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_bytes(mark + b'id,"x",note\n' + BYTES[kind])
    half(source, target)
    assert target.read_bytes() == mark + b'id,"x",note\n' + BYTES[kind].replace(b",0.5,", b",0.25,")


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_rows_end_as_the_header_does(end, tmp_path):
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_bytes(end + b"x,y" + end + end + b"0.5,1" + end + b"0.5,2")
    half(source, target)
    assert target.read_bytes() == b"x,y" + end + b"0.25,1" + end + b"0.25,2" + end


def test_formulas_are_guarded_in_quotes_and_in_names(tmp_path):
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_bytes(b'@n,x,"=m"\n=1+1,0.5,"-cmd, a"\n-1_0,0.5,+1\n')
    half(source, target)
    assert target.read_bytes() == b"'@n,x,\"'=m\"\n'=1+1,0.25,\"'-cmd, a\"\n'-1_0,0.25,+1\n"


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=20))
def test_numbers_are_read_and_written_to_the_last_bit(tmp_path_factory, x_N):
    folder = tmp_path_factory.getbasetemp()
    source, target = folder / "bits.csv", folder / "copy.csv"
    source.write_text("x,y\n" + "".join(f"{x!r},\n" for x in x_N))
    with open_table(source) as table, table.copy(target, ["x"]) as write:
        for block in table.blocks():
            read_N = block.numbers(["x"])
            assert [struct.pack("<d", x) for x in read_N[:, 0]] == [struct.pack("<d", x) for x in x_N]
            write(block, read_N)
    again = [float(line.split(",")[0]) for line in target.read_text().splitlines()[1:]]
    assert [struct.pack("<d", x) for x in again] == [struct.pack("<d", x) for x in x_N]


@pytest.mark.parametrize("cell", ["1", "+1", " 1.0\t", '"1"', '" 1e0 "', "1.", "0.1e1", "\u00a01", "１"])
def test_a_number_is_what_python_takes_for_one(cell, tmp_path):
    path = tmp_path / "x.csv"
    path.write_text(f"x,y\n{cell},\n0.5,\n", encoding="utf-8")
    with open_table(path) as table:
        (block,) = table.blocks()
        assert block.numbers(["x"]).tolist() == [[1.0], [0.5]]


def refused(path, read) -> str:
    with pytest.raises(InvalidInput) as caught, open_table(path) as table:
        list(map(read, table.blocks()))
    return str(caught.value)


# where, as an editor counts lines
BAD_CELLS = {
    "plain": ("x,note\n1,a\nbad,b\n", "line 3, column 'x'"),
    "after blank lines": ("x,note\n\n1,a\n\n\nbad,b\n", "line 6, column 'x'"),
    "after line breaks in a cell": ('x,note\n1,"a\nb\nc"\nbad,d\n', "line 5, column 'x'"),
    "after line breaks in its own row": ('note,x\n"a\nb",bad\n', "line 3, column 'x'"),
    "before line breaks in its own row": ('x,note\nbad,"a\nb"\n', "line 2, column 'x'"),
    "windows": ('x,note\r\n1,"a\r\nb"\r\nbad,b\r\n', "line 4, column 'x'"),
    "old mac": ('x,note\r1,"a\rb"\rbad,b\r', "line 4, column 'x'"),
    "line breaks in the header": ('x,"no\nte"\nbad,b\n', "line 3, column 'x'"),
    "no line break at the end": ("x,note\n1,a\nbad,b", "line 3, column 'x'"),
}


@pytest.mark.parametrize("size", [1, 5, 1 << 20])
@pytest.mark.parametrize("kind", BAD_CELLS)
def test_a_bad_cell_is_named_by_its_line(kind, size, tmp_path, chunk):
    content, place = BAD_CELLS[kind]
    path = tmp_path / "x.csv"
    path.write_bytes(content.encode())
    chunk(size)
    assert refused(path, lambda b: b.numbers(["x"])) == f"{path}, {place}: found 'bad', wanted a finite number."


def test_a_bad_cell_far_down_is_named(tmp_path):
    path = tmp_path / "x.csv"
    with path.open("w") as stream:
        stream.write("id,x\n")
        stream.writelines(f"{i},0.5\n" for i in range(200_000))
        stream.write("200000,0.5.\n")
    assert refused(path, lambda b: b.numbers(["x"])).endswith(
        "line 200002, column 'x': found '0.5.', wanted a finite number."
    )


UNREADABLE = {
    "too many cells": ('x,y\n"1\n1",2\n3,4,5\n', "line 4: found 3 cells, the header has 2"),
    "open quote": ('x,y\n"1\n1",2\n3,"4\n\n\n', "line 4: a quote is opened and never closed; mend the quotes there"),
    "text after a quote": ('x,y\n1,"a\nb"c\n', "line 3: there is text after a closing quote; mend the quotes there"),
    "open quote in the header": ('x,"y\n', "line 1: a quote is opened and never closed"),
    "not UTF-8": (b"x,y\n\n1,\xff\n", "is not UTF-8 text; save it as CSV in UTF-8. Line 3 holds the byte 0xff."),
    "cut in a letter": (
        "x,y\n1,é".encode()[:-1],
        "is not UTF-8 text; save it as CSV in UTF-8. Line 2 holds the byte 0xc3.",
    ),
}


@pytest.mark.parametrize("size", [1, 3, 1 << 20])
@pytest.mark.parametrize("kind", UNREADABLE)
def test_what_is_no_table_is_named_by_its_line(kind, size, tmp_path, chunk):
    content, message = UNREADABLE[kind]
    path = tmp_path / "x.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    chunk(size)
    assert message in refused(path, lambda block: None)


def test_a_quote_that_is_never_closed_does_not_fill_the_memory(tmp_path, monkeypatch, chunk):
    chunk(1 << 10)
    monkeypatch.setattr(_csv, "_LONGEST_ROW", 1 << 12)
    path = tmp_path / "x.csv"
    path.write_text('x,y\n1,2\n1,"2\n' + "1,2\n" * 10_000)
    assert "line 3: the row is longer than" in refused(path, lambda block: None)


@pytest.mark.parametrize("cell", ["0", "1", "true", "False", "TRUE", '"1"', " 0 "])
def test_truths_are_read(cell, tmp_path):
    path = tmp_path / "x.csv"
    path.write_text(f"x,y\n{cell},a\n1,b\n0,c\n")
    with open_table(path) as table:
        (block,) = table.blocks()
        assert block.truths("x").tolist() == [cell.strip(' "').lower() in ("1", "true"), True, False]


@pytest.mark.parametrize("cell", ["2", "yes", "", "0.5", "nan"])
def test_what_is_no_truth_is_named(cell, tmp_path):
    path = tmp_path / "x.csv"
    path.write_text(f"x,y\n1,a\n{cell},b\n")
    shown = f"'{cell}'" if cell else "an empty cell"
    message = f"{path}, line 3, column 'x': found {shown}, wanted 0, 1, true or false."
    assert refused(path, lambda block: block.truths("x")) == message


def test_a_long_cell_is_not_spelled_out(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text(f"x,y\n{'a' * 1000},b\n")
    assert f"found '{'a' * 60}...', wanted" in refused(path, lambda block: block.numbers(["x"]))


def test_blocks_know_how_far_they_are(tmp_path, chunk):
    chunk(64)
    path = tmp_path / "x.csv"
    path.write_text("x,y\n" + "0.5,a\n" * 100)
    with open_table(path) as table:
        assert table.total == path.stat().st_size
        done = [block.done for block in table.blocks()]
    assert done == sorted(set(done))
    assert done[-1] == table.total


def test_blocks_of_wide_files_are_short(tmp_path, chunk):
    """A block is never more bytes than are read at a time, and one row; its rows are as many as that is."""
    chunk(300)
    path = tmp_path / "x.csv"
    path.write_text("\n".join([",".join(f"c{c}" for c in range(30)), *[",".join(["0.5"] * 30)] * 10]))
    with open_table(path) as table:
        rows = [block.rows for block in table.blocks()]
        assert sum(rows) == 10
        assert max(rows) <= 3


def test_blocks_keep_their_bytes_while_others_are_read(tmp_path, chunk):
    chunk(16)
    path = tmp_path / "x.csv"
    path.write_text("x,y\n" + "".join(f"{i},a\n" for i in range(50)))
    with open_table(path) as table:
        blocks = list(table.blocks())
    assert len(blocks) > 5
    assert np.concatenate([block.numbers(["x"])[:, 0] for block in blocks]).tolist() == list(range(50))


def test_a_letter_that_is_no_letter_is_found_in_the_first_bytes(tmp_path):
    path = tmp_path / "x.csv"
    path.write_bytes(b"\xff\n1\n")
    assert "is not UTF-8 text" in refused(path, lambda block: None)


@pytest.mark.parametrize("rows", [1, 3])
def test_tables_that_are_wider_than_long_are_read_and_copied_the_same(rows, tmp_path):
    """They take a path of their own: setting up each column would take longer than reading its cells."""
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    line = ",".join(["=1+1", '"0.5"', *["0.25"] * 1000, '"a,b"', "-2e-3"])
    source.write_text(",".join(["id", "x", *(f"c{c}" for c in range(1000)), "note", "y"]) + "\n" + f"{line}\n" * rows)
    with open_table(source) as table, table.copy(target, ["y", "x"]) as write:
        for block in table.blocks():
            assert block.numbers(["y", "x"]).tolist() == [[-2e-3, 0.5]] * rows
            write(block, block.numbers(["y", "x"]))
    head, *lines = target.read_text().splitlines()
    assert head == source.read_text().splitlines()[0]
    assert lines == [line.replace("=1", "'=1").replace('"0.5"', "0.5").replace("-2e-3", "-0.002")] * rows


def test_a_hundred_thousand_columns_are_no_trouble(tmp_path):
    """Everything is looked up by name, nothing searched for: the square of this would take hours."""
    names = [f"t{c}" for c in range(100_000)]
    (tmp_path / "in.csv").write_text(",".join(names) + "\n" + ",".join(["0.1"] * 100_000) + "\n")
    assert kd.project_file(tmp_path / "in.csv", tmp_path / "out.csv", {}).moved == 1
    assert kd.audit_file(tmp_path / "out.csv", {"upper": {"t7": 0.5}}).holds()
    with pytest.raises(InvalidInput, match=r"no teacher column 'nobody'; it has: t0, t1, .* and 99,980 more"):
        kd.audit_file(tmp_path / "in.csv", {"teachers": [*names, "nobody"]})
    with pytest.raises(InvalidInput, match="`orderings` among 100,000 teachers are too many"):
        kd.audit_file(tmp_path / "in.csv", {"order": ["t1>=t2"]})
    with pytest.raises(InvalidInput, match="Rules that differ between 100,000 teachers make"):
        kd.audit_file(tmp_path / "in.csv", {"linear": [{"weights": {"t1": 1}, "at_most": 0.1}]})
    (tmp_path / "twice.csv").write_text(",".join([*names, "t5"]) + "\n" + ",".join(["0.1"] * 100_001) + "\n")
    with pytest.raises(InvalidInput, match="two columns named 't5'"):
        kd.audit_file(tmp_path / "twice.csv", {})
