"""A frontier's files: read back bit for bit, and refused with reasons when they are not what was written."""

from __future__ import annotations

import csv
import hashlib
import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import safekd as kd
from safekd.frontier import COLUMNS_DOC
from tests.support.frontiers import CURVE, frontier, held, stacked

FORMULAS = [
    "=1+1",
    "+1 (a)",
    "-x",
    "@cmd",
    "\tx",
    "'=x",
    "''",
    "'",
    "\r\n=",
    "a,b",
    'say "no"',
    "two\nlines",
    "1e5",
    " x ",
]


def assert_same(old: kd.Frontier, new: kd.Frontier) -> None:
    assert list(new.table.columns) == list(old.table.columns)
    for column in old.table:
        a, b = old.table[column], new.table[column]
        kinds = dict.fromkeys("OUT", "word")
        assert kinds.get(b.dtype.kind, b.dtype) == kinds.get(a.dtype.kind, a.dtype), column
        if a.dtype.kind == "f":
            np.testing.assert_array_equal(b.to_numpy().view(np.int64), a.to_numpy().view(np.int64), column)
        else:
            assert b.tolist() == a.tolist(), column
    assert new.constraint == old.constraint
    assert new.meta == old.meta


# ---- what was written ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "made",
    [
        frontier(CURVE),
        frontier(CURVE, name='recall, "strict" = 1'),
        frontier(CURVE, name="=cmd|' /C calc'!A0"),
        frontier(CURVE, run_id="123456789012", status="infeasible", split="NA", feasible=False),
        frontier(CURVE, run_id="1234e6789012", wall_s=10.0, target=1.0),
        frontier(CURVE, wall_s=math.nan, warm_from=math.nan, seed=2**62),
        frontier([(math.inf, 0.5), (5e-324, 1.0), (-0.0, 0.1), (math.nan, math.nan)], note=["", "=a", "None", "nan"]),
        frontier(CURVE[:1], mu=0.25, method="mu"),
        frontier(CURVE, validation_safety=0.5, tries=3, mine=True, words="x"),
        stacked(held(CURVE, 0.9), held(CURVE, 0.8, seed=4)),
    ],
)
def test_a_table_reads_back_bit_for_bit_with_its_types(made, tmp_path):
    made.to_csv(tmp_path / "f.csv")
    assert_same(made, kd.Frontier.from_csv(tmp_path / "f.csv"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f.csv", "f.csv.meta.json"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=10)  # many rows an example
@given(
    numbers=st.lists(st.floats(allow_nan=False), min_size=1, max_size=40),
    notes=st.lists(st.one_of(st.sampled_from(FORMULAS), st.text(max_size=8)), min_size=40, max_size=40),
)
def test_any_number_and_any_note_reads_back(numbers, notes, tmp_path):
    notes = [note.encode("utf-8", "replace").decode() for note in notes]
    made = frontier(
        [(x, 0.5) for x in numbers], note=notes[: len(numbers)], run_id=[n + "x" for n in notes][: len(numbers)]
    )
    made.to_csv(tmp_path / "f.csv")
    assert_same(made, kd.Frontier.from_csv(tmp_path / "f.csv"))


def test_no_cell_is_what_a_spreadsheet_would_run(tmp_path):
    made = frontier([(0.1, 0.5)] * len(FORMULAS), note=FORMULAS, own=[f"{cell}!" for cell in FORMULAS])
    made.table["kkt_dual"] = -0.5  # a number is none
    made.to_csv(tmp_path / "f.csv")
    table = kd.Frontier.from_csv(tmp_path / "f.csv").table
    assert table["note"].tolist() == FORMULAS
    with (tmp_path / "f.csv").open(newline="") as stream:
        cells = [cell for row in csv.reader(stream) for cell in row]
    assert [cell for cell in cells if cell.startswith(("=", "+", "@", "\t", "\r", "\n"))] == []
    assert all(math.isfinite(float(cell)) for cell in cells if cell.startswith("-"))
    assert "-0.5" in cells


def test_absent_words_are_read_as_empty_ones_and_odd_signs_lose_no_sweep(tmp_path):
    made = frontier(CURVE, note=pd.Series([None, math.nan, "", "half a sign: \ud800"], dtype=object))
    made.to_csv(tmp_path / "f.csv")
    read = kd.Frontier.from_csv(tmp_path / "f.csv")
    assert read.table["note"].tolist() == ["", "", "", "half a sign: \\ud800"]


def test_the_meta_file_says_what_it_is(tmp_path):
    made = frontier(CURVE, mine=True, meta={"run_id": "a", "reference": np.array([1.0, 0.0]), "seed": np.int64(3)})
    made.to_csv(tmp_path / "f.csv")
    meta = json.loads((tmp_path / "f.csv.meta.json").read_text())
    columns, hashes = meta.pop("columns"), [meta.pop(name) for name in ("table_sha256", "sha256")]
    assert hashes[0] == hashlib.sha256((tmp_path / "f.csv").read_bytes()).hexdigest()
    expected = {"run_id": "a", "reference": [1.0, 0.0], "seed": 3, "constraint": "a", "schema_version": 1, "rows": 4}
    assert meta == expected
    assert list(columns) == list(made.table.columns)
    assert (columns["status"], columns["seed"], columns["rho"], columns["mine"]) == ("word", "whole", "number", "flag")


def test_the_same_table_gives_the_same_bytes(tmp_path):
    for name in ("one.csv", "two.csv"):
        frontier(CURVE).to_csv(tmp_path / name)
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "two.csv").read_bytes()
    kd.Frontier.from_csv(tmp_path / "one.csv").to_csv(tmp_path / "three.csv")
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "three.csv").read_bytes()
    assert (tmp_path / "one.csv.meta.json").read_bytes() == (tmp_path / "three.csv.meta.json").read_bytes()


def test_line_ends_and_flags_as_spreadsheets_save_them_are_read(tmp_path):
    made = frontier(CURVE)
    made.to_csv(tmp_path / "f.csv")
    text = (tmp_path / "f.csv").read_text().replace("True", "TRUE").replace("False", "FALSE")
    (tmp_path / "f.csv").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert_same(made, kd.Frontier.from_csv(tmp_path / "f.csv"))


def test_every_column_of_a_file_is_documented():
    for column in stacked(held(CURVE, 0.9)).table.assign(mu=0.0, note="").columns:
        assert column.replace("night", "<name>").removesuffix("_a") in COLUMNS_DOC


def test_students_go_with_the_rows_that_are_read(tmp_path):
    frontier(CURVE).to_csv(tmp_path / "f.csv")
    read = kd.Frontier.from_csv(tmp_path / "f.csv", students={2: "student"})
    assert read.choose(0.75).student == "student"


UNWRITABLE = {
    "no rows": (lambda: frontier([]), "The table has no rows"),
    "a column": (lambda: kd.Frontier(frontier(CURVE).table.drop(columns="rho"), "a"), "columns rho are missing"),
    "a constraint": (lambda: kd.Frontier(frontier(CURVE).table, "b"), "no frontier over 'b': columns safety_b"),
    "a word": (lambda: frontier(CURVE, rho="high"), "column 'rho' holds could not convert.*wanted a number"),
    "a part": (lambda: frontier(CURVE, steps=0.5), "column 'steps' holds .*0.5.*; wanted a whole number in every row"),
    "no flag": (
        lambda: kd.Frontier(frontier(CURVE).table.assign(feasible=2), "a"),
        "'feasible' holds .*wanted True or",
    ),
}


@pytest.mark.parametrize("case", UNWRITABLE)
def test_what_is_no_frontier_is_not_written(case, tmp_path):
    make, message = UNWRITABLE[case]
    with pytest.raises(kd.InvalidInput, match=message):
        make().to_csv(tmp_path / "f.csv")
    assert list(tmp_path.iterdir()) == []


# ---- what was not -------------------------------------------------------------------------------------------


def lines(change):
    """A change to the list of lines, line ends kept."""
    return lambda text: "".join(change(text.splitlines(keepends=True)))


def cells(change):
    """A change to each line's list of cells."""
    return lines(lambda rows: [",".join(change(row.rstrip("\n").split(","), n)) + "\n" for n, row in enumerate(rows)])


def swap(row, n):
    at = 10  # rho and its left neighbour
    return [*row[: at - 1], row[at], row[at - 1], *row[at + 1 :]]


BROKEN = {
    "empty": (lambda text: "", "f.csv is empty; wanted a header line and at least one row"),
    "other file": (
        lambda text: "x,y\n1,2\n",
        "is no frontier over 'a': columns schema_version, run_id, .* are missing",
    ),
    "no multiplier": (lambda text: text.replace("lambda_a", "price_a"), "columns lambda_a are missing"),
    "no safety": (lambda text: text.replace("safety_a", "safe_a"), "columns safety_a are missing"),
    "no flag": (lambda text: text.replace("nondominated", "best"), "columns nondominated are missing"),
    "a column less": (cells(lambda row, n: row[:-1]), "columns with which it was written: without note"),
    "a column more": (cells(lambda row, n: [*row, f"x{n}"]), "columns with which it was written: with x0 besides"),
    "another name": (lambda text: text.replace(",note", ",remark"), "without note; with remark besides"),
    "another order": (cells(swap), "columns with which it was written: in another order. Undo the change"),
    "a name twice": (lambda text: text.replace("se_a", "rho"), "f.csv.*'rho'"),
    "version": (
        lambda text: text.replace("\n1,", "\n2,"),
        "has schema version 2; this release reads version 1. Read it",
    ),
    "mixed": (lambda text: text.replace("\n1,", "\n3,", 1), "has schema version 1, 3; this release"),
    "version of other columns": (lambda text: "schema_version,b\n7,1\n", "has schema version 7; this release"),
    "header only": (lines(lambda rows: rows[:1]), "has a header but no rows"),
    "half a row": (
        lambda text: text[: text.rindex("train")],
        "was cut off: line 5, the last, has no end. Copy it again",
    ),
    "no last line end": (lambda text: text[:-1], "was cut off: line 5, the last, has no end"),
    "half a header": (lambda text: text[:20], "was cut off: line 1"),
    "a row less": (lines(lambda rows: rows[:-1]), "was cut off or added to: it has 3 rows and .*meta.json speaks of 4"),
    "a row from within": (lines(lambda rows: [*rows[:2], *rows[3:]]), "it has 3 rows and .*speaks of 4"),
    "a row more": (lines(lambda rows: [*rows, rows[-1]]), "it has 5 rows and .*speaks of 4"),
    "extra cell": (lambda text: text[:-1] + ",1,2\n", r"line 5: found \d+ cells, the header has"),
    "word for number": (
        lambda text: text.replace(",10,", ",ten,", 1),
        "line 2, column 'rho': found 'ten', wanted a number",
    ),
    "decimal comma": (
        lambda text: text.replace(",10,", ',"1,5",', 1),
        "column 'rho': found '1,5', wanted a number or an",
    ),
    "word nan": (
        lambda text: text.replace(",10,", ",nan,", 1),
        "column 'rho': found 'nan', wanted a number or an empty",
    ),
    "word for flag": (
        lambda text: text.replace("True", "maybe", 1),
        "line 2, column 'feasible': found 'maybe', wanted True",
    ),
    "number for flag": (
        lambda text: text.replace("True", "1", 1),
        "column 'feasible': found '1', wanted True or False",
    ),
    "no flag there": (lambda text: text.replace("True", "", 1), "column 'feasible': found an empty cell, wanted True"),
    "fraction for whole": (lambda text: text.replace(",100,", ",100.0,", 1), "'steps': found '100.0', wanted a whole"),
    "too large": (lambda text: text.replace(",100,", f",{2**63},", 1), "'steps': found '9223372036854775808', wanted"),
    "no word": (lambda text: text.replace("converged", "", 1), "'status': found an empty cell, wanted text"),
    "open quote": (lambda text: text[:-2] + '"x\n', "f.csv, line 5: a quote is opened and never closed"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_file_that_is_no_whole_frontier_is_refused(case, tmp_path):
    change, message = BROKEN[case]
    path = tmp_path / "f.csv"
    frontier(CURVE, note="x").to_csv(path)
    whole = path.read_text()
    path.write_text(change(whole))
    assert path.read_text() != whole
    with pytest.raises(kd.InvalidInput, match="f.csv.*" + message if "f.csv" not in message else message):
        kd.Frontier.from_csv(path)


def test_a_file_cut_anywhere_is_refused(tmp_path):
    path = tmp_path / "f.csv"
    made = frontier(CURVE, note=["", "two\nlines", 'a "quote", é', ""])
    made.to_csv(path)
    data = path.read_bytes()
    for length in [*range(0, len(data) - 30, 7), *range(len(data) - 30, len(data))]:
        path.write_bytes(data[:length])
        with pytest.raises(kd.InvalidInput, match=r"f\.csv"):
            kd.Frontier.from_csv(path)
    path.write_bytes(data)
    assert_same(made, kd.Frontier.from_csv(path))


def test_absent_files_folders_and_binaries_are_told(tmp_path):
    with pytest.raises(kd.InvalidInput, match=r"There is no file .*none.csv; check the path"):
        kd.Frontier.from_csv(tmp_path / "none.csv")
    with pytest.raises(kd.InvalidInput, match=r"Cannot read .*: Is a directory"):
        kd.Frontier.from_csv(tmp_path)
    (tmp_path / "f.csv").write_bytes(b"\x89PNG\r\n\x1a\n\x00\xff" * 50)
    with pytest.raises(kd.InvalidInput, match=r"f\.csv is not UTF-8 text; .* Line 1 holds the byte 0x89"):
        kd.Frontier.from_csv(tmp_path / "f.csv")


META = {
    "no JSON": ("{", "is no readable JSON.*Write the frontier again"),
    "binary": (b"\xff\xfe", "is no readable JSON"),
    "a list": ("[1]", "is not what Frontier.to_csv writes beside its table"),
    "another file": ('{"a": 1}', "is not what Frontier.to_csv writes beside its table"),
    "version": ({"schema_version": 2}, "meta.json has schema version 2; this release reads version 1"),
    "constraint": ({"constraint": "other"}, "over 'other': columns safety_other, .*se_other are missing"),
    "no rows": (
        {"rows": None},
        "does not say which constraint was swept, how many rows there are and what each column",
    ),
    "no columns": ({"columns": ["a"]}, "does not say which constraint was swept"),
    "rows": ({"rows": 3}, "it has 4 rows and .*meta.json speaks of 3"),
}


@pytest.mark.parametrize("case", META)
def test_a_meta_file_that_does_not_belong_is_refused(case, tmp_path):
    change, message = META[case]
    frontier(CURVE).to_csv(tmp_path / "f.csv")
    path = tmp_path / "f.csv.meta.json"
    if isinstance(change, dict):
        change = json.dumps(json.loads(path.read_text()) | change)
    path.write_bytes(change if isinstance(change, bytes) else change.encode())
    with pytest.raises(kd.InvalidInput, match=message):
        kd.Frontier.from_csv(tmp_path / "f.csv")


def test_a_column_of_another_kind_in_the_meta_file_is_refused(tmp_path):
    frontier(CURVE).to_csv(tmp_path / "f.csv")
    path = tmp_path / "f.csv.meta.json"
    path.write_text(path.read_text().replace('"rho": "number"', '"rho": "word"'))
    with pytest.raises(kd.InvalidInput, match=r"meta.json has column 'rho' as 'word'; wanted 'number'"):
        kd.Frontier.from_csv(tmp_path / "f.csv")


def test_a_table_without_its_meta_file_is_refused(tmp_path):
    frontier(CURVE).to_csv(tmp_path / "f.csv")
    (tmp_path / "f.csv.meta.json").unlink()
    with pytest.raises(kd.InvalidInput, match=r"f.csv stands alone: .*f.csv.meta.json.* is missing. Copy both files"):
        kd.Frontier.from_csv(tmp_path / "f.csv")
