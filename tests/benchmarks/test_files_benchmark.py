"""The benchmark on files, small: it runs, judges what was written, and its verdicts follow from the numbers."""

from __future__ import annotations

import pytest

from benchmarks import files
from benchmarks.files import CONTENDERS, PANDAS, Run


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_small_run(tmp_path, capsys):
    out = tmp_path / "report.md"
    assert files.main(["--rows", "1500", "--teachers", "3", "--rounds", "1", "--out", str(out)]) == 0
    report = out.read_text()
    assert capsys.readouterr().out.removesuffix("\n") == report
    assert "Every projected row conforms." in report
    assert "1,500 rows, 3 teachers" in report
    assert all(f"| {who} |" in report for who in CONTENDERS)


def runs(seconds: float, peak: int) -> list[Run]:
    return [Run(who, 100.0 if who == PANDAS else seconds, peak) for who in CONTENDERS]


@pytest.mark.parametrize(
    ("seconds", "peak", "words"),
    [
        (150.0, 1000 << 20, ["1.5, met", "1,000 MiB, met"]),
        (151.0, 1 << 30, ["1.51, MISSED", "1,024 MiB, MISSED"]),
    ],
)
def test_verdicts_follow_the_numbers(seconds, peak, words):
    report = files.markdown(runs(seconds, peak), [], {})
    assert all(word in report for word in words)


def test_a_file_that_does_not_conform_is_named():
    assert "Files that do not conform: projected.csv." in files.markdown(runs(1.0, 1), ["projected.csv"], {})


def test_the_judge_can_say_no(tmp_path):
    """Raw weights break the chain; a file that lost its last row is not whole."""
    options = files._read(["--rows", "50", "--teachers", "3"])
    files.draw(tmp_path / "weights", 50, 3, seed=0)
    assert not files.conforms(tmp_path / "weights.csv", options)
    files._projected(".csv")(tmp_path, "weights", 3)
    assert files.conforms(tmp_path / "projected.csv", options)
    lines = (tmp_path / "projected.csv").read_text().splitlines()
    (tmp_path / "projected.csv").write_text("\n".join(lines[:-1]))
    assert not files.conforms(tmp_path / "projected.csv", options)
