"""Distillation losses over a vocabulary, in bounded memory: several teachers, position by position.

In this order: a ``Head`` turns hidden states into logits; ``Hidden``, ``Logits`` and ``TopK`` are what teachers say;
``distillation_loss`` checks what it is given (``_loss_inputs``), reads it chunk by chunk (``_loss_pass``): the target
of teachers and weights (``_chunk_targets``, ``_teacher_rows``), divergences (``_chunk_divergences``) and safety
measures (``_chunk_measures``) with gradients in closed form, which ``_loss_gradient`` hands to autograd.
"""

from ._chunk_measures import LogitGradient
from ._distillation_loss import LanguageLoss, distillation_loss, shift_labels
from ._head import Head
from ._loss_inputs import require_loss_settings
from ._teacher_outputs import Hidden, Logits, TeacherOutput, TopK
from ._teacher_rows import TeacherRows

__all__ = [
    "Head",
    "Hidden",
    "LanguageLoss",
    "LogitGradient",
    "Logits",
    "TeacherOutput",
    "TeacherRows",
    "TopK",
    "distillation_loss",
    "require_loss_settings",
    "shift_labels",
]
