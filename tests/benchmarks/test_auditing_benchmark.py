"""The benchmark of audits: a report by hand, and a short run."""

from __future__ import annotations

from benchmarks import auditing


def test_the_report_says_whether_a_goal_is_met():
    good, bad = auditing.AuditCost(10, 5, 200, 0.2, 0.1), auditing.AuditCost(1302, 5, 900, 6.0, 1.0)
    free = auditing.AuditCost(7, 5, 200, 9.0, 0.1)
    text = auditing.write_report([good, bad, free], 10)
    assert "| 10 | 5 | 200 | 0.20 | 1: met | 0.10 |" in text
    assert "| 1302 | 5 | 900 | 6.00 | 5: missed | 1.00 |" in text
    assert "| 7 | 5 | 200 | 9.00 |  | 0.10 |" in text


def test_a_short_run_counts_calls():
    cost = auditing.measure_audit(6, 3, 4)
    assert 0 < cost.calls < 400
    assert cost.seconds > 0
