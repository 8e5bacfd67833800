"""CSV files as other programs write them: other separators, decimal commas, a line that names the separator."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import safekd as kd
from safekd.errors import InvalidInput
from safekd.io import _csv, open_table, read_table
from tests.support.cli_runner import run_cli

ROWS = [["r0", 0.2, 0.7, 0.1], ["r1", 0.9, 0.05, 0.05]]
COMMA = "id,a,b,c\nr0,0.2,0.7,0.1\nr1,0.9,0.05,0.05\n"
FOUND = {
    "semicolons": ("w.csv", COMMA.replace(",", ";")),
    "tabs": ("w.tsv", COMMA.replace(",", "\t")),
    "tabs in a csv": ("w.csv", COMMA.replace(",", "\t")),
    "bars": ("w.csv", COMMA.replace(",", "|")),
    "Excel's line": ("w.csv", "sep=,\n" + COMMA),
    "Excel's line, semicolons": ("w.csv", "sep=;\n" + COMMA.replace(",", ";")),
    "Excel's line, any sign": ("w.csv", "SEP=~\r\n" + COMMA.replace(",", "~").replace("\n", "\r\n")),
    "a mark before it": ("w.csv", "\ufeffsep=\t\n" + COMMA.replace(",", "\t")),
    "a comma in a quoted name": ("w.csv", COMMA.replace(",", ";").replace("id", '"id, or so"')),
    "commas in names of a tsv": ("w.tsv", COMMA.replace(",", "\t").replace("id", "id, or so")),
    "semicolons in other cells": ("w.csv", COMMA.replace("r0", "r;0")),
    "Windows": ("w.csv", COMMA.replace(",", ";").replace("\n", "\r\n")),
}


@pytest.mark.parametrize("size", [1, 5, 1 << 20])
@pytest.mark.parametrize("kind", FOUND)
def test_the_separator_is_found_and_kept(kind, size, tmp_path, monkeypatch):
    monkeypatch.setattr(_csv, "_CHUNK", size)
    name, text = FOUND[kind]
    source, target = tmp_path / name, tmp_path / f"o{name}"
    source.write_bytes(text.encode())
    kd.project_file(source, target, {"teachers": ["a", "b", "c"]})  # which these conform to: not a byte changes
    assert target.read_bytes() == source.read_bytes()
    with open_table(source) as table:
        (x_NK,) = [np.concatenate([block.numbers(["a", "b", "c"]) for block in table.blocks()])]
    assert x_NK.tolist() == [row[1:] for row in ROWS]


def test_lines_are_counted_with_the_one_that_names_the_separator(tmp_path):
    (tmp_path / "w.csv").write_text("sep=;\na;b\n0.5;0.5\n0.5;x\n")
    with pytest.raises(InvalidInput, match="line 4, column 'b': found 'x'"):
        kd.project_file(tmp_path / "w.csv", tmp_path / "o.csv", {})


@pytest.mark.parametrize(
    ("asked", "sign"),
    [
        ("semicolon", ";"),
        (";", ";"),
        ("tab", "\t"),
        ("\\t", "\t"),
        ("pipe", "|"),
        ("space", " "),
        ("~", "~"),
        (":", ":"),
    ],
)
def test_the_separator_can_be_named(asked, sign, tmp_path, capsys):
    (tmp_path / "w.csv").write_text(f"a{sign}b\n0.9{sign}0.1\n")
    ran = run_cli(capsys, "project", tmp_path / "w.csv", "-o", tmp_path / "o.csv", "--upper", 0.6, "--separator", asked)
    assert ran.code == 0, ran.err
    assert (tmp_path / "o.csv").read_text() == f"a{sign}b\n0.6{sign}0.4\n"
    assert run_cli(capsys, "audit", tmp_path / "o.csv", "--separator", asked, "--upper", 0.6).code == 0


@pytest.mark.parametrize("asked", ["", ";;", "a", "0", ".", "-", '"', "\n", "é", "\0", "colon"])
def test_what_separates_nothing_is_refused(asked, tmp_path, capsys):
    (tmp_path / "w.csv").write_text("a,b\n0.9,0.1\n")
    ran = run_cli(capsys, "audit", tmp_path / "w.csv", "--separator", asked)
    assert ran.refused("The separator is", "wanted comma, semicolon, tab, pipe, space, or a sign"), ran.err


def test_a_line_for_excel_that_names_a_letter_is_refused(tmp_path, capsys):
    (tmp_path / "w.csv").write_text("sep=a\nxay\n1a2\n")
    ran = run_cli(capsys, "audit", tmp_path / "w.csv")
    assert ran.refused("w.csv, line 1: The separator is 'a'; wanted comma, semicolon"), ran.err


def test_a_separator_that_was_not_found_is_asked_for(tmp_path, capsys):
    (tmp_path / "w.csv").write_text("id a b\nr0 0.9 0.1\n")
    ran = run_cli(capsys, "audit", tmp_path / "w.csv", "--teacher", "a,b")
    assert ran.refused("has no teacher column 'a'; it has: id a b.", "--separator semicolon"), ran.err
    (tmp_path / "w.csv").write_text("a;b\n0.9;0.1\n0.5;0.3;0.2\n")
    ran = run_cli(capsys, "audit", tmp_path / "w.csv")
    assert ran.refused("line 3: found 3 cells, the header has 2. If semicolon is not what", "--separator"), ran.err


def test_a_table_of_one_column_keeps_its_signs(tmp_path):
    """A name or a text may hold any sign; what some row has not at all separates nothing."""
    (tmp_path / "x.csv").write_text("a|b\nc|d\nplain\n")
    assert read_table(tmp_path / "x.csv").to_dict("list") == {"a|b": ["c|d", "plain"]}


DECIMAL = "id;a;b;c\nr0;0,2;0,7;0,1\nr1;0,9;5e-2;-0,25\n"


def test_decimal_commas_are_asked_for_by_name(tmp_path, capsys):
    (tmp_path / "w.csv").write_text(DECIMAL)
    command = ["project", tmp_path / "w.csv", "-o", tmp_path / "o.csv", "--teacher", "a,b", "--upper", 0.5]
    ran = run_cli(capsys, *command)
    assert ran.refused("line 2, column 'a': found '0,2'", "--decimal comma"), ran.err
    assert run_cli(capsys, *command, "--decimal", "comma").code == 0
    # the sign stays, and a negative number is no formula
    assert (tmp_path / "o.csv").read_text() == "id;a;b;c\nr0;0,5;0,5;0,1\nr1;0,5;0,5;-0,25\n"
    assert run_cli(capsys, "audit", tmp_path / "o.csv", "--teacher", "a,b", "--decimal", ",").code == 0


def test_decimal_commas_within_commas_stand_in_quotes(tmp_path):
    (tmp_path / "w.csv").write_text('a,b\n"0,9","0,1"\n')
    kd.project_file(tmp_path / "w.csv", tmp_path / "o.csv", {"upper": 0.6}, decimal="comma")
    assert (tmp_path / "o.csv").read_text() == 'a,b\n"0,6","0,4"\n'


@pytest.mark.parametrize("cell", ["0.5", "1.234,5", "1,2,3", "x", ""])
def test_only_decimal_commas_are_numbers_then(cell, tmp_path):
    (tmp_path / "w.csv").write_text(f"a;b\n0,5;{cell}\n")
    with pytest.raises(InvalidInput, match="line 2, column 'b'"):
        kd.audit_file(tmp_path / "w.csv", {}, decimal="comma")


@pytest.mark.parametrize("sign", ["", "dot", ";", None])
def test_what_is_no_decimal_sign_is_refused(sign, tmp_path):
    (tmp_path / "w.csv").write_text("a;b\n0,5;0,5\n")
    with pytest.raises(InvalidInput, match="wanted point or comma"):
        kd.audit_file(tmp_path / "w.csv", {}, decimal=sign)


@given(
    x_N=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=8),
    sign=st.sampled_from([",", ";", "\t", "|"]),
    decimal=st.sampled_from(["point", "comma"]),
)
def test_numbers_are_read_and_written_to_the_last_bit_in_every_dialect(tmp_path_factory, x_N, sign, decimal):
    source, target = tmp_path_factory.getbasetemp() / "d.csv", tmp_path_factory.getbasetemp() / "e.csv"
    pd.DataFrame({"x": x_N, "y": x_N}).to_csv(source, index=False, sep=sign, decimal="," if decimal == "comma" else ".")
    with open_table(source, decimal=decimal) as table, table.copy(target, ["x"]) as write:
        for block in table.blocks():
            np.testing.assert_array_equal(block.numbers(["x"])[:, 0], x_N)
            write(block, block.numbers(["x"]))
    with open_table(target, decimal=decimal) as table:
        np.testing.assert_array_equal(np.concatenate([block.numbers(["x"])[:, 0] for block in table.blocks()]), x_N)


def test_examples_of_an_experiment_may_have_semicolons(tmp_path):
    (tmp_path / "x.csv").write_text("a;b\n1;2\n")
    assert read_table(tmp_path / "x.csv").to_dict("list") == {"a": ["1"], "b": ["2"]}
