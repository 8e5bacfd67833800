"""The three matrix products of a head, in float32 or wider whatever the type of its weights.

    logits      z = W h         into a buffer
    of hidden   dh = W^T G
    of weights  dW += G^T h     added up over chunks

On a CPU half types are widened block by block, which is exact, and faster than its products of half types; on a GPU
the products are those of half types, added up in float32.  Axes: C positions, H width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ._head import Head


@dataclass(frozen=True)
class ProductSettings:
    """How products are cut; ``python -m benchmarks.kd_loss`` notices.

    Attributes:
        widened: Bytes of a weight that are widened at once: fewer make products that are too small for all cores.
        narrowed: Rows of a gradient that are narrowed at once.
    """

    widened: int = 2**24
    narrowed: int = 2**15


SETTINGS = ProductSettings()


class HeadProducts:
    """Products with one head.

    Args:
        head: The head.
        dtype: Of logits and gradients, float32 or float64.
    """

    def __init__(self, head: Head, dtype: torch.dtype) -> None:
        self.head, self.dtype = head, dtype
        weight = head.weight.detach()
        half = weight.dtype.itemsize < 4
        self._halves = half and weight.device.type != "cpu"
        self._blocks = not self._halves and weight.dtype != dtype
        self._weight = weight
        self._bias = None if head.bias is None else head.bias.detach().to(dtype)

    def logits(self, hidden_CH: Tensor) -> Tensor:
        """Return logits, (C, V), in a new buffer.

        Args:
            hidden_CH: Hidden states.
        """
        z_CV = hidden_CH.new_empty(len(hidden_CH), self.head.vocabulary, dtype=self.dtype)
        self.write_logits(hidden_CH, z_CV)
        return z_CV

    def write_logits(self, hidden_CH: Tensor, z_CV: Tensor) -> None:
        """Write logits into a buffer.

        Args:
            hidden_CH: Hidden states.
            z_CV: Takes them.
        """
        if self._halves:
            torch.mm(hidden_CH.to(self._weight.dtype), self._weight.t(), out_dtype=self.dtype, out=z_CV)
        else:
            wide_CH = hidden_CH.to(self.dtype)
            for rows, weight_BH in self._widened():
                torch.mm(wide_CH, weight_BH.t(), out=z_CV[:, rows])
        if self._bias is not None:
            z_CV += self._bias
        if self.head.scale != 1:
            z_CV *= self.head.scale
        if self.head.softcap is not None:
            z_CV.div_(self.head.softcap).tanh_().mul_(self.head.softcap)

    def chain(self, gradient_CV: Tensor, z_CV: Tensor) -> None:
        """Turn the gradient of the logits into that of ``W h + b``, in place.

        Args:
            gradient_CV: Gradient of the logits.
            z_CV: The logits, which are looked at where there is a soft cap.
        """
        if self.head.softcap is not None:
            gradient_CV.mul_((z_CV / self.head.softcap).square_().neg_().add_(1))
        if self.head.scale != 1:
            gradient_CV.mul_(self.head.scale)

    def differentiate_hidden(self, gradient_CV: Tensor) -> Tensor:
        """Return dh, (C, H).

        Args:
            gradient_CV: Gradient of ``W h + b``.
        """
        if self._halves:
            return torch.mm(gradient_CV.to(self._weight.dtype), self._weight, out_dtype=self.dtype)
        if not self._blocks:
            return gradient_CV @ self._weight
        total_CH = gradient_CV.new_zeros(len(gradient_CV), self.head.width)
        for rows, weight_BH in self._widened():
            total_CH.addmm_(gradient_CV[:, rows], weight_BH)
        return total_CH

    def add_weight_gradient(self, total_VH: Tensor, gradient_CV: Tensor, hidden_CH: Tensor, unit: float) -> None:
        """Add ``unit G^T h`` to the gradient of the weights.

        Args:
            total_VH: Gradient so far, float32 or wider.
            gradient_CV: Gradient of ``W h + b``.
            hidden_CH: Hidden states.
            unit: What the gradient is measured in; half types could not hold it times the states.
        """
        if not self._halves:
            total_VH.addmm_(gradient_CV.t(), hidden_CH.to(self.dtype), alpha=unit)
            return
        hidden_CH = hidden_CH.to(self._weight.dtype)
        for start in range(0, len(total_VH), SETTINGS.narrowed):
            rows = slice(start, start + SETTINGS.narrowed)
            narrow_BC = gradient_CV[:, rows].to(self._weight.dtype).t()
            total_VH[rows].add_(torch.mm(narrow_BC, hidden_CH, out_dtype=self.dtype), alpha=unit)

    def _widened(self) -> Iterator[tuple[slice, Tensor]]:
        if not self._blocks:
            yield slice(None), self._weight
            return
        size = max(1, SETTINGS.widened // (self.head.width * self.dtype.itemsize))
        for start in range(0, self.head.vocabulary, size):
            rows = slice(start, start + size)
            yield rows, self._weight[rows].to(self.dtype)
