"""What does not fit is refused in the user's own words, and memory is what was asked for."""

from __future__ import annotations

import pytest
import torch

from safekd.divergences import TemperedDivergence
from safekd.errors import InvalidInput, SafekdWarning
from safekd.language import ForwardKL, Head, Hidden, Logits, TopK, distillation_loss, shift_labels
from safekd.language.loss import _memory_budget
from safekd.pooling import PowerPool
from safekd.safety import TruthProbability
from safekd.weights import EntropyDecay

from .plain_loss import make_case


def run(**changes):
    """Run a small loss with some of its arguments changed."""
    case = make_case(V=8, H=4, lead=(2, 3), kinds=["logits", "hidden"])
    given = {"hidden": case.hidden, "head": case.head, "teachers": case.teachers, "labels": case.labels} | changes
    return distillation_loss(given.pop("hidden"), given.pop("head"), given.pop("teachers"), **given)


class Another(TemperedDivergence):
    def _compare(self, target, student):
        return target.divergence_from(student)


class Asked:
    """What answers batches, and is handed over unasked."""

    def manifest(self):
        return {}


WRONG = {
    "no teacher": ({"teachers": []}, "There are no teachers"),
    "a bare tensor": ({"teachers": [torch.zeros(2, 3, 8)]}, r"Teacher 0 is Tensor; wanted Hidden\(hidden, head\)"),
    "other positions": (
        {"teachers": [Logits(torch.zeros(2, 4, 8))]},
        r"teacher 0 speaks of positions of shape \(2, 4\), the student of \(2, 3\)",
    ),
    "other vocabulary": (
        {"teachers": [Logits(torch.zeros(2, 3, 10))], "names": ["big"]},
        r"The student scores 8 tokens, big 10.*vocabulary=len\(tokenizer\)",
    ),
    "vocabulary too large": ({"vocabulary": 9}, "`vocabulary` is 9, and the student scores 8 tokens only"),
    "vocabulary of one": ({"vocabulary": 1}, "`vocabulary` is 1; wanted at least 2"),
    "too few names": ({"names": ["a"]}, "`names` has 1 names for 2 teachers"),
    "integers": ({"hidden": torch.zeros(2, 3, 4, dtype=torch.long)}, r"`hidden` is \(2, 3, 4\); wanted floats"),
    "no positions": ({"hidden": torch.zeros(4)}, r"`hidden` is \(4,\); wanted floats of shape \(..., width\)"),
    "head of another width": ({"hidden": torch.zeros(2, 3, 5)}, "`hidden` has width 5, and the head reads 4"),
    "label beyond": ({"labels": torch.full((2, 3), 8)}, "A label is 8; wanted a token number from 0 to 7, or -100"),
    "label below": ({"labels": torch.full((2, 3), -1)}, "A label is -1; wanted a token number"),
    "labels of another shape": ({"labels": torch.zeros(2, 2).long()}, r"`labels` has shape \(2, 2\).*shift_labels"),
    "mask of another shape": ({"mask": torch.ones(3, dtype=torch.bool)}, r"`mask` has shape \(3,\)"),
    "weights of another shape": ({"weights": torch.ones(3) / 3}, r"`weights` has shape \(3,\); wanted \(2,\), or one"),
    "negative weight": ({"weights": torch.tensor([1.5, -0.5])}, "`weights` holds a number that is negative"),
    "weights beside one": ({"weights": torch.tensor([0.5, 0.6])}, "`weights` sum to 1.1 at one position; wanted 1"),
    "pool": ({"pool": "median"}, "`pool` is 'median'; wanted 'arithmetic', 'geometric', 'power', 'log_linear', a Pow"),
    "a pool of one's own": ({"pool": lambda log_p, w: log_p.amax(-2)}, "a function of all of them cannot be used"),
    "a power next to none": (
        {"pool": PowerPool(1e-3)},
        r"`pool` is PowerPool\(exponent=0.001\); .* at least 0.05 in size, .* Take 'geometric', its limit",
    ),
    "temper": ({"temper": "student"}, "`temper` is 'student'; wanted 'teachers'"),
    "temperature of zero": (
        {"temperature": 0.0},
        "`temperature` is 0.0; it must be above 0 and finite: a number from 0.0001 to 10000",
    ),
    "one temperature too many": ({"temperature": [1.0, 2.0, 3.0]}, "`temperature` has 3 numbers for 2 teachers"),
    "two temperatures": (
        {"temperature": 2.0, "divergence": ForwardKL(temperature=3.0)},
        "`temperature` is 2.0, and the divergence has its own, 3; give one of the two",
    ),
    "a temperature a teacher for the pool": (
        {"temperature": [1.0, 2.0], "temper": "pool"},
        "a pool is softened by one number",
    ),
    "share": ({"cross_entropy": 1.5}, "`cross_entropy` is 1.5; wanted its share in the loss, from 0 to 1"),
    "share without labels": ({"cross_entropy": 0.5, "labels": None}, "need the tokens that follow; pass `labels`"),
    "count": ({"count": 0}, "`count` is 0; wanted how many positions the whole step has, above 0"),
    "budget": ({"budget": "lots"}, "`budget` is 'lots'; wanted bytes above 0"),
    "no budget": ({"budget": 0}, "`budget` is 0; wanted bytes above 0"),
    "endless budget": ({"budget": float("inf")}, "`budget` is inf; wanted bytes above 0"),
    "divergence": ({"divergence": Another()}, r"wanted ForwardKL\(\), ReverseKL\(\) or JSD\(beta\)"),
    "count that is none": ({"count": "all"}, "`count` is 'all'; wanted how many positions"),
    "half a token": ({"vocabulary": 7.5}, r"`vocabulary` is 7.5; wanted how many tokens.*len\(tokenizer\)"),
    "a layer for a head": ({"head": torch.nn.Linear(4, 8)}, r"The head is a Linear; wanted Head.of\(model\)"),
    "a teacher that was not asked": (
        {"teachers": [Asked()]},
        r"Teacher 0 is Asked; it answers a batch, so pass teacher\(batch\)",
    ),
    "None for teachers": ({"teachers": None}, "Teacher 0 is NoneType; wanted Hidden"),
    "a class for a rule": ({"weights": EntropyDecay}, "`weights` is <class .*EntropyDecay.*; wanted a tensor"),
    "critical token beyond": (
        {"measures": [TruthProbability([8])]},
        r"TruthProbability\(critical=\[8\]\) names token 8; wanted token numbers from 0 to 7",
    ),
    "counts of too few measures": (
        {"measures": [TruthProbability([1])], "multipliers": [1.0], "measure_counts": []},
        "`measure_counts` is for 0 measures; wanted one tensor a measure, 1",
    ),
    "a count without its group": (
        {"measures": TruthProbability([1]), "multipliers": [1.0], "measure_counts": [5]},
        r"`measure_counts` has shapes \[\(\)\]; wanted one number a group, \[\(1,\)\]",
    ),
    "contexts by name": ({"context": ["home", "news"]}, r"`context` is \['home', 'news'\]; wanted whole numbers"),
    "index of another shape": ({"index": torch.zeros(3), "weights": EntropyDecay()}, r"`index` has shape \(3,\)"),
    "task of another shape": ({"task": torch.zeros(3)}, r"`task` has shape \(3,\); wanted one an example, \(2,\)"),
}


@pytest.mark.parametrize(("changes", "message"), WRONG.values(), ids=WRONG)
def test_what_does_not_fit_is_refused(changes, message):
    with pytest.raises(InvalidInput, match=message):
        run(**changes)


def test_parts_of_a_teacher_that_do_not_fit_are_refused():
    with pytest.raises(InvalidInput, match="the head reads width 4"):
        Hidden(torch.zeros(2, 5), Head(torch.zeros(8, 4)))
    with pytest.raises(InvalidInput, match=r"`ids` of TopK has shape \(2, 3\), `log_p` \(2, 4\)"):
        TopK(torch.zeros(2, 3).long(), torch.zeros(2, 4))
    with pytest.raises(InvalidInput, match=r"`tail` of TopK has shape \(2, 1\); wanted one number a position, \(2,\)"):
        TopK(torch.zeros(2, 3).long(), torch.zeros(2, 3), tail=torch.zeros(2, 1))
    with pytest.raises(InvalidInput, match=r"`bias` of a Head has shape \(4,\)"):
        Head(torch.zeros(8, 4), torch.zeros(4))
    with pytest.raises(
        InvalidInput, match=r"`weight` of a Head is \(8,\); wanted a matrix of floats, \(vocabulary, wid"
    ):
        Head(torch.zeros(8))
    with pytest.raises(InvalidInput, match="`weight` of a Head is Linear; wanted a matrix of floats"):
        Head(torch.nn.Linear(4, 8))
    with pytest.raises(InvalidInput, match="`scale` of a Head is 0; wanted a finite number other than 0"):
        Head(torch.zeros(8, 4), scale=0)
    with pytest.raises(InvalidInput, match="`softcap` of a Head is 0; wanted a number above 0, or None"):
        Head(torch.zeros(8, 4), softcap=0)


TABLES = {
    "token beyond": ([[0, 8]], [[-1.0, -1.0]], None, "the table has token 8 in its table; wanted 0 to 7"),
    "token below": ([[-1, 2]], [[-1.0, -1.0]], None, "the table has token -1 in its table"),
    "token twice": ([[3, 3]], [[-1.0, -1.0]], None, "the table has token 3 twice at one position"),
    "probabilities": ([[0, 1]], [[0.6, 0.3]], None, "has a mass of 3.17 at one position"),
    "too much tail": ([[0, 1]], [[-1.0, -1.0]], [0.9], "has a mass of 1.64"),
    "negative tail": ([[0, 1]], [[-1.0, -1.0]], [-0.1], "its smallest tail is -0.1; wanted log-probabilities"),
}


@pytest.mark.parametrize(("ids", "log_p", "tail", "message"), TABLES.values(), ids=TABLES)
def test_a_table_that_is_no_distribution_is_refused(ids, log_p, tail, message):
    table = TopK(torch.tensor(ids), torch.tensor(log_p), None if tail is None else torch.tensor(tail))
    with pytest.raises(InvalidInput, match=message):
        distillation_loss(torch.randn(1, 8), None, table, names=["the table"])


def test_what_a_table_says_where_no_position_counts_is_not_looked_at():
    table = TopK(torch.tensor([[0, 1], [-1, -1]]), torch.tensor([[-1.0, -1.0], [9.0, 9.0]]))
    labels = torch.tensor([1, -100])
    assert distillation_loss(torch.randn(2, 8), None, table, labels=labels).loss.isfinite()


def test_outputs_that_are_no_tensors_are_refused():
    with pytest.raises(InvalidInput, match="`logits` of Logits is a list; wanted a tensor"):
        Logits([[1.0, 2.0]])
    with pytest.raises(InvalidInput, match=r"`ids` of TopK are torch\.float32; wanted token numbers"):
        TopK(torch.zeros(2, 3), torch.zeros(2, 3))
    with pytest.raises(InvalidInput, match="The head is a Linear"):
        Hidden(torch.zeros(2, 3, 4), torch.nn.Linear(4, 8))


def test_labels_are_the_tokens_that_follow():
    ids = torch.tensor([[5, 6, 7], [1, -100, 3]])
    assert shift_labels(ids).tolist() == [[6, 7, -100], [-100, 3, -100]]


@pytest.mark.parametrize(
    ("text", "size"),
    [("64MiB", 2**26), ("1.5 GB", 1_500_000_000), ("2kib", 2048), (".5MiB", 2**19), (1000, 1000), ("7", 7)],
)
def test_a_budget_is_bytes_or_text(text, size):
    assert _memory_budget.read_bytes(text) == size


def test_a_budget_that_is_too_small_is_said():
    hidden, head, teachers = torch.randn(100, 4), Head(torch.randn(50_000, 4)), [Logits(torch.randn(100, 50_000))]
    with pytest.warns(SafekdWarning, match="A budget of 1 MiB has room for 2 positions at once; 64 are taken") as said:
        distillation_loss(hidden, head, teachers, budget="1MiB")
    assert said[0].filename == __file__


def test_weights_that_bfloat16_rounds_are_weights():
    weights = torch.tensor([1 / 3, 2 / 3], dtype=torch.bfloat16)
    assert run(weights=weights).weights.sum(-1).sub(1).abs().max() < 0.01


def test_weights_may_be_whole_numbers_and_anything_where_no_position_counts():
    routed = torch.tensor([[[1, 0], [0, 1], [1, 0]], [[0, 1], [0, 0], [7, -1]]])
    labels = torch.tensor([[1, 2, 3], [4, -100, -100]])
    assert run(weights=routed, labels=labels).weights.tolist() == [[1, 0], [0, 1], [1, 0], [0, 1]]


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_entropy_is_that_of_the_student_at_temperature_one(temperature):
    case = make_case(kinds=["logits"])
    log_p = case.log_student()[case.kept()].detach()
    out = distillation_loss(case.hidden, case.head, case.teachers, labels=case.labels, temperature=temperature)
    torch.testing.assert_close(out.entropy, -(log_p.exp() * log_p).sum(-1))
