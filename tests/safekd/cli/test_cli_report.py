"""``safekd report``: one file about a run, or about several."""

from __future__ import annotations

from tests.support.cli_runner import run_cli
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
