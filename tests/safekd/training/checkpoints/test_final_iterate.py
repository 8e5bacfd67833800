"""What a run hands back when a last correction fails."""

from __future__ import annotations

import pytest

from tests.support.problems import at_least, one_each, same, state, trainer_for


@pytest.mark.parametrize("error", [MemoryError("no room"), RuntimeError("cannot allocate 185 GB")])
def test_a_correction_that_fails_loses_no_student(error, monkeypatch):
    def fail(*_, **__):
        raise error

    asked = []
    monkeypatch.setattr(
        "safekd.training.checkpoints._final_iterate.correct_constraints", lambda *more: asked.append(1) or fail()
    )
    students = []
    trainer = trainer_for(at_least(0.6))
    result = trainer.fit(one_each(), epochs=37, on_trace=lambda _: students.append(state(trainer.student)))
    assert asked  # the test means something
    assert result.point.step == 37
    assert same(state(result.student), students[-1])
    told = f"whether a last correction onto the constraints helps ({type(error).__name__}: {error})"
    assert f"Not examined: {told}" in result.message
    assert told in result.verdict.evidence["not_examined"]
