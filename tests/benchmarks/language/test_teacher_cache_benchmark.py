"""The benchmark of teacher caches: a short run on a random model, and what the page that is committed says."""

from __future__ import annotations

import re

import pytest
import torch

from benchmarks import teacher_cache as bench

from ...support import ROOT


@pytest.fixture(scope="module")
def states():
    return bench.read_random_states(256)


@pytest.fixture(scope="module")
def scores(states):
    return {(form.name, form.head): bench.measure_form(states, form) for form in bench.FORMS}


def test_errors_are_those_of_the_form(scores):
    assert scores["hidden states, float32", torch.float32].errors[0] < 1e-6
    assert scores["hidden states, bfloat16", torch.float32].errors[0] < 0.01
    for k in bench.KEPT:
        renormalized, cut, _, even = scores[f"top-{k}", torch.float32].errors
        assert even < 0.3 * min(renormalized, cut)
        exact = scores[f"top-{k}, float32", torch.float32].errors
        assert exact == pytest.approx(scores[f"top-{k}", torch.float32].errors, rel=0.02)


def test_bytes_are_those_of_the_rows_and_a_little_for_the_examples(scores):
    width = 64
    for (name, head), least in {
        ("hidden states, bfloat16", torch.bfloat16): 2 * width,
        ("top-64", torch.float32): 64 * 4 + 12,
        ("top-256", torch.float32): 256 * 4 + 12,
        ("top-64, float32", torch.float32): 64 * 6 + 12,
    }.items():
        assert least < scores[name, head].bytes_per_token < least + 5


def test_the_report_has_a_row_a_form(states, scores):
    page = bench.write_report(states, list(scores.values()))
    assert page.count("| hidden states") == 4 + 1
    assert page.count("| top-") == 4 + 2


def test_the_page_that_is_committed_says_what_the_documentation_says_of_it():
    page = (ROOT / "docs" / "benchmarks" / "teacher_cache.md").read_text(encoding="utf-8")
    rows = {
        row[0] + row[1]: row
        for row in re.findall(r"^\| (hidden[^|]*) \| ([^|]*) \| ([\d,]*) \| ([\d.]*) \|$", page, re.M)
    }
    assert "SmolLM2-135M" in page
    assert float(rows["hidden states, bfloat16float32"][3]) < 0.01
    tables = re.findall(
        r"^\| top-(\d+) \| ([\d,]+) \| [\d.]+ \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", page, re.M
    )
    assert [row[0] for row in tables] == ["64", "256"]
    for row in tables:
        *others, even = map(float, row[2:])
        assert even < 0.5 * min(others)
    guide = (ROOT / "docs" / "teacher_cache.md").read_text(encoding="utf-8")
    for k, size, renormalized, cut, like, even in tables:
        told = f"{size} | {' / '.join(error.removeprefix('0') for error in (even, like, renormalized, cut))} |"
        assert told in guide, k
    assert (
        f"| {rows['hidden states, float16float32'][2]} | {rows['hidden states, float16float32'][3].removeprefix('0')} |"
        in guide
    )
