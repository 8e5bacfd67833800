"""Batches of the student's own text, written as it learns, mixed with fixed data.

    plan     share of the student's own batches, by the step           ``share``
    write    prompts -> ``generate`` -> texts, scored, one round        ``every``
    hand out batches of those texts, the too old ones dropped           ``max_age``

Axes: R texts of a round, B examples of a batch, J scores.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import astuple
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import IterableDataset, get_worker_info

from ..._number_checks import is_finite, is_whole, require_seed
from ...data import IGNORED, Batch, Split
from ...distributed import Ranks
from ...errors import InvalidInput
from ...fingerprints import describe, fingerprint
from ._prompt_order import PromptOrder, combine_seeds, draw_order
from ._rollout_counts import RolloutCounts
from ._text_scores import Score, score_texts
from ._text_writer import TextWriter
from ._written_text import TextRows, Written, WrittenBatch, leave_one_out

# What ``about`` of a state says, in order
_SETTINGS = ("seed", "prompts", "batch_size", "every", "samples", "accumulation", "rank", "ranks", "scores")
# Text as the student's own distribution has it: models bring settings that cut it
_PLAIN_SAMPLING = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}


class Rollouts(IterableDataset[Batch]):
    """An endless stream of batches, some written by the student itself (on policy), the others from fixed data.

    The batches of a share are spread evenly: after n batches of a constant share s, ``floor(n s)`` are the student's
    own.  A batch is wholly its own or wholly fixed, so that teachers of fixed batches can be cached ones.

    >>> rollouts = Rollouts(prompts, student, length=32, batch_size=8, share=0.5, fixed=train)  # doctest: +SKIP
    >>> for step, batch in zip(range(1000), rollouts):                                          # doctest: +SKIP
    ...     hidden = student.model(**batch.inputs).last_hidden_state

    Args:
        prompts: Token numbers of each prompt: lists or tensors (P,), one tensor (N, P), or what a tokenizer gives.
        generate: The student, a Hugging Face model with ``generate()``; or a function that is called as
            ``generate(input_ids=, attention_mask=, max_new_tokens=, ...)`` with prompts padded on the left, and returns
            prompts and texts, (R, P + N).
        share: Which share of the batches is the student's own, in [0, 1]; or a function from the number of steps taken
            to it.
        every: How many steps each round of writing is for: its texts are up to ``every - 1`` steps old when used.
        max_age: How many steps old a text may be when handed out; older ones are dropped, counted, and written anew.
            None allows what ``every`` and ``prefetch`` bring about.
        length: How many tokens the student writes at most.
        batch_size: Examples of a batch.
        fixed: The other batches' examples, in another order each epoch; needed where the share is below 1.
        context: Context of each prompt, (N,); 0 for all where left out.
        task: Task of each prompt, (N,).  Give prompts other tasks than the fixed data have, and constraints with
            ``tasks=`` are about what the student writes alone.
        samples: How many texts are written after each prompt.
        scores: Functions from ``Written`` to one number in [0, 1] a text, by name: see WithoutStrings, TextScore.
        options: Further keywords of ``generate``; by default the student draws from its whole distribution.
        end: Tokens that end a text; None for those of the model's generation config.
        padding: The token in front of shorter prompts; never read.
        accumulation: Batches of one optimizer step.
        prefetch: How many steps ahead of its use a batch is asked for, which a text's age takes in: Accelerate's loader
            asks for one batch ahead, so 1.
        clock: Says how many optimizer steps have been taken; None where each batch is used as it comes.
        seed: Of prompts, texts and the order of fixed data.
        ranks: Who takes part: each rank has its own prompts, texts and fixed examples.

    Attributes:
        counts: What became of the texts so far.
        scores: As given.
        batch_size: Examples of a batch.
        accumulation: Batches of one optimizer step.
        ranks: Who takes part.
        fixed: The other batches' examples.

    Raises:
        InvalidInput: A setting is out of range or does not fit another; later, ``generate`` or a score gives what
            cannot be used.

    Source: on-policy distillation, Agarwal et al. 2024 (GKD); Lu and Thinking Machines Lab 2025.
    """

    def __init__(
        self,
        prompts: Sequence[Any] | Mapping[str, Any] | Tensor,
        generate: Any,
        *,
        share: float | Callable[[int], float] = 1.0,
        every: int = 1,
        max_age: int | None = None,
        length: int = 32,
        batch_size: int = 8,
        fixed: Split | Batch | None = None,
        context: Sequence[int] | Tensor | None = None,
        task: Sequence[int] | Tensor | None = None,
        samples: int = 1,
        scores: Mapping[str, Score] | None = None,
        options: Mapping[str, Any] | None = None,
        end: int | Collection[int] | None = None,
        padding: int = 0,
        accumulation: int = 1,
        prefetch: int = 0,
        clock: Callable[[], int] | None = None,
        seed: int = 0,
        ranks: Ranks | None = None,
    ) -> None:
        whole = {"every": every, "length": length, "batch_size": batch_size, "samples": samples}
        for name, value in {**whole, "accumulation": accumulation}.items():
            _require_whole(name, value, 1)
        for name, value in {"prefetch": prefetch, "padding": padding}.items():
            _require_whole(name, value, 0)
        self.ranks = Ranks() if ranks is None else ranks
        self._seed = require_seed(seed)
        self._order = PromptOrder(prompts, context, task, self._seed, self.ranks.rank, self.ranks.size)
        sampling = {**_PLAIN_SAMPLING, "max_new_tokens": length, **(options or {})}
        self._writer, self._padding = TextWriter(generate, sampling, end, padding), padding
        longest = max(range(len(self._order.prompts)), key=lambda n: max(self._order.prompts[n]))
        self._writer.require_known_tokens(self._order.prompts[longest], f"Prompt {longest}: one of its tokens")
        self._writer.require_known_tokens([padding], "`padding`")
        self._share, self._every, self.batch_size, self._samples = share, every, batch_size, samples
        self.accumulation, self._prefetch, self._clock = accumulation, prefetch, clock
        self._max_age = _require_age(max_age, every, prefetch)
        self.fixed = _require_fixed(fixed, share, batch_size * self.ranks.size)
        self.scores = dict(scores or {})
        self.counts = RolloutCounts()
        self._owed = 0.0  # share of a batch that the student is behind with
        self._waiting: TextRows | None = None

    def __iter__(self) -> Iterator[Batch]:
        if get_worker_info() is not None:
            raise InvalidInput(
                "Rollouts are read in a worker process of a DataLoader, whose copy of the student never learns; "
                "wanted num_workers=0."
            )
        while True:
            yield self.next_batch()

    def next_batch(self) -> Batch:
        """Return the next batch, the student's own or a fixed one; the student writes first where nothing is left.

        Raises:
            InvalidInput: The share is out of range, or ``generate`` or a score gives what cannot be used.
        """
        is_own, self._owed = self._plan(self.counts.batches, self._owed)
        batch = self._take_own() if is_own else self._take_fixed()
        self.counts.batches += 1
        self.counts.own_batches += int(is_own)
        return batch

    @property
    def steps(self) -> int:
        """Optimizer steps taken so far, by the clock or by the batches handed out."""
        return self.counts.batches // self.accumulation if self._clock is None else int(self._clock())

    def _plan(self, batch: int, owed: float) -> tuple[bool, float]:
        """Return whether a batch is the student's own, and what is owed after it."""
        share = self._share(batch // self.accumulation) if callable(self._share) else self._share
        _require_share(share)
        owed += float(share)
        return (True, owed - 1) if owed > 1 - 1e-9 else (False, owed)

    def _take_own(self) -> WrittenBatch:
        now = self.steps + self._prefetch
        rows = self._waiting
        if rows is not None:
            fresh = rows.step >= now - self._max_age
            self.counts.dropped += int((~fresh).sum())
            rows = rows.select(fresh)
        if rows is None or len(rows) < self.batch_size:
            rows = self._write(0 if rows is None else len(rows), rows)
        batch = rows.select(slice(0, self.batch_size)).build_batch(now, tuple(self.scores), self._writer.device)
        self._waiting = rows.select(slice(self.batch_size, None))
        assert batch.age is not None
        self.counts.used += len(batch)
        self.counts.age_sum += int(batch.age.sum())
        self.counts.oldest = max(self.counts.oldest, int(batch.age.max()))
        return batch

    def _take_fixed(self) -> Batch:
        assert self.fixed is not None
        size, ranks = len(self.fixed), self.ranks
        done = self.counts.batches - self.counts.own_batches
        epoch, place = divmod(done, size // (self.batch_size * ranks.size))
        order = draw_order(size, combine_seeds(self._seed, 1), epoch)
        start = place * self.batch_size * ranks.size
        index = ranks.take_own(order[start : start + self.batch_size * ranks.size])
        return self.take_fixed(index)

    def take_fixed(self, index: Tensor) -> Batch:
        """Return some of the fixed examples.

        Args:
            index: Their places.

        Raises:
            InvalidInput: There are no fixed data.
        """
        if self.fixed is None:
            raise InvalidInput("These rollouts have no fixed data; give `fixed`.")
        chosen = self.fixed.batch(index) if isinstance(self.fixed, Split) else self.fixed.select(index)
        return chosen.to(self._writer.device)

    def _write(self, waiting: int, rows: TextRows | None) -> TextRows:
        """Return the texts that wait and those of a new round, for all own batches of the next steps."""
        ahead, owed = 1, self._owed
        for batch in range(self.counts.batches + 1, self.counts.batches + self._every * self.accumulation):
            is_own, owed = self._plan(batch, owed)
            ahead += int(is_own)
        prompts = math.ceil((ahead * self.batch_size - waiting) / self._samples)
        places = self._order.take(self.counts.written // self._samples, prompts).repeat_interleave(self._samples)
        seed = combine_seeds(self._seed, 2, self.ranks.rank, self.counts.rounds)
        new = self._write_texts(places, seed)
        self.counts.rounds += 1
        self.counts.written += len(new)
        self.counts.tokens += int((new.length - new.prompt_length).sum())
        return new if rows is None else rows.join(new)

    def _write_texts(self, places: Tensor, seed: int) -> TextRows:
        """Return the texts that the student writes now after some prompts, scored."""
        order = self._order
        texts = self._writer.write(*order.pad_left(places, self._padding), seed)
        written = Written([order.prompts[int(p)] for p in places], texts, order.context[places], order.task[places])
        values = [score_texts(name, score, written) for name, score in self.scores.items()]
        score_RJ = torch.stack(values, -1) if values else torch.zeros(len(written), 0, dtype=torch.float64)
        baseline_RJ = leave_one_out(score_RJ, self._samples)
        return TextRows.stack(written, score_RJ, baseline_RJ, self.counts.written, self.steps)

    def write_sample(self, texts: int, seed: int) -> list[WrittenBatch]:
        """Return texts that the student writes now, after the same prompts at every call; the stream stays where it is.

        Args:
            texts: At least how many, on this rank.
            seed: Of the texts.

        Raises:
            InvalidInput: ``generate`` or a score gives what cannot be used.
        """
        places = self._order.take(0, -(-texts // self._samples)).repeat_interleave(self._samples)
        rows = self._write_texts(places, combine_seeds(seed, 3, self.ranks.rank))
        parts = [rows.select(slice(n, n + self.batch_size)) for n in range(0, len(rows), self.batch_size)]
        return [part.build_batch(self.steps, tuple(self.scores), self._writer.device) for part in parts]

    def average_share(self, steps: int) -> float:
        """Return which share of the batches of a run is the student's own.

        Args:
            steps: Optimizer steps of the run, at least 1.
        """
        shares = [float(self._share(step)) for step in range(steps)] if callable(self._share) else [float(self._share)]
        return sum(shares) / len(shares)

    @property
    def student(self) -> nn.Module | None:
        """The model that writes; None where a function does."""
        return self._writer.module

    def describe(self) -> dict[str, Any]:
        """Return what decides the batches besides the student, as plain JSON."""
        order, share = self._order, self._share
        rows = None if self.fixed is None else fingerprint(self.fixed)
        of_run = dict(zip(_SETTINGS, self._about.tolist(), strict=True))
        return {
            **{name: value for name, value in of_run.items() if name not in ("rank", "prompts", "scores")},
            "max_age": self._max_age,
            "prompts": fingerprint([order.prompts, order.context, order.task]),
            "fixed": rows,
            "share": fingerprint(share) if callable(share) else float(share),
            "options": describe(self._writer.options),
            "scores": {name: fingerprint(score) for name, score in self.scores.items()},
        }

    def examples(self) -> RolloutExamples:
        """Return the same stream one example at a time, as a Hugging Face trainer's loader wants it.

        Labels are those of Hugging Face: position t has the token t itself, and -100 where it does not count.  All
        examples of a batch are equally long; give the trainer as many examples a device as ``batch_size`` says.
        """
        return RolloutExamples(self)

    def state_dict(self) -> dict[str, Tensor]:
        """Return all that moves, by name: counts, and the texts that wait for their turn."""
        rows = {} if self._waiting is None else self._waiting.tensors()
        return {
            "about": self._about,
            "counts": torch.tensor(astuple(self.counts)),
            "owed": torch.tensor(self._owed, dtype=torch.float64),
            **{f"waiting.{name}": value.clone() for name, value in rows.items()},
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from where another object of the same settings was.

        Args:
            state: What its ``state_dict`` gave.

        Raises:
            InvalidInput: It is of rollouts with other prompts, settings or ranks.
        """
        about = state["about"].tolist()
        if len(about) != len(self._about) or about != self._about.tolist():
            pairs = zip(_SETTINGS, about, self._about.tolist(), strict=False)
            said = ", ".join(f"{name} {theirs}, here {ours}" for name, theirs, ours in pairs if theirs != ours)
            raise InvalidInput(f"The state is of other rollouts: {said}. Give them the same settings, or begin anew.")
        self.counts = RolloutCounts(*state["counts"].tolist())
        self._owed = float(state["owed"])
        rows = {name.removeprefix("waiting."): v.clone() for name, v in state.items() if name.startswith("waiting.")}
        self._waiting = TextRows(**rows) if rows else None

    @property
    def _about(self) -> Tensor:
        """Numbers of the settings that decide what comes next."""
        of_run = (self._seed, len(self._order.prompts), self.batch_size, self._every, self._samples)
        return torch.tensor([*of_run, self.accumulation, self.ranks.rank, self.ranks.size, len(self.scores)])


class RolloutExamples(IterableDataset[dict[str, Tensor]]):
    """Rollouts one example at a time, by the names that Hugging Face has for what is in them.

    Args:
        rollouts: Where they come from; it keeps the place.
    """

    def __init__(self, rollouts: Rollouts) -> None:
        self.rollouts = rollouts

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for batch in self.rollouts:
            counted = torch.ones_like(batch.labels, dtype=torch.bool) if batch.mask is None else batch.mask
            labels_BT = torch.where(counted, batch.labels, IGNORED).roll(1, dims=1)
            labels_BT[:, 0] = IGNORED  # nothing predicts the first token
            columns = {**batch.inputs, "labels": labels_BT}
            columns |= {"task": batch.task, "context": batch.context, "index": batch.index}
            for place in range(len(batch)):
                yield {name: value[place] for name, value in columns.items()}


def _require_whole(name: str, value: object, least: int) -> None:
    if not (is_whole(value) and value >= least):  # type: ignore[operator]
        raise InvalidInput(f"`{name}` is {value!r}; wanted a whole number of at least {least}.")


def _require_share(share: object) -> None:
    if not (is_finite(share) and 0 <= share <= 1):  # type: ignore[operator]
        raise InvalidInput(f"`share` is {share!r}; wanted a number from 0 to 1: the student's own part of the batches.")


def _require_age(max_age: int | None, every: int, prefetch: int) -> int:
    needed = every - 1 + prefetch
    if max_age is None:
        return needed
    _require_whole("max_age", max_age, 0)
    if max_age < needed:
        raise InvalidInput(
            f"`max_age` is {max_age}, but texts written every {every} steps and asked for {prefetch} steps ahead are "
            f"up to {needed} steps old; wanted at least that, or a smaller `every`."
        )
    return max_age


def _require_fixed(fixed: object, share: object, rows: int) -> Split | Batch | None:
    if not callable(share):
        _require_share(share)
    if fixed is None:
        if callable(share) or share != 1:
            raise InvalidInput(
                "`share` leaves batches to fixed data, and there are none; give `fixed`, a Split or a Batch, or "
                "share=1."
            )
        return None
    if not isinstance(fixed, (Split, Batch)):
        raise InvalidInput(f"`fixed` is a {type(fixed).__name__}; wanted a Split or a Batch of all its examples.")
    if len(fixed) < rows:
        raise InvalidInput(
            f"`fixed` has {len(fixed)} examples; wanted at least those of one batch on all ranks, {rows}."
        )
    return fixed
