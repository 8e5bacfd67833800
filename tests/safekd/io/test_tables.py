"""CSV files in and out, and files that appear whole or not at all."""

from __future__ import annotations

import os
import struct

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safekd.errors import InvalidInput
from safekd.io import parse_numbers, read_table, write_atomically, write_csv


@pytest.fixture
def file(tmp_path):
    """Return a function that writes text to a file and returns its path."""

    def write(text: str | bytes):
        path = tmp_path / "t.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


READ = {
    "plain": "a,b\n1,2\n3,4\n",
    "no newline at the end": "a,b\n1,2\n3,4",
    "blank lines at the end": "a,b\n1,2\n3,4\n\n\n",
    "blank lines within": "a,b\n\n1,2\n\n3,4\n",
    "windows": "a,b\r\n1,2\r\n3,4\r\n\r\n",
    "byte order mark": "\ufeffa,b\n1,2\n3,4\n",
    "quotes": '"a","b"\n"1","2"\n"3","4"\n',
    "spaces": "a,b\n 1,2 \n3, 4\n",
}


@pytest.mark.parametrize("kind", READ)
def test_reads(kind, file):
    table = read_table(file(READ[kind]))
    assert list(table.columns) == ["a", "b"]
    assert parse_numbers(table, "t.csv").tolist() == [[1, 2], [3, 4]]
    assert parse_numbers(table, "t.csv").dtype == np.float64


def test_cells_are_text_until_asked(file):
    """Nothing is interpreted: "NA" is a name, "007" keeps its zeros."""
    table = read_table(file("id,name\n007,NA\n1e3,null\n"))
    assert table.to_numpy().tolist() == [["007", "NA"], ["1e3", "null"]]


def test_the_index_is_the_line_in_the_file(file):
    table = read_table(file("a,b\n1,2\n\n3,4\n"))
    assert table.index.tolist() == [2, 4]


UNREADABLE = {
    "empty": ("", "is empty; wanted a header line and at least one row"),
    "blank lines only": ("\n\n", "is empty"),
    "header only": ("a,b\n", "has a header but no rows; wanted at least one"),
    "header and blank lines": ("a,b\n\n\n", "has a header but no rows"),
    "same column twice": ("a,b,a\n1,2,3\n", "two columns named 'a'; give every column a name of its own"),
    "too many cells first": ("a,b\n1,2,3\n4,5\n", "line 2: found 3 cells, the header has 2"),
    "too many cells later": ("a,b\n1,2\n\n4,5,6\n", "line 4: found 3 cells, the header has 2"),
    "too many cells everywhere": ("a,b\n1,2,\n3,4,\n", "line 2: found 3 cells"),
    "too few cells": ("a,b\n1,2\n3\n", "line 3: found 1 cells, the header has 2"),
    "open quote": ('a,b\n1,"2\n', "line 2: .*; mend the quotes there"),
    "latin-1": ("a,b\nfié,2\n".encode("latin-1"), "is not UTF-8 text; save it as CSV in UTF-8"),
    "utf-16": ("a,b\n1,2\n".encode("utf-16"), "is not UTF-8 text"),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_unreadable_says_why(kind, file):
    content, message = UNREADABLE[kind]
    with pytest.raises(InvalidInput, match=message) as caught:
        read_table(file(content))
    assert "t.csv" in str(caught.value)
    assert not str(caught.value).endswith("..")


def test_missing_file(tmp_path):
    with pytest.raises(InvalidInput, match=r"There is no file .*nowhere.csv; check the path"):
        read_table(tmp_path / "nowhere.csv")


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(InvalidInput, match=r"Cannot read .*: Is a directory"):
        read_table(tmp_path)


BAD_CELLS = {
    "text": ("a,b\n1,2\n3,x\n", r"t.csv, line 3, column 'b': found 'x', wanted a finite number"),
    "after a blank line": ("a,b\n1,2\n\n3,x\n", r"line 4, column 'b'"),
    "empty": ("a,b\n1,2\n,4\n", r"line 3, column 'a': found an empty cell"),
    "blank": ("a,b\n1,  \n", r"line 2, column 'b': found an empty cell"),
    "nan": ("a,b\n1,nan\n", r"line 2, column 'b': found 'nan'"),
    "inf": ("a,b\n-inf,1\n", r"line 2, column 'a': found '-inf'"),
    "too large": ("a,b\n1e999,1\n", r"line 2, column 'a': found '1e999'"),
    "underscore": ("a,b\n1_000,1\n", r"line 2, column 'a': found '1_000'"),
    "thousands": ('a,b\n"1,000",1\n', r"line 2, column 'a': found '1,000'"),
    "a decimal comma": ("a;b\n1;0,5\n", r"line 2, column 'b': found '0,5'"),
    "the first of several": ("a,b\n1,x\ny,2\n", r"line 3, column 'a': found 'y'"),
}


@pytest.mark.parametrize("kind", BAD_CELLS)
def test_a_bad_cell_is_named(kind, file):
    content, message = BAD_CELLS[kind]
    with pytest.raises(InvalidInput, match=message):
        parse_numbers(read_table(file(content)), "t.csv")


def bits(x_N):
    return [struct.pack("<d", x) for x in x_N]


def assert_survives(x_N, path):
    write_csv(pd.DataFrame({"x": x_N}), path)
    assert bits(parse_numbers(read_table(path), path)[:, 0]) == bits(x_N)


def test_edges_of_floats_survive(tmp_path):
    tiny, big = np.finfo(float).tiny, np.finfo(float).max
    assert_survives(
        [0.0, -0.0, 5e-324, -5e-324, tiny, tiny / 3, big, -big, 0.1, 1 / 3, 2**53 + 1.0], tmp_path / "x.csv"
    )


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=20))
def test_every_finite_float_survives(tmp_path_factory, x_N):
    assert_survives(x_N, tmp_path_factory.getbasetemp() / "round.csv")


def test_floats_beside_text_survive(tmp_path):
    """A column of floats and text is no number column; its floats must not be cut short."""
    mixed = [1 / 3, "text", 5e-324]
    write_csv(pd.DataFrame({"x": mixed}), tmp_path / "x.csv")
    cells = read_table(tmp_path / "x.csv")["x"]
    assert [float(cells.iloc[0]), cells.iloc[1], float(cells.iloc[2])] == mixed


@pytest.mark.parametrize("cell", ["=1+1", "+cmd", "-cmd|' /C calc'!A0", "@SUM(A1)", "\t=1", "-", "-nan"])
def test_what_a_spreadsheet_would_run_is_guarded(cell, tmp_path):
    write_csv(pd.DataFrame({cell: [cell, "plain"]}), tmp_path / "x.csv")
    table = read_table(tmp_path / "x.csv")
    assert table.columns.tolist() == ["'" + cell]
    assert table.iloc[:, 0].tolist() == ["'" + cell, "plain"]


@pytest.mark.parametrize("cell", ["-0.5", "+1", "-1e-3", "plain", "a=b", ""])
def test_what_it_would_not_run_is_left_alone(cell, tmp_path):
    """Negative numbers among them, though they be text, as in columns that a command only passes on."""
    write_csv(pd.DataFrame({"x": [cell, "end"]}), tmp_path / "x.csv")
    assert (tmp_path / "x.csv").read_text().splitlines()[1].strip('"') == cell


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_no_line_break_in_a_cell_starts_a_new_row(end, tmp_path):
    """A lone carriage return gets no quotes from the csv module, and "=1" would stand at the start of a cell."""
    write_csv(pd.DataFrame({f"a{end}=1": [f"b{end}=1", "plain"]}), tmp_path / "x.csv")
    table = read_table(tmp_path / "x.csv")
    assert table.columns.tolist() == ["a\n=1"]
    assert table.iloc[:, 0].tolist() == ["b\n=1", "plain"]


def test_writing_leaves_the_table_alone(tmp_path):
    table = pd.DataFrame({"=x": ["=1"], "y": [-1.0]})
    write_csv(table, tmp_path / "x.csv")
    assert table.equals(pd.DataFrame({"=x": ["=1"], "y": [-1.0]}))
    assert (tmp_path / "x.csv").read_text() == "'=x,y\n'=1,-1\n"


class Stop(Exception):
    pass


def test_an_error_while_writing_leaves_the_old_file(tmp_path):
    target = tmp_path / "result.csv"
    target.write_text("old")
    with pytest.raises(Stop), write_atomically(target) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise Stop
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["result.csv"]


def test_an_error_while_writing_leaves_nothing_new(tmp_path):
    with pytest.raises(Stop), write_atomically(tmp_path / "result.csv"):
        raise Stop
    assert list(tmp_path.iterdir()) == []


def test_the_old_file_stands_until_the_new_one_is_whole(tmp_path):
    target = tmp_path / "deep" / "result.csv"
    with write_atomically(target) as temporary:
        temporary.write_text("old")
    with write_atomically(target) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert [path.name for path in target.parent.iterdir()] == ["result.csv"]


def test_what_is_no_path_is_refused(tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    (entry,) = os.scandir(os.fsencode(tmp_path))
    for path, message in (
        (3, "The file is a int; wanted a path"),
        (b"t.csv", "The file is a bytes; wanted a path"),
        (entry, r"The file is <DirEntry b't\.csv'>; wanted a path that is text"),
    ):
        with pytest.raises(InvalidInput, match=message):
            read_table(path)


def test_others_may_read_it_as_the_umask_says(tmp_path):
    """A temporary file is private; the result must not stay so."""
    plain, ours = tmp_path / "plain", tmp_path / "ours"
    plain.write_text("")
    with write_atomically(ours):
        pass
    assert ours.stat().st_mode == plain.stat().st_mode


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInput, match=r"Cannot write .*Choose a folder that you may write to"):
        write_csv(pd.DataFrame({"x": [1]}), tmp_path / "file" / "x.csv")


def test_a_folder_in_the_place_of_the_file(tmp_path):
    (tmp_path / "x.csv").mkdir()
    with pytest.raises(InvalidInput, match=r"Cannot write .*x.csv: Is a directory"):
        write_csv(pd.DataFrame({"x": [1]}), tmp_path / "x.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["x.csv"]
