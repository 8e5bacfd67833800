"""Certificates as JSON: what they hold, that they come back, and that nothing else does."""

from __future__ import annotations

import hashlib
import json
import math
import os
from dataclasses import replace

import pytest
import torch
from torch import nn

import safekd as kd
from safekd.data import SplitUse
from safekd.errors import InvalidInput
from safekd.safety import Budget, Certificate, KLBall, Recall, SafetyConstraint, TruthProbability, certify


class Said(nn.Module):
    """A student whose inputs are the probabilities that it gives the truth, class 0."""

    def __init__(self, shift: float = 0.0):
        super().__init__()
        self.shift = nn.Parameter(torch.tensor(shift, dtype=torch.float64))

    def forward(self, p):
        return torch.stack([p, 1 - p], -1).log() + self.shift * torch.tensor([1.0, 0.0])


P_N = torch.linspace(0.6, 0.99, 80, dtype=torch.float64)
LABELS = (torch.arange(80) % 4 == 3).long()
DATA = kd.Split("certify", P_N, LABELS, context=torch.arange(80) % 2)
RULE = SafetyConstraint("mälignant", TruthProbability([0]), 0.75, mix={0: 0.4, 1: 0.6}, worst=KLBall(0.05))
CERTIFICATE = certify(Said(), RULE, DATA)
BUDGET = Budget("harm", [(2.0, Recall([0])), (1.0, TruthProbability([1]))], at_most=0.9)


def test_the_json_holds_all_that_was_decided_and_of_what():
    record = json.loads(CERTIFICATE.to_json())
    expected = {
        "constraint": "mälignant",
        "measure": "TruthProbability(critical=[0])",
        "required": 0.75,
        "direction": "at_least",
        "estimate": CERTIFICATE.estimate,
        "lower_bound": CERTIFICATE.lower_bound,
        "method": "betting",
        "confidence": 0.95,
        "level": pytest.approx(0.95),
        "family": 1,
        "count": 60,
        "clusters": 60,
        "means": 2,
        "decision": "not_shown",
        "cases_needed": CERTIFICATE.cases_needed,
        "more_cases_needed": CERTIFICATE.cases_needed - 60,
        "version": CERTIFICATE.version,
    }
    assert {name: record[name] for name in expected} == expected
    assert record["averages"][0]["mix"] == {"0": 0.4, "1": 0.6}
    assert "KLBall" in record["averages"][0]["worst"]
    assert record["date"].endswith("+00:00")
    assert len(record["data_hash"]) == len(record["model_hash"]) == len(record["sha256"]) == 64


CASES = {
    "one": CERTIFICATE,
    "safe": certify(Said(), SafetyConstraint("r", Recall([0]), 0.5), DATA),
    "budget": certify(Said(), BUDGET, DATA),
    "weighted": certify(Said(), SafetyConstraint("r", Recall([0]), 0.5), DATA, weights=P_N, largest_weight=1),
    "family": certify(Said(), [SafetyConstraint(f"r{c}", Recall([c]), 0.97) for c in (0, 1)], DATA)[0],
}


@pytest.mark.parametrize("case", CASES)
def test_a_certificate_comes_back_to_the_last_bit(case, tmp_path):
    certificate = CASES[case]
    path = certificate.save(tmp_path / "deep" / "certificate.json")
    loaded = Certificate.load(path)
    assert loaded == certificate
    assert loaded.date == certificate.date
    assert loaded.to_json() == certificate.to_json() == path.read_text(encoding="utf-8")
    assert str(loaded) == str(certificate)
    assert len(repr(loaded).splitlines()) < 30


def changed(record, **values):
    return {**record, **values}


def sealed(record):
    content = {name: value for name, value in record.items() if name != "sha256"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return {**content, "sha256": hashlib.sha256(text.encode()).hexdigest()}


@pytest.mark.parametrize("name", [n for n in json.loads(CERTIFICATE.to_json()) if n != "sha256"])
def test_whatever_is_changed_is_refused(name, tmp_path):
    record = json.loads(CERTIFICATE.to_json())
    value = record[name]
    other = value + 1e-9 if isinstance(value, float) else value + 1 if isinstance(value, int) else f"{value}x"
    path = tmp_path / "certificate.json"
    path.write_text(json.dumps(changed(record, **{name: other})))
    with pytest.raises(InvalidInput, match="is not what was written there: its content has SHA-256"):
        Certificate.load(path)


def test_a_changed_digit_in_the_text_is_refused(tmp_path):
    text = CERTIFICATE.to_json()
    digits = str(CERTIFICATE.lower_bound)
    path = tmp_path / "certificate.json"
    path.write_text(text.replace(digits, digits[:-1] + str((int(digits[-1]) + 1) % 10)))
    with pytest.raises(InvalidInput, match="Somebody changed it, or it was damaged"):
        Certificate.load(path)


FORGED = {
    "safe without a bound": {"decision": "safe"},
    "a decision that is none": {"decision": "not shown"},
    "text for a number": {"lower_bound": "0.9"},
    "a truth value for a number": {"count": True},
    "no finite confidence": {"confidence": 1.5},
    "a level below the confidence": {"level": 0.5},
    "fewer values than clusters": {"clusters": 10**6, "more_cases_needed": -(10**6)},
    "a fraction of a case": {"count": 60.5},
    "an unknown method": {"method": "guess"},
    "another measure": {"measure": "Recall()"},
    "averages that are none": {"averages": [{"measure": 3}]},
    "more entries": {"extra": 1},
    "another format": {"format": "safekd certificate 2"},
    "a number for a hash": {"data_hash": 5},
}


@pytest.mark.parametrize("case", FORGED)
def test_what_does_not_fit_together_is_refused_under_a_right_hash_too(case, tmp_path):
    path = tmp_path / "forged.json"
    path.write_text(json.dumps(sealed(changed(json.loads(CERTIFICATE.to_json()), **FORGED[case]))))
    with pytest.raises(InvalidInput, match=r"forged\.json is not a certificate that safekd wrote"):
        Certificate.load(path)


BAD_TEXT = {
    "empty": "",
    "no object": "[1, 2]",
    "a list in lists": "[" * 100_000,
    "nan": CERTIFICATE.to_json().replace(repr(CERTIFICATE.estimate), "NaN"),
    "infinite": CERTIFICATE.to_json().replace(repr(CERTIFICATE.estimate), "1e999"),
    "many digits": CERTIFICATE.to_json().replace('"count": 60', '"count": ' + "9" * 5000),
    "a key twice": CERTIFICATE.to_json().replace('"count": 60', '"count": 60, "count": 60'),
    "no hash": "{}",
    "half of it": CERTIFICATE.to_json()[:300],
    "binary": "\0\1\2",
}


@pytest.mark.parametrize("case", BAD_TEXT)
def test_files_that_are_no_certificates(case, tmp_path):
    path = tmp_path / "bad.json"
    path.write_text(BAD_TEXT[case])
    with pytest.raises(InvalidInput, match=r"bad\.json is not"):
        Certificate.load(path)


def test_files_that_cannot_be_read_or_written(tmp_path):
    with pytest.raises(InvalidInput, match="No such file"):
        Certificate.load(tmp_path / "missing.json")
    with pytest.raises(InvalidInput, match="directory"):
        Certificate.load(tmp_path)
    large = tmp_path / "large.json"
    large.write_text(" " * (2 << 20))
    with pytest.raises(InvalidInput, match="larger than 1 MiB"):
        Certificate.load(large)
    with pytest.raises(InvalidInput, match="Cannot write"):
        CERTIFICATE.save(large / "under a file.json")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(InvalidInput, match="it is a named pipe"):
            Certificate.load(tmp_path / "pipe")


def test_what_is_not_finite_is_not_written(tmp_path):
    path = CERTIFICATE.save(tmp_path / "c.json")
    with pytest.raises(ValueError, match="not JSON compliant"):
        replace(CERTIFICATE, estimate=math.nan).save(path)
    assert Certificate.load(path) == CERTIFICATE


# ---- hashes ----------------------------------------------------------------------------------------------------


def test_the_data_hash_is_of_the_covered_examples_in_any_order():
    rule = SafetyConstraint("r", Recall([0]), 0.5)
    whole = certify(Said(), rule, DATA).data_hash
    order = torch.randperm(80, generator=torch.Generator().manual_seed(0))
    assert certify(Said(), rule, DATA.part(order)).data_hash == whole
    assert certify(Said(), rule, DATA.part(LABELS == 0)).data_hash == whole  # the others are not covered
    assert certify(Said(), rule, DATA.part(torch.arange(1, 80))).data_hash != whole
    moved = kd.Split("certify", P_N + (torch.arange(80) == 0) * 1e-3, LABELS)
    assert certify(Said(), rule, moved).data_hash != whole
    assert SplitUse(DATA.part(LABELS == 0), ("validation",)).fingerprint == whole  # as a verdict has it


def test_the_model_hash_is_of_what_the_student_computes_with():
    rule = SafetyConstraint("r", Recall([0]), 0.5)
    one = certify(Said(), rule, DATA).model_hash
    frozen = Said().eval()
    frozen.requires_grad_(False)
    assert certify(frozen, rule, DATA).model_hash == one
    assert certify(Said(1e-12), rule, DATA).model_hash != one
    linear, tanh = nn.Sequential(nn.Linear(1, 2), nn.Tanh()), nn.Sequential(nn.Linear(1, 2), nn.ReLU())
    tanh.load_state_dict(linear.state_dict())
    data = kd.Split("certify", torch.randn(9, 1), torch.zeros(9, dtype=torch.long))
    assert certify(linear, rule, data).model_hash != certify(tanh, rule, data).model_hash
