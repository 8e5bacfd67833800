"""What the trainer is given, checked before anything is built; what it cannot do is refused with a way round."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch.optim import Optimizer
from torch.utils.data import IterableDataset
from transformers import TrainingArguments

from solvers.primal_dual import DualMethod

from ..._number_checks import is_finite, is_whole
from ...data import Group, GroupNames, Key
from ...errors import InvalidInput
from ...safety import Average, Constraint
from ..loss import Head
from ..rollouts import WrittenConstraint
from ..teachers import TeacherSet, critical_tokens, require_same_tokenizer, shared_vocabulary
from .passes import SequenceColumns

_FULL_EVALUATION = "it rounds the student's weights for good; bf16=True computes in bfloat16 and keeps them"


def copy_arguments(args: TrainingArguments | None) -> TrainingArguments:
    """Return a copy of the arguments in which columns stay that the student does not read: the collator drops them.

    Args:
        args: Of the caller, which stay as they are; None for those of transformers.

    Raises:
        InvalidInput: They ask for what this trainer cannot do.
    """
    if args is not None and not isinstance(args, TrainingArguments):
        raise InvalidInput(
            f"`args` is a {type(args).__name__}; wanted transformers.TrainingArguments(output_dir, ...)."
        )
    mine = TrainingArguments("trainer_output") if args is None else copy.copy(args)
    refused = {
        "auto_find_batch_size": "a run that begins anew would keep the multipliers of the first try; choose the batch",
        "fsdp": "the head's weights must be whole where the loss reads them; use DistributedDataParallel (torchrun)",
        "deepspeed": "the head's weights must be whole where the loss reads them; use torchrun alone",
        "label_smoothing_factor": "teachers soften the labels; cross_entropy= mixes labels in",
        "fp16_full_eval": _FULL_EVALUATION,
        "bf16_full_eval": _FULL_EVALUATION,
        "torch_compile": "hidden states are read by a hook in the forward pass, which a compiled model may leave out",
    }
    for name, why in refused.items():
        if getattr(mine, name, None):
            raise InvalidInput(f"`{name}` of the arguments is {getattr(mine, name)!r}: {why}.")
    if mine.n_gpu > 1:
        raise InvalidInput(
            f"One process sees {mine.n_gpu} GPUs, which transformers would use by DataParallel. Start one process a "
            f"GPU: torchrun --nproc-per-node={mine.n_gpu} script.py."
        )
    mine.remove_unused_columns = False
    return mine


def require_supported(given: Mapping[str, Any]) -> None:
    """Refuse settings of ``transformers.Trainer`` that this one has no use for.

    Args:
        given: Further keyword arguments.

    Raises:
        InvalidInput: One is among them.
    """
    refused = {
        "compute_loss_func": "the loss is distillation under constraints; cross_entropy= mixes labels in",
        "compute_metrics": "logits of a whole data set are never held; evaluate() reads loss, perplexity and safety",
        "preprocess_logits_for_metrics": "logits of a whole data set are never held",
        "model_init": "multipliers belong to one student; give `model`",
    }
    for name, why in refused.items():
        if given.get(name) is not None:
            raise InvalidInput(f"`{name}` was given: {why}.")


def read_teachers(teachers: Any, tokenizer: Any) -> TeacherSet:
    """Return the teachers, which mean the same tokens as the student where their tokenizers are known.

    Args:
        teachers: One or several.
        tokenizer: The student's; None where nobody knows.

    Raises:
        InvalidInput: There are none, one is of another kind or of another tokenizer, or two have the same name.
    """
    found = (
        teachers
        if isinstance(teachers, TeacherSet)
        else TeacherSet(list(teachers) if isinstance(teachers, (list, tuple)) else [teachers])
    )
    if tokenizer is not None:
        known = [t for t in found if getattr(t, "tokenizer", None) is not None or t.manifest().get("token_map")]
        require_same_tokenizer(known, tokenizer)
    return found


def choose_vocabulary(given: int | None, student: Any, teachers: TeacherSet, tokenizer: Any) -> int | None:
    """Return how many tokens are compared: where heads differ, those that all have and the tokenizer knows.

    Args:
        given: What the caller says; None to find out.
        student: The model.
        teachers: The teachers.
        tokenizer: The student's; None where nobody knows, and heads that differ are refused by the loss.

    Raises:
        InvalidInput: A head scores fewer tokens than the tokenizer has.
    """
    own = Head.of(student).vocabulary
    if given is not None or tokenizer is None or all(teacher.vocabulary == own for teacher in teachers):
        return given
    return shared_vocabulary(tokenizer, [own, *teachers])


def require_on_training_data(constraints: Sequence[Constraint]) -> None:
    """Refuse constraints on other data than those that the trainer trains on.

    Args:
        constraints: As given.

    Raises:
        InvalidInput: One is posed on another split.
    """
    for constraint in constraints:
        if constraint.split != "train" and not isinstance(constraint, WrittenConstraint):
            raise InvalidInput(
                f"Constraint '{constraint.name}' is posed on '{constraint.split}', and this trainer poses constraints "
                "on what it trains on; leave split= out. evaluate() reads every constraint on other data."
            )


def require_rows(data: Any, what: str, args: TrainingArguments | None) -> None:
    """Refuse data that the trainer could not read, before transformers fails on them.

    Args:
        data: The data set; several by name where it is for evaluation; None for none.
        what: What messages call it.
        args: Of the run.

    Raises:
        InvalidInput: It is empty or no data set, or a stream without a number of steps.
    """
    if data is None:
        return
    if isinstance(data, dict) and what == "eval_dataset":
        for name, one in data.items():
            require_rows(one, f"eval_dataset['{name}']", args)
        return
    if isinstance(data, IterableDataset):
        if what == "train_dataset" and (args is None or args.max_steps <= 0):
            found = -1 if args is None else args.max_steps
            raise InvalidInput(
                f"`train_dataset` is a stream, whose length nobody knows, and max_steps of the arguments is {found}; "
                "wanted how many optimizer steps the run takes: TrainingArguments(..., max_steps=1000)."
            )
        return
    if isinstance(data, (str, bytes)) or not (hasattr(data, "__getitem__") and hasattr(data, "__len__")):
        raise InvalidInput(
            f"`{what}` is a {type(data).__name__}; wanted rows by number with a length (a list, a datasets.Dataset), "
            "or a stream: torch.utils.data.IterableDataset, datasets.IterableDataset."
        )
    if not len(data):
        raise InvalidInput(
            f"`{what}` is empty, 0 rows; wanted at least one with `input_ids`. A filter may have taken all."
        )


def require_training_data(data: Any) -> None:
    """Refuse to train on nothing.

    Args:
        data: The training data of the trainer.

    Raises:
        InvalidInput: There are none.
    """
    if data is None:
        raise InvalidInput(
            "train() was called, and there is no `train_dataset`: give SafeKDTrainer(..., train_dataset=rows), rows "
            "with `input_ids`. evaluate() and certify() do without."
        )


def require_trainer_numbers(numbers: Mapping[str, Any], dual: object, weights_optimizer: object) -> None:
    """Refuse settings of the trace, the multipliers and the rule that cannot be used.

    Args:
        numbers: ``trace_steps``, ``trace_sequences`` and ``tolerance``.
        dual: How multipliers move.
        weights_optimizer: Of a rule that learns.

    Raises:
        InvalidInput: One is out of range or of another kind.
    """
    for name in ("trace_steps", "trace_sequences"):
        value = numbers[name]
        if (value is not None or name == "trace_sequences") and not (is_whole(value) and value >= 1):
            raise InvalidInput(f"`{name}` is {value!r}; wanted a whole number of at least 1.")
    if not (is_finite(numbers["tolerance"]) and numbers["tolerance"] > 0):
        raise InvalidInput(f"`tolerance` is {numbers['tolerance']!r}; wanted a number above 0, such as 0.01.")
    if dual is not None and not isinstance(dual, DualMethod):
        raise InvalidInput(f"`dual` is {dual!r}; wanted how multipliers move, such as kd.PIGain(), or None.")
    if weights_optimizer is not None and not isinstance(weights_optimizer, Optimizer):
        raise InvalidInput(
            f"`weights_optimizer` is {weights_optimizer!r}; wanted a torch optimizer of the rule's parameters, or None."
        )


def list_readable(student: Any, args: TrainingArguments | None) -> frozenset[str] | None:
    """Return the columns that a student reads; None where the caller wants to keep all.

    Args:
        student: The model.
        args: Of the caller.
    """
    if args is not None and not args.remove_unused_columns:
        return None
    base = student.get_base_model() if hasattr(student, "get_base_model") else student
    named = set(inspect.signature(base.forward).parameters)
    more = getattr(args, "label_names", None) or []
    return frozenset(named | {"input_ids", "attention_mask", "labels", *more})


@dataclass(frozen=True)
class TokenNames(GroupNames):
    """Names of contexts and tasks, and tokens by what they write.

    Attributes:
        tokenizer: Knows the tokens; None where there is none.
    """

    tokenizer: Any = None

    def number(self, key: Key, group: Group) -> int:
        """Return the number of a context or task, or of a text that one token alone writes.

        Args:
            key: "class", "context" or "task".
            group: Its name, or its number.

        Raises:
            InvalidInput: There is no such name, or several tokens write it.
        """
        if key != "class" or not isinstance(group, str):
            return super().number(key, group)
        numbers = self.numbers(key, [group])
        if len(numbers) > 1:
            raise InvalidInput(
                f"{group!r} is written by the tokens {numbers}; name the one that is meant by its number."
            )
        return numbers[0]

    def numbers(self, key: Key, groups: Collection[Group]) -> list[int]:
        """Return the numbers of several; a text means every token that writes it.

        Args:
            key: "class", "context" or "task".
            groups: Names or numbers.

        Raises:
            InvalidInput: There is no such name, or no tokenizer to say.
        """
        texts = [group for group in groups if isinstance(group, str)]
        if key != "class" or not texts:
            return super().numbers(key, groups)
        if self.tokenizer is None:
            raise InvalidInput(
                f"Critical tokens are given as text, {texts[0]!r}; pass the tokenizer too: processing_class=tokenizer."
            )
        return critical_tokens(self.tokenizer, list(groups))


def number_names(constraints: Sequence[Constraint], columns: SequenceColumns, tokenizer: Any) -> list[Constraint]:
    """Return the constraints with numbers in place of names of contexts, tasks and tokens.

    Args:
        constraints: As given.
        columns: Knows the names of contexts and tasks.
        tokenizer: Knows those of tokens; None where there is none.

    Raises:
        InvalidInput: A name is unknown; the message has those that are known.
    """
    names = TokenNames("train", (), columns.contexts, columns.tasks, tokenizer)
    for key, column, known in (("context", columns.context, names.contexts), ("task", columns.task, names.tasks)):
        asked = [
            name for c in constraints for _, a in c.parts for name in _list_groups(a, key) if isinstance(name, str)
        ]
        if asked and not known:
            raise InvalidInput(
                f"'{asked[0]}' is the name of a {key}, and column '{column}' of `train_dataset` has no names; add the "
                f"column, say which it is ({key}_column=), or name its numbers ({key}_names=[...])."
            )
    return [constraint.with_names(names) for constraint in constraints]


def _list_groups(average: Average, key: str) -> list[Any]:
    """Return the contexts or tasks that an average mentions."""
    named = {"context": average.contexts, "task": average.tasks}[key]
    return [*(named or ()), *((average.mix or ()) if average.by == key else ())]
