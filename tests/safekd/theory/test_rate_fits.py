"""Slopes and bands against scipy's regression."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import linregress, ttest_1samp
from scipy.stats import t as student_t

from safekd.errors import InvalidInput
from safekd.theory import fit_factor, fit_power


def test_a_line_and_its_band_are_scipys():
    random = np.random.default_rng(0)
    x = np.geomspace(1, 100, 30)
    y = 3 * x**-1.2 * np.exp(0.1 * random.standard_normal(30))
    fit, ours = linregress(np.log(x), np.log(y)), fit_power(x, y)
    half = student_t.ppf(0.975, 28) * fit.stderr
    assert (ours.slope, ours.low, ours.high) == pytest.approx((fit.slope, fit.slope - half, fit.slope + half))
    assert ours.intercept == pytest.approx(fit.intercept)
    assert ours.excludes(0)
    assert not ours.excludes(ours.slope)


def test_the_band_of_groups_is_students_t_between_them():
    random = np.random.default_rng(1)
    x = np.geomspace(1, 100, 10)
    y = x**-1.0 * np.exp(0.2 * random.standard_normal((8, 10)))
    slopes = [linregress(np.log(x), np.log(row)).slope for row in y]
    band = ttest_1samp(slopes, 0).confidence_interval(0.9)
    ours = fit_power(x, y, level=0.9)
    assert (ours.slope, ours.low, ours.high) == pytest.approx((np.mean(slopes), band.low, band.high))
    assert ours.points == 8


def test_bands_cover_the_true_factor_as_often_as_they_say():
    random = np.random.default_rng(2)
    hits = 0
    for _ in range(400):
        values = 0.7 ** np.arange(8) * np.exp(0.3 * random.standard_normal(8))
        low, high = fit_factor(values).factor_band
        hits += low <= 0.7 <= high
    assert 0.92 < hits / 400 < 0.98


@pytest.mark.parametrize(
    ("x", "y", "text"),
    [
        ([1, 2], [1, 2], "at least 3"),
        ([1, 2, 3], [1, 0, 2], "positive and finite"),
        ([0, 1, 2], [1, 1, 1], "`x` holds numbers that are not positive"),
        ([1, 1, 1], [1, 2, 3], "at least 3"),
    ],
)
def test_what_has_no_slope_is_refused(x, y, text):
    with pytest.raises(InvalidInput, match=text):
        fit_power(x, y)


def test_a_level_that_is_none_is_refused():
    with pytest.raises(InvalidInput, match="`level` is 95"):
        fit_factor([1, 2, 3], level=95)
