"""The report as a page: whole, closed to the network, escaped, readable without a script or without eyes."""

from __future__ import annotations

import json
import math
import random
import re
import shutil
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

import safekd as kd
from safekd.frontier.view import PALETTE
from safekd.io.folders import format_checked_json, write_manifest
from safekd.report import write_report
from safekd.report.page._read_run import read_run
from safekd.report.page._write_report import build_report_page
from safekd.report.page.drawing import Curve, CurveChart, draw_curves, thin_line
from safekd.saved_students import ReportFacts
from tests.support.problems import fit_tightened
from tests.support.reports.runs import make_bare_run

VOID = {"meta", "br", "hr", "img"}


class Page(HTMLParser):
    """Elements of a page: tag, attributes and all text inside, in order."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.elements, self._open, self.unclosed = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        element = {"tag": tag, "text": "", **dict(attrs)}
        self.elements.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_endtag(self, tag):
        if self._open[-1]["tag"] != tag:
            self.unclosed.append(tag)
        else:
            self._open.pop()

    def handle_data(self, data):
        for element in self._open:
            element["text"] += data

    def find(self, tag, **wanted):
        return [e for e in self.elements if e["tag"] == tag and all(e.get(k) == v for k, v in wanted.items())]


@pytest.fixture(scope="module")
def text(made, tmp_path_factory):
    return write_report(made.folder, tmp_path_factory.mktemp("page") / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


# ------------------------------------------------------------------------------------------------------------- whole


def test_it_lies_beside_the_run_and_verify_still_holds(made):
    path = write_report(made.folder)
    assert path == made.folder / "report.html"
    assert kd.verify_files(made.folder).holds()
    path.unlink()


def test_the_same_run_gives_the_same_bytes(made, tmp_path):
    one, two = (write_report(made.folder, tmp_path / name).read_bytes() for name in ("1.html", "2.html"))
    assert one == two
    assert len(one) < 300_000


def test_nothing_is_fetched_from_anywhere(text, page):
    assert not re.search(r"(?i)\b(?:https?:)?//[a-z]", text.split("<body>")[1])
    assert not re.search(r"(?i)@import|url\(|<link|<iframe|<object|<base", text)
    assert not [e for e in page.elements if "src" in e or ("href" in e and not e["href"].startswith("#"))]
    (policy,) = page.find("meta", **{"http-equiv": "Content-Security-Policy"})
    assert policy["content"].startswith("default-src 'none';")


def test_every_element_is_closed_and_every_name_is_there_once(page):
    assert page.unclosed == []
    names = Counter(e["id"] for e in page.elements if "id" in e)
    assert [name for name, count in names.items() if count > 1] == []
    assert {name for e in page.elements for name in e.get("aria-labelledby", "").split()} <= set(names)


def test_the_sections_of_a_run(page):
    assert [e["text"] for e in page.find("h2")] == [
        "Safety",
        "How it went",
        "Weights of the teachers",
        "Frontier",
        "Axioms of the weights",
        "Ensemble",
        "Data, configuration, versions, hashes",
    ]


# ----------------------------------------------------------------------------------------------------------- numbers


def test_the_verdict_is_one_sentence_with_its_numbers(made, page):
    (sentence,) = page.find("p", **{"class": "verdict"})
    (reading,), (proved,) = made.result.point.readings, made.result.certificates
    meets = "meets" if reading.violation <= 1e-3 else "misses"
    shows = "show it" if proved.decision == "safe" else "do not show it"
    assert sentence["text"] == (
        f"The run ended {made.result.status.replace('_', ' ')}; the student {meets} “safe” ≥ 0.8 on the train split "
        f"({reading.measured:.4f}); new data {shows} (95 % confidence: lower bound {proved.lower_bound:.4g})."
    )
    assert made.result.message in page.find("body")[0]["text"]
    assert made.result.next_move in page.find("body")[0]["text"]


def test_every_reading_of_every_split_is_in_a_table(made, page):
    body = page.find("body")[0]["text"]
    facts = ReportFacts.load(made.folder)
    assert len(facts.safety) == 12
    for fact in facts.safety:
        assert f"{fact.measured:.4g}" in body
    for bound in facts.bounds:
        assert f"{bound.lower_bound:.4g}" in body


def test_the_frontier_shows_training_and_validation_safety_and_the_unconstrained_student(page):
    told = [e["aria-label"] for e in page.find("g", **{"class": "p"})]
    assert sum(words.startswith("unconstrained student, row 0") for words in told) == 1
    assert [words for words in told if "validation safety" in words] == [
        "row 0: validation safety 0.7, loss 0.01 nats",
        "row 1: validation safety 0.76, loss 0.05 nats",
        "row 2: validation safety 0.81, loss 0.2 nats",
    ]


def test_weights_are_shown_before_and_after_with_how_far_they_moved(made, page):
    weights = read_run(made.folder, "run").weights
    body = page.find("body")[0]["text"]
    assert f"{weights.moved.mean():.4g} on average and {weights.moved.max():.4g} at most" in body
    told = [e["aria-label"] for e in page.find("g", **{"class": "p"})]
    for k, name in enumerate(weights.teachers):
        for what, w_N in (("as composed", weights.raw[:, k]), ("conforming", weights.conforming[:, k])):
            assert any(t.startswith(f"{name}, {what}: median {np.median(w_N):.4f}") for t in told)


def test_hashes_versions_and_the_configuration_are_there(made, page):
    body = page.find("body")[0]["text"]
    run = read_run(made.folder, "run")
    assert run.sha256 in body
    for stated in run.files.values():
        assert stated["sha256"] in body
    assert (made.folder / "effective.toml").read_text() in body
    assert f"torch {run.spec.versions['torch']}" in body


# -------------------------------------------------------------------------------------------------------- accessible


def test_every_figure_says_what_it_shows_and_has_its_numbers_in_a_table(text):
    figures = re.findall(r"<figure>.*?</figure>", text, re.DOTALL)
    assert len(figures) == 10
    for figure in figures:
        one = Page(figure)
        svg = one.find("svg", role="group")[0]
        named = svg["aria-labelledby"].split()
        assert [len(next(e for e in one.elements if e.get("id") == name)["text"]) > 3 for name in named] == [True, True]
        assert len(one.find("tr")) > 1
        points = one.find("g", **{"class": "p"})
        assert points
        assert all(p["role"] == "img" and p["aria-label"] and p["tabindex"] in ("0", "-1") for p in points)
        assert "0" in {p["tabindex"] for p in points}


def test_tables_have_heads_and_what_scrolls_can_be_reached_by_the_keyboard(page):
    assert all(cell.get("scope") in ("col", "row") for cell in page.find("th"))
    assert all(e.get("tabindex") == "0" and e["aria-label"] for e in page.find("div", **{"class": "wide"}))
    assert page.find("html")[0]["lang"] == "en"


@pytest.mark.parametrize("theme", PALETTE)
def test_what_is_written_or_drawn_stands_out_from_the_paper(theme):
    """Contrast of WCAG 2: 4.5 to 1 for text; https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio."""
    colors = dict(PALETTE[theme])
    grounds = [colors.pop(name) for name in ("paper", "card")]
    for behind in ("grid", "gap"):
        colors.pop(behind)
    assert len(colors) == 11
    for ground in grounds:
        assert {name: c for name, color in colors.items() if (c := contrast(color, ground)) < 4.5} == {}


def contrast(one, other):
    bright, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def luminance(color):
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_contrast_is_that_of_the_standard():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)


# ----------------------------------------------------------------------------------------------------------- hostile


def test_names_that_mean_harm_are_text(hostile, tmp_path):
    text = write_report([hostile.folder, hostile.folder], tmp_path / "r.html").read_text(encoding="utf-8")
    page = Page(text)
    assert len(page.find("script")) == len(page.find("style")) == 1
    assert not page.find("img")
    assert not page.find("b")
    assert "\u202e" not in text
    assert page.unclosed == []
    assert not [e for e in page.elements if any(name.startswith("on") for name in e)]
    assert "</style><script>alert(1)</script><img src=x" in page.find("body")[0]["text"]  # shown as it is
    assert "\\u202e" in page.find("body")[0]["text"]


# -------------------------------------------------------------------------------------------------------------- large


def test_a_long_line_keeps_its_ends_and_its_extremes():
    x, y = np.arange(1_000_000.0), np.random.default_rng(0).normal(size=1_000_000)
    kept = thin_line(x, y, 300)
    assert 100 < len(kept) <= 303
    assert {0, 999_999, int(y.argmin()), int(y.argmax())} <= set(kept.tolist())
    assert (np.diff(kept) > 0).all()


def test_a_long_trace_is_thinned_out(made):
    run = read_run(made.folder, "run")
    many = run.trace.loc[np.arange(50_000) % len(run.trace)].reset_index(drop=True)
    long = replace(run, trace=many.assign(step=np.arange(50_000)))
    assert len(build_report_page([long])) < 300_000


def test_many_constraints_and_teachers_are_cut_and_said_so(made):
    run = read_run(made.folder, "run")
    facts = run.facts
    safety = [fact.model_copy(update={"constraint": f"c{n}"}) for n in range(100) for fact in facts.safety]
    wide = replace(
        run.weights,
        teachers=[f"t{n}" for n in range(200)],
        raw=np.repeat(run.weights.raw[:, :1], 200, 1),
        conforming=np.repeat(run.weights.conforming[:, :1], 200, 1),
    )
    large = replace(run, facts=facts.model_copy(update={"safety": safety}), weights=wide)
    text = build_report_page([large])
    assert "276 more groups are in the table only" in text
    assert "; 800 more rows are left out" in text
    assert "176 more teachers are not drawn" in text
    assert len(text) < 500_000


def test_texts_without_end_and_tables_without_end_do_not_fill_the_page(made):
    run = read_run(made.folder, "run")
    facts, long = run.facts, "x" * 1_000_000
    lines = [facts.axioms[0].model_copy(update={"evidence": long})] * 500
    teachers = [facts.teachers[0].model_copy(update={"name": long, "safety": [0.5] * 10_000})] * 3
    update = {"axioms": lines, "teachers": teachers, "contexts": ["c"] * 10_000, "cases": [1] * 10_000}
    verdict = replace(run.verdict, message=long, evidence={f"e{n}": long for n in range(600)})
    files = {f"{n}.csv": {"bytes": 1, "sha256": "0"} for n in range(5_000)}
    large = replace(run, facts=facts.model_copy(update=update), verdict=verdict, files=files, config=long)
    text = build_report_page([large])
    assert len(text) < 2_500_000
    assert "; 100 more rows are left out" in text
    assert "; 9,965 more columns are left out" in text


@pytest.mark.parametrize(
    "values", [[], [0.0, 0.0], [np.nan, np.inf], [1e308, -1e308], [5e-324, 1e300], [-1.0, 0.0, 3.0]]
)
@pytest.mark.parametrize("log", [False, True])
def test_any_numbers_can_be_drawn(values, log):
    y = np.array(values)
    figure = draw_curves(CurveChart("t", "x", "y", [Curve("c", np.arange(len(y)) * 1.0, y, 0)], log=log), "k")
    for element in figure.iter():
        for name in ("x", "y", "cx", "cy", "x1", "y1", "d"):
            assert "nan" not in element.get(name, "")
            assert "inf" not in element.get(name, "")


# -------------------------------------------------------------------------------------------------------- other runs


def test_a_run_of_a_module_of_the_users_own_has_the_sections_that_it_can(bare, tmp_path):
    page = Page(write_report(bare, tmp_path / "r.html").read_text(encoding="utf-8"))
    assert [e["text"] for e in page.find("h2")] == ["Safety", "How it went", "Data, configuration, versions, hashes"]
    body = page.find("body")[0]["text"]
    assert "nothing was certified on new data" in body
    assert "its folder names no features" in body


def test_how_thresholds_were_raised_is_shown_round_by_round(tmp_path):
    result = fit_tightened(run_dir=tmp_path / "run")
    page = Page(build_report_page([read_run(tmp_path / "run", "run")]))
    assert "How thresholds were raised" in [e["text"] for e in page.find("h2")]
    (table,) = [e for e in page.find("table") if e["text"].startswith("Rounds of the tightening")]
    for row in result.tightening.rounds.to_dict("records"):
        for name in ("posed", "judged", "lower_bound"):
            assert f"{row[name]:.4g}" in table["text"]
    assert table["text"].count("✓ kept") == int(result.tightening.rounds["kept"].sum()) >= 1
    assert result.tightening.message in page.find("body")[0]["text"]


def test_several_runs_are_compared_in_a_table_and_in_one_picture(made, other, bare, tmp_path):
    page = Page(write_report([made.folder, other.folder, bare], tmp_path / "r.html").read_text(encoding="utf-8"))
    assert page.find("h2")[0]["text"] == "3 runs compared"
    (table,) = [e for e in page.find("table") if "Runs side by side" in e["text"]]
    for run in (made.result, other.result):
        assert f"{run.point.loss:.4g}" in table["text"]
    assert all(name in table["text"] for name in ("first", "second", "bare", "safe: lower bound", "first: required"))
    overlay = page.find("title", id="compared0-title")[0]
    assert overlay["text"] == "Distillation loss, training"
    groups = [e["aria-label"] for e in page.find("g", role="group")]
    assert groups[:3] == ["first", "second", "bare"]


def test_runs_of_one_name_are_told_apart_by_their_paths(made, tmp_path):
    twin = tmp_path / "twin" / "first"
    shutil.copytree(made.folder, twin)
    page = Page(write_report([made.folder, twin], tmp_path / "r.html").read_text(encoding="utf-8"))
    assert [e["text"] for e in page.find("h1")][1:] == [str(made.folder), str(twin)]


# --------------------------------------------------------------------------------------------------- stale, refused


def test_a_later_run_takes_the_report_of_an_earlier_one_away(tmp_path):
    folder = tmp_path / "run"
    make_bare_run(folder)
    path = write_report(folder)
    before = read_run(folder, "run").sha256
    assert f'<meta name="safekd-runs" content="{before}">' in path.read_text(encoding="utf-8")
    result = make_bare_run(folder, 0.6)
    assert not path.exists()
    write_report(folder)
    result.save(folder)
    assert not path.exists()


def test_a_page_that_somebody_else_wrote_there_stays(tmp_path):
    folder = tmp_path / "run"
    make_bare_run(folder)
    (folder / "report.html").write_text("<p>my own notes</p>")
    make_bare_run(folder, 0.6)
    assert (folder / "report.html").read_text() == "<p>my own notes</p>"


def test_a_folder_that_was_changed_is_refused(made, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(made.folder, copy)
    with (copy / "weights.csv").open("a") as file:
        file.write("1,2\n")
    with pytest.raises(kd.InvalidInput, match=r"is damaged: weights\.csv is not what was written"):
        write_report(copy)
    assert not (copy / "report.html").exists()


@pytest.mark.parametrize("name", ["verdict.json", "report.json", "student.json"])
def test_a_folder_that_was_forged_gives_a_page_or_one_message(name, made, tmp_path):
    """Somebody changes one entry and makes all hashes fit again."""
    folder = tmp_path / "run"
    shutil.copytree(made.folder, folder)
    record = json.loads((folder / name).read_text())
    places = list(list_places(record))
    draw, refusals = random.Random(0), []
    for _ in range(25):
        place, value = draw.choice(places), draw.choice([None, -1, 1e308, "<b>", [], {}, True, [[]], math.nan])
        forged = put(json.loads(json.dumps(record)), place, value)
        (folder / name).write_text(format_checked_json(forged) if "sha256" in record else json.dumps(forged))
        (folder / "manifest.json").unlink()
        write_manifest(folder, "run")
        try:
            path = write_report(folder, tmp_path / "page.html")
        except kd.InvalidInput as refused:
            refusals.append(str(refused))
        else:
            assert "<b>" not in path.read_text(encoding="utf-8")
    assert 0 < len(refusals) < 25
    assert all(text.startswith(str(folder)) and len(text) < 1_000 for text in refusals)


def list_places(value, place=()):
    """Return the ways to every entry of a record of JSON."""
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield (*place, key)
        yield from list_places(value[key], (*place, key))


def put(record, place, value):
    inner = record
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return record


@pytest.mark.parametrize(
    ("runs", "path", "message"),
    [
        ([], "r.html", "0 runs were given for a report; wanted 1 to 16"),
        (["{run}", "{run}"], None, "A report of 2 runs belongs to none of their folders; say where to write it"),
        (["{run}"], "r.pdf", r"it is a web page; choose a name that ends in \.html"),
        (["nowhere"], "r.html", "holds no finished run"),
    ],
)
def test_what_cannot_be_reported_is_refused(runs, path, message, made, tmp_path):
    folders = [str(run).format(run=made.folder) for run in runs]
    with pytest.raises(kd.InvalidInput, match=message):
        write_report(folders, None if path is None else tmp_path / path)
    assert list(tmp_path.iterdir()) == []
