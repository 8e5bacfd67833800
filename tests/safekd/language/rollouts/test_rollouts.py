"""The student writes: what comes out as batches, in which mix, how old, and the same after a resume."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.utils.data import DataLoader

from safekd.data import Batch, Split
from safekd.distributed import Ranks
from safekd.errors import InvalidInput
from safekd.language.rollouts import Rollouts, WithoutStrings, WithoutTokens, Written, WrittenBatch

from .small_student import END, PROMPTS, VOCABULARY, make_student


def make_fixed(size=12, length=6):
    ids = torch.arange(size * length).reshape(size, length) % VOCABULARY
    return Split("train", {"input_ids": ids}, ids.roll(-1, 1), context=torch.full((size,), 3), task=None)


def take(rollouts, count):
    return list(itertools.islice(rollouts, count))


def counting(**more):
    """A function that writes, after each prompt, the numbers 20, 21, ... and keeps what it was asked."""
    asked = []

    def generate(input_ids, attention_mask, max_new_tokens, **options):
        asked.append({"input_ids": input_ids, "attention_mask": attention_mask, **options})
        new = 20 + torch.arange(max_new_tokens).expand(len(input_ids), -1)
        return torch.cat([input_ids, new], 1)

    return Rollouts(PROMPTS, generate, **{"length": 4, "batch_size": 2, **more}), asked


# ----------------------------------------------------------------------------------------------------------- the texts


def test_only_what_the_student_wrote_counts_and_each_position_has_the_next_token_as_its_label():
    rollouts, asked = counting(context=[0, 1, 2, 3, 4], task=[9] * 5)
    batch = next(iter(rollouts))
    assert isinstance(batch, WrittenBatch)
    assert batch.task.tolist() == [9, 9]
    for row, context in enumerate(batch.context.tolist()):
        prompt = PROMPTS[context]
        length = len(prompt) + 4
        whole = [*prompt, 20, 21, 22, 23]
        assert batch.inputs["input_ids"][row, :length].tolist() == whole
        assert batch.inputs["attention_mask"][row].tolist() == [1] * length + [0] * (len(batch.mask[row]) - length)
        assert batch.mask[row].nonzero()[:, 0].tolist() == list(range(len(prompt) - 1, length - 1))
        assert batch.labels[row][batch.mask[row]].tolist() == whole[len(prompt) :]
    # shorter prompts are padded in front
    ids, attention = asked[0]["input_ids"], asked[0]["attention_mask"]
    assert [ids[r][attention[r].bool()].tolist() for r in range(2)] == [PROMPTS[c] for c in batch.context.tolist()]
    assert bool((attention.diff(dim=1) >= 0).all())


def test_prompts_may_be_what_a_tokenizer_gives():
    encoded = {
        "input_ids": torch.tensor([[0, 0, 5], [6, 7, 8]]),
        "attention_mask": torch.tensor([[0, 0, 1], [1, 1, 1]]),
    }
    rollouts = Rollouts(encoded, lambda input_ids, **_: torch.cat([input_ids, input_ids[:, -1:]], 1), batch_size=2)
    batch = next(iter(rollouts))
    rows = {tuple(i[m.bool()].tolist()) for i, m in zip(*batch.inputs.values(), strict=True)}
    assert rows == {(5, 5), (6, 7, 8, 8)}


def test_a_record_with_sequences_is_read_as_they_are():
    from transformers.generation import GenerateDecoderOnlyOutput

    def generate(input_ids, **_):
        return GenerateDecoderOnlyOutput(sequences=torch.cat([input_ids, input_ids], 1))

    batch = next(iter(Rollouts([[5, 6]], generate, batch_size=1)))
    assert batch.inputs["input_ids"].tolist() == [[5, 6, 5, 6]]


def test_a_text_ends_with_its_end_token():
    def generate(input_ids, **_):
        return torch.cat([input_ids, torch.tensor([[7, END, 0, 0], [7, 8, 9, 7]])], 1)

    batch = next(iter(Rollouts([[5], [5]], generate, length=4, batch_size=2, end=END)))
    assert batch.mask.sum(1).tolist() == [2, 4]
    assert batch.labels[0][batch.mask[0]].tolist() == [7, END]


def test_a_hugging_face_model_writes_from_its_whole_distribution_in_eval_mode():
    student = make_student().train()
    student.generation_config.top_k = 1  # what the model brings would cut the distribution
    before = torch.get_rng_state()
    batches = take(Rollouts(PROMPTS, student, length=8, batch_size=2, seed=3), 4)
    assert student.training
    assert torch.equal(torch.get_rng_state(), before)
    texts = [b.labels[r][b.mask[r]].tolist() for b in batches for r in range(2)]
    assert all(1 <= len(text) <= 8 for text in texts)
    assert all(END not in text[:-1] for text in texts)  # taken from its generation config
    assert len({tuple(t) for t in texts}) == 8
    again = take(Rollouts(PROMPTS, student.generate, length=8, batch_size=2, seed=3), 4)
    assert [b.labels[r][b.mask[r]].tolist() for b in again for r in range(2)] == texts
    other = take(Rollouts(PROMPTS, student, length=8, batch_size=2, seed=4), 4)
    assert [b.labels[r][b.mask[r]].tolist() for b in other for r in range(2)] != texts


def test_the_student_writes_as_often_as_its_distribution_says():
    """One token after one prompt: shares of 4,000 texts against the softmax, within five standard errors."""
    student = make_student(vocabulary=8)
    with torch.no_grad():
        p_V = student.eval()(torch.tensor([[5, 3]])).logits[0, -1].softmax(-1)
    batch = next(iter(Rollouts([[5, 3]], student, length=1, batch_size=4000)))
    share_V = torch.bincount(batch.labels[batch.mask], minlength=8) / 4000
    assert bool(((share_V - p_V).abs() < 5 * (p_V * (1 - p_V) / 4000).sqrt() + 1e-9).all())


def test_every_prompt_is_taken_once_an_epoch_in_changing_order():
    rollouts, _ = counting(batch_size=5, context=range(5))
    orders = [tuple(batch.context.tolist()) for batch in take(rollouts, 6)]
    assert all(sorted(order) == [0, 1, 2, 3, 4] for order in orders)
    assert len(set(orders)) > 1


# ------------------------------------------------------------------------------------------------------------- the mix


@pytest.mark.parametrize("share", [0.0, 0.1, 0.25, 0.5, 0.7, 1.0])
def test_a_share_of_the_batches_is_the_students_own(share):
    rollouts, _ = counting(share=share, fixed=make_fixed())
    own = [isinstance(batch, WrittenBatch) for batch in take(rollouts, 60)]
    for n in range(61):
        assert abs(sum(own[:n]) - n * share) < 1 + 1e-6
    assert sum(own) == rollouts.counts.own_batches == round(60 * share)


def test_a_schedule_moves_from_fixed_data_to_the_students_own():
    rollouts, _ = counting(share=lambda step: min(step / 20, 1.0), fixed=make_fixed(), accumulation=2)
    own = [isinstance(batch, WrittenBatch) for batch in take(rollouts, 80)]
    assert sum(own[:8]) == 0  # 0, 0, .05, .05, ... add up to one at the ninth or later
    assert all(own[42:])
    assert abs(sum(own[:40]) - sum(2 * min(s / 20, 1) for s in range(20))) <= 1


def test_fixed_examples_come_once_an_epoch_with_all_that_they_have():
    fixed = make_fixed()
    for source in (fixed, fixed.batch()):
        rollouts, _ = counting(share=0.0, fixed=source, batch_size=4)
        batches = take(rollouts, 6)
        first, second = torch.cat([b.index for b in batches[:3]]), torch.cat([b.index for b in batches[3:]])
        assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(12))
        assert first.tolist() != second.tolist()
        assert torch.equal(batches[0].labels, fixed.labels[batches[0].index])
        assert batches[0].context.tolist() == [3] * 4


# ----------------------------------------------------------------------------------------------------------------- age


def test_texts_of_a_round_are_used_within_its_steps_and_their_ages_are_counted():
    rollouts, asked = counting(every=4)
    ages = [batch.age.tolist() for batch in take(rollouts, 8)]
    assert ages == [[0, 0], [1, 1], [2, 2], [3, 3]] * 2
    counts = rollouts.counts
    assert (counts.rounds, counts.written, counts.used, counts.dropped) == (2, 16, 16, 0)
    assert (counts.oldest, counts.average_age, counts.tokens) == (3, 1.5, 64)
    assert [len(a["input_ids"]) for a in asked] == [8, 8]


def test_a_round_writes_only_for_the_batches_that_will_be_its_own():
    rollouts, asked = counting(every=4, share=0.5, fixed=make_fixed())
    take(rollouts, 16)
    assert all(len(a["input_ids"]) == 4 for a in asked)
    assert rollouts.counts.oldest <= 3


def test_with_accumulation_all_batches_of_a_step_have_one_age():
    rollouts, asked = counting(every=2, accumulation=3)
    assert [batch.age[0].item() for batch in take(rollouts, 12)] == [0, 0, 0, 1, 1, 1] * 2
    assert len(asked) == 2


def test_what_a_loader_asks_for_ahead_is_part_of_the_age():
    rollouts, _ = counting(every=2, prefetch=1)
    assert [batch.age[0].item() for batch in take(rollouts, 4)] == [1, 2, 1, 2]


def test_texts_that_have_become_too_old_are_dropped_counted_and_written_anew():
    step = [0]
    rollouts, asked = counting(every=4, max_age=5, clock=lambda: step[0])
    take(rollouts, 2)
    step[0] = 5  # the student went on without rollouts
    assert next(iter(rollouts)).age.tolist() == [5, 5]
    step[0] = 6
    batch = next(iter(rollouts))
    assert batch.age.tolist() == [0, 0]
    assert batch.step.tolist() == [6, 6]
    assert (rollouts.counts.dropped, rollouts.counts.rounds, rollouts.counts.oldest) == (2, 2, 5)
    assert len(asked) == 2


# -------------------------------------------------------------------------------------------------------------- resume


@pytest.mark.parametrize("stop", [0, 1, 3, 7, 10])
def test_a_run_that_goes_on_gets_the_same_batches(stop):
    student, fixed = make_student(), make_fixed()

    def make():
        scores = {"clean": WithoutTokens([3, 4, 5])}
        return Rollouts(
            PROMPTS, student, every=3, share=0.6, fixed=fixed, length=5, batch_size=3, scores=scores, samples=2, seed=7
        )

    whole = make()
    batches = take(whole, 20)
    first = make()
    take(first, stop)
    state = {name: value.clone() for name, value in first.state_dict().items()}
    take(first, 2)  # what comes after does not reach the state
    again = make()
    again.load_state_dict(state)
    for ours, theirs in zip(take(again, 20 - stop), batches[stop:], strict=True):
        assert type(ours) is type(theirs)
        assert ours.fingerprint() == theirs.fingerprint()
        for name, value in ours._tensors().items():
            assert torch.equal(value, getattr(theirs, name))
    assert again.counts == whole.counts


def test_the_state_of_other_rollouts_is_refused_with_what_differs():
    one, _ = counting(seed=1, every=2)
    other, _ = counting(seed=2, every=2, batch_size=3)
    with pytest.raises(InvalidInput, match="seed 1, here 2, batch_size 2, here 3"):
        other.load_state_dict(one.state_dict())


def test_each_rank_has_its_own_prompts_texts_and_fixed_examples():
    class Rank(Ranks):
        def __init__(self, rank):
            self.rank, self.size = rank, 2

    student, fixed = make_student(), make_fixed(16)
    prompts, index, texts = [], [], []
    for rank in range(2):
        rollouts = Rollouts(
            [[n, 3] for n in range(3, 23)], student, share=0.5, fixed=fixed, batch_size=2, ranks=Rank(rank), length=3
        )
        for batch in take(rollouts, 8):
            if isinstance(batch, WrittenBatch):
                prompts += batch.inputs["input_ids"][:, 0].tolist()
                texts.append(tuple(batch.labels[batch.mask].tolist()))
            else:
                index += batch.index.tolist()
    assert len(set(prompts)) == len(prompts) == 16
    assert sorted(index) == list(range(16))
    assert len(set(texts)) == len(texts)


# --------------------------------------------------------------------------------------------------------------- scores


def test_scores_of_whole_texts_come_with_what_the_other_texts_have():
    def by_first(written: Written):
        return [text[0] / 100 for text in written.texts]

    def generate(input_ids, **_):
        new = 10 * torch.arange(1, len(input_ids) + 1)[:, None]
        return torch.cat([input_ids, new], 1)

    rollouts = Rollouts([[1], [2]], generate, batch_size=4, samples=2, scores={"a": by_first, "b": lambda w: [1.0] * 4})
    batch = next(iter(rollouts))
    assert batch.score.tolist() == [[0.1, 1], [0.2, 1], [0.3, 1], [0.4, 1]]
    torch.testing.assert_close(batch.baseline[:, 0], torch.tensor([0.2, 0.1, 0.4, 0.3]).double())
    rollouts = Rollouts([[1], [2]], generate, batch_size=4, scores={"a": by_first})  # one text a prompt: of the round
    torch.testing.assert_close(
        next(iter(rollouts)).baseline[:, 0], torch.tensor([0.9 / 3, 0.8 / 3, 0.7 / 3, 0.6 / 3]).double()
    )


def words(ids):
    return " ".join({1: "the", 2: "pass", 3: "word", 4: "Secret", 5: "no"}.get(i, "?") for i in ids)


@pytest.mark.parametrize(
    ("prompt", "text", "safe"),
    [
        ([1], [5, 1], 1),
        ([1], [2, 3], 0),
        ([1, 2], [3, 5], 0),  # the string began in the prompt
        ([2, 3], [5, 5], 1),  # the prompt's own is not the student's
        ([2, 3], [2, 3], 0),
        ([1], [4], 0),  # whatever the case
    ],
)
def test_unsafe_strings_are_found_in_what_was_written(prompt, text, safe):
    score = WithoutStrings(["pass word", "secret"], words)
    assert score(Written([prompt], [text], torch.zeros(1), torch.zeros(1))).tolist() == [safe]


def test_unsafe_tokens_are_found_in_what_was_written():
    written = Written([[7], [1], [1]], [[1, 2], [7, 1], [3]], torch.zeros(3), torch.zeros(3))
    assert WithoutTokens({7, 9})(written).tolist() == [1, 0, 1]


# ------------------------------------------------------------------------------------------------------- hugging face


def test_examples_have_the_labels_of_hugging_face():
    rollouts, _ = counting(batch_size=3, context=range(5))
    plain, _ = counting(batch_size=3, context=range(5))
    loader = DataLoader(rollouts.examples(), batch_size=3)
    for columns, batch in zip(loader, take(plain, 4), strict=False):
        shifted = torch.cat([columns["labels"][:, 1:], torch.full((3, 1), -100)], 1)
        assert torch.equal(shifted, torch.where(batch.mask, batch.labels, -100))
        kept = columns["labels"] != -100
        assert torch.equal(columns["labels"][kept], columns["input_ids"][kept])
        assert torch.equal(columns["context"], batch.context)


def test_a_worker_process_whose_student_never_learns_is_refused():
    rollouts, _ = counting()
    with pytest.raises(InvalidInput, match="num_workers=0"):
        next(iter(DataLoader(rollouts.examples(), batch_size=2, num_workers=1)))


# ------------------------------------------------------------------------------------------------------------- refused

ECHO = lambda input_ids, **_: torch.cat([input_ids, input_ids[:, :1]], 1)  # noqa: E731

REFUSED = {
    "no prompts": (lambda: Rollouts([], ECHO), "of length 0; wanted a list of prompts"),
    "no token numbers": (lambda: Rollouts({"text": ["a"]}, ECHO), "`prompts` has 'text' and no 'input_ids'"),
    "text": (lambda: Rollouts(["hello"], ECHO), "Prompt 0 is 'hello'; .* tokenizer"),
    "an empty prompt": (lambda: Rollouts([[1], []], ECHO), r"Prompt 1 is \[\]; wanted a list of token numbers"),
    "contexts of others": (lambda: Rollouts([[1]], ECHO, context=[0, 1]), r"`context` has shape \(2,\)"),
    "no writer": (lambda: Rollouts([[1]], 3), "`generate` is int, which cannot be called"),
    "share": (lambda: Rollouts([[1]], ECHO, share=1.5), "`share` is 1.5; wanted a number from 0 to 1"),
    "a schedule": (
        lambda: take(Rollouts([[1]], ECHO, share=lambda s: -1, fixed=make_fixed()), 1),
        "`share` is -1; wanted",
    ),
    "nothing fixed": (lambda: Rollouts([[1]], ECHO, share=0.5), "give `fixed`, a Split or a Batch"),
    "fixed of another kind": (lambda: Rollouts([[1]], ECHO, share=0.5, fixed=[1]), "`fixed` is a list; wanted a Split"),
    "fixed too small": (
        lambda: Rollouts([[1]], ECHO, share=0.5, fixed=make_fixed(4)),
        "`fixed` has 4 examples; wanted at least those of one batch on all ranks, 8",
    ),
    "every": (lambda: Rollouts([[1]], ECHO, every=0), "`every` is 0; wanted a whole number of at least 1"),
    "max_age": (
        lambda: Rollouts([[1]], ECHO, every=4, max_age=2),
        "`max_age` is 2, but texts written every 4 steps .* up to 3 steps old",
    ),
    "only new tokens": (
        lambda: take(Rollouts([[1, 2]], lambda input_ids, **_: input_ids[:, :1]), 1),
        "rows of 1 tokens for prompts of 2; wanted rows that begin with the prompt",
    ),
    "another number of rows": (
        lambda: take(Rollouts([[1]], lambda input_ids, **_: input_ids[:1]), 1),
        r"`generate` gives \(1, 1\) for 8 prompts",
    ),
    "a score of one": (
        lambda: take(Rollouts([[1]], ECHO, scores={"polite": lambda w: 1.0}), 1),
        r"Score 'polite' gives shape \(\) for 8 texts",
    ),
    "a score above one": (
        lambda: take(Rollouts([[1]], ECHO, scores={"polite": lambda w: [0.5] * 7 + [1.5]}), 1),
        r"Score 'polite' gives 1.5 for text 7; wanted a number in \[0, 1\]",
    ),
    "a score of NaN": (
        lambda: take(Rollouts([[1]], ECHO, scores={"polite": lambda w: [float("nan")] * 8}), 1),
        "Score 'polite' gives nan",
    ),
    "one unsafe string": (lambda: WithoutStrings("secret", words), "wanted a list of strings"),
    "no unsafe tokens": (lambda: WithoutTokens([]), "wanted token numbers"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_used_is_refused(case):
    make, message = REFUSED[case]
    with pytest.raises(InvalidInput, match=message):
        make()


def test_a_batch_without_mask_can_be_fixed_data():
    whole = Batch(
        torch.zeros(8, 3), torch.ones(8, 3).long(), torch.zeros(8).long(), torch.zeros(8).long(), torch.arange(8)
    )
    rollouts, _ = counting(share=0.0, fixed=whole)
    assert len(next(iter(rollouts))) == 2
