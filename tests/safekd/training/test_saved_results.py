"""FitResult.save and FitResult.load: what was handed back comes back, and what was changed is refused."""

from __future__ import annotations

import dataclasses
import json
import random
import shutil

import pandas as pd
import pytest
import torch
from torch import nn

import safekd as kd
from safekd.weights import Conforming, MetaTeacher
from tests.support.learning import PAIR, two
from tests.support.problems import FreeLogits, at_least, fit_tightened, one_each, same, state, trainer_for

STUDENTS = ("student", "best_feasible", "most_feasible", "best_validated")


def net():
    return nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Dropout(0.1), nn.Linear(4, 3))


def data(name="train"):
    far = 1.0 if name == "train" else 1.1
    return kd.Split(name, torch.linspace(-far, far, 12)[:, None], torch.arange(12) % 3)


def mixed(**more):
    """A run with snapshots, so that there is a mixture, and with a validation split."""
    trainer = trainer_for(at_least(0.6), lr=1.0, dual=kd.AugmentedLagrangian(rho=30.0))
    return trainer.fit(
        one_each(), one_each(name="validation"), epochs=40, trace_every=1, tolerance=1e-12, snapshots=6, **more
    )


def learned(**more):
    return trainer_for(teachers=two(), weights=Conforming(MetaTeacher(), PAIR)).fit(one_each(), epochs=3, **more)


def of_two(**more):
    rules = at_least(0.9, "=zero"), at_least(0.9, "one, 'two'", critical=1)
    return trainer_for(*rules).fit(one_each(), epochs=50, **more)


def diverged(**more):
    student = FreeLogits()
    with torch.no_grad():
        student.logits[0, 0] = float("nan")
    return trainer_for(at_least(0.6), student=student).fit(one_each(), epochs=5, **more)


RUNS = {
    "mixed": mixed,
    "tightened": fit_tightened,
    "learned": learned,
    "of two constraints": of_two,
    "diverged": diverged,
}


@pytest.mark.parametrize("what", RUNS)
@pytest.mark.parametrize("by", ["save", "run_dir"])
def test_everything_that_is_kept_comes_back_to_the_last_bit(what, by, tmp_path):
    result = RUNS[what](**({"run_dir": tmp_path} if by == "run_dir" else {}))
    if by == "save":
        result.save(tmp_path)
    student = FreeLogits()
    loaded = kd.FitResult.load(tmp_path, student)
    assert loaded.student is student
    for name in STUDENTS:
        old, new = getattr(result, name), getattr(loaded, name)
        assert (old is None) == (new is None)
        assert old is None or str(state(old)) == str(state(new))
        assert new is None or not new.training
    pd.testing.assert_frame_equal(result.trace, loaded.trace, check_exact=True)
    assert [str(use) for use in loaded.uses] == [str(use) for use in result.uses]
    assert [use.record() for use in loaded.uses] == [use.record() for use in result.uses]
    assert same(dict(result.rule_state), dict(loaded.rule_state))
    assert loaded.checkpoint_rule_states.keys() == result.checkpoint_rule_states.keys()
    for name, kept in result.checkpoint_rule_states.items():
        assert same(dict(kept), dict(loaded.checkpoint_rule_states[name]))
    for name in ("verdict", "multipliers", "residuals", "point", "mixture_note", "certificates", "save_note"):
        assert str(_plain(getattr(loaded, name))) == str(_plain(getattr(result, name))), name
    assert (result.mixture is None) == (loaded.mixture is None) == (what != "mixed")
    assert (result.tightening is None) == (loaded.tightening is None) == (what != "tightened")
    assert repr(loaded) == repr(result)


def _plain(value):
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value


def test_a_mixture_and_an_account_of_thresholds_come_back(tmp_path):
    result = mixed(run_dir=tmp_path / "a")
    loaded = kd.FitResult.load(tmp_path / "a", FreeLogits())
    for old, new in zip(result.mixture.students, loaded.mixture.students, strict=True):
        assert same(state(old), state(new))
    for name in ("weights", "steps", "loss", "safety", "multipliers"):
        assert getattr(loaded.mixture, name) == getattr(result.mixture, name)
    result = fit_tightened(run_dir=tmp_path / "b")
    loaded = kd.FitResult.load(tmp_path / "b", FreeLogits())
    pd.testing.assert_frame_equal(result.tightening.rounds, loaded.tightening.rounds, check_exact=True)
    assert loaded.tightening.posed == result.tightening.posed
    assert (loaded.tightening.on, loaded.tightening.looks) == (result.tightening.on, result.tightening.looks)


def test_certificates_are_kept_and_used_data_are_refused_still(tmp_path):
    train, held = data(), kd.Split("held", torch.linspace(2, 3, 60)[:, None], torch.zeros(60).long())
    teacher = kd.teachers.CallableTeacher("t", lambda x: torch.softmax(torch.cat([x, -x, x * 0], 1), 1))
    result = trainer_for(at_least(0.2), student=net(), teachers=[teacher]).fit(train, epochs=20)
    certificate = kd.certify(result, at_least(0.1), held)
    dataclasses.replace(result, certificates=(certificate,)).save(tmp_path)
    loaded = kd.FitResult.load(tmp_path, net())
    assert loaded.certificates == (certificate,)
    assert kd.certify(loaded, at_least(0.1), held) == certificate
    with pytest.raises(kd.InvalidInput, match="holds the data that this run used as 'train' for gradient steps"):
        kd.certify(loaded, at_least(0.1), kd.Split("other", train.inputs.flip(0), train.labels.flip(0)))


def test_a_run_goes_on_from_a_loaded_result(tmp_path):
    whole = trainer_for(at_least(0.6), lr=0.1).fit(one_each(), epochs=20)
    trainer_for(at_least(0.6), lr=0.1).fit(one_each(), epochs=20, run_dir=tmp_path)
    starts = [kd.WarmStart.from_result(r) for r in (whole, kd.FitResult.load(tmp_path, FreeLogits()))]
    ends = [trainer_for(at_least(0.6), lr=0.1).fit(one_each(), epochs=5, warm_start=start) for start in starts]
    assert same(state(ends[0].student), state(ends[1].student))


def test_a_rule_of_the_same_making_gets_what_was_learned(tmp_path):
    result = learned(run_dir=tmp_path)
    fresh = Conforming(MetaTeacher(), PAIR)
    loaded = kd.FitResult.load(tmp_path, FreeLogits(), rule=fresh)
    assert loaded.rule is fresh
    mine, theirs = (dict(rule.rule.named_parameters()) for rule in (fresh, result.rule))
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    student = FreeLogits()
    before = state(student)
    with pytest.raises(kd.InvalidInput, match="The state is that of another weighting rule"):
        kd.FitResult.load(tmp_path, student, rule=kd.weights.Uniform())
    assert same(before, state(student))


# ---- refused ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "run"
    trainer = trainer_for(at_least(0.4), student=net(), teachers=[_TEACHER])
    trainer.fit(data(), data("validation"), epochs=30, snapshots=4, run_dir=folder)
    return folder


_TEACHER = kd.teachers.CallableTeacher("t", lambda x: torch.softmax(torch.cat([x, -x, x * 0], 1), 1))


def test_any_changed_byte_of_any_file_is_refused(saved, tmp_path):
    draw = random.Random(0)
    shutil.copytree(saved, tmp_path / "run")
    files = sorted((tmp_path / "run").iterdir())
    assert len(files) >= 6
    for file in files:
        raw = file.read_bytes()
        for _ in range(40):
            changed = bytearray(raw)
            changed[draw.randrange(len(raw))] ^= 1 << draw.randrange(8)
            file.write_bytes(bytes(changed))
            with pytest.raises(kd.InvalidInput, match=file.name.replace(".", r"\.")):
                kd.FitResult.load(tmp_path / "run", net())
        for cut in (raw[:-1], raw + b" ", b""):
            file.write_bytes(cut)
            with pytest.raises(kd.InvalidInput, match=file.name.replace(".", r"\.")):
                kd.FitResult.load(tmp_path / "run", net())
        file.unlink()
        with pytest.raises(kd.InvalidInput):
            kd.FitResult.load(tmp_path / "run", net())
        file.write_bytes(raw)
    kd.FitResult.load(tmp_path / "run", net())


def test_files_of_two_runs_are_refused(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "run")
    trainer = trainer_for(at_least(0.4), student=net(), teachers=[_TEACHER])
    trainer.fit(data(), epochs=30, run_dir=tmp_path / "other")
    for name in ("student.safetensors", "verdict.json", "trace.jsonl"):
        shutil.copy(tmp_path / "other" / name, tmp_path / "run" / name)
        with pytest.raises(kd.InvalidInput, match=f"{name} is not what was written"):
            kd.FitResult.load(tmp_path / "run", net())
        shutil.copy(saved / name, tmp_path / "run" / name)


ANOTHER = {
    "wider": (nn.Sequential(nn.Linear(1, 5), nn.Tanh(), nn.Dropout(0.1), nn.Linear(5, 3)),
              r"'0.weight' has shape \(5, 1\), kept was \(4, 1\)"),
    "deeper": (nn.Sequential(*net(), nn.Linear(3, 3)), "it has '4.weight', which was not kept"),
    "shallower": (nn.Sequential(*net()[:2]), "it has no '3.weight', which was kept"),
    "of another type": (net().double(), "'0.weight' is torch.float64, kept was torch.float32"),
    "of another activation": (nn.Sequential(nn.Linear(1, 4), nn.ReLU(), nn.Dropout(0.1), nn.Linear(4, 3)),
                              r"it has \(1\): ReLU\(\), kept was \(1\): Tanh\(\)"),
    "another class": (FreeLogits(), "it has no '0.bias', which was kept"),
}  # fmt: skip


@pytest.mark.parametrize("what", ANOTHER)
def test_a_student_of_another_architecture_is_refused_by_name(what, saved):
    student, message = ANOTHER[what]
    before = state(student)
    with pytest.raises(kd.InvalidInput, match="The student is not of the architecture that .*" + message):
        kd.FitResult.load(saved, student)
    assert same(before, state(student))


def test_folders_that_hold_no_result_are_refused(saved, tmp_path):
    with pytest.raises(kd.InvalidInput, match="`student` is a function; wanted a torch module"):
        kd.FitResult.load(saved, net)
    with pytest.raises(kd.InvalidInput, match="holds no finished run"):
        kd.FitResult.load(tmp_path / "none", net())
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "manifest.json").write_text(json.dumps({"name": "a web page", "icons": []}))
    with pytest.raises(kd.InvalidInput, match=r"manifest\.json is not what was written"):
        kd.FitResult.load(tmp_path / "a", net())
    sweep = tmp_path / "sweep"
    kd.trace_frontier(lambda s: trainer_for(at_least(s)), one_each(), targets=[0.4], epochs=5, run_dir=sweep)
    with pytest.raises(kd.InvalidInput, match="holds no finished run"):
        kd.FitResult.load(sweep, FreeLogits())
    with pytest.raises(kd.InvalidInput, match="is the folder of a trained point; wanted that of a run"):
        kd.FitResult.load(sweep / "anchor", FreeLogits())


def test_a_result_of_forty_constraints_fits_a_screen():
    rules = [at_least(0.2, f"constraint number {i} with a long name", critical=i % 3) for i in range(40)]
    result = trainer_for(*rules).fit(one_each(), one_each(name="validation"), epochs=20)
    for text in (repr(result), repr(result.verdict), repr(result.point), repr(result.uses[0])):
        assert len(text.splitlines()) <= 25
        assert max(map(len, text.splitlines())) <= 120
    assert "'constraint number 0 with a long name' on 'train': 0." in repr(result)
    assert result.status in repr(result)
