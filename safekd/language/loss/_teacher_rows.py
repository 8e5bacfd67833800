"""Teachers' log-probabilities at some positions, and their pool.

Axes: N positions, C of a chunk, K teachers, V vocabulary, k tokens kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import InvalidInput
from ._head_products import HeadProducts
from ._teacher_outputs import Hidden, Logits, TeacherOutput

_LARGEST_EXPONENT = 80.0  # exp of it is finite in float32; only teachers of weight 0 ever reach it


class TeacherRows:
    """What one teacher says, read some positions at a time.

    Args:
        output: What it gave for all positions.
        vocabulary: How many tokens are compared; more, which it may have as padding, are left out.
        dtype: Of log-probabilities.
    """

    def __init__(self, output: TeacherOutput, vocabulary: int, dtype: torch.dtype) -> None:
        self._vocabulary, self._dtype, self._output = vocabulary, dtype, output
        self._read: Callable[[Tensor | slice], Tensor]
        if isinstance(output, Hidden):
            self._products = HeadProducts(output.head.cut(vocabulary), dtype)
            self._hidden_NH = output.hidden.detach().flatten(0, -2)
            self._read = lambda rows: self._products.logits(self._hidden_NH[rows])
        elif isinstance(output, Logits):
            self._logits_NV = output.logits.detach().flatten(0, -2)[:, :vocabulary]
            self._read = lambda rows: self._logits_NV[rows].to(dtype)
        else:
            self._table = output
            self._read = self._read_table

    def log_p(self, rows: Tensor | slice, temperature: float) -> Tensor:
        """Return log-probabilities in a new buffer, (C, V).

        Args:
            rows: Which positions.
            temperature: By which they are softened.
        """
        z_CV = self._read(rows)
        return torch.log_softmax(z_CV if temperature == 1 else z_CV.div_(temperature), dim=-1)

    def known(self, name: str, rows: Tensor | slice) -> Tensor | None:
        """Return a number a position that was kept with a table, (C,); None where it was not.

        Args:
            name: "entropy" or "log_truth".
            rows: Which positions.
        """
        value = getattr(self._output, name, None)
        return None if value is None else value.flatten()[rows].to(self._dtype)

    def _read_table(self, rows: Tensor | slice) -> Tensor:
        table, V = self._table, self._vocabulary
        size = V if table.vocabulary is None else table.vocabulary
        ids_Ck = table.ids.flatten(0, -2)[rows].long()
        log_p_Ck = table.log_p.flatten(0, -2)[rows].to(self._dtype)
        tail_C = (1 - log_p_Ck.exp().sum(-1)).clamp_min(0.0)
        if table.tail is not None:
            tail_C = table.tail.flatten()[rows].to(self._dtype)
        each_C = (tail_C / max(size - ids_Ck.shape[-1], 1)).log()
        full_CV = each_C[:, None].repeat(1, V + 1)  # the last column takes what is beyond the vocabulary
        return full_CV.scatter_(-1, ids_Ck.clamp_max(V), log_p_Ck)[:, :V]


@dataclass
class PooledRows:
    """The target at some positions: its logarithm and itself, (C, V)."""

    log_q_CV: Tensor
    q_CV: Tensor


def pool_rows(kind: str, log_p: Iterable[Tensor], w_CK: Tensor, *, keep: bool, in_logs: bool) -> PooledRows:
    """Return the pool of teachers, which are looked at one after the other.

    Args:
        kind: "arithmetic" or "geometric".
        log_p: Log-probabilities of each teacher, (C, V), of the temperature at which they are pooled.
        w_CK: Weights.
        keep: Whether the teachers are looked at again; if not, their buffers are used.
        in_logs: Whether arithmetic pools are added up as logarithms, so that none below 1e-38 vanishes.
    """
    K, total_CV = w_CK.shape[-1], None
    for k, log_p_CV in enumerate(log_p):
        w_C1 = w_CK[:, k : k + 1]
        if K == 1:
            total_CV = log_p_CV.clone() if keep else log_p_CV
        elif kind == "geometric":
            term_CV = torch.where(w_C1 == 0, 0.0, log_p_CV * w_C1)
            total_CV = term_CV if total_CV is None else total_CV.add_(term_CV)
        elif in_logs:
            term_CV = log_p_CV + w_C1.log()
            total_CV = term_CV if total_CV is None else torch.logaddexp(total_CV, term_CV, out=total_CV)
        else:
            p_CV = log_p_CV.exp() if keep else log_p_CV.exp_()
            total_CV = p_CV.mul_(w_C1) if total_CV is None else total_CV.addcmul_(p_CV, w_C1)
    if total_CV is None:
        raise InvalidInput("There are no teachers; give at least one.")
    if K > 1 and kind == "arithmetic" and not in_logs:
        return PooledRows(total_CV.log(), total_CV)
    if K > 1 and kind == "geometric":
        total_CV = torch.log_softmax(total_CV, dim=-1)
    return PooledRows(total_CV, total_CV.exp())


def differentiate_weights(kind: str, log_p: Sequence[Tensor], log_q_CV: Tensor, u_CV: Tensor) -> Tensor:
    """Return the gradient of the losses in the weights, (C, K).

    Args:
        kind: "arithmetic" or "geometric".
        log_p: Log-probabilities of each teacher, (C, V).
        log_q_CV: Their pool.
        u_CV: Gradient in the logarithm of the pool.
    """
    columns = []
    for log_p_CV in log_p:
        if kind == "arithmetic":
            factor_CV = (log_p_CV - log_q_CV).nan_to_num_(nan=-torch.inf).clamp_max_(_LARGEST_EXPONENT).exp_()
        else:
            factor_CV = torch.where(u_CV == 0, 0.0, log_p_CV)
        columns.append((factor_CV.mul_(u_CV)).sum(-1))
    return torch.stack(columns, dim=-1)
