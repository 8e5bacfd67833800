"""The audit as a whole: what it judges, how it reports, what it refuses."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import safekd as kd
from safekd.axioms import AXIOMS, Finding, build_report, counterexamples, find_axiom, independence_table
from safekd.errors import InvalidInput, MissingSignal
from safekd.weights import (
    Conforming,
    EntropyDecay,
    InverseLoss,
    OrdinalSafety,
    ScaleOrderings,
    Signals,
    Unified,
    Uniform,
)
from tests.support.weighting import everything, t

BOX = kd.WeightPolytope(3, lower=0.1, upper=0.6)
ROWS = {"token": ("III.1", "III.2", "III.3", "III.5"), "context": ("III.18", "III.19", "III.20", "III.22")}


def statuses(report):
    return {finding.axiom: finding.status for finding in report}


def violated(report):
    return {finding.axiom for finding in report.violated}


def says(*values):
    return lambda signals: t(*values).expand(signals.shape)


# what is judged -------------------------------------------------------------------------------------------------------


def test_there_are_fifteen_axioms_five_a_scale():
    assert [axiom.id for axiom in AXIOMS] == [f"III.{n}" for n in (*range(1, 6), *range(10, 15), *range(18, 23))]
    assert [axiom.scale for axiom in AXIOMS] == ["token"] * 5 + ["task"] * 5 + ["context"] * 5


@pytest.mark.parametrize(
    ("family", "metric"), [("family_a", "euclidean"), ("family_a", "kl"), ("family_b", "euclidean"), ("family_c", "kl")]
)
def test_the_families_of_theorem_v2_pass(family, metric):
    report = kd.audit(getattr(kd.weights, family)(BOX, metric=metric), Signals(**everything(0)), tries=1)
    assert report.holds()
    judged = {axiom: status for axiom, status in statuses(report).items() if status != "not_applicable"}
    exact = {axiom for axiom, status in judged.items() if status == "holds"}
    assert exact >= {*ROWS["token"], "III.10", "III.11", "III.12", *ROWS["context"], "U.1", "U.2", "U.3", "U.5", "A1"}
    assert {axiom for axiom in judged if judged[axiom] == "estimated"} >= {"III.4", "III.13", "III.21", "U.4", "A2"}


def test_a_rule_is_judged_at_its_own_scale():
    report = kd.audit(Conforming(InverseLoss(), BOX), Signals(**everything(0)), tries=1)
    assert report["III.10"].subject == "task rule"
    assert report["III.1"].status == report["III.18"].status == "not_applicable"
    assert "pass scale='token'" in report["III.1"].evidence
    assert kd.audit(says(5.0, 3.0, 2.0), Signals(**everything(0)), scale="context", tries=1)["III.18"].status == "holds"


def test_a_scale_that_is_missing_is_uniform():
    report = kd.audit(Unified(token=EntropyDecay(), polytope=BOX), Signals(**everything(0)), tries=1)
    assert report["III.10"].status == "not_applicable"
    assert report["III.10"].evidence == "There is no task rule; that scale is uniform."
    assert report.holds()


def test_a_raw_rule_breaks_what_projection_would_keep():
    signals = Signals(**everything(0))
    raw = kd.audit(EntropyDecay(5.0), signals, polytope=BOX, tries=1)
    assert violated(raw) == {"III.3", "III.5"}
    w, safety, critical = EntropyDecay(5.0)(signals), signals.safety, signals.critical
    w = w / w.sum(-1, keepdim=True)
    by_hand = torch.stack([w[:, j] - w[:, i] for i in range(3) for j in range(3)], -1)
    ranked = torch.stack([safety[:, i] > safety[:, j] for i in range(3) for j in range(3)], -1)
    gaps = torch.where(ranked & critical[:, None], by_hand, -1.0)
    assert raw["III.5"].worst == pytest.approx(float(gaps.max()))
    assert raw["III.5"].where == (int(gaps.amax(-1).argmax()),)
    assert raw["III.5"].judged == int(critical.sum())
    assert kd.audit(Conforming(EntropyDecay(5.0), BOX), signals, tries=1).holds()


def test_the_repair_is_judged_and_what_it_mended_is_told():
    """The composition trap: 0 ranks above 1 twice, and below it after the product; Unified repairs it."""
    trap = {"token": says(0.40, 0.35, 0.25), "context": says(0.40, 0.35, 0.25), "task": says(0.20, 0.50, 0.30)}
    signals = Signals(safety=t([0.9, 0.8, 0.1]), critical=torch.tensor([True]))
    unified = Unified(**trap, polytope=BOX)
    report = kd.audit(unified, signals, tries=1)
    assert report.holds()
    composed = kd.audit(unified.compose(signals), signals, polytope=BOX, scale="unified")
    assert violated(composed) == {"U.5"}
    assert composed["U.5"].evidence.startswith("Teacher 0 weighs less than Teacher 1")


def test_a_rule_that_is_repaired_is_told_what_it_does_by_itself():
    report = kd.audit(Conforming(EntropyDecay(5.0), BOX), Signals(**everything(0)), tries=1)
    assert report["III.3"].status == "holds"
    assert "By itself the rule breaks it in" in report["III.3"].evidence


def test_a_box_that_ignores_safety_breaks_the_ordering():
    rule = Conforming(says(0.2, 0.3, 0.5), BOX, ordered=False)
    report = kd.audit(rule, Signals(safety=t([0.9, 0.8, 0.1])), tries=1)
    assert violated(report) == {"III.5"}


def test_orderings_of_the_polytope_come_before_safety_scores():
    named = kd.WeightPolytope(3, 0.1, 0.6, [(2, 0)])
    signals = Signals(safety=t([0.9, 0.8, 0.1]))
    assert kd.audit(Conforming(says(0.5, 0.3, 0.2), named), signals, tries=1)["III.5"].status == "holds"
    assert violated(kd.audit(t([0.5, 0.3, 0.2]), signals, polytope=named)) == {"III.5"}


class Given:
    """Weights that come with orderings of the context scale: teacher 2 never below teacher 0."""

    polytope = BOX
    orderings = ScaleOrderings("context", 3, [(2, 0)])

    def __init__(self, *weights):
        self.weights = t(*weights)

    def __call__(self, signals):
        return self.weights.expand(signals.shape)


def test_orderings_given_with_a_rule_replace_safety_scores():
    signals = Signals(safety=t([0.9, 0.8, 0.1], [0.9, 0.8, 0.1]))
    assert kd.audit(Given(0.2, 0.3, 0.5), signals, tries=1)["III.5"].status == "holds"
    assert kd.audit(Conforming(says(5.0, 3.0, 2.0), BOX, orderings=Given.orderings), signals, tries=1).holds()
    finding = kd.audit(Given(0.5, 0.3, 0.2), signals, tries=1)["III.5"]
    assert (finding.status, finding.rows, finding.where) == ("violated", 2, (0,))
    assert finding.worst == pytest.approx(0.15)
    assert "[0.5, 0.3, 0.2] at (0,) break an ordering that holds there" in finding.evidence
    assert "the nearest that keep it are [0.35, 0.3, 0.35]" in finding.evidence
    assert math.isnan(kd.audit(Given(math.nan, 0.3, 0.2), signals, tries=1)["III.5"].worst)


@given(seed=st.integers(0, 10**6), wins=st.sampled_from(["context", "token"]))
@settings(max_examples=4)
def test_scales_that_contradict_each_other_pass_by_the_rule_of_unified(seed, wins):
    generator = torch.Generator().manual_seed(seed)
    scores = {
        name: torch.randint(3, (8, 3), generator=generator).double() / 2
        for name in ("safety", "token_safety", "task_loss")
    }
    unified = Unified(task=InverseLoss(), polytope=BOX, wins=wins)
    assert kd.audit(unified, Signals(**scores), tries=1).holds()


def test_each_scale_is_judged_by_its_own_scores():
    signals = Signals(safety=t([0.9, 0.8, 0.1]), token_safety=t([0.1, 0.2, 0.3]))
    w = t([0.2, 0.3, 0.5])
    assert kd.audit(w, signals, polytope=BOX, scale="token")["III.5"].status == "holds"
    assert kd.audit(w, signals, polytope=BOX, scale="context")["III.22"].status == "violated"
    alone = Signals(token_safety=t([0.9, 0.8, 0.1]))
    assert kd.audit(w, alone, polytope=BOX)["III.5"].status == "violated"


NO_NUMBERS = {
    "nan": says(0.5, math.nan, 0.5),
    "all zero": says(0.0, 0.0, 0.0),
    "inf": says(math.inf, 1.0, 1.0),
}


@pytest.mark.parametrize("case", NO_NUMBERS)
def test_scores_that_are_no_weights_are_violations_not_errors(case):
    report = kd.audit(NO_NUMBERS[case], Signals(**everything(0)), polytope=BOX, tries=1)
    assert violated(report) >= {"III.1", "III.2", "III.3", "III.5", "A1"}
    assert report["III.1"].rows == 4


def test_negative_scores_break_positivity():
    report = kd.audit(says(0.5, -0.1, 0.6), Signals(**everything(0)), polytope=BOX, tries=1)
    assert {"III.2", "III.3", "A1"} <= violated(report)
    assert report["III.1"].status == "holds"


def test_positions_are_reported_by_their_index():
    w = t([0.5, 0.3, 0.2]).expand(2, 4, 3).clone()
    w[1, 2] = t(0.7, 0.2, 0.1)
    report = kd.audit(w, polytope=BOX)
    assert report["III.3"].where == (1, 2)
    signals = Signals(safety=t(0.9, 0.8, 0.1).expand(2, 4, 3))
    rule = kd.audit(lambda s: w, signals, polytope=BOX, tries=1)
    assert rule["III.3"].where == (1, 2)


@given(seed=st.integers(0, 10**6), at=st.integers(0, 19), size=st.floats(1e-12, 0.2))
def test_a_violation_hidden_in_a_batch_is_found(seed, at, size):
    given_ = everything(seed % 97, B=20)
    signals = Signals(safety=given_["safety"])
    w = Conforming(OrdinalSafety(), BOX)(signals).clone()
    least, most = (int(signals.safety[at].argmin()), int(signals.safety[at].argmax()))
    w[at] = 1 / 3
    w[at, least] += size
    w[at, most] -= size
    finding = kd.audit(w, signals, polytope=BOX, scale="context")["III.22"]
    assert (finding.status, finding.rows, finding.where) == ("violated", 1, (at,))
    assert finding.worst == pytest.approx(2 * size, rel=1e-3)


REFUSED = {
    "no signals": (lambda: kd.audit(Uniform()), InvalidInput, "`signals` are missing"),
    "scale": (lambda: kd.audit(t([1.0]), scale="word"), InvalidInput, "`scale` is 'word'"),
    "unified scale": (
        lambda: kd.audit(Unified(token=Uniform(), polytope=BOX), Signals(**everything(0)), scale="token"),
        InvalidInput,
        "a Unified has scales of its own",
    ),
    "missing reading": (
        lambda: kd.audit(InverseLoss(), Signals(log_p=everything(0)["log_p"])),
        MissingSignal,
        "needs the teachers' losses",
    ),
    "shape": (
        lambda: kd.audit(lambda s: t(0.5, 0.5), Signals(**everything(0))),
        InvalidInput,
        r"gave scores of shape \(2,\); wanted \(4, 3\)",
    ),
    "teachers": (
        lambda: kd.audit(Uniform(), Signals(**everything(0)), polytope=kd.WeightPolytope(5)),
        InvalidInput,
        "Weights of 5 teachers are judged",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_audited_is_refused(case):
    call, error, message = REFUSED[case]
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("shape", [(3,), (4, 1), (2, 5, 3)], ids=["one position", "one teacher", "sequences"])
def test_batches_of_every_shape(shape):
    log_p = torch.randn(*shape, 5, dtype=torch.float64).log_softmax(-1)
    polytope = kd.WeightPolytope(shape[-1], 0.1, 1.0)
    report = kd.audit(Conforming(EntropyDecay(), polytope), Signals(log_p=log_p), tries=1)
    assert report.holds()
    assert report["III.1"].judged == log_p[..., 0, 0].numel()


def test_an_empty_batch_proves_nothing():
    signals = Signals(log_p=torch.randn(0, 3, 5, dtype=torch.float64), student_log_p=torch.randn(0, 5).double())
    report = kd.audit(Conforming(EntropyDecay(), BOX), signals)
    assert set(statuses(report).values()) == {"not_applicable"}
    assert not report.holds()


def test_measured_evidence_will_do():
    evidence = kd.weights.TeacherEvidence(
        t([0.1, 0.9, 0.5], [0.4, 0.3, 0.2]), t([0.9, 0.8, 0.7], [0.5, 0.6, 0.7]), torch.tensor([9, 8]), "audit"
    )
    given_ = everything(0)
    where = {"task": given_["task"], "context": given_["task"], "labels": given_["labels"]}
    signals = Signals(log_p=given_["log_p"], evidence=evidence, **where, critical_classes=[0], critical_contexts=[1])
    report = kd.audit(kd.weights.family_a(BOX), signals, tries=1)
    assert report.holds()
    assert report["III.22"].judged == int(signals.critical.sum())


# the report -----------------------------------------------------------------------------------------------------------


def some_report():
    w = t([0.5, 0.3, 0.2], [0.7, 0.2, 0.1], [math.nan, 0.5, 0.5])
    return kd.audit(w, polytope=BOX)


def test_the_table_says_it_all():
    text = str(some_report())
    assert text.startswith("Audit: 4 violated")
    assert "III.3" in text
    assert "2 of 3" in text
    assert "nan" in text
    assert "Conforming(rule, polytope)" in text
    assert all(len(line) <= 120 for line in text.splitlines())
    assert "\x1b" not in text


def test_brackets_in_the_evidence_are_no_markup():
    report = build_report([Finding("III.1", "[bold]rule[/]", "violated", "found [red]x[/red]", 1.0)])
    assert "found [red]x[/red]" in str(report)
    assert "[bold]rule[/]" in str(report)


def test_the_frame_and_the_files(tmp_path):
    report = some_report()
    frame = report.to_frame()
    assert list(frame["axiom"])[:15] == [axiom.id for axiom in AXIOMS]
    report.to_csv(tmp_path / "audit.csv")
    read = pd.read_csv(tmp_path / "audit.csv", keep_default_na=False)
    assert list(read["status"]) == list(frame["status"])
    report.to_json(tmp_path / "audit.json")
    told = json.loads((tmp_path / "audit.json").read_text())
    assert told["holds"] is False
    bounds = next(f for f in told["findings"] if f["axiom"] == "III.3")
    assert bounds["worst"] == "nan"
    assert bounds["where"] == [2]
    assert bounds["rows"] == 2
    assert len(told["findings"]) == len(report)


def test_a_report_reads_as_a_collection():
    report = some_report()
    assert report["III.3"] in list(report)
    assert report["III.3"].scale == "token"
    assert report["III.3"].name == "bounded influence"
    with pytest.raises(InvalidInput, match=r"says nothing of 'III.6'; it has III.1, III.2"):
        report["III.6"]
    with pytest.raises(InvalidInput, match=r"Two findings are about III\.1"):
        build_report([report["III.1"], report["III.1"]])
    with pytest.raises(InvalidInput, match=r"There is no axiom 'III.6'; there are III.1"):
        build_report([Finding("III.6", "", "holds", "")])


def test_nothing_judged_is_no_success():
    report = build_report([])
    assert len(report) == 15
    assert not report.violated
    assert not report.holds()
    assert str(report).startswith("Audit: nothing judged")


# independence ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("example", counterexamples(), ids=lambda example: example.axiom)
def test_each_counterexample_breaks_its_axiom_and_keeps_the_other_four(example):
    report = example.audit()
    scale = find_axiom(example.axiom).scale
    five = {finding.axiom: finding.status for finding in report if finding.scale == scale}
    assert len(five) == 5
    assert five.pop(example.axiom) == "violated"
    assert set(five.values()) <= {"holds", "estimated"}


def test_positivity_follows_from_a_floor():
    """With w_min > 0 whatever breaks positivity breaks the bounds: a zero is below every floor."""
    silent = next(example for example in counterexamples() if example.axiom == "III.2")
    w = silent(Signals(entropy=t([0.2, 1.1, 0.7])))
    report = kd.audit(w, polytope=BOX)
    assert {"III.2", "III.3"} <= violated(report)


def test_pareto_follows_from_positivity_for_weights_that_do_not_look_at_the_student():
    kind = next(example for example in counterexamples() if example.axiom == "III.14")
    losses = t([1.0, 1.0, 1.2], [1.01, 1.01, 1.5])
    fixed = kind(Signals(task_loss=t([1.0, 1.0, 1.2], [0.3, 0.2, 0.1])))
    assert kd.audit(fixed, scale="task", losses=losses)["III.14"].status == "holds"


def test_the_table_of_the_docs_is_what_the_audit_finds():
    page = (Path(kd.__file__).parent.parent / "docs" / "axioms.md").read_text()
    table = independence_table()
    assert len(table) == 15
    for row in table.itertuples():
        line = f"| {row.axiom} | {row.scale} | {row.name} | {row.counterexample} | {row.violated} | {row.by:.2g} | "
        assert line + f"{row.follows_from} |" in page, line
