"""``safekd report``: one file about a run, or about several."""

from __future__ import annotations

import pytest

from tests.support.cli_runner import run_cli
from tests.support.frontiers import CURVE, frontier
from tests.support.reports.runs import make_bare_run


def test_a_run_has_its_report_in_its_folder_and_several_where_one_says(tmp_path, capsys):
    for name, threshold in (("one", 0.5), ("two", 0.6)):
        make_bare_run(tmp_path / name, threshold)
    done = run_cli(capsys, "report", tmp_path / "one")
    assert done.code == 0
    assert str(tmp_path / "one" / "report.html") in "".join(done.out.split())
    assert (tmp_path / "one" / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert run_cli(capsys, "verify", tmp_path / "one").code == 0
    both = tmp_path / "both.html"
    assert run_cli(capsys, "report", tmp_path / "one", tmp_path / "two", "-o", both).code == 0
    assert "2 runs compared" in both.read_text(encoding="utf-8")
    assert "What safety costs" not in both.read_text(encoding="utf-8")


@pytest.mark.parametrize("runs", [["one"], ["one", "two"]])
def test_a_frontier_that_lies_elsewhere_is_shown_too(runs, tmp_path, capsys):
    for name in runs:
        make_bare_run(tmp_path / name)
    table = tmp_path / "frontier.csv"
    frontier(CURVE, name="first").to_csv(table)
    page = tmp_path / "page.html"
    folders = [tmp_path / name for name in runs]
    assert run_cli(capsys, "report", *folders, "-o", page, "--frontier", table).code == 0
    text = page.read_text(encoding="utf-8")
    assert text.count(">What safety costs<") == 3  # caption, title of the drawing, caption of the table
    assert "row 2, on the frontier: target 0.8, safety 0.8, loss 0.333333 nats" in text
    table.write_text(table.read_text().replace("0.5", "0.6"))
    assert run_cli(capsys, "report", *folders, "-o", page, "--frontier", table).refused("was changed")
    assert page.read_text(encoding="utf-8") == text


def test_what_is_no_run_is_refused_with_what_to_do(tmp_path, capsys):
    make_bare_run(tmp_path / "one")
    said = run_cli(capsys, "report", tmp_path / "nowhere")
    assert said.refused("holds no finished run")
    assert run_cli(capsys, "report", tmp_path / "one", tmp_path / "one").refused("say where to write it")
    manifest = tmp_path / "one" / "manifest.json"
    before = manifest.read_bytes()
    assert run_cli(capsys, "report", tmp_path / "one", "-o", manifest).refused("choose a name that ends in .html")
    assert manifest.read_bytes() == before
    manifest.write_bytes(before.replace(b"trace.csv", b"trace.tsv"))
    assert run_cli(capsys, "report", tmp_path / "one").refused("manifest.json is not what was written")
    assert not (tmp_path / "one" / "report.html").exists()
