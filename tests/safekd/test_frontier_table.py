"""Frontier: files that read back bit for bit, indicators against brute force, pictures."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest

import safekd as kd
from safekd.frontier._frontier import mark_nondominated


def frontier(points, *, name="a", feasible=None, seed=0, **columns) -> kd.Frontier:
    """A frontier with given (loss, safety) and plausible rest; NaN and awkward numbers included."""
    draw = np.random.default_rng(seed)
    n = len(points)
    loss, safety = np.asarray(points, dtype=float).reshape(n, 2).T
    table = pd.DataFrame(
        {
            "schema_version": 1,
            "run_id": "0123456789ab",
            "method": "epsilon",
            "target": safety,
            "seed": 3,
            "distillation_loss": loss,
            f"safety_{name}": safety,
            f"violation_{name}": 0.0,
            f"lambda_{name}": draw.normal(size=n) ** 2 * 1e-17,
            f"se_{name}": np.nan,
            "rho": 10.0,
            "kkt_stationarity": draw.normal(size=n) * 10.0 ** draw.integers(-300, 300, n),
            "split": "train",
            "status": "converged",
            "feasible": True if feasible is None else feasible,
            "warm_from": [math.nan, *safety[:-1]],
            "steps": 100,
            "wall_s": draw.uniform(size=n),
        }
    ).assign(**columns)
    return kd.Frontier(mark_nondominated(table, name), name, {"run_id": "0123456789ab", "epochs": 5})


CURVE = [(0.1, 0.5), (0.2, 0.7), (1 / 3, 0.8), (0.7, 0.9)]


@pytest.mark.parametrize(
    "made",
    [
        frontier(CURVE),
        frontier(CURVE, name='recall, "strict" = 1'),
        frontier(CURVE, run_id="123456789012", status="infeasible", split="NA", feasible=False),
        frontier(CURVE, run_id="1234e6789012", wall_s=10.0, target=1.0),
        frontier([(math.inf, 0.5), (5e-324, 1.0)]),
        frontier(CURVE[:1]),
    ],
)
def test_a_table_reads_back_bit_for_bit_with_its_types(made, tmp_path):
    made.to_csv(tmp_path / "f.csv")
    read = kd.Frontier.from_csv(tmp_path / "f.csv")
    assert list(read.table.columns) == list(made.table.columns)
    for column in made.table:
        old, new = made.table[column], read.table[column]
        kinds = dict.fromkeys("OUT", "word")
        assert kinds.get(new.dtype.kind, new.dtype) == kinds.get(old.dtype.kind, old.dtype), column
        if old.dtype.kind == "f":
            np.testing.assert_array_equal(new.to_numpy().view(np.int64), old.to_numpy().view(np.int64), column)
        else:
            assert new.tolist() == old.tolist(), column
    assert read.constraint == made.constraint
    assert read.meta == made.meta
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f.csv", "f.csv.meta.json"]


def test_without_the_meta_file_the_first_multiplier_names_the_constraint(tmp_path):
    frontier(CURVE).to_csv(tmp_path / "f.csv")
    (tmp_path / "f.csv.meta.json").unlink()
    read = kd.Frontier.from_csv(tmp_path / "f.csv")
    assert read.constraint == "a"
    assert read.meta == {}
    assert read.hypervolume((1.0, 0.0)) == frontier(CURVE).hypervolume((1.0, 0.0))


def test_the_meta_file_says_what_it_is(tmp_path):
    frontier(CURVE).to_csv(tmp_path / "f.csv")
    meta = json.loads((tmp_path / "f.csv.meta.json").read_text())
    assert meta == {"run_id": "0123456789ab", "epochs": 5, "constraint": "a", "schema_version": 1}


def edit(text, change):
    return text.replace(*change) if isinstance(change, tuple) else change(text)


BROKEN = {
    "empty": (lambda text: "", "is no readable frontier: No columns"),
    "other file": (lambda text: "x,y\n1,2\n", "is no frontier: columns run_id, .*feasible.* are missing"),
    "no multiplier": (("lambda_a", "price_a"), "is no frontier: columns lambda_a are missing"),
    "no safety": (("safety_a", "safe_a"), "columns safety_a are missing"),
    "no flag": (("nondominated", "best"), "columns nondominated are missing"),
    "version": (lambda text: text.replace("\n1,", "\n2,"), "has schema version 2; this release reads version 1"),
    "mixed": (lambda text: text.replace("\n1,", "\n3,", 1), "has schema version 1, 3; this release"),
    "header only": (lambda text: text.splitlines()[0] + "\n", "was cut off: 0 rows"),
    "half a row": (lambda text: text[: text.rindex("train")], "was cut off: 4 rows, the last of them incomplete"),
    "half a number": (lambda text: text[:-3], "was cut off"),
    "extra cell": (lambda text: text[:-1] + ",1,2\n", "is no readable frontier"),
    "word for number": (lambda text: text.replace(",10,", ",ten,", 1), "column 'rho' holds .*; wanted float64"),
    "word for flag": (lambda text: text.replace("True", "maybe", 1), "column 'feasible' holds .*; wanted bool"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_file_that_is_no_whole_frontier_is_refused(case, tmp_path):
    change, message = BROKEN[case]
    path = tmp_path / "f.csv"
    frontier(CURVE).to_csv(path)
    whole = path.read_text()
    path.write_text(edit(whole, change))
    assert path.read_text() != whole
    with pytest.raises(kd.InvalidInput, match="f.csv.*" + message):
        kd.Frontier.from_csv(path)


@pytest.mark.parametrize("share", np.linspace(0.05, 0.99, 12))
def test_a_file_cut_anywhere_is_refused(share, tmp_path):
    path = tmp_path / "f.csv"
    frontier(CURVE).to_csv(path)
    text = path.read_text()
    path.write_text(text[: int(share * len(text))])
    with pytest.raises(kd.InvalidInput, match=r"f\.csv"):
        kd.Frontier.from_csv(path)


def test_absent_files_and_folders_are_told(tmp_path):
    with pytest.raises(kd.InvalidInput, match=r"There is no file .*none.csv; check the path"):
        kd.Frontier.from_csv(tmp_path / "none.csv")
    with pytest.raises(kd.InvalidInput, match="is no readable frontier"):
        kd.Frontier.from_csv(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no readable JSON.*Write the frontier again, or delete it"),
        ("[1]", "holds a list; wanted what Frontier.to_csv writes"),
        ('{"constraint": "other"}', "columns safety_other, violation_other, lambda_other, se_other are missing"),
    ],
)
def test_a_meta_file_that_does_not_belong_is_refused(text, message, tmp_path):
    frontier(CURVE).to_csv(tmp_path / "f.csv")
    (tmp_path / "f.csv.meta.json").write_text(text)
    with pytest.raises(kd.InvalidInput, match=message):
        kd.Frontier.from_csv(tmp_path / "f.csv")


# ---- indicators ---------------------------------------------------------------------------------------------


def test_hypervolume_by_hand():
    """Two boxes: (1 - .2)(.5 - 0) and (1 - .6)(.9 - .5)."""
    assert frontier([(0.2, 0.5), (0.6, 0.9)]).hypervolume((1.0, 0.0)) == pytest.approx(0.8 * 0.5 + 0.4 * 0.4)


@pytest.mark.parametrize("seed", range(4))
def test_hypervolume_against_a_grid(seed):
    draw = np.random.default_rng(seed)
    points = np.round(draw.uniform(size=(12, 2)), 2)  # ties included
    reference = (0.8, 0.15)
    loss, safety = (np.arange(200) + 0.5) / 200, (np.arange(200) + 0.5) / 200
    inside = (loss[:, None] < reference[0]) & (safety[None, :] > reference[1])
    covered = np.zeros_like(inside)
    for x, y in points:
        covered |= (loss[:, None] >= x) & (safety[None, :] <= y)
    brute = (covered & inside).mean()
    found = frontier(points).hypervolume(reference)
    assert found == pytest.approx(brute, abs=1e-9)  # 0.01 is two cells, so the grid is exact
    assert found > 0


def test_points_outside_the_corner_and_infeasible_ones_add_nothing():
    inside = frontier([(0.2, 0.5)]).hypervolume((1.0, 0.0))
    assert frontier([(0.2, 0.5), (1.5, 0.9), (0.1, -0.2)]).hypervolume((1.0, 0.0)) == inside
    assert frontier([(0.2, 0.5), (0.1, 0.9)], feasible=[True, False]).hypervolume((1.0, 0.0)) == inside
    assert frontier([(0.2, 0.5), (math.nan, 0.9)]).hypervolume((1.0, 0.0)) == inside
    assert frontier(CURVE, feasible=False).hypervolume((1.0, 0.0)) == 0.0


@pytest.mark.parametrize("reference", [(math.nan, 0.0), (1.0, math.inf), (1.0,), 1.0, (1.0, 0.0, 0.0)])
def test_a_corner_that_is_none_is_refused(reference):
    with pytest.raises(kd.InvalidInput, match=r"`reference` is .*wanted two finite numbers \(loss, safety\)"):
        frontier(CURVE).hypervolume(reference)


def test_nondominated_with_ties_and_infeasible_rows():
    points = [(0.1, 0.5), (0.1, 0.5), (0.1, 0.6), (0.2, 0.6), (0.05, 0.9), (0.3, 0.7), (math.nan, 0.99)]
    made = frontier(points, feasible=[True, True, True, True, False, True, True])
    assert made.table["nondominated"].tolist() == [False, False, True, False, False, True, False]
    twins = frontier([(0.1, 0.5), (0.1, 0.5)])
    assert twins.table["nondominated"].tolist() == [True, False]  # of equals the first
    assert twins.nondominated().index.tolist() == [0]


@pytest.mark.parametrize("seed", range(4))
def test_nondominated_against_the_definition(seed):
    draw = np.random.default_rng(seed)
    points, feasible = draw.integers(0, 6, size=(25, 2)) / 5, draw.uniform(size=25) < 0.7
    chosen = frontier(points, feasible=feasible).nondominated()[["distillation_loss", "safety_a"]].to_numpy()
    allowed = {tuple(p) for p in points[feasible]}
    best = {(x, y) for x, y in allowed if not any((u <= x and v >= y) and (u, v) != (x, y) for u, v in allowed)}
    assert sorted(map(tuple, chosen)) == sorted(best)


# ---- pictures -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "magic"), [("f.png", b"\x89PNG"), ("f.svg", b"<?xml"), ("f.pdf", b"%PDF")])
def test_a_picture_is_written_whole(name, magic, tmp_path):
    frontier(CURVE, feasible=[True, True, False, True]).plot(tmp_path / "new" / name, required=0.8)
    assert [path.name for path in (tmp_path / "new").iterdir()] == [name]
    content = (tmp_path / "new" / name).read_bytes()
    assert content.startswith(magic)
    assert len(content) > 2000


def test_a_picture_without_a_feasible_point_is_drawn_too(tmp_path):
    frontier(CURVE, feasible=False).plot(tmp_path / "f.png")
    assert (tmp_path / "f.png").stat().st_size > 2000


def test_a_kind_of_picture_that_is_unknown_is_told_and_leaves_nothing(tmp_path):
    with pytest.raises(kd.InvalidInput, match=r"Cannot draw .*f.xyz.*Choose a name that ends in .png"):
        frontier(CURVE).plot(tmp_path / "f.xyz")
    assert list(tmp_path.iterdir()) == []
