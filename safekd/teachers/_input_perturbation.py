"""Asking teachers the same thing several times: what rules by variance look at.  Axes: N examples, P passes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..data import Inputs, Split, fill_uncounted, list_inputs, map_inputs, name_inputs
from ..errors import InvalidInput
from ..weights import compute_variance
from ._stored_teacher import StoredTeacher
from ._teacher_ensemble import TeacherEnsemble

_CHUNK = 4096


@dataclass(frozen=True)
class Perturbation:
    """Inputs with Gaussian noise, several times over: how steady are teachers?

    Attributes:
        passes: P, at least 2.
        noise: Standard deviation, in standard deviations of each input over the split, above 0.
        seed: The same noise every time.

    Raises:
        InvalidInput: There are too few passes, or no noise.
    """

    passes: int = 8
    noise: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.passes < 2:
            raise InvalidInput(f"`passes` is {self.passes}; it takes at least 2 to tell whether a teacher is steady.")
        if not (self.noise > 0 and math.isfinite(self.noise)):
            raise InvalidInput(f"`noise` is {self.noise!r}; it must be above 0 and finite, for example 0.1.")

    def __call__(self, ensemble: TeacherEnsemble, split: Split) -> Tensor:
        """Return log-probabilities of all teachers on each pass.

        Args:
            ensemble: The teachers.
            split: The data.

        Returns:
            (N, ..., P, K, V).

        Raises:
            InvalidInput: As by ``variance``.
        """
        return torch.cat(list(self._chunks(ensemble, split)))

    def variance(self, ensemble: TeacherEnsemble, split: Split) -> Tensor:
        """Return the variance of each teacher's distribution over the passes, summed over classes.

        Args:
            ensemble: The teachers.
            split: The data.

        Returns:
            (N, ..., K).

        Raises:
            InvalidInput: Inputs are not floating, or a teacher is stored, whose answers to other inputs nobody knows.
        """
        return torch.cat([compute_variance(log_p_PKV) for log_p_PKV in self._chunks(ensemble, split)])

    def _chunks(self, ensemble: TeacherEnsemble, split: Split) -> Iterator[Tensor]:
        """Yield what the teachers say of some examples on each pass, (B, ..., P, K, V)."""
        for teacher in ensemble.teachers:
            if isinstance(teacher, StoredTeacher):
                raise InvalidInput(
                    f"Teacher '{teacher.name}' is stored; what it says of perturbed inputs is not known. Use a rule "
                    "that does not need the variance."
                )
        if not any(value.is_floating_point() for value in list_inputs(split.inputs)):
            kinds = ", ".join(sorted({str(value.dtype) for value in list_inputs(split.inputs)}))
            raise InvalidInput(
                f"Inputs of split '{split.name}' are {kinds}; noise needs floating inputs. Use a rule that does not "
                "need the variance."
            )
        generator = torch.Generator().manual_seed(self.seed)
        draw = lambda x: self._draw_noise(x, split.mask, generator)  # noqa: E731
        noise_P = [map_inputs(split.inputs, draw) for _ in range(self.passes)]
        for index in split.chunks(_CHUNK):
            batch = split.batch(index)
            shaken = [replace(batch, inputs=_add_noise(batch.inputs, noise, index)) for noise in noise_P]
            yield torch.stack([ensemble.log_probabilities(b, split.name) for b in shaken], dim=-3)

    def _draw_noise(self, x: Tensor, mask: Tensor | None, generator: torch.Generator) -> Tensor:
        """Return noise for some inputs, none where they are whole numbers; its size is that of what counts."""
        if not x.is_floating_point():
            return torch.zeros((len(x),) + (1,) * (x.ndim - 1), dtype=x.dtype, device=x.device)
        spread = self.noise * _measure_spread(x, mask)
        return spread * torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device)


def _measure_spread(x: Tensor, mask: Tensor | None) -> Tensor:
    """Return the standard deviation of each input over the examples where its position counts, 0 where none does."""
    if mask is None or x.shape[: mask.ndim] != mask.shape:
        return x.std(dim=0, unbiased=False)
    count = mask.sum(0).clamp_min(1).reshape(mask.shape[1:] + (1,) * (x.ndim - mask.ndim))
    mean = fill_uncounted(x, mask, 0.0).sum(0) / count
    return (fill_uncounted((x - mean).square(), mask, 0.0).sum(0) / count).sqrt()


def _add_noise(inputs: Inputs, noise: Inputs, index: Tensor) -> Inputs:
    """Return the inputs of some examples with the noise of the same examples."""
    more = iter(name_inputs(noise).values())
    return map_inputs(inputs, lambda x: x + next(more)[index])
