"""Weights in files of any size: what the library computes row by row, and nothing else, ends up in the file."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import safekd as kd
from safekd.io import _csv, _parquet
from safekd.weight_files import ProjectionSummary

SEED = np.random.default_rng(5)
RAW_NK = SEED.dirichlet(np.ones(3), 500)
SAFETY_NK = SEED.integers(0, 3, (500, 3)) / 4
CRITICAL_N = SEED.random(500) < 0.5
FRAME = pd.DataFrame(
    {
        "id": [f"{n:04d}" for n in range(500)],
        **dict(zip("abc", RAW_NK.T, strict=True)),
        **dict(zip(("sa", "sb", "sc"), SAFETY_NK.T, strict=True)),
        "urgent": CRITICAL_N,
    }
)
TEACHERS = ["a", "b", "c"]
ORDER = {"order": ["a>=b"]}
RULES = {
    "bounds": ({"lower": 0.1, "upper": 0.6}, {"lower": 0.1, "upper": 0.6}, {}),
    "bounds per teacher": ({"lower": [0.1, 0.2, 0.05]}, {"lower": [0.1, 0.2, 0.05]}, {}),
    "bounds by name": ({"upper": {"c": 0.2}}, {"upper": [1.0, 1.0, 0.2]}, {}),
    "order": ({"order": ["a>=b>=c"]}, {"orderings": [(0, 1), (1, 2)]}, {}),
    "margin": ({**ORDER, "margin": 0.1}, {"orderings": [(0, 1)], "margin": 0.1}, {}),
    "kl": ({**ORDER, "metric": "kl"}, {"orderings": [(0, 1)]}, {"metric": "kl"}),
    "ties": ({"order": ["a>=b>=a"], "ties": True}, {"orderings": [(0, 1), (1, 0)], "ties": True}, {}),
    "critical": ({**ORDER, "critical_column": "urgent"}, {"orderings": [(0, 1)]}, {"critical": CRITICAL_N}),
    "safety": ({"safety_columns": ["sa", "sb", "sc"], "upper": 0.5}, {"upper": 0.5}, {"safety": SAFETY_NK}),
    "safety where critical": (
        {"safety_columns": ["sa", "sb", "sc"], "critical_column": "urgent"},
        {},
        {"safety": SAFETY_NK, "critical": CRITICAL_N},
    ),
    "linear": (
        {
            "linear": [
                {"weights": {"a": 1, "b": 1}, "at_most": 0.7},
                {"weights": {"c": 1}, "at_least": 0.35},
                {"weights": {"a": 1, "b": -2}, "equals": 0},
            ]
        },
        {"linear": {"A": [[1, 1, 0], [0, 0, -1]], "b": [0.7, -0.35], "C": [[1, -2, 0]], "d": [0]}},
        {},
    ),
}


def write(frame: pd.DataFrame, path) -> None:
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    else:
        pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), path)


def read(path) -> pd.DataFrame:
    return pd.read_csv(path, dtype={"id": str}) if path.suffix == ".csv" else pq.read_table(path).to_pandas()


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("kind", RULES)
def test_the_file_holds_what_the_library_computes(kind, suffix, tmp_path, monkeypatch):
    monkeypatch.setattr(_csv, "_CHUNK", 4096)
    monkeypatch.setattr(_parquet, "_ROWS", 100)
    rules, polytope, options = RULES[kind]
    frame = FRAME.head(40) if kind == "linear" else FRAME
    source, target = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    write(frame, source)
    done = kd.project_file(source, target, {"teachers": TEACHERS, **rules})
    written = read(target)
    expected_NK = kd.project(RAW_NK[: len(frame)], kd.WeightPolytope(3, **polytope), **options)
    np.testing.assert_array_equal(written[TEACHERS].to_numpy(), expected_NK)  # blocks change no bit
    pd.testing.assert_frame_equal(written.drop(columns=TEACHERS), frame.drop(columns=TEACHERS), check_dtype=False)
    moved_N = np.linalg.norm(expected_NK - RAW_NK[: len(frame)], axis=1)
    assert (done.rows, done.moved) == (len(frame), (moved_N > 1e-12).sum())
    assert done.distance == pytest.approx(moved_N.sum())
    assert done.furthest == pytest.approx(moved_N.max())
    assert done.after == (expected_NK.min(0).tolist(), expected_NK.max(0).tolist())


@pytest.mark.parametrize("kind", [kind for kind in RULES if kind != "linear"])
def test_what_was_projected_passes_the_audit_and_what_was_not_fails(kind, tmp_path):
    rules = {"teachers": TEACHERS, "lower": 0.01, **RULES[kind][0]}
    write(FRAME, tmp_path / "in.csv")
    kd.project_file(tmp_path / "in.csv", tmp_path / "out.csv", rules)
    assert kd.audit_file(tmp_path / "out.csv", rules).holds()
    assert not kd.audit_file(tmp_path / "in.csv", rules).holds()


def test_float32_stays_float32_and_conforms_in_it(tmp_path):
    pq.write_table(pa.table(dict(zip("abc", RAW_NK.T.astype(np.float32), strict=True))), tmp_path / "in.parquet")
    rules = {"lower": 0.1, "upper": 0.6, "order": ["a>=b>=c"]}
    kd.project_file(tmp_path / "in.parquet", tmp_path / "out.parquet", rules)
    assert {str(kind) for kind in pq.read_schema(tmp_path / "out.parquet").types} == {"float"}
    assert kd.audit_file(tmp_path / "out.parquet", rules).holds()


@given(st.integers(1, 7), st.integers(0, 6))
def test_one_wrong_row_is_found_wherever_it_stands(tmp_path_factory, rows, at):
    """The audit names the row that was spoiled by one bit, in line numbers of the file."""
    at %= rows
    w_NK = np.full((rows, 2), 0.5)
    w_NK[at] = [0.5 - 2**-54, 0.5]
    path = tmp_path_factory.getbasetemp() / "one.csv"
    path.write_text("note,a,b\n\n" + "".join(f'"x\ny",{a!r},{b!r}\n' for a, b in w_NK.tolist()))
    report = kd.audit_file(path, {"teachers": ["a", "b"], "lower": 0.1, "order": ["a>=b"]})
    assert [finding.axiom for finding in report.violated] == ["III.5"]
    assert report["III.5"].where == (at + 1,)
    assert report["III.5"].rows == 1
    assert f"Row {at + 1} is {path}, line {3 + 2 * at}." in report["III.5"].evidence


def test_progress_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(_csv, "_CHUNK", 4096)
    write(FRAME, tmp_path / "in.csv")
    size = (tmp_path / "in.csv").stat().st_size
    calls: list[tuple[int, int, int | None]] = []
    rules = {"teachers": TEACHERS}
    kd.project_file(tmp_path / "in.csv", tmp_path / "out.csv", rules, on_progress=lambda *now: calls.append(now))
    assert len(calls) > 5
    assert calls == sorted(calls)
    assert calls[-1] == (500, size, size)


@pytest.mark.parametrize("reason", [KeyboardInterrupt, MemoryError])
def test_whatever_stops_it_leaves_nothing_half_written(reason, tmp_path):
    write(FRAME, tmp_path / "in.csv")
    (tmp_path / "out.csv").write_text("what was there")

    def stop(*_: object) -> None:
        raise reason

    with pytest.raises(reason):
        kd.project_file(tmp_path / "in.csv", tmp_path / "out.csv", {"teachers": TEACHERS}, on_progress=stop)
    assert (tmp_path / "out.csv").read_text() == "what was there"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", "out.csv"]


def test_a_row_whose_own_order_leaves_no_weights_is_named_by_its_line(tmp_path):
    source = tmp_path / "in.csv"
    source.write_text("a,b,c,sa,sb,sc\n" + ".2,.3,.5,1,1,1\n" * 6 + "\n.2,.3,.5,3,2,1\n" + ".2,.3,.5,1,2,3\n" * 3)
    rules = {"teachers": TEACHERS, "safety_columns": ["sa", "sb", "sc"], "margin": 0.2, "lower": 0.2}
    with pytest.raises(kd.InfeasiblePolytope) as caught:
        kd.project_file(source, tmp_path / "out.csv", rules)
    message = str(caught.value)
    assert message.startswith(f"{source}, line 9: ordered by its `safety`: ")
    assert "margin" in message
    assert "Row" not in message


def test_kl_wants_scores_above_zero_and_names_the_cell(tmp_path):
    source = tmp_path / "in.csv"
    source.write_text("a,b\n0.5,0.5\n1,0.0\n")
    with pytest.raises(
        kd.InvalidInput, match=r"line 3, column 'b': found '0.0', wanted a number above 0, which metric"
    ):
        kd.project_file(source, tmp_path / "out.csv", {"metric": "kl"})


BAD_RULES = {
    "no such teacher": ({"teachers": ["a", "z"]}, "`teachers`: {path} has no teacher column 'z'; it has: id, a, b, c"),
    "teacher twice": ({"teachers": ["a", "b", "a"]}, "`teachers`: column 'a' is named twice"),
    "no such safety column": ({"safety_columns": ["sz"]}, "`safety_columns`: {path} has no column 'sz'; it has: id"),
    "too few safety columns": ({"safety_columns": ["sa"]}, "`safety_columns` names 1 columns for 3 teachers (a, b, c)"),
    "safety is a teacher": ({"safety_columns": ["a", "sb", "sc"]}, "`safety_columns`: column 'a' is that of a teacher"),
    "critical is a teacher": ({**ORDER, "critical_column": "c"}, "`critical_column`: column 'c' is that of a teacher"),
    "two kinds of order": (
        {**ORDER, "safety_columns": ["sa", "sb", "sc"]},
        "`safety_columns` and `order` are both given; use one of the two",
    ),
    "critical without order": (
        {"critical_column": "urgent"},
        "`critical_column` says where orderings apply, but there",
    ),
    "bounds for others": ({"lower": [0.1, 0.2]}, "`lower` has 2 numbers for 3 teachers (a, b, c)"),
    "bound of nobody": ({"upper": {"z": 0.2}}, "`upper`: {path} has no teacher column 'z'"),
    "order of nobody": ({"order": ["a>=z"]}, "`order` \"a>=z\": {path} has no teacher column 'z'"),
    "no order": ({"order": ["a>b"]}, '`order` "a>b" is not understood'),
    "linear of nobody": (
        {"linear": [{"weights": {"z": 1}, "at_most": 1}]},
        "`linear`: {path} has no teacher column 'z'",
    ),
    "no room": ({"upper": 0.3}, "Raise `upper` to at least 0.333"),
    "no room for one": ({"lower": [0.0, 0.5, 0.0], "upper": [1.0, 0.4, 1.0]}, "on teacher 1"),
    "which one that is": ({"lower": [0.0, 0.5, 0.0], "upper": [1.0, 0.4, 1.0]}, "the teachers are 0: a, 1: b, 2: c"),
    "a margin of no order": (
        {"margin": 0.1},
        "`margin` says by how much ordered weights differ, but there are no order",
    ),
    "one column twice": ({"teachers": ["a", "b", "a"]}, "`teachers`: column 'a' is named twice; once is enough"),
    "a teacher as its safety": (
        {"safety_columns": TEACHERS},
        "`safety_columns`: column 'a' is that of a teacher; name an",
    ),
    "no teacher left": (
        {"teachers": None, "safety_columns": list(FRAME.columns)},
        "in.csv has no column of a teacher; name them by `teachers`",
    ),
    "unknown key": ({"orderings": []}, "rules: unknown key 'orderings'; did you mean 'order'?"),
    "not a number": ({"lower": "0.1"}, "'lower' is '0.1'"),
}


@pytest.mark.parametrize("kind", BAD_RULES)
def test_rules_that_make_no_sense_are_refused(kind, tmp_path):
    rules, message = BAD_RULES[kind]
    source = tmp_path / "in.csv"
    write(FRAME.head(3), source)
    with pytest.raises(kd.InvalidInput) as caught:
        kd.project_file(source, tmp_path / "out.csv", {"teachers": TEACHERS, **rules})
    assert message.format(path=source) in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


def test_rules_that_are_no_rules_are_refused(tmp_path):
    write(FRAME.head(3), tmp_path / "in.csv")
    with pytest.raises(kd.InvalidInput, match="The rules are a int; wanted a mapping, or the path of a TOML file"):
        kd.audit_file(tmp_path / "in.csv", 3)


def test_left_out_teachers_are_all_columns_that_have_no_other_use(tmp_path):
    write(FRAME.drop(columns="id"), tmp_path / "in.csv")
    rules = {"safety_columns": ["sa,sb,sc"], "critical_column": "urgent"}  # a list in one name, as on the command line
    assert kd.project_file(tmp_path / "in.csv", tmp_path / "out.csv", rules).teachers == ("a", "b", "c")


@pytest.mark.parametrize("how", ["same", "link", "hard link"])
def test_the_input_is_never_overwritten(how, tmp_path):
    source = tmp_path / "in.csv"
    write(FRAME, source)
    before = source.read_bytes()
    target = source if how == "same" else tmp_path / "other.csv"
    if how == "link":
        target.symlink_to(source)
    if how == "hard link":
        target.hardlink_to(source)
    with pytest.raises(kd.InvalidInput, match=r"is the input itself, which would be lost; write to another file"):
        kd.project_file(source, target, {"teachers": TEACHERS})
    assert source.read_bytes() == before


@pytest.mark.parametrize(("source", "target"), [("in.csv", "out.parquet"), ("in.parquet", "out.csv")])
def test_formats_are_not_mixed_up(source, target, tmp_path):
    write(FRAME, tmp_path / source)
    with pytest.raises(kd.InvalidInput, match="formats are not converted"):
        kd.project_file(tmp_path / source, tmp_path / target, {"teachers": TEACHERS})
    assert [path.name for path in tmp_path.iterdir()] == [source]


def test_a_device_is_no_place_for_a_file(tmp_path):
    write(FRAME, tmp_path / "in.csv")
    with pytest.raises(kd.InvalidInput, match="/dev/null: it is a device or a pipe, not a file"):
        kd.project_file(tmp_path / "in.csv", "/dev/null", {"teachers": TEACHERS})


def test_the_summary_adds_up():
    whole, pieces = ProjectionSummary(("a", "b", "c")), ProjectionSummary(("a", "b", "c"))
    w_NK = kd.project(RAW_NK, kd.WeightPolytope(3, upper=0.5))
    whole.add(RAW_NK, w_NK)
    for n in range(0, 500, 100):
        pieces.add(RAW_NK[n : n + 100], w_NK[n : n + 100])
    assert pieces.distance == pytest.approx(whole.distance)
    pieces.distance = whole.distance
    assert pieces == whole


def test_the_longest_way_is_told_though_its_square_is_no_number():
    done = ProjectionSummary(("a", "b"))
    done.add(np.array([[3e200, -4e200], [0.5, 0.5]]), np.array([[1.0, 0.0], [0.5, 0.5]]))
    assert (done.moved, done.furthest) == (1, pytest.approx(5e200))
