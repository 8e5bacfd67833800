"""Audits are quick, quiet off a terminal, and find the same whether lines are searched one by one or at once."""

from __future__ import annotations

import io

import pytest
import torch

import safekd as kd
from benchmarks.auditing import CountedRule, draw_signals
from safekd.axioms._audit_progress import show_lines
from safekd.axioms.continuity import _continuity_findings as findings
from safekd.weights import Signals
from tests.support.weighting import everything, t


@pytest.mark.parametrize("rows", [10, 1302])
def test_many_lines_are_searched_in_few_calls(rows):
    """One line took some fifty calls of the rule, and there are a hundred lines."""
    counted = CountedRule(5)
    report = kd.audit(counted, draw_signals(rows, 5, 2), tries=4)
    assert report.holds()
    assert "lines" in report["III.4"].evidence
    assert counted.calls < (500 if rows == 10 else 2000)


class Steps:
    """Weights of three teachers that jump by another height in each row."""

    def __call__(self, signals):
        heights = 0.1 * (1 + signals.distance[..., 2])
        ahead = (signals.distance[..., 0] > signals.distance[..., 1]).double() * heights
        return torch.stack([0.4 + ahead / 2, 0.4 - ahead / 2, torch.full_like(ahead, 0.2)], -1)


RULES = {
    "smooth": kd.weights.DomainDistance(1.0),
    "steps": Steps(),
    "conforming": kd.weights.Conforming(kd.weights.DomainDistance(2.0), kd.WeightPolytope(3, 0.1, 0.6)),
    "rows that look at each other": lambda s: (s.distance - s.distance.mean(0, keepdim=True)).neg().softmax(-1),
    "a table of its rows": lambda s: t(*[[0.2, 0.3, 0.5]] * 6) + 0 * s.distance[:6],
    "refuses": lambda s: (
        (_ for _ in ()).throw(kd.InvalidInput("too far")) if s.distance.max() > 2 else -s.distance.exp()
    ),
}


@pytest.mark.parametrize("name", RULES)
def test_lines_at_once_and_one_by_one_say_the_same(monkeypatch, name):
    signals = Signals(distance=torch.rand(6, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64))
    at_once = kd.audit(RULES[name], signals, scale="context", as_weights=True)
    monkeypatch.setattr(findings, "search_lines_at_once", lambda lines: None)
    one_by_one = kd.audit(RULES[name], signals, scale="context", as_weights=True)
    for one, other in zip(at_once, one_by_one, strict=True):
        assert (one.status, one.where, one.rows) == (other.status, other.where, other.rows)
        if one.worst is not None:
            assert one.worst == pytest.approx(other.worst, rel=1e-6, nan_ok=True)
        assert one.evidence[:30] == other.evidence[:30]


def test_positions_of_sequences_are_searched_at_once_too():
    given = everything(0, B=6, K=3)
    signals = Signals(log_p=given["log_p"].reshape(2, 3, 3, 5), safety=given["safety"].reshape(2, 3, 3))
    flat = Signals(log_p=given["log_p"], safety=given["safety"])
    rule = kd.weights.EntropyDecay(2.0)
    whole, rows = kd.audit(rule, signals), kd.audit(rule, flat)
    assert whole["III.4"].worst == pytest.approx(rows["III.4"].worst, rel=0.5)
    assert len(whole["III.4"].where) == 2


def test_a_quick_audit_says_that_it_looked_at_some_positions():
    signals = Signals(distance=torch.rand(400, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64))
    report = kd.audit(Steps(), signals, scale="context", as_weights=True, quick=True)
    finding = report["III.21"]
    assert finding.status == "violated"
    assert finding.evidence.endswith("Looked for at 128 of 400 positions.")
    assert 0 <= finding.where[0] < 400
    assert report["III.18"].judged == 400
    full = kd.audit(Steps(), signals, scale="context", as_weights=True)
    assert full["III.21"].worst >= finding.worst
    few = kd.audit(Steps(), Signals(distance=signals.distance[:50]), scale="context", as_weights=True, quick=True)
    assert "Looked for at" not in few["III.21"].evidence


def test_a_quick_audit_of_a_rule_that_takes_only_all_positions():
    table = torch.full((400, 3), 1 / 3, dtype=torch.float64)
    signals = Signals(distance=torch.rand(400, 3, dtype=torch.float64))
    report = kd.audit(lambda s: table * s.ones(), signals, scale="context", as_weights=True, quick=True)
    assert report["III.21"].status == "estimated"


def test_nothing_is_shown_where_nobody_looks(capsys):
    kd.audit(Steps(), Signals(distance=torch.rand(4, 3, dtype=torch.float64)), scale="context", as_weights=True)
    assert capsys.readouterr() == ("", "")


def test_lines_are_counted_on_a_terminal(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    with show_lines() as advance:
        advance(7)
        advance(5)
    assert "12 lines searched for jumps" in stream.getvalue()


def test_threads_are_as_they_were():
    before = torch.get_num_threads()
    kd.audit(Steps(), Signals(distance=torch.rand(4, 3, dtype=torch.float64)), scale="context", tries=1)
    assert torch.get_num_threads() == before
