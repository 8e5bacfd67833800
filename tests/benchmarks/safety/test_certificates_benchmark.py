"""The benchmark of certificates: what counts as wrong, and a short run from end to end."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import certificates
from safekd.safety import bound_rows


def test_a_bound_above_the_truth_is_wrong_and_one_below_is_not():
    """A bound that is 0.6 in a quarter of all trials, and 0.4 else, of a mean of 0.5."""
    bound = lambda rng, trials, cases, method: np.where(np.arange(trials) % 4 == 0, 0.6, 0.4)  # noqa: E731
    cell = certificates.measure(certificates.Population("half", 0.5, bound), 10, "betting", 1000, 0)
    assert (cell.wrong, cell.gap) == (0.25, pytest.approx(0.05))
    assert not cell.holds
    assert "25.0% ! (0.050)" in certificates.markdown([cell], 1.0)


ONE_TRUTH = [p for p in certificates.list_populations() if p.truth > 0]  # of a family each constraint has its own


@pytest.mark.parametrize("population", ONE_TRUTH, ids=lambda p: p.name)
def test_the_truth_of_a_population_is_its_mean(population):
    """With many cases every bound comes near it, from below."""
    method = population.methods[-2] if len(population.methods) > 1 else population.methods[0]
    bound_T = population.bound(np.random.default_rng(0), 3, 15_000, method)
    assert np.all(bound_T < population.truth + 0.02)
    assert np.all(bound_T > population.truth - 0.05)


def test_a_short_run_finds_valid_bounds_valid_and_the_t_bound_not(capsys, tmp_path):
    assert certificates.main(["--trials", "300", "--out", str(tmp_path / "report.md")]) == 0
    report = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert capsys.readouterr().out.strip() == report.strip()
    assert "0 of 105 cells above that" in report
    assert "!" in next(line for line in report.splitlines() if line.startswith("| 0 or 1, mean 0.99 | 30 |"))


def test_a_wrong_bound_would_be_found_out(monkeypatch):
    """The mean of the sample, taken for a bound, is above the truth in about half of all trials."""
    mean = lambda method, x, confidence, sizes=None: np.asarray(x).mean(-1)  # noqa: E731
    monkeypatch.setattr(certificates, "bound_rows", mean)
    cells = [certificates.measure(p, 30, "betting", 200, 0) for p in certificates.list_populations()[:6]]
    assert not any(cell.holds for cell in cells)
    assert bound_rows is not mean
