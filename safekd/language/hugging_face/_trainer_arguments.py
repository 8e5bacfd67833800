"""What the trainer is given, checked before anything is built; what it cannot do is refused with a way round."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from transformers import TrainingArguments

from ...errors import InvalidInput
from ...safety import Average, Constraint
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
        raise InvalidInput(f"`args` is a {type(args).__name__}; wanted transformers.TrainingArguments(output_dir, ...).")
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
            f"One process sees {mine.n_gpu} GPUs, which transformers would use by DataParallel. Start one process a GPU: "
            f"torchrun --nproc-per-node={mine.n_gpu} script.py."
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


def read_teachers(teachers: Any) -> list[Any]:
    """Return the teachers as a list.

    Args:
        teachers: One or several.

    Raises:
        InvalidInput: There are none, one is of another kind, or two have the same name.
    """
    several = list(teachers) if isinstance(teachers, Sequence) else [teachers]
    if not several:
        raise InvalidInput("`teachers` is empty; give at least one.")
    for teacher in several:
        missing = [name for name in ("name", "manifest") if not hasattr(teacher, name)]
        if missing or not callable(teacher):
            raise InvalidInput(
                f"A teacher is a {type(teacher).__name__}; wanted kd.language.CausalTeacher(model) or another object "
                "that is called with a batch and has `name`, `vocabulary` and `manifest()`."
            )
    names = [str(teacher.name) for teacher in several]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InvalidInput(f"Two teachers are called '{twice[0]}'; give each a name of its own.")
    return several


def read_constraints(constraints: Any) -> list[Constraint]:
    """Return the constraints as a list.

    Args:
        constraints: One or several.

    Raises:
        InvalidInput: One is of another kind, posed on another split, or two have the same name.
    """
    several = [constraints] if isinstance(constraints, Constraint) else list(constraints)
    for constraint in several:
        if not isinstance(constraint, Constraint):
            raise InvalidInput(
                f"A constraint is a {type(constraint).__name__}; wanted kd.SafetyConstraint(name, measure, at_least)."
            )
        if constraint.split != "train":
            raise InvalidInput(
                f"Constraint '{constraint.name}' is posed on '{constraint.split}', and this trainer poses constraints on "
                "what it trains on; leave split= out. evaluate() reads every constraint on other data."
            )
    names = [constraint.name for constraint in several]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InvalidInput(f"Two constraints are called '{twice[0]}'; give each a name of its own.")
    return several


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


def number_names(constraints: Sequence[Constraint], columns: SequenceColumns, tokenizer: Any) -> list[Constraint]:
    """Return the constraints with numbers in place of names of contexts, tasks and tokens.

    Args:
        constraints: As given.
        columns: Knows the names of contexts and tasks.
        tokenizer: Knows those of tokens; None where there is none.

    Raises:
        InvalidInput: A name is unknown; the message has those that are known.
    """
    names = columns.group_names(_name_tokens(constraints, tokenizer))
    for key, column, known in (("context", columns.context, names.contexts), ("task", columns.task, names.tasks)):
        asked = [name for c in constraints for _, a in c.parts for name in _list_groups(a, key) if isinstance(name, str)]
        if asked and not known:
            raise InvalidInput(
                f"'{asked[0]}' is the name of a {key}, and column '{column}' of `train_dataset` has no names; add the "
                f"column, say which it is ({key}_column=), or name its numbers ({key}_names=[...])."
            )
    return [constraint.with_names(names) for constraint in constraints]


def _list_groups(average: Average, key: str) -> list[Any]:
    """Return the contexts, tasks or classes that an average mentions."""
    named = {"context": average.contexts, "task": average.tasks, "class": average.classes}[key]
    return [*(named or ()), *((average.mix or ()) if average.by == key else ())]


def _name_tokens(constraints: Sequence[Constraint], tokenizer: Any) -> tuple[str, ...]:
    """Return names of tokens by number, those that constraints mention; the others are empty.

    A name is a token as the tokenizer spells it, or text that is one token.

    Args:
        constraints: Whose critical tokens may be given by name.
        tokenizer: Of student and teachers; None where there is none.

    Raises:
        InvalidInput: A name is no single token, or there is no tokenizer to say.
    """
    wanted = {
        name
        for constraint in constraints
        for _, average in constraint.parts
        for names in (average.measure.class_names, _list_groups(average, "class"))
        for name in names
        if isinstance(name, str)
    }
    if not wanted:
        return ()
    if tokenizer is None:
        raise InvalidInput(
            f"Critical tokens are given as text, {sorted(wanted)[0]!r}; pass the tokenizer too: processing_class=tokenizer."
        )
    found = {name: _find_token(name, tokenizer) for name in sorted(wanted)}
    size = 1 + max(found.values())
    names = [""] * size
    for name, number in found.items():
        if names[number]:
            raise InvalidInput(f"{names[number]!r} and {name!r} are the same token; name it once.")
        names[number] = name
    return tuple(names)


def _find_token(name: str, tokenizer: Any) -> int:
    vocabulary = tokenizer.get_vocab()
    if name in vocabulary:
        return int(vocabulary[name])
    ids = tokenizer(name, add_special_tokens=False)["input_ids"]
    if len(ids) != 1:
        raise InvalidInput(
            f"Critical token {name!r} is {len(ids)} tokens of the tokenizer; wanted one. Name the tokens one by one, such "
            f"as {tokenizer.convert_ids_to_tokens(ids)!r}; a blank in front makes another token."
        )
    return int(ids[0])
