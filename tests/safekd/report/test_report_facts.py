"""``report.json``: what a run says beyond its result, against numbers computed another way."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace

import pytest
import torch

import safekd as kd
from safekd.io.folders import read_checked_json, write_checked_json
from safekd.saved_students import REPORT_FACTS, ReportFacts
from safekd.saved_students._gather_facts import gather_facts
from tests.support.reports.runs import make_run


@pytest.fixture(scope="module")
def facts(made):
    return ReportFacts.load(made.folder)


def average_safety(made, split, context=None):
    """Mean probability of the truth over critical examples, by hand."""
    batch = made.experiment.splits[split].batch()
    with torch.no_grad():
        p = made.result.student(batch.inputs).double().softmax(-1)
    (critical,) = made.experiment.constraints[0].critical
    chosen = batch.labels == critical
    if context is not None:
        chosen &= batch.context == made.experiment.table.contexts.index(context)
    return float(p[chosen, critical].mean()), int(chosen.sum())


def test_safety_is_read_on_every_split_as_a_whole_and_by_context(made, facts):
    read = {(fact.split, fact.context): fact for fact in facts.safety}
    assert set(read) == {
        (split, context) for split in ("train", "validation", "certify", "test") for context in (None, "low", "high")
    }
    for (split, context), fact in read.items():
        safety, count = average_safety(made, split, context)
        assert fact.measured == pytest.approx(safety, abs=1e-6)
        assert (fact.count, fact.required, fact.constraint) == (count, 0.8, "safe")


def test_bounds_of_contexts_hold_together(made, facts):
    """Two contexts at 97.5 % each hold together at 95 %."""
    whole, *contexts = facts.bounds
    (certificate,) = made.result.certificates
    assert (whole.lower_bound, whole.context, whole.confidence) == (certificate.lower_bound, None, 0.95)
    assert [bound.context for bound in contexts] == ["low", "high"]
    rule = made.experiment.constraints[0]
    for number, bound in enumerate(contexts):
        narrow = kd.SafetyConstraint("narrow", rule.measure, 0.8, contexts=[number])
        again = kd.certify(made.result, narrow, made.experiment.splits["certify"], confidence=0.975)
        assert bound.lower_bound == again.lower_bound
        assert bound.confidence == pytest.approx(0.975)


def test_a_context_without_cases_says_so_instead_of_a_bound(tmp_path, monkeypatch):
    def refuse(*_):
        raise kd.InvalidInput("No example is covered.")

    monkeypatch.setattr("safekd.saved_students._gather_facts.certify", refuse)
    facts = ReportFacts.load(make_run(tmp_path, epochs=5).folder)
    assert [(b.lower_bound, b.note) for b in facts.bounds[1:]] == [(None, "No example is covered.")] * 2


def test_teachers_are_as_they_were_measured(made, facts):
    evidence = made.experiment.evidence
    assert [teacher.name for teacher in facts.teachers] == ["first teacher", "second teacher"]
    for k, teacher in enumerate(facts.teachers):
        assert teacher.loss == pytest.approx(float(evidence.task_loss_MK[:, k].mean()))
        assert teacher.safety == pytest.approx(evidence.safety_CK[:, k].tolist())
        assert (teacher.lower, teacher.upper, teacher.kind) == (0.1, 0.9, "logistic_regression")


def test_accuracy_is_the_share_of_right_answers(made, facts):
    batch = made.experiment.splits["test"].batch()
    with torch.no_grad():
        right = made.result.student(batch.inputs).argmax(-1) == batch.labels
    assert facts.accuracy["test"] == pytest.approx(float(right.double().mean()))


def test_a_student_whose_outputs_are_no_numbers_has_no_accuracy_and_no_safety(made):
    broken = copy.deepcopy(made.result.student)
    with torch.no_grad():
        for parameter in broken.parameters():
            parameter.fill_(math.nan)
    facts = gather_facts(made.experiment, replace(made.result, student=broken))
    assert set(facts.accuracy.values()) == {None}
    assert {fact.measured for fact in facts.safety} == {None}
    assert all(bound.lower_bound is None and "not finite" in bound.note for bound in facts.bounds[1:])


def test_axioms_are_judged_and_nothing_that_was_projected_is_violated(facts):
    assert [line.axiom for line in facts.axioms][:3] == ["III.1", "III.2", "III.3"]
    unified = {line.axiom: line.status for line in facts.axioms if line.axiom in ("U.1", "U.2", "U.3", "U.5")}
    assert set(unified.values()) == {"holds"}


def test_weights_that_cannot_be_judged_cost_no_run(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise kd.MissingSignal("There are no scores.")

    monkeypatch.setattr("safekd.saved_students._gather_facts.audit", refuse)
    facts = ReportFacts.load(make_run(tmp_path, epochs=5).folder)
    assert facts.axioms == []
    assert facts.axioms_note == "The axioms could not be judged: There are no scores."


def test_the_manifest_has_its_hash(made):
    assert REPORT_FACTS in json.loads((made.folder / "manifest.json").read_text())["files"]
    assert kd.verify_files(made.folder).holds()


def test_an_entry_of_another_kind_is_named(made, tmp_path):
    record = read_checked_json(made.folder / REPORT_FACTS)
    for change, named in (({"cases": ["3", 4]}, "cases.0"), ({"more": 1}, "more"), ({"axioms_note": 3}, "axioms_note")):
        write_checked_json({**record, **change}, tmp_path / REPORT_FACTS)
        with pytest.raises(kd.InvalidInput, match=f"is not what a run writes there: {named}"):
            ReportFacts.load(tmp_path)
