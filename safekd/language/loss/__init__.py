"""Distillation losses over a vocabulary, in bounded memory: several teachers, position by position.

In this order: a ``Head`` turns hidden states into logits, ``Hidden``, ``Logits`` and ``TopK`` are what teachers say.
"""

from ._head import Head
from ._teacher_outputs import Hidden, Logits, TeacherOutput, TopK

__all__ = ["Head", "Hidden", "Logits", "TeacherOutput", "TopK"]
