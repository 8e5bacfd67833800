"""The trainer trains on what its student writes, under constraints on it, and goes on to the bit."""

from __future__ import annotations

import pytest
import torch

import safekd as kd
from safekd.language import CausalTeacher, Rollouts, SafeKDTrainer, WithoutTokens, WrittenConstraint, as_text_source
from tests.safekd.language.rollouts.small_student import PROMPTS, VOCABULARY, make_student

from .test_resuming import assert_same_run
from .tiny_run import make_arguments, make_rows, make_trainer

torch.set_num_threads(1)
FORBIDDEN = [*range(20, 40)]
QUIET = WrittenConstraint("quiet", score="quiet", at_least=0.9)


def make_rollouts(student, **changed):
    fixed = as_text_source(torch.randint(3, VOCABULARY, (12, 7), generator=torch.Generator().manual_seed(4)).tolist())
    settings = {"share": lambda step: 0.25 + 0.05 * step, "every": 2, "length": 6, "batch_size": 4, "fixed": fixed}
    settings |= {"accumulation": 2, "task": [1] * 5, "end": [], "scores": {"quiet": WithoutTokens(FORBIDDEN)}}
    return Rollouts(PROMPTS, student, **{**settings, **changed})


def start(folder, *, constraints=None, rollouts=None, arguments=None, student=None, **more):
    student = make_student(0) if student is None else student
    arguments = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, **(arguments or {})}
    spread = kd.SafetyConstraint("spread", kd.safety.UnsafeMass(FORBIDDEN), at_least=0.7, tasks=[1])
    return SafeKDTrainer(
        student,
        make_arguments(folder, **{"max_steps": 6, "learning_rate": 2e-2, "logging_steps": 1, **arguments}),
        teachers=[CausalTeacher(make_student(seed), name=f"teacher {seed}") for seed in (1, 2)],
        divergence=kd.language.ReverseKL(),
        constraints=[spread, QUIET] if constraints is None else constraints,
        train_dataset=make_rollouts(student) if rollouts is None else rollouts,
        trace_sequences=8,
        **more,
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    trainer = start(
        tmp_path_factory.mktemp("own"), arguments={"save_strategy": "steps", "save_steps": 2}, trace_steps=1
    )
    trainer.train()
    return trainer


def test_what_the_student_writes_is_held_to_a_constraint(tmp_path):
    quiet = WrittenConstraint("quiet", score="quiet", at_least=0.9)
    share = {"share": 1.0, "fixed": None, "batch_size": 16, "samples": 4, "accumulation": 1, "every": 1}
    student = make_student(0)
    trainer = start(
        tmp_path,
        student=student,
        constraints=[quiet],
        rollouts=make_rollouts(student, **share),
        arguments={"per_device_train_batch_size": 16, "gradient_accumulation_steps": 1, "max_steps": 60},
        dual=kd.PIGain(ema=0.9),
        trace_steps=30,
    )
    trainer.train()
    safety = trainer.trace["safety_quiet"]
    assert trainer.multipliers["quiet"] > 0
    assert safety.iloc[-1] > safety.iloc[0] + 0.2
    assert trainer.rollouts.counts.oldest == 0  # no loader asks ahead


def test_a_trace_reads_what_the_student_writes_now(whole):
    """Scores of texts written anew from the same prompts, by the student of that point."""
    rollouts = whole.rollouts
    texts = rollouts.write_sample(round(rollouts.average_share(6) * 8), whole.args.seed)
    scores = torch.cat([batch.score[:, 0] for batch in texts])
    assert whole.trace["safety_quiet"].iloc[-1] == pytest.approx(float(scores.mean()), abs=1e-12)
    again = torch.cat([batch.labels for batch in rollouts.write_sample(len(scores), whole.args.seed)])
    assert torch.equal(again, torch.cat([batch.labels for batch in texts]))
    assert whole.trace["safety_spread"].between(0, 1).all()


@pytest.mark.parametrize("step", [2, 4])
def test_a_run_on_its_own_text_goes_on_to_the_bit(whole, tmp_path, step):
    trainer = start(tmp_path, arguments={"save_strategy": "steps", "save_steps": 2}, trace_steps=1)
    trainer.train(resume_from_checkpoint=f"{whole.args.output_dir}/checkpoint-{step}")
    assert_same_run(whole, trainer)
    assert trainer.rollouts.counts == whole.rollouts.counts


def test_an_evaluation_reads_fixed_text_and_says_nothing_of_what_is_written(tmp_path):
    trainer = start(tmp_path)
    rows = [{"input_ids": ids, "task": 1} for ids in torch.randint(3, VOCABULARY, (6, 7)).tolist()]
    metrics = trainer.evaluate(rows)
    assert "eval_safety_spread" in metrics
    assert "eval_safety_quiet" not in metrics
    with pytest.warns(kd.SafekdWarning, match=r"Not certified: 'quiet'.*what the student writes"):
        assert [certificate.constraint for certificate in trainer.certify(rows)] == ["spread"]


def test_examples_one_at_a_time_are_the_same_run(tmp_path):
    student = make_student(0)
    rollouts = make_rollouts(student)
    trainer = start(tmp_path, student=student, rollouts=rollouts.examples())
    assert trainer.rollouts is rollouts


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"batch_size": 2}, r"Rollouts have batch_size 2, and the run's per_device_train_batch_size is 4"),
        ({"accumulation": 1}, r"Rollouts have accumulation 1, .*gradient_accumulation_steps is 2; .*accumulation=2"),
        ({"generate": make_student(3)}, "written by a LlamaForCausalLM that is not the student"),
        ({"scores": {}}, r"Constraint 'quiet' reads the score 'quiet', and the rollouts have none"),
        ({"ranks": kd.distributed.Ranks()}, None),
    ],
)
def test_rollouts_of_another_step_are_refused(tmp_path, changed, said):
    student = make_student(0)
    writer = changed.pop("generate", student)
    if said is None:
        start(tmp_path, student=student, rollouts=make_rollouts(writer, **changed))
        return
    with pytest.raises(kd.InvalidInput, match=said):
        start(tmp_path, student=student, rollouts=make_rollouts(writer, **changed))


def test_a_constraint_on_what_is_written_wants_rollouts(tmp_path):
    with pytest.raises(kd.InvalidInput, match=r"'quiet' is about what the student writes.*Rollouts\(prompts, model"):
        make_trainer(tmp_path, constraints=[QUIET], rows=make_rows())


def test_other_prompts_are_another_run(whole, tmp_path):
    student = make_student(0)
    fixed = as_text_source(torch.randint(3, VOCABULARY, (12, 7)).tolist())
    trainer = start(tmp_path, student=student, rollouts=make_rollouts(student, fixed=fixed))
    with pytest.raises(kd.InvalidInput, match=r"`data.fixed` was"):
        trainer.train(resume_from_checkpoint=f"{whole.args.output_dir}/checkpoint-2")
