"""Pictures of a frontier: what is shown, in every format, whole, and the same bytes each time."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import matplotlib as mpl
import numpy as np
import pytest

import safekd as kd
from safekd.frontier.view._figure import build_figure
from safekd.frontier.view._layout import find_gap_starts, lay_out_frontier
from tests.support.frontiers import CURVE, frontier, held, stacked

NAN = math.nan


def eventful() -> kd.Frontier:
    """All kinds of rows: a front with a gap, a dominated, a redundant, an infeasible and a failed one."""
    points = [
        (0.1, 0.5),
        (0.1, 0.5),
        (0.2, 0.6),
        (0.5, 0.65),
        (0.3, 0.7),
        (NAN, NAN),
        (0.6, 0.8),
        (0.9, 0.85),
        (NAN, NAN),
    ]
    status = ["redundant", "anchor", *["converged"] * 3, "gap", "converged", "infeasible", "failed"]
    feasible = [*[True] * 5, False, True, False, False]
    note = [""] * 8 + ['</script><b>"=x" & more']
    return frontier(
        points,
        status=status,
        feasible=feasible,
        target=[0.4, 0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.9, 0.95],
        lambda_a=[0.0, 0.0, 1.0, 3.0, 9.0, NAN, 3.0, 3.0, NAN],
        se_a=0.01,
        note=note,
    )


def slices() -> kd.Frontier:
    return stacked(held(CURVE, 0.8), held([(loss + 0.1, safety) for loss, safety in CURVE], 0.9))


def layout_of(made):
    return lay_out_frontier(made.table, made.constraint)


def picture_of(made, required=None):
    return build_figure(layout_of(made), required)


# ---- what is shown ------------------------------------------------------------------------------------------


def test_kinds_of_rows_are_told_apart():
    shown = layout_of(eventful())
    assert shown.kind_N.tolist() == [
        "duplicate",
        *["frontier"] * 2,
        "dominated",
        "frontier",
        "gap",
        "frontier",
        "infeasible",
        "no point",
    ]
    (series,) = shown.series
    assert series.label == ""
    assert [piece.tolist() for piece in series.pieces] == [[1, 2, 4], [6]]
    assert series.gaps == [(0.7, 0.8)]
    assert shown.kinds == ["frontier", "dominated", "duplicate", "infeasible", "no point"]


@pytest.mark.parametrize(
    ("targets", "cuts"),
    [([], []), ([0.75], [1]), ([0.75, 0.76, 0.55], [0, 1]), ([0.7], [1]), ([0.4, 0.9, 0.8], []), ([NAN], [])],
)
def test_a_gap_lies_between_the_neighbors_of_its_target(targets, cuts):
    assert find_gap_starts(np.array([0.5, 0.7, 0.8]), np.array(targets)) == cuts


def test_series_are_labelled_by_what_differs():
    assert [s.label for s in layout_of(slices()).series] == ["night at 0.8", "night at 0.9"]
    seeds = stacked(held(CURVE, 0.8, seed=1), held(CURVE, 0.8, seed=2))
    assert [s.label for s in layout_of(seeds).series] == ["seed 1", "seed 2"]
    methods = stacked(frontier(CURVE), frontier(CURVE, method="mu"))
    assert [s.label for s in layout_of(methods).series] == ["epsilon", "mu"]


def lines(made, panel, required=None):
    axes = picture_of(made, required).axes[panel]
    return [line.get_xydata().tolist() for line in axes.get_lines() if line.get_linestyle() == "-"]


def test_no_line_crosses_a_gap():
    for panel in (0, 1):
        drawn = [points for points in lines(eventful(), panel) if len(points) > 1]
        assert len(drawn) == 1
        assert all(x <= 0.7 for x, _ in drawn[0])
    whole = [points for points in lines(frontier(CURVE), 0) if len(points) > 1]
    assert np.ptp([x for x, _ in whole[0]]) == pytest.approx(0.4)


def test_the_staircase_is_what_safety_costs():
    """At every safety the lowest loss of a point that is as safe."""
    figure = picture_of(frontier(CURVE))
    (stairs,) = [line for line in figure.axes[0].get_lines() if line.get_drawstyle() == "steps-pre"]
    assert stairs.get_xydata() == pytest.approx(np.array([(safety, loss) for loss, safety in CURVE]))


def test_the_picture_says_all_that_it_shows():
    figure = picture_of(eventful(), 0.8)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "on the frontier (bars: standard error of safety)",
        "dominated",
        "redundant or duplicate",
        "infeasible",
        "target without a point",
        "gap: nothing was found here",
        "multiplier contradicts its neighbors",
        "required: 0.8",
    ]
    above, below = figure.axes
    assert above.get_ylabel() == "distillation loss (nats)"
    assert "λ" in below.get_ylabel()
    assert below.get_xlabel() == "safety, a (train split)"


# ---- files --------------------------------------------------------------------------------------------------

FORMATS = [("f.png", b"\x89PNG"), ("f.svg", b"<?xml"), ("f.pdf", b"%PDF"), ("f.html", b"<!DOCTYPE html>")]


@pytest.mark.parametrize(("name", "magic"), FORMATS)
def test_a_picture_is_written_whole_and_the_same_each_time(name, magic, tmp_path):
    for folder in ("new", "again"):
        eventful().plot(tmp_path / folder / name, required=0.8)
        mpl.rcParams["lines.linewidth"] = 7.0  # what others set is no part of it
    mpl.rcdefaults()
    assert [path.name for path in (tmp_path / "new").iterdir()] == [name]
    content = (tmp_path / "new" / name).read_bytes()
    assert content.startswith(magic)
    assert len(content) > 2000
    assert content == (tmp_path / "again" / name).read_bytes()


@pytest.mark.parametrize("name", ["f.png", "f.html"])
@pytest.mark.parametrize(
    "made",
    [
        frontier(CURVE, feasible=False),
        frontier([]),
        frontier([(NAN, NAN)] * 3, status="failed", feasible=False, target=[0.1, 0.2, NAN]),
        frontier(CURVE[:1]),
        frontier([(1e-9, 1e-12), (1e9, 1.0)], lambda_a=[NAN, 1e30]),
        frontier(CURVE, name="$\\frac{x}$ " + "long " * 40),
        slices(),
        stacked(*(held(CURVE, 0.5 + n / 100) for n in range(15))),
    ],
    ids=["infeasible", "no row", "no point", "one point", "far apart", "odd name", "slices", "many slices"],
)
def test_any_frontier_can_be_drawn(made, name, tmp_path):
    made.plot(tmp_path / name, required=0.7)
    assert (tmp_path / name).stat().st_size > 2000


def test_settings_of_matplotlib_are_left_as_they_were(tmp_path):
    before = dict(mpl.rcParams)
    frontier(CURVE).plot(tmp_path / "f.svg")
    assert dict(mpl.rcParams) == before


def test_a_kind_of_picture_that_is_unknown_is_told_and_leaves_nothing(tmp_path):
    with pytest.raises(kd.InvalidInput, match=r"Cannot draw .*f.xyz.*ends in .png, .svg, .pdf or .html"):
        frontier(CURVE).plot(tmp_path / "f.xyz")
    assert list(tmp_path.iterdir()) == []


# ---- the page -----------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Which elements there are, and what the table says."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.cells, self._open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self._open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_endtag(self, tag):
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data):
        if self._open and self._open[-1] in ("td", "th"):
            self.cells[-1] += data


@pytest.fixture
def page(tmp_path):
    eventful().plot(tmp_path / "f.html", required=0.8)
    return (tmp_path / "f.html").read_text(encoding="utf-8")


def test_the_page_needs_nothing_from_anywhere(page):
    within = page.replace('href="#', "").replace("url(#", "")  # marks and clips of the drawing itself
    assert not re.search(r"https?:|//|url\(|@import|src=|href=", within)
    assert "default-src 'none'" in page
    assert page.count("<script>") == 1
    assert len(page) < 30_000


def test_the_page_is_well_formed_and_harmless(page):
    drawing = re.search(r"<svg class.*?</svg>", page, re.DOTALL)
    root = ET.fromstring(drawing.group(0))
    assert root.tag == "svg"
    assert "</script><b>" not in page
    assert "&lt;/script&gt;&lt;b&gt;" in page


def test_every_number_stands_in_the_page(page):
    table, cells = eventful().table, Page(page).cells
    columns = len(table.columns)
    assert cells[:columns] == list(table.columns)
    rows = np.array(cells[columns:]).reshape(len(table), columns)
    for c, column in enumerate(table.columns):
        if table[column].dtype.kind == "f":
            read = [float(cell) if cell else NAN for cell in rows[:, c]]
            np.testing.assert_array_equal(read, table[column].to_numpy())
        else:
            assert rows[:, c].tolist() == [str(value) for value in table[column]]


def test_every_point_is_reached_by_the_keyboard_and_told_without_a_script(page):
    marks = [about for tag, about in Page(page).elements if tag == "g" and about.get("class") == "p"]
    stops = [about for about in marks if about.get("tabindex") == "0"]
    assert [about["data-row"] for about in stops] == ["0", "1", "2", "3", "4", "6", "7", "8"]  # by safety; no gap
    assert all(about["aria-label"].startswith(f"row {about['data-row']}, ") for about in stops)
    assert "row 3, dominated: target 0.65, safety 0.65, loss 0.5 nats, multiplier 3" in page
    assert "row 8, target without a point: target 0.95" in page
    multipliers = [about["data-row"] for about in marks if about not in stops]
    assert multipliers == ["1", "2", "4", "6"]  # those of the front
    assert page.count("<title>row") == len(marks)
    rows = [about["data-row"] for tag, about in Page(page).elements if tag == "tr" and about]
    assert rows == [str(n) for n in range(9)]


def test_the_page_is_light_or_dark_and_draws_gaps(page):
    assert "@media screen and (prefers-color-scheme:dark)" in page
    assert page.count("gap: nothing was found between safety 0.7 and 0.8") == 2
    stairs = re.findall(r'class="stairs">\s*<path d="M([^"]*)"', page)
    assert [path.count("L") for path in stairs] == [4, 0]  # three points in one piece, one beyond the gap
