"""What the student writes itself as the training data of the trainer: its batches come as the stream has them.

No loader of Accelerate stands between: it would ask for a batch ahead, written by a student that is a step older, and
deal one stream out to all processes, where each writes its own.  A run that goes on is given as many empty batches as
transformers passes over, and then what the stream, whose state the checkpoint holds, has next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset
from transformers import TrainingArguments

from ...data import Batch
from ...distributed import Ranks
from ...errors import InvalidInput
from ...safety import Constraint
from ..rollouts import RolloutExamples, Rollouts, WrittenConstraint
from ..teachers import unwrap_adapters


def find_rollouts(data: Any) -> Rollouts | None:
    """Return the rollouts that training data are, None where they are other data.

    Args:
        data: Of the trainer.
    """
    return data.rollouts if isinstance(data, RolloutExamples) else data if isinstance(data, Rollouts) else None


class RolloutStream(IterableDataset[dict[str, Any]]):
    """Batches of rollouts, collated.

    Args:
        rollouts: Where they come from; it keeps the place.
        take_passed_over: Says, as the first batch is asked for, how many empty ones come first.
    """

    def __init__(self, rollouts: Rollouts, take_passed_over: Callable[[], int]) -> None:
        self.rollouts, self._take_passed_over = rollouts, take_passed_over

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for _ in range(self._take_passed_over()):
            yield {}
        for batch in self.rollouts:
            inputs = batch.inputs if isinstance(batch.inputs, dict) else {"input_ids": batch.inputs}
            yield {**inputs, "batch": batch}

    def open_loader(self) -> DataLoader[dict[str, Any]]:
        """Return a loader that draws no random numbers of torch."""
        return DataLoader(self, batch_size=None, generator=torch.Generator())


def require_rollouts_for_run(rollouts: Rollouts, args: TrainingArguments, student: nn.Module, ranks: Ranks) -> None:
    """Refuse rollouts of another step, another student or other processes than the run's.

    Args:
        rollouts: The training data.
        args: Of the run.
        student: That is trained.
        ranks: Of the run.

    Raises:
        InvalidInput: They do not fit.
    """
    pairs = {
        ("batch_size", rollouts.batch_size): ("per_device_train_batch_size", args.per_device_train_batch_size),
        ("accumulation", rollouts.accumulation): ("gradient_accumulation_steps", args.gradient_accumulation_steps),
        ("ranks", rollouts.ranks.size): ("number of processes", ranks.size),
        ("rank", rollouts.ranks.rank): ("number of this process", ranks.rank),
    }
    for (mine, found), (name, wanted) in pairs.items():
        if found != wanted:
            how = "ranks=kd.distributed.find_ranks()" if mine.startswith("rank") else f"{mine}={wanted}"
            raise InvalidInput(
                f"Rollouts have {mine} {found}, and the run's {name} is {wanted}; wanted equal: Rollouts(..., {how})."
            )
    writer = rollouts.student
    if writer is not None and unwrap_adapters(writer) is not unwrap_adapters(student):
        raise InvalidInput(
            f"Rollouts are written by a {type(writer).__name__} that is not the student; wanted the model that the "
            "trainer trains: Rollouts(prompts, model, ...), SafeKDTrainer(model, ..., train_dataset=rollouts)."
        )


def require_written_scores(constraints: Sequence[Constraint], rollouts: Rollouts | None) -> None:
    """Refuse constraints on what the student writes where it writes nothing, or nothing scores it.

    Args:
        constraints: Of the run.
        rollouts: The training data; None where they are others.

    Raises:
        InvalidInput: One has no texts, or no score.
    """
    for constraint in constraints:
        if not isinstance(constraint, WrittenConstraint):
            continue
        if rollouts is None:
            raise InvalidInput(
                f"Constraint '{constraint.name}' is about what the student writes, and `train_dataset` is no Rollouts: "
                f"nothing is written. Give train_dataset=kd.language.Rollouts(prompts, model, scores={{"
                f"'{constraint.score}': ...}}), or a kd.SafetyConstraint on the probabilities of tokens."
            )
        if constraint.score not in rollouts.scores:
            raise InvalidInput(
                f"Constraint '{constraint.name}' reads the score '{constraint.score}', and the rollouts have "
                f"{', '.join(map(repr, rollouts.scores)) or 'none'}; give it to Rollouts(scores=...)."
            )


def write_trace_batches(rollouts: Rollouts, sequences: int, steps: int, seed: int, device: torch.device) -> list[Batch]:
    """Return the batches of one point of a trace: texts that the student writes now, and the same fixed rows.

    There are as many of each as the run has over all its steps, and at least one text.

    Args:
        rollouts: The training data.
        sequences: How many over all processes.
        steps: Optimizer steps of the run.
        seed: Of the choice.
        device: Where they go.
    """
    ranks, share = rollouts.ranks, rollouts.average_share(steps)
    texts = max(1, round(share * sequences)) if share else 0
    mine = len(range(ranks.rank, texts, ranks.size))
    batches: list[Batch] = [*rollouts.write_sample(mine, seed)] if mine else []
    if rollouts.fixed is not None and texts < sequences:
        order = torch.randperm(len(rollouts.fixed), generator=torch.Generator().manual_seed(seed))
        rows = order[: sequences - texts][ranks.rank :: ranks.size]
        batches += rollouts.take_fixed(rows).cut(rollouts.batch_size) if len(rows) else []
    return [batch.to(device) for batch in batches]
