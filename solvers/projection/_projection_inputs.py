"""Read scores, masks and safety scores, and give the answer back in the form of the question.

Axes: B rows (all leading axes in one), K teachers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from solvers.errors import InvalidInput
from solvers.polytope import WeightPolytope

from ._torch_internals import unwrap_constant

RaiseUnusable = Callable[[], None]  # raises what is wrong with the scores
COMPUTED = (torch.float64, torch.float32)  # shorter types are computed in float32
METRICS = ("euclidean", "kl")
ENGINES = ("auto", "exact", "cvxpy")
_FLOATING = (*COMPUTED, torch.bfloat16, torch.float16)


class Scores(NamedTuple):
    """Scores as rows, shape (B, K), with what is needed to answer in kind."""

    v: Tensor
    shape: torch.Size
    as_numpy: bool

    def answer(self, w_BK: Tensor) -> Tensor | npt.NDArray[Any]:
        """Return weights in the shape and kind of the scores."""
        w = w_BK if len(self.shape) == 2 else w_BK.reshape(self.shape)
        return w.numpy() if self.as_numpy else w


def read_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Refuse a word that is not among ``choices``."""
    if not isinstance(value, str) or value not in choices:
        raise InvalidInput(f"`{name}` must be one of {', '.join(map(repr, choices))}; found {value!r}.")


def read_scores(v: object, n_teachers: int) -> Scores:
    """Return the scores as floating rows of K; refuse wrong shapes and dtypes."""
    tensor = v if isinstance(v, Tensor) else _read_score_array(v)
    if tensor.dtype not in _FLOATING:
        raise InvalidInput(
            f"`v` has dtype {str(tensor.dtype).removeprefix('torch.')}; wanted float64, float32, bfloat16 or float16. "
            "Convert it, for instance with v.float()."
        )
    if tensor.layout != torch.strided or tensor.is_nested or tensor.device.type == "meta":
        kind = "rows of several lengths (nested)" if tensor.is_nested else f"layout {tensor.layout}"
        kind = "no numbers (device meta)" if tensor.device.type == "meta" else kind
        raise InvalidInput(
            f"`v` has {kind}; wanted a dense tensor of numbers. Convert it, for instance with v.to_dense()."
        )
    if tensor.ndim == 0 or tensor.shape[-1] != n_teachers:
        raise InvalidInput(
            f"`v` has shape {tuple(tensor.shape)}, but the polytope has {n_teachers} teachers; "
            f"wanted {n_teachers} scores in the last axis."
        )
    # a reshape that changes nothing would still cost two nodes of the graph, forward and backward
    rows = tensor if tensor.ndim == 2 else tensor.reshape(-1, n_teachers)
    return Scores(rows, tensor.shape, isinstance(v, np.ndarray))


def _read_score_array(v: object) -> Tensor:
    try:
        array = v if isinstance(v, np.ndarray) else np.asarray(v, dtype=np.float64)
        return torch.from_numpy(array.copy())
    except (TypeError, ValueError, ArithmeticError, RuntimeError) as cause:
        raise InvalidInput(f"`v` must hold real scores; found {type(v).__name__}: {cause}.") from cause


def require_values(scores: Scores, metric: str) -> None:
    """Refuse scores that are not finite, or not positive where the metric needs it, naming row and value."""
    v = scores.v.detach().reshape(scores.shape)
    require_all("v", v, v.isfinite(), "scores must be finite", "Replace it, or mask the row out.")
    if metric == "kl":
        advice = "Add a small constant, or use metric='euclidean'."
        require_all("v", v, v > 0, "metric='kl' needs positive scores", advice)


def require_all(name: str, x: Tensor, good: Tensor, wanted: str, advice: str) -> None:
    """Refuse numbers (..., K) that are not all good, naming the first that is not."""
    if bool(good.all()):
        return
    place = tuple(int(i) for i in (~good).nonzero()[0])
    raise InvalidInput(f"`{name}` holds {float(x[place]):g} at {name_place(place)}; {wanted}. {advice}")


def name_place(place: tuple[int, ...]) -> str:
    """Return the words for the place of a number in (..., K)."""
    if not place:
        return "its only place"
    *row, teacher = place
    return f"row {name_row(tuple(row))}, teacher {teacher}" if row else f"teacher {teacher}"


def name_row(row: tuple[int, ...]) -> str:
    """Return the words for the place of a row in the leading axes."""
    return str(row[0] if len(row) == 1 else row)


def read_mask(critical: object, shape: torch.Size, device: torch.device) -> Tensor | None:
    """Return the mask of ordered rows, shape (B,), or None for all rows."""
    if critical is None:
        return None
    mask = read_constant_array("critical", critical, device, wanted="booleans, True where the orderings apply")
    if mask.dtype != torch.bool:
        raise InvalidInput(f"`critical` has dtype {mask.dtype}; wanted booleans, True where the orderings apply.")
    return fit_to_scores("critical", mask, shape[:-1]).reshape(-1).to(device)


def read_safety(safety: object, shape: torch.Size, polytope: WeightPolytope, device: torch.device) -> Tensor | None:
    """Return safety scores as rows, shape (B, K), or None."""
    if safety is None:
        return None
    if polytope.orderings:
        raise InvalidInput(
            f"`safety` was given, but the polytope has {len(polytope.orderings)} orderings of its own. "
            "Use one of the two: drop `safety`, or build the polytope without `orderings`."
        )
    scores = read_constant_array("safety", safety, device, np.float64)
    require_all("safety", scores, ~scores.isnan(), "an unknown score cannot rank a teacher", "Give it a number.")
    return fit_to_scores("safety", scores, shape).reshape(-1, polytope.n_teachers).to(device)


def read_constant_array(
    name: str, value: object, device: torch.device, dtype: type | None = None, wanted: str = "real numbers"
) -> Tensor:
    """Return a tensor as it is, anything else as a tensor by way of an array of ``dtype``."""
    if isinstance(value, Tensor):
        return read_constant(name, value, device)
    try:
        array = np.asarray(value, dtype=dtype)
    except (TypeError, ValueError, ArithmeticError, RuntimeError) as cause:
        reason = str(cause).splitlines()[0].rstrip(".")
        raise InvalidInput(f"`{name}` is a {type(value).__name__}: {reason}; wanted {wanted}.") from cause
    if array.dtype.kind not in "fiubc":
        raise InvalidInput(f"`{name}` has dtype {array.dtype}; wanted {wanted}.")
    return torch.as_tensor(array)


def read_constant(name: str, value: Tensor, device: torch.device) -> Tensor:
    """Return a constant as an ordinary tensor, outside of torch.func transforms; refuse one mapped or elsewhere."""
    if value.device != device:
        raise InvalidInput(
            f"`{name}` is on {value.device}, but `v` is on {device}. Put both on one device: {name}.to(v.device)."
        )
    if value.layout != torch.strided:
        raise InvalidInput(f"`{name}` has layout {value.layout}; wanted a dense tensor, as {name}.to_dense() gives it.")
    constant = unwrap_constant(value.detach())
    if constant is None:
        raise InvalidInput(f"`{name}` is mapped by torch.func.vmap; only `v` can be. Pass all rows in one call.")
    return constant


def fit_to_scores(name: str, value: Tensor, shape: torch.Size) -> Tensor:
    """Return ``value`` in the shape of the scores, or of their leading axes; refuse what does not fit."""
    try:
        return value.broadcast_to(shape)
    except RuntimeError as cause:
        raise InvalidInput(
            f"`{name}` has shape {tuple(value.shape)}; wanted {tuple(shape)}, to fit the scores."
        ) from cause
