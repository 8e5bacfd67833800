"""CSV files of weights: in every dialect, and with everything wrong that spreadsheets, scripts and disks do to them.

Axes: N rows, K teachers.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ._input import ACCEPTED, EITHER, REFUSED, HostileInput, Rng, Sheet, draw_sheet, project_rows_by_hand

EVIL_NAMES = [
    "[red]",
    "[/]",
    "a[/0]",
    "\x1b[31mx",
    "\x9b2J",
    "\u202ex",
    "$x^$",
    "=1+1",
    "é名🙂",
    "a b",
    ":x:",
    "{0}",
    "%s",
    "-",
    "a\tb",
]


def draw_csv_input(rng: Rng) -> HostileInput:
    """Return one input: a good table, and one thing done to it."""
    makers = [maker for maker, weight in MAKERS for _ in range(weight)]
    return makers[int(rng.integers(len(makers)))](rng, draw_sheet(rng))


def _command(rng: Rng, sheet: Sheet, *more: str, named: bool = True) -> tuple[tuple[str, ...], float, float, Any]:
    """Return a command line that projects a table, and its rules."""
    teachers = len(sheet.names)
    lower = float(rng.choice([0.0, round(0.5 / teachers, 3)]))
    upper = float(rng.choice([1.0, round(min(1.0, 1.5 / teachers), 3)]))
    pair = (0, 1) if rng.random() < 0.4 else None
    arguments = ["project", "in.csv", "-o", "out.csv", "--lower", str(lower), "--upper", str(upper), *more]
    if named:
        arguments += [part for name in sheet.names for part in ("--teacher", name)]
    if pair is not None:
        arguments += ["--order", f"{sheet.names[0]}>={sheet.names[1]}"]
    return tuple(arguments), lower, upper, pair


def _compare(sheet: Sheet, lower: float, upper: float, pair: Any) -> Callable[[Path], str]:
    """Return what reads the copy by the csv module and compares it with rows projected by hand."""

    def look(folder: Path) -> str:
        text = (folder / "out.csv").read_bytes().decode("utf-8")
        lead = sheet.lead.replace("\r\n", "\n")
        if not text.replace("\r\n", "\n").startswith(lead):
            return "what stood before the header is gone"
        read = csv.reader(io.StringIO(text[len(sheet.lead) :], newline=""), delimiter=sheet.separator, strict=True)
        head, *rows = [row for row in read if row]
        wanted_head, *wanted_rows = sheet.rows()
        place = [wanted_head.index(name) for name in sheet.names]
        if [c for c in head if not c.startswith("'")] != [c for c in wanted_head if c in head]:
            return f"header {head}, wanted {wanted_head}"
        got_NK = np.array([[float(row[c].replace(sheet.decimal, ".")) for c in place] for row in rows])
        written_NK = np.array([[float(row[c].replace(sheet.decimal, ".")) for c in place] for row in wanted_rows])
        if got_NK.shape != written_NK.shape:
            return f"{got_NK.shape} numbers, wanted {written_NK.shape}"
        off = abs(got_NK - project_rows_by_hand(written_NK, lower, upper, pair)).max()
        if not off < 1e-9:
            return f"weights are off by {off}"
        for row, wanted in zip(rows, wanted_rows, strict=True):
            kept = [(a, b) for c, (a, b) in enumerate(zip(row, wanted, strict=True)) if c not in place]
            if any(a not in (b, "'" + b) for a, b in kept):
                return f"other cells changed: {kept}"
        return ""

    return look


def _accept(rng: Rng, sheet: Sheet, story: str, *more: str, named: bool = True, wanted: str = ACCEPTED) -> HostileInput:
    arguments, *rules = _command(rng, sheet, *more, named=named)
    files = {"in.csv": sheet.text().encode()}
    return HostileInput("csv", story, wanted, files, arguments, look=_compare(sheet, *rules), appears=("out.csv",))


def _refuse(rng: Rng, sheet: Sheet, story: str, text: str | bytes, *more: str, named: bool = True) -> HostileInput:
    arguments = _command(rng, sheet, *more, named=named)[0]
    data = text if isinstance(text, bytes) else text.encode()
    return HostileInput("csv", story, REFUSED, {"in.csv": data, "out.csv": b"what was there"}, arguments)


def _as_it_is(rng: Rng, sheet: Sheet) -> HostileInput:
    return _accept(rng, sheet, "as it is")


def _in_a_dialect(rng: Rng, sheet: Sheet) -> HostileInput:
    decimal = str(rng.choice([".", ","]))
    sheet = replace(
        sheet,
        separator=str(rng.choice([",", ";", "\t", "|"])),
        decimal=decimal,
        ending=str(rng.choice(["\n", "\r\n", "\r"])),
        quoted=bool(rng.random() < 0.3),
        digits=str(rng.choice(["r", ".6f", ".3e", "+.5g"])),
    )
    leads = ["", "\ufeff", f"sep={sheet.separator}{sheet.ending}", f"\ufeffsep={sheet.separator}{sheet.ending}"]
    more = ["--decimal", "comma"] if decimal == "," else []
    if rng.random() < 0.3:
        more += ["--separator", {",": "comma", ";": ";", "\t": "tab", "|": "pipe"}[sheet.separator]]
    return _accept(rng, replace(sheet, lead=str(rng.choice(leads))), "another dialect", *more)


def _with_evil_names(rng: Rng, sheet: Sheet) -> HostileInput:
    names = tuple(rng.permutation(EVIL_NAMES)[: len(sheet.names)].tolist())
    others = [(name, notes) for name, notes in sheet.others if not all(note.isdigit() for note in notes)]
    sheet = replace(sheet, names=names, others=tuple(others))
    arguments, *rules = _command(rng, replace(sheet, names=tuple(f"t{k}" for k in range(len(names)))), named=False)
    arguments = tuple(part for part in arguments if part != "--order" and ">=" not in part)
    arguments += tuple(part for name in names for part in ("--teacher", name)) if rng.random() < 0.5 else ()
    if sheet.others and "--teacher" not in arguments:
        return HostileInput("csv", "evil names beside text", REFUSED, {"in.csv": sheet.text().encode()}, arguments)
    look = _compare(sheet, rules[0], rules[1], None)
    files = {"in.csv": sheet.text().encode()}
    return HostileInput("csv", "evil names", ACCEPTED, files, arguments, look=look, appears=("out.csv",))


def _with_an_index(rng: Rng, sheet: Sheet) -> HostileInput:
    """Weights that sum to 1 beside a column that is no weight: refused, unless the teachers are named."""
    rows = int(rng.integers(2, 7))
    x_NK = rng.dirichlet(np.ones(3), rows)
    start, step = int(rng.integers(0, 3)), int(rng.choice([-10, -1, 1, 2, 10]))
    columns = {
        "": [str(i) for i in range(rows)],
        "Unnamed: 0": [str(i) for i in range(rows)],
        "n": [str(start + step * i) for i in range(rows)],
        "case": [f"{start + step * i}.0" for i in range(rows)],
        "total": ["1"] * rows,
        "sum": [repr(float(row.sum())) for row in x_NK],
        "weight of all": ["100"] * rows,
        "fold": [str(i % 2 + 1) for i in range(rows)],
    }
    name = str(rng.choice(list(columns)))
    sheet = Sheet(("a", "b", "c"), x_NK, ((name, tuple(columns[name])),), first=bool(rng.random() < 0.5))
    if rng.random() < 0.3:
        return _accept(rng, sheet, f"beside '{name}', teachers named")
    return _refuse(rng, sheet, f"beside '{name}'", sheet.text(), named=False)


def _scores_alone(rng: Rng, sheet: Sheet) -> HostileInput:
    """No alarm: plain scores or weights, teachers not named."""
    return _accept(rng, replace(sheet, others=()), "teachers not named", named=False)


def _beside_text(rng: Rng, sheet: Sheet) -> HostileInput:
    sheet = replace(sheet, others=(("id", tuple(f"r{n}" for n in range(len(sheet.x_NK)))),))
    return _refuse(rng, sheet, "an id of text, teachers not named", sheet.text(), named=False)


def _with_a_bad_cell(rng: Rng, sheet: Sheet) -> HostileInput:
    bad = [
        "x",
        "",
        " ",
        "nan",
        "NaN",
        "inf",
        "-Infinity",
        "1e999",
        "1_0",
        "0x1",
        "1,5",
        "½",
        "NULL",
        "#DIV/0!",
        "1.2.3",
        "--1",
        "1e",
        "True",
        "0.5%",
        "$1",
        "'0.5",
        "\u22121",
    ]
    rows = sheet.rows()
    n, k = int(rng.integers(1, len(rows))), rows[0].index(str(rng.choice(sheet.names)))
    rows[n][k] = cell = str(rng.choice(bad))
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(rows)
    return _refuse(rng, sheet, f"a cell that is {cell!r}", stream.getvalue())


def _uneven(rng: Rng, sheet: Sheet) -> HostileInput:
    lines = sheet.text().splitlines()
    n = int(rng.integers(1, len(lines)))
    lines[n] = str(
        rng.choice([lines[n] + ",1", "1" + "," * len(sheet.rows()[0]), "1" if len(lines) > 2 else "1,2,3,4,5,6,7,8"])
    )
    return _refuse(rng, sheet, "a row of another length", "\n".join(lines) + "\n")


def _no_table(rng: Rng, sheet: Sheet) -> HostileInput:
    text = sheet.text()
    head = text.splitlines()[0]
    spoiled: dict[str, str | bytes] = {
        "empty": "",
        "blank lines": "\n\n\r\n",
        "header only": head + "\n",
        "a name twice": f"{head},{sheet.names[0]}\n" + "\n".join(f"{line},1" for line in text.splitlines()[1:]),
        "an open quote": text + '"' + text,
        "text after a quote": text.replace("\n", '\n"a"b,', 1),
        "UTF-16": text.encode("utf-16"),
        "UTF-32": text.encode("utf-32"),
        "no UTF-8": text.encode() + b"\xff\xfe" + text.encode(),
        "binary": rng.bytes(200) + b"\xff",
        "zeros": bytes(1000),
        "a zip": b"PK\x03\x04" + rng.bytes(100) + b"\xff",
        "JSON": '{"a": [0.5]}',
        "HTML": "<html><body>not found</body></html>\n",
    }
    story = str(rng.choice(list(spoiled)))
    return _refuse(rng, sheet, story, spoiled[story])


def _bad_command(rng: Rng, sheet: Sheet) -> HostileInput:
    K = len(sheet.names)
    more = [
        ("--lower", "x"),
        ("--lower", "nan"),
        ("--upper", "inf"),
        ("--lower", "-0.1"),
        ("--lower", "0.9"),
        ("--upper", "0.01"),
        ("--upper", "1e-320"),
        ("--lower", ",".join(["0"] * (K + 1))),
        ("--upper", "z=1"),
        ("--order", "t0"),
        ("--order", "t0>=z"),
        ("--order", "t0>=t0"),
        ("--margin", "-1"),
        ("--margin", "nan"),
        ("--metric", "cosine"),
        ("--metric", ""),
        ("--teacher", "nobody"),
        ("--teacher", ""),
        ("--safety-columns", "z"),
        ("--critical-column", "t0"),
        ("--separator", "ab"),
        ("--separator", ""),
        ("--decimal", ";"),
        ("--rules", "nowhere.toml"),
        ("--rules", "."),
        ("--rules", "in.csv"),
        ("-o", "in.csv"),
        ("-o", "."),
        ("-o", "out.parquet"),
        ("-o", "in.csv/out.csv"),
        ("--colour", "1"),
        ("--lower", "1" + "0" * 5000),
        ("--margin", "1e308"),
        ("--order", ">=".join(["t0", "t1"] * 50)),
        ("--lower", "t0=0.1,t0=0.2"),
    ]
    chosen = more[int(rng.integers(len(more)))]
    names = [part for name in sheet.names for part in ("--teacher", name)]
    arguments = ("project", "in.csv", "-o", "out.csv", *names, *chosen)
    files = {"in.csv": sheet.text().encode(), "out.csv": b"what was there"}
    return HostileInput("csv", f"options {' '.join(chosen)[:60]}", REFUSED, files, arguments)


def _damaged(rng: Rng, sheet: Sheet) -> HostileInput:
    """Bits turned or the end cut off: whatever the csv module and float() make of it is right, or a refusal."""
    data = bytearray(sheet.text().encode())
    if rng.random() < 0.3:
        del data[int(rng.integers(1, len(data))) :]
    for _ in range(int(rng.integers(0, 4))):
        data[int(rng.integers(len(data)))] = int(
            rng.choice([rng.integers(256), ord(","), ord('"'), 10, 13, 0, ord("-")])
        )
    arguments, *rules = _command(rng, sheet)

    def look(folder: Path) -> str:
        rows = [row for row in csv.reader(io.StringIO(bytes(data).decode("utf-8-sig"), newline=""), strict=True) if row]
        names = [name for name in sheet.names if name in rows[0]]
        if names != list(sheet.names):
            return "a teacher's column was found that is not there"
        place = [rows[0].index(name) for name in names]
        read_NK = np.array([[float(row[c].replace("_", "x")) for c in place] for row in rows[1:]])
        if not np.isfinite(read_NK).all():
            return "a number that is not finite was accepted"
        copied = list(csv.reader(io.StringIO((folder / "out.csv").read_bytes().decode(), newline=""), strict=True))
        got_NK = np.array([[float(row[c]) for c in place] for row in copied[1:] if row])
        scale = max(1.0, float(abs(read_NK).max()))
        off = abs(got_NK - project_rows_by_hand(read_NK, *rules)).max() if scale < 1e6 else 0.0
        return "" if off < 1e-9 * scale else f"weights are off by {off}"

    files = {"in.csv": bytes(data)}
    return HostileInput("csv", "damaged", EITHER, files, arguments, look=look, appears=("out.csv",))


def _audited(rng: Rng, sheet: Sheet) -> HostileInput:
    """The audit's exit code is what the numbers say, with room for rounding left out."""
    teachers, rows = len(sheet.names), len(sheet.x_NK)
    x_NK = rng.dirichlet(np.ones(teachers), rows)
    upper = float(rng.choice([1.0, 0.5, 0.7]))
    if rng.random() < 0.3:
        x_NK[0] *= 1.5
    broken = bool((x_NK > upper + 1e-6).any() or (abs(x_NK.sum(axis=1) - 1) > 1e-6).any())
    if teachers * upper < 1 or bool((abs(x_NK - upper) < 1e-6).any()):
        upper, broken = 1.0, bool((abs(x_NK.sum(axis=1) - 1) > 1e-6).any() or (x_NK > 1).any())
    sheet = replace(sheet, x_NK=x_NK)
    names = [part for name in sheet.names for part in ("--teacher", name)]
    arguments = ("audit", "in.csv", "--upper", str(upper), "--json", "out.json", *names)
    files = {"in.csv": sheet.text().encode()}
    return HostileInput("csv", "audited", ACCEPTED, files, arguments, appears=("out.json",), code=int(broken))


def _extreme(rng: Rng, sheet: Sheet) -> HostileInput:
    """Numbers at the ends of what a double holds."""
    values = [0.0, -0.0, 5e-324, 1e-300, 1e300, 1.7976931348623157e308, -1e308, 2.0**53 + 2, 1 - 2**-53, math.pi]
    x_NK = rng.choice(values, size=sheet.x_NK.shape)
    arguments, lower, upper, pair = _command(rng, replace(sheet, x_NK=x_NK))

    def look(folder: Path) -> str:
        read = list(csv.reader(io.StringIO((folder / "out.csv").read_text(), newline=""), strict=True))
        place = [read[0].index(name) for name in sheet.names]
        got_NK = np.array([[float(row[c]) for c in place] for row in read[1:]])
        good = (got_NK >= lower).all() and (got_NK <= upper).all() and (abs(got_NK.sum(axis=1) - 1) < 1e-12).all()
        if pair is not None:
            good = good and (got_NK[:, 0] >= got_NK[:, 1]).all()
        return "" if good else f"rows that do not conform: {got_NK.tolist()}"

    files = {"in.csv": replace(sheet, x_NK=x_NK).text().encode()}
    return HostileInput("csv", "extreme numbers", EITHER, files, arguments, look=look, appears=("out.csv",))


MAKERS = [
    (_as_it_is, 1),
    (_in_a_dialect, 3),
    (_with_evil_names, 2),
    (_with_an_index, 3),
    (_scores_alone, 2),
    (_beside_text, 1),
    (_with_a_bad_cell, 3),
    (_uneven, 1),
    (_no_table, 2),
    (_bad_command, 2),
    (_damaged, 4),
    (_audited, 2),
    (_extreme, 1),
]
