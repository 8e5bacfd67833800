"""Temperatures by teacher, position, task, context and step: what is pooled and learned, and what resumes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import safekd as kd
from safekd.errors import InvalidInput
from safekd.language import Logits, distillation_loss
from safekd.pooling import POOLS, SoftenedPool
from safekd.softening import Temperatures, TemperatureSchedule, UniformMixing, audit_schedule
from safekd.teachers import StoredTeacher
from safekd.weights import Signals

from ..pooling.random_teachers import draw_teachers, draw_weights

SHAPES = ["linear", "geometric", "cosine"]


def assert_close(found, wanted, tolerance=1e-12):
    torch.testing.assert_close(found, wanted, rtol=0, atol=tolerance)


def soften(log_p, T_K):
    return (log_p / T_K.unsqueeze(-1)).log_softmax(-1)


# by teacher, task, context, position ---------------------------------------------------------------------------------


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("given_as", ["list", "tensor", "one number"])
def test_each_teacher_is_softened_by_its_own_temperature(pool, given_as):
    log_p, w = draw_teachers(0, 5, 3, 4), draw_weights(0, 5, 3)
    T = torch.tensor([0.5, 1.0, 3.0], dtype=torch.float64)
    given, T = {"list": (T.tolist(), T), "tensor": (T, T), "one number": (2, torch.full((3,), 2.0))}[given_as]
    assert_close(SoftenedPool(given, pool)(log_p, w), POOLS[pool](soften(log_p, T.double()), w))


def test_teachers_by_name_tasks_and_contexts_by_number_and_a_function_of_the_position():
    log_p, w = draw_teachers(1, 4, 2, 3), draw_weights(1, 4, 2)
    task, context = torch.tensor([0, 1, 0, 1]), torch.tensor([2, 2, 0, 0])
    signals = Signals(log_p=log_p, task=task, context=context, teachers=["bert", "forest"])
    temperatures = Temperatures(
        teacher={"forest": 2.0}, token=lambda s: 1 + s.entropy, task=[1.0, 1.5], context={2: 3.0}, highest=5.0
    )
    T = torch.tensor([1.0, 2.0]) * (1 + signals.entropy) * torch.tensor([1, 1.5, 1, 1.5])[:, None]
    T = (T * torch.tensor([3.0, 3.0, 1.0, 1.0])[:, None]).clamp(max=5)
    assert bool((T == 5).any())
    assert_close(temperatures(signals), T)
    assert_close(
        SoftenedPool(temperatures, "geometric").pool_signals(signals, w), POOLS["geometric"](soften(log_p, T), w)
    )


def test_tasks_of_examples_hold_at_each_of_their_positions():
    signals = Signals(log_p=draw_teachers(1, 2, 5, 3, 4), task=torch.tensor([0, 1]))
    T = Temperatures(task=[1.0, 2.0])(signals)
    assert T.shape == (2, 5, 3)
    assert T[:, 4, 2].tolist() == [1, 2]


def test_other_softenings():
    log_p, w = draw_teachers(0, 5, 3, 4), draw_weights(0, 5, 3)
    found = SoftenedPool([1.0, 2.0, 4.0], softening=UniformMixing())(log_p, w).exp()
    share = torch.tensor([1.0, 0.5, 0.25], dtype=torch.float64)[:, None]
    mixed = share * log_p.exp() + (1 - share) / 4
    assert_close(found, (w.unsqueeze(-1) * mixed).sum(-2))


# in training ---------------------------------------------------------------------------------------------------------


def make_trainer(pool, **more):
    """A student with a logit for each example and class: it can be any target."""
    torch.manual_seed(0)
    log_p = draw_teachers(3, 6, 2, 3, scale=1.0)
    student = torch.nn.Linear(6, 3)
    teachers = [
        StoredTeacher(name, log_p[:, k], gives="log_probabilities") for k, name in enumerate(("bert", "forest"))
    ]
    context = torch.tensor([0, 0, 0, 1, 1, 1])
    split = kd.Split("train", torch.eye(6), torch.arange(6) % 3, context=context, context_names=["day", "night"])
    more.setdefault("optimizer", torch.optim.Adam(student.parameters(), lr=0.1))
    return kd.ConstrainedTrainer(student, teachers, pool=pool, **more), split, log_p


def test_the_student_learns_the_softened_target():
    trainer, split, log_p = make_trainer(SoftenedPool(Temperatures({"forest": 4.0}, context=[1.0, 2.0])))
    trainer.fit(split, epochs=300)
    T = torch.tensor([[1.0, 4.0], [2.0, 8.0]], dtype=torch.float64)[split.context]
    wanted = soften(log_p, T).exp().mean(1)
    assert_close(trainer.student(split.inputs).softmax(-1).double(), wanted, 5e-3)


def test_a_schedule_moves_the_target_and_ends():
    schedule = TemperatureSchedule(8.0, 0.5, steps=100)
    trainer, split, log_p = make_trainer(SoftenedPool(schedule=schedule))
    batch = split.batch()

    def target():
        return trainer.objective.pool(split, batch).log_q_V.exp()

    assert_close(target(), (log_p / 8.0).softmax(-1).mean(1))
    assert not trainer.objective.fixed
    trainer.fit(split, epochs=50, tolerance=1e-9)
    assert_close(target(), (log_p / schedule(50)).softmax(-1).mean(1))
    trainer.fit(split, epochs=400, tolerance=1e-6)
    assert_close(trainer.student(split.inputs).softmax(-1).double(), (log_p / 0.5).softmax(-1).mean(1), 2e-2)


@pytest.mark.parametrize("batch_size", [None, 2])
def test_a_schedule_of_the_rate_goes_on_beside_it(batch_size):
    student_rate = []

    def make(pool):
        student = torch.nn.Linear(6, 3)
        optimizer = torch.optim.SGD(student.parameters(), lr=1.0)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.9)
        _, split, log_p = make_trainer("arithmetic")
        teachers = [StoredTeacher("a", log_p[:, 0], gives="log_probabilities")]
        trainer = kd.ConstrainedTrainer(
            student, teachers, optimizer=optimizer, scheduler=scheduler, pool=pool, batch_size=batch_size
        )
        trainer.fit(split, epochs=4, tolerance=1e-9)
        student_rate.append(optimizer.param_groups[0]["lr"])
        return trainer

    trainer = make(SoftenedPool(schedule=TemperatureSchedule(4.0, 1.0, steps=1000)))
    make("arithmetic")
    assert student_rate[0] == student_rate[1] < 0.7
    assert trainer.objective.pooling.step == (4 if batch_size is None else 12)


def test_each_trainer_counts_its_own_steps():
    """One pool in two trainers, one after the other: the second begins at the start."""
    pool = SoftenedPool(schedule=TemperatureSchedule(8.0, 1.0, steps=100))
    students = []
    for _ in range(2):
        trainer, split, _ = make_trainer(pool)
        students.append(trainer.fit(split, epochs=30, tolerance=1e-9).student.weight.detach().clone())
    assert torch.equal(*students)
    assert pool.step == 0


class StopAt(kd.training.trace.Callback):
    """Ends a run as Ctrl-C does."""

    def __init__(self, step):
        self.step = step

    def on_trace(self, point):
        if point.step == self.step:
            raise KeyboardInterrupt


def fit_in_folder(folder, steps=60, trainer=None, callbacks=()):
    if trainer is None:
        trainer, _, _ = make_trainer(SoftenedPool(schedule=TemperatureSchedule(8.0, 1.0, steps=steps)), batch_size=3)
    _, split, _ = make_trainer("arithmetic")
    options = {"epochs": 40, "tolerance": 1e-12, "checkpoint_every": 10, "trace_every": 10}
    try:
        return trainer, trainer.fit(split, run_dir=folder, callbacks=callbacks, **options)
    except KeyboardInterrupt:
        return trainer, None


@pytest.mark.parametrize("same", [True, False], ids=["in the same process", "in another one"])
def test_a_run_that_goes_on_goes_on_with_its_step(tmp_path, same):
    """Stopped at step 30 and resumed: byte for byte the run that was not."""
    _, whole = fit_in_folder(tmp_path / "whole")
    stopped, nothing = fit_in_folder(tmp_path / "part", callbacks=[StopAt(30)])
    assert nothing is None
    resumed, result = fit_in_folder(tmp_path / "part", trainer=stopped if same else None)
    assert torch.equal(result.student.weight, whole.student.weight)
    assert resumed.objective.pooling.step == 80
    assert result.trace["distillation_loss"].tolist() == whole.trace["distillation_loss"].tolist()


def test_another_schedule_does_not_resume(tmp_path):
    fit_in_folder(tmp_path, callbacks=[StopAt(30)])
    with pytest.raises(InvalidInput, match=r"`pool` was .* and is now"):
        fit_in_folder(tmp_path, steps=70)


# schedules -----------------------------------------------------------------------------------------------------------


@given(
    start=st.floats(0.1, 50), end=st.floats(0.1, 50), steps=st.integers(1, 40), shape=st.sampled_from(SHAPES),
)  # fmt: skip
def test_a_schedule_conforms_by_its_form(start, end, steps, shape):
    schedule = TemperatureSchedule(start, end, steps, shape)
    low, high = min(start, end), max(start, end)
    audit = audit_schedule(
        schedule, steps + 5, lowest=low, highest=high, most_change=schedule.most_change * (1 + 1e-9) + 1e-12
    )
    assert not audit.violated, str(audit)
    assert (schedule(0), schedule(steps), schedule(steps + 9)) == (start, end, end)


@pytest.mark.parametrize("shape", SHAPES)
def test_its_largest_move_is_reached(shape):
    schedule = TemperatureSchedule(9.0, 1.0, 25, shape)
    moves = [abs(schedule(step + 1) - schedule(step)) for step in range(25)]
    assert max(moves) == pytest.approx(schedule.most_change)


@pytest.mark.parametrize(
    ("schedule", "broken"),
    [
        (lambda step: 4.0 - 0.05 * step, set()),
        (lambda step: 4.0 - 0.5 * step if step < 5 else 1.5, {"lipschitz"}),
        (lambda step: 4.0 - 0.05 * step + (step == 7) * 0.08, {"monotone", "lipschitz"}),
        (lambda step: 4.0 + 0.05 * abs(step - 15), {"monotone"}),
        (lambda step: 25.0 - 0.05 * step, {"bounds"}),
        (lambda step: 2.0 + step % 2, {"monotone", "lipschitz"}),
    ],
)
def test_a_schedule_of_ones_own_is_judged(schedule, broken):
    audit = audit_schedule(schedule, 20)
    assert {one.axiom for one in audit.violated} == broken
    assert all("step" in one.counterexample for one in audit.violated)


SIGNALS = Signals(log_p=draw_teachers(0, 4, 2, 3), teachers=["a", "b"])
LOG_P, W = draw_teachers(0, 4, 2, 3), draw_weights(0, 4, 2)
REFUSED = {
    "zero": (lambda: SoftenedPool(0.0), "`temperature` is 0.0; it must be above 0"),
    "one of several": (lambda: SoftenedPool([1.0, -1.0]), r"`temperature` is \[1.0, -1.0\]"),
    "text": (lambda: SoftenedPool("hot"), "`temperature` is 'hot'"),
    "too many": (lambda: SoftenedPool([1.0, 2.0, 3.0])(LOG_P, W), "3 temperatures for 2 teachers; wanted one each"),
    "no such teacher": (lambda: Temperatures({"c": 2.0})(SIGNALS), "names 'c'; the teachers are a, b"),
    "names without signals": (lambda: SoftenedPool({"a": 2.0})(LOG_P, W), "need signals; the trainer gives them"),
    "no tasks": (lambda: Temperatures(task=[1.0])(SIGNALS), "a temperature for each task, and the data name none"),
    "tasks by name": (lambda: Temperatures(task={"read": 2.0}), r"keys \['read'\]; wanted numbers of tasks"),
    "a table of tokens": (lambda: Temperatures(token=[1.0, 2.0]), "wanted 1, or a function of the signals"),
    "bounds": (lambda: Temperatures(lowest=3.0, highest=2.0), "`lowest` is 3, `highest` 2"),
    "a function's shape": (
        lambda: Temperatures(token=lambda s: torch.ones(3))(SIGNALS),
        r"gives \(3,\); .*\(4, 1\)",
    ),
    "a function's sign": (lambda: Temperatures(token=lambda s: -s.entropy)(SIGNALS), "not above 0 and finite"),
    "pool": (lambda: SoftenedPool(2.0, "median"), "`pool` is 'median'"),
    "schedule": (lambda: SoftenedPool(schedule=3.0), "`schedule` is 3.0; wanted kd.softening.TemperatureSchedule"),
    "schedule's number": (lambda: SoftenedPool(schedule=lambda step: 0.0)(LOG_P, W), "`temperature` is 0.0"),
    "steps": (lambda: TemperatureSchedule(4.0, 1.0, 0), "`steps` is 0; wanted a whole number of optimizer steps"),
    "shape": (lambda: TemperatureSchedule(4.0, 1.0, 5, "steep"), "`shape` is 'steep'; wanted 'linear', 'geometric' or"),
    "audit": (lambda: audit_schedule(lambda step: 1.0, 0), "how many optimizer steps the run has"),
    "over a vocabulary": (
        lambda: distillation_loss(LOG_P[:, 0], None, [Logits(LOG_P[:, 0])] * 2, pool=SoftenedPool([1.0, 2.0])),
        r"pass temperature=\[\.\.\.\], one a teacher",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_a_message_that_helps(case):
    call, message = REFUSED[case]
    with pytest.raises(InvalidInput, match=message):
        call()
