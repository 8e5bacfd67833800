"""Teachers' log-probabilities at some positions, and their pool.

Axes: C positions, R positions of a block, K teachers, V vocabulary, k tokens kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ...errors import InvalidInput, NotFinite
from ._head_products import HeadProducts
from ._teacher_outputs import Hidden, Logits, TeacherOutput, TopK

_LARGEST_EXPONENT = 80.0  # exp of it is finite in float32; only teachers of weight 0 ever reach it
_TABLE_ERROR = 0.02  # by which half types round the mass of a table


class TeacherRows:
    """What one teacher says, read some positions at a time.

    Args:
        output: What it gave for all positions.
        vocabulary: How many tokens are compared; more, which it may have as padding, are left out.
        dtype: Of logits.
        who: What messages call the teacher.
    """

    def __init__(self, output: TeacherOutput, vocabulary: int, dtype: torch.dtype, who: str = "the teacher") -> None:
        self._vocabulary, self._dtype, self._output = vocabulary, dtype, output
        self._write: Callable[[Tensor | slice, Tensor], object]
        if isinstance(output, Hidden):
            products = HeadProducts(output.head.cut(vocabulary), dtype)
            hidden_NH = output.hidden.detach().flatten(0, -2)
            self._write = lambda rows, z_CV: products.write_logits(hidden_NH[rows], z_CV)
        elif isinstance(output, Logits):
            logits_NV = output.logits.detach().flatten(0, -2)[:, :vocabulary]
            self._write = lambda rows, z_CV: z_CV.copy_(logits_NV[rows])
        else:
            self._write = partial(_fill_from_table, output, who)

    def write_logits(self, rows: Tensor | slice, z_CV: Tensor) -> None:
        """Write logits into a buffer.

        Args:
            rows: Which positions.
            z_CV: Takes them.
        """
        self._write(rows, z_CV)

    def log_p(self, rows: slice, temperature: float) -> Tensor:
        """Return log-probabilities in a new buffer, (C, V).

        Args:
            rows: Which positions.
            temperature: By which they are softened.
        """
        numbers = next(x for x in vars(self._output).values() if isinstance(x, Tensor))
        count = len(range(self._output.lead.numel())[rows])
        z_CV = torch.empty(count, self._vocabulary, dtype=self._dtype, device=numbers.device)
        self._write(rows, z_CV)
        return torch.log_softmax(z_CV if temperature == 1 else z_CV.div_(temperature), dim=-1)

    def known(self, name: str, rows: Tensor | slice) -> Tensor | None:
        """Return a number a position that was kept with a table, (C,); None where it was not.

        Args:
            name: "entropy" or "log_truth".
            rows: Which positions.
        """
        value = getattr(self._output, name, None)
        return None if value is None else value.detach().flatten()[rows].to(self._dtype)


def _fill_from_table(table: TopK, who: str, rows: Tensor | slice, z_CV: Tensor) -> None:
    V = z_CV.shape[-1]
    size = V if table.vocabulary is None else table.vocabulary
    ids_Ck = table.ids.flatten(0, -2)[rows].long()
    log_p_Ck = table.log_p.detach().flatten(0, -2)[rows].to(z_CV.dtype)
    tail_C = (1 - log_p_Ck.exp().sum(-1)).clamp_min(0.0)
    if table.tail is not None:
        tail_C = table.tail.detach().flatten()[rows].to(z_CV.dtype)
    _require_table(ids_Ck, log_p_Ck, tail_C, size, who)
    z_CV.copy_((tail_C / max(size - ids_Ck.shape[-1], 1)).log()[:, None].expand_as(z_CV))
    if size == V:
        z_CV.scatter_(-1, ids_Ck, log_p_Ck)
        return
    inside_Ck = ids_Ck < V  # the others are padding
    place_Ck = torch.arange(len(z_CV), device=z_CV.device)[:, None].expand_as(ids_Ck)
    z_CV[place_Ck[inside_Ck], ids_Ck[inside_Ck]] = log_p_Ck[inside_Ck]


def _require_table(ids_Ck: Tensor, log_p_Ck: Tensor, tail_C: Tensor, size: int, who: str) -> None:
    """Refuse a table whose tokens are none or occur twice, or whose mass is more than 1; NaN is found later."""
    outside = (ids_Ck < 0) | (ids_Ck >= size)
    if bool(outside.any()):
        raise InvalidInput(f"{who} has token {int(ids_Ck[outside][0])} in its table; wanted 0 to {size - 1}.")
    sorted_Ck = ids_Ck.sort(dim=-1).values
    twice = sorted_Ck[:, 1:] == sorted_Ck[:, :-1]
    if bool(twice.any()):
        raise InvalidInput(f"{who} has token {int(sorted_Ck[:, 1:][twice][0])} twice at one position of its table.")
    mass_C = log_p_Ck.exp().sum(-1) + tail_C
    if bool(((mass_C > 1 + _TABLE_ERROR) | (tail_C < 0)).any()):
        most, least = float(mass_C.nan_to_num(0).max()), float(tail_C.nan_to_num(0).min())
        raise InvalidInput(
            f"The table of {who} has a mass of {most:.3g} at one position, its smallest tail is {least:.3g}; wanted "
            "log-probabilities at temperature 1 and a tail of at least 0, together at most 1."
        )


@dataclass
class PooledRows:
    """The target at some positions: its logarithm and itself, (R, V)."""

    log_q_RV: Tensor
    q_RV: Tensor


@dataclass(frozen=True)
class Pool:
    """How teachers are pooled, one after the other.

    Attributes:
        kind: "arithmetic", "geometric" or "power".
        teachers: K.
        in_logs: Whether arithmetic pools are added up as logarithms, so that none below 1e-38 vanishes.
        exponent: Of a power mean.
        temperature: At which a geometric pool is read.
    """

    kind: str
    teachers: int
    in_logs: bool
    exponent: float = 1.0
    temperature: float = 1.0

    @property
    def adds_probabilities(self) -> bool:
        """Whether teachers enter as probabilities, and not as their logarithms."""
        return self.teachers > 1 and self.kind == "arithmetic" and not self.in_logs

    def start(self, teacher_RV: Tensor, w_R1: Tensor, out_RV: Tensor) -> None:
        """Write what the first teacher adds.

        Args:
            teacher_RV: Its probabilities, or their logarithms, at the temperature at which they are pooled.
            w_R1: Its weights.
            out_RV: Takes the total; it may be the first argument.
        """
        if self.teachers == 1:
            out_RV.copy_(teacher_RV)
        elif self.kind == "arithmetic" and self.in_logs:
            torch.add(teacher_RV, w_R1.log(), out=out_RV)
        elif self.kind == "power":
            _weigh_power(teacher_RV, w_R1, self.exponent, out_RV)
        else:
            torch.mul(teacher_RV, w_R1, out=out_RV)
            if self.kind == "geometric":
                out_RV.masked_fill_(w_R1 == 0, 0.0)  # 0 times minus infinity is no number

    def add(self, total_RV: Tensor, teacher_RV: Tensor, w_R1: Tensor) -> None:
        """Add another teacher, which is used up.

        Args:
            total_RV: What ``start`` wrote, and was added to.
            teacher_RV: Probabilities, or their logarithms, at the temperature at which they are pooled.
            w_R1: Its weights.
        """
        if self.adds_probabilities:
            total_RV.addcmul_(teacher_RV, w_R1)
        elif self.kind != "geometric":
            self.start(teacher_RV, w_R1, teacher_RV)
            torch.logaddexp(total_RV, teacher_RV, out=total_RV)
        else:
            self.start(teacher_RV, w_R1, teacher_RV)
            total_RV.add_(teacher_RV)

    def finish(self, total_RV: Tensor) -> PooledRows:
        """Return the pool, once all teachers were added.

        Args:
            total_RV: Their total.
        """
        if self.adds_probabilities:
            return PooledRows(total_RV.log(), total_RV)
        if self.kind == "geometric" and (self.teachers > 1 or self.temperature != 1):
            total_RV = torch.log_softmax(total_RV if self.temperature == 1 else total_RV.div_(self.temperature), dim=-1)
        elif self.kind == "power" and self.teachers > 1:
            total_RV = torch.log_softmax(total_RV.div_(self.exponent), dim=-1)
        return PooledRows(total_RV, total_RV.exp())

    def differentiate(self, log_p: Sequence[Tensor], w_RK: Tensor, log_q_RV: Tensor, u_RV: Tensor) -> Tensor:
        """Return the gradient of the losses in the weights, (R, K).

        Args:
            log_p: Log-probabilities of each teacher, (R, V).
            w_RK: Their weights.
            log_q_RV: Their pool.
            u_RV: Gradient in the logarithm of the pool, whose sum over V is 0.
        """
        r, columns = self.exponent if self.kind == "power" else 1.0, []
        total_RV = log_q_RV  # of the powers, up to a factor a row where it is exactly the pool
        if self.kind == "power":
            weighed = [
                _weigh_power(log_p_RV, w_RK[:, k, None], r, torch.empty_like(log_p_RV))
                for k, log_p_RV in enumerate(log_p)
            ]
            total_RV = torch.logsumexp(torch.stack(weighed), dim=0)
        for log_p_RV in log_p:
            if self.kind == "geometric":
                factor_RV = torch.where(u_RV == 0, 0.0, log_p_RV / self.temperature)
            else:
                ratio_RV = (r * log_p_RV - total_RV).nan_to_num_(nan=-torch.inf)
                factor_RV = ratio_RV.clamp_max_(_LARGEST_EXPONENT).exp_().div_(r)
            columns.append((factor_RV.mul_(u_RV)).sum(-1))
        return torch.stack(columns, dim=-1)


def _weigh_power(log_p_RV: Tensor, w_R1: Tensor, exponent: float, out_RV: Tensor) -> Tensor:
    """Write the logarithm of ``w p^r``; nothing of a teacher without a weight, whatever it leaves out."""
    torch.mul(log_p_RV, exponent, out=out_RV)
    return out_RV.add_(w_R1.log()).masked_fill_(w_R1 == 0, -torch.inf)


class RowChecks:
    """Refuses rows of log-probabilities that are none.

    Args:
        names: Of the teachers.
        kept_P: Places of the positions that count among all; None where all do.

    Attributes:
        start: Where the chunk begins among the positions that count.
    """

    def __init__(self, names: Sequence[str], kept_P: Tensor | None) -> None:
        self._names, self._kept = names, kept_P
        self.start = 0

    def require_distribution(self, log_p_RV: Tensor, who: int | str, block: slice) -> None:
        """Refuse rows that are no distribution: one NaN makes the first of their numbers NaN.

        Args:
            log_p_RV: What ``log_softmax`` gave.
            who: Number of a teacher, or what to call it.
            block: Which positions of the chunk they are.

        Raises:
            NotFinite: One is none; the message names who, and where.
        """
        bad_R = torch.isnan(log_p_RV[:, 0])
        if not bool(bad_R.any()):
            return
        place = int(bad_R.nonzero()[0]) + block.start + self.start
        where = place if self._kept is None else int(self._kept[place])
        name = self._names[who] if isinstance(who, int) else who
        raise NotFinite(
            f"{name} gives no distribution at position {where}: its logits hold NaN or plus infinity, or all are minus "
            "infinity",
            "finite logits, or minus infinity for tokens that are left out",
        )
