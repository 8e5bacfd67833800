"""What held-out data can prove about a student's safety, and what they cannot."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, overload

from torch import Tensor, nn

from ..._number_checks import is_whole, require_seed
from ...data import Fields, SeenExamples, Split, Trained, as_split, find_unseen, hash_examples, require_same_names
from ...errors import InvalidInput
from ...fingerprints import hash_model
from .._safety_constraint import Constraint
from ._certificate_record import Certificate
from ._clustered_values import ClusteredValues
from ._family_correction import Correction
from ._group_evaluation import evaluate_groups, read_importance_weights
from ._joint_certificates import HeldOutValues, certify_together, refuse_equality


@overload
def certify(
    student: nn.Module | Trained,
    constraint: Constraint,
    held_out: Any,
    confidence: float = 0.95,
    *,
    method: str = "auto",
    correction: Correction = "holm",
    weights: Any = None,
    largest_weight: float | None = None,
    seed: int = 0,
    batch_size: int = 4096,
    largest_cluster: int | None = None,
    fields: Fields | None = None,
) -> Certificate: ...


@overload
def certify(
    student: nn.Module | Trained,
    constraint: Sequence[Constraint],
    held_out: Any,
    confidence: float = 0.95,
    *,
    method: str = "auto",
    correction: Correction = "holm",
    weights: Any = None,
    largest_weight: float | None = None,
    seed: int = 0,
    batch_size: int = 4096,
    largest_cluster: int | None = None,
    fields: Fields | None = None,
) -> list[Certificate]: ...


def certify(
    student: nn.Module | Trained,
    constraint: Constraint | Sequence[Constraint],
    held_out: Any,
    confidence: float = 0.95,
    *,
    method: str = "auto",
    correction: Correction = "holm",
    weights: Any = None,
    largest_weight: float | None = None,
    seed: int = 0,
    batch_size: int = 4096,
    largest_cluster: int | None = None,
    fields: Fields | None = None,
) -> Certificate | list[Certificate]:
    """Bound the student's expected safety from below on data that nothing else has seen.

    A binary measure gets the exact binomial bound (Clopper and Pearson 1934), another one the betting bound
    (Waudby-Smith and Ramdas 2024) in an order shuffled by ``seed``.  Where several groups or measures make one value,
    each mean is bounded at ``1 - (1 - level) / groups``, so that all bounds hold at once (Bonferroni), and the value is
    taken at the bounds: it rises with every mean, the worst mix too.  A ball around the data's own shares is here the
    one around the shares in ``held_out``.

    Several constraints are certified together: with ``confidence`` no "safe" among them is wrong, and all bounds hold.

    The bound is only as honest as the data are unseen: a split that chose thresholds, weights or the student certifies
    nothing.  What is independent is clusters: the positions of one sequence are one, and the examples that the split's
    ``cluster`` puts together, such as those of one patient.  Examples are independent where it has none.  A bound then
    sees the clusters, whose sizes count as those in the data do, and which need a largest size: where they differ and
    ``largest_cluster`` is not given, the statement is about clusters up to the largest of the data, of which that one
    is no evidence; ``note`` says so.

    Args:
        student: A module that gives logits (B, ..., V), or the result of a run, which knows the data it used: examples
            that it used are left out and counted, and data that hold no others are refused, naming what they were used
            for.  A bare module cannot know.
        constraint: What is to be shown, or several constraints; on which split they are posed does not matter.
        held_out: A Split or what ``as_split`` takes.
        confidence: In (0, 1), of all constraints together.
        method: "auto", which goes by the kind of the data and never by which bound is highest; or
            "clopper_pearson", "hoeffding", "empirical_bernstein" or "betting", chosen before anybody saw the data.
        correction: For several constraints: "holm" decides at least as many as "bonferroni", which states higher
            bounds of those that are safe while others are not; None certifies each by itself.
        weights: How much more often an example like that comes in use than in the data, (N,), up to one factor for
            all: the statement is then about the use.  None where the data are as in use.
        largest_weight: The most that a weight can be, in these data or in others; where it is None and they differ, the
            statement is about weights up to the largest of the data, of which that one is no evidence.
        seed: Of the order in which the betting bound sees the values.
        batch_size: How many examples the student sees at a time.
        largest_cluster: How many examples a cluster can have at most, where that is known.
        fields: What the parts of ``held_out`` are where it is no Split, as for ``as_split``.

    Returns:
        The certificate, or a list of one each where ``constraint`` is a list.

    Raises:
        InvalidInput: No example, or none of some group, is covered by the constraint, it is an equality or names what
            the data do not have, the student gives NaN or too few classes, its run used the data, the method does not
            fit the data, or weights are none.
    """
    several = not isinstance(constraint, Constraint)
    constraints = _list_constraints(constraint)
    seed = require_seed(seed)
    counts = {"batch_size": batch_size} | ({} if largest_cluster is None else {"largest_cluster": largest_cluster})
    for name, value in counts.items():
        if not (is_whole(value) and value >= 1):
            raise InvalidInput(f"`{name}` is {value!r}; wanted a whole number of at least 1.")
    if weights is None and largest_weight is not None:
        raise InvalidInput("`largest_weight` is given, but no `weights`; wanted both, or neither.")
    data = as_split(held_out, "held_out", fields)
    constraints = [each.with_names(data.names) for each in constraints]
    weight_N = None if weights is None else read_importance_weights(weights, data, largest_weight)
    module, unused_N = _find_unused_examples(student, data)
    rest = data if unused_N is None else data.part(unused_N)
    weight_N = weight_N if weight_N is None or unused_N is None else weight_N[unused_N.cpu()]
    read = partial(
        evaluate_groups,
        batch_size=batch_size,
        largest_cluster=largest_cluster,
        weights=weight_N,
        largest_weight=largest_weight,
    )
    held = []
    for each in constraints:
        left_out = 0 if unused_N is None else int(each.covers(data.batch(~unused_N)).sum())
        groups = read(module, each, rest)
        held.append(HeldOutValues(each, groups, left_out, _hash_covered(each, rest, groups), largest_weight))
    certificates = certify_together(
        held, confidence, correction=correction, method=method, seed=seed, model_hash=hash_model(module)
    )
    return certificates if several else certificates[0]


def _list_constraints(constraint: Any) -> list[Constraint]:
    """Return what is to be certified; refuse what cannot be."""
    constraints = [constraint] if isinstance(constraint, Constraint) else constraint
    if not isinstance(constraints, Sequence) or not all(isinstance(each, Constraint) for each in constraints):
        raise InvalidInput(
            f"`constraint` is a {type(constraint).__name__}; wanted a constraint such as kd.SafetyConstraint(...), or "
            "a list of them."
        )
    if len(constraints) == 0:
        raise InvalidInput("`constraint` is an empty list; wanted at least one constraint to certify.")
    for each in constraints:
        refuse_equality(each)
    return list(constraints)


def _find_unused_examples(student: nn.Module | Trained, data: Split) -> tuple[nn.Module, Tensor | None]:
    """Return the module, and which examples its run did not use, None where that is not known."""
    if isinstance(student, nn.Module):
        return student, None
    for use in student.uses:
        if isinstance(use.split, Split):
            require_same_names(use.split.names, data.names)
    return student.student, find_unseen(data, student.uses).to(data.labels.device)


def _hash_covered(constraint: Constraint, data: Split, groups: Sequence[ClusteredValues]) -> str:
    """Return the SHA-256 of the examples that a constraint covers; refuse data where it covers none of some group."""
    if not any(len(group.value_P) for group in groups):
        weighted = " with a weight above 0" if any(group.weight_P is not None for group in groups) else ""
        raise InvalidInput(
            f"No example of '{data.name}' is covered by '{constraint.name}'{weighted}; nothing can be certified on it."
        )
    batch = data.batch()
    constraint.require_examples(data, constraint.counts(batch))
    if any(not len(group.value_P) for group in groups):
        raise InvalidInput(
            f"'{constraint.name}': all examples of a group have weight 0 in '{data.name}', so nothing is known of it "
            "in use. Give it weight, or leave it out of the constraint."
        )
    covered_N = constraint.covers(batch).reshape(len(data), -1).any(-1)
    seen = SeenExamples(int(covered_N.sum()))
    seen.add(hash_examples(data.part(covered_N)))
    return seen.fingerprint
