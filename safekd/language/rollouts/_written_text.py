"""What a student wrote, before it becomes a batch, and the batch.

Axes: R texts, B examples of a batch, T positions, J scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from solvers.short_repr import ShortRepr

from ...data import Batch


@dataclass(frozen=True, repr=False)
class Written(ShortRepr):
    """Some texts of a student, as what scores them sees them.

    Attributes:
        prompts: Token numbers of each text's prompt.
        texts: Token numbers that the student wrote after it; the last is the end of the text, where it came to one.
        context: Context of each prompt, (R,).
        task: Task of each prompt, (R,).
    """

    prompts: Sequence[Sequence[int]]
    texts: Sequence[Sequence[int]]
    context: Tensor
    task: Tensor

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True, repr=False)
class WrittenBatch(Batch):
    """Examples that the student wrote itself; labels are its own tokens, and positions of the prompt do not count.

    Attributes:
        step: Optimizer steps that had been taken when each was written, (B,).
        age: Optimizer steps that had been taken since then when each was handed out, (B,).
        score: What each score says of the whole text, in [0, 1], (B, J), float64; see ``Rollouts.scores``.
        baseline: Average of the same score over other texts of the round, (B, J): the text's own score is not in it.
        scores: Names of the scores.
    """

    step: Tensor | None = None
    age: Tensor | None = None
    score: Tensor | None = None
    baseline: Tensor | None = None
    scores: tuple[str, ...] = ()


@dataclass(frozen=True)
class TextRows:
    """Texts that wait for their turn, one a row; all that is needed to build batches, as tensors.

    Attributes:
        ids: Token numbers of prompt and text, padded on the right, (R, T).
        prompt_length: Tokens of the prompt, (R,).
        length: Tokens of prompt and text, (R,).
        context: Context of each prompt, (R,).
        task: Task of each prompt, (R,).
        number: How many texts had been written before, (R,).
        step: Optimizer steps that had been taken when it was written, (R,).
        score: (R, J), float64.
        baseline: (R, J), float64.
    """

    ids: Tensor
    prompt_length: Tensor
    length: Tensor
    context: Tensor
    task: Tensor
    number: Tensor
    step: Tensor
    score: Tensor
    baseline: Tensor

    @classmethod
    def stack(cls, written: Written, score_RJ: Tensor, baseline_RJ: Tensor, before: int, step: int) -> TextRows:
        """Return the rows of a round.

        Args:
            written: Its texts.
            score_RJ: What each score says of them.
            baseline_RJ: What their scores are compared with.
            before: How many texts had been written before.
            step: Optimizer steps that had been taken.
        """
        whole = [[*prompt, *text] for prompt, text in zip(written.prompts, written.texts, strict=True)]
        longest = max(len(ids) for ids in whole)
        return cls(
            ids=torch.tensor([ids + [0] * (longest - len(ids)) for ids in whole]),
            prompt_length=torch.tensor([len(prompt) for prompt in written.prompts]),
            length=torch.tensor([len(ids) for ids in whole]),
            context=written.context,
            task=written.task,
            number=before + torch.arange(len(whole)),
            step=torch.full((len(whole),), step),
            score=score_RJ,
            baseline=baseline_RJ,
        )

    def join(self, others: TextRows) -> TextRows:
        """Return these texts, and others after them.

        Args:
            others: Perhaps of another length.
        """
        longest = max(self.ids.shape[1], others.ids.shape[1])
        parts = []
        for rows in (self, others):
            padded = torch.nn.functional.pad(rows.ids, (0, longest - rows.ids.shape[1]))
            parts.append({**rows.tensors(), "ids": padded})
        return TextRows(**{name: torch.cat([part[name] for part in parts]) for name in parts[0]})

    def __len__(self) -> int:
        return len(self.ids)

    def select(self, where: slice | Tensor) -> TextRows:
        """Return some of the texts.

        Args:
            where: Their places.
        """
        return TextRows(**{name: value[where] for name, value in self.tensors().items()})

    def tensors(self) -> dict[str, Tensor]:
        """Return all of it, by name."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    def build_batch(self, now: int, scores: tuple[str, ...], device: torch.device | str) -> WrittenBatch:
        """Return the texts as examples: position t has the token t + 1 as its label where the student wrote that.

        Args:
            now: Optimizer steps taken by now.
            scores: Names of the scores.
            device: Where the batch is to lie.
        """
        place_T = torch.arange(int(self.length.max()))
        inside_BT = place_T < self.length[:, None]
        mask_BT = (place_T >= self.prompt_length[:, None] - 1) & (place_T < self.length[:, None] - 1)
        ids_BT = torch.where(inside_BT, self.ids[:, : len(place_T)], 0)
        labels_BT = torch.where(mask_BT, ids_BT.roll(-1, dims=1), 0)
        batch = WrittenBatch(
            inputs={"input_ids": ids_BT, "attention_mask": inside_BT.long()},
            labels=labels_BT,
            task=self.task,
            context=self.context,
            index=self.number,
            mask=mask_BT,
            numbered=False,
            step=self.step,
            age=now - self.step,
            score=self.score,
            baseline=self.baseline,
            scores=scores,
        )
        moved = batch.to(device)
        assert isinstance(moved, WrittenBatch)
        return moved


def leave_one_out(score_RJ: Tensor, samples: int) -> Tensor:
    """Return the average score of the other texts: of the same prompt where it has several, else of the round.

    A baseline that does not depend on the text itself changes no expectation of the gradient, and takes most of its
    variance.  It is 0 where there is no other text.

    Args:
        score_RJ: Scores, the texts of one prompt one after the other, (R, J).
        samples: Texts of each prompt.

    Returns:
        (R, J).

    Source: Kool, van Hoof and Welling 2019.
    """
    R, J = score_RJ.shape
    group = samples if samples > 1 else R
    if group < 2:
        return torch.zeros_like(score_RJ)
    of_group = score_RJ.reshape(R // group, group, J)
    return ((of_group.sum(1, keepdim=True) - of_group) / (group - 1)).reshape(R, J)
