"""Steps of a language model under constraints: sums and counts over microbatches and processes, then multipliers.

``LanguageStep`` asks the loss for each microbatch and moves the multipliers once a step; ``_step_inputs`` checks what
it is given; ``_running_values`` makes values of sums; ``_scale_reading`` reads what multipliers are measured in off
gradients in the hidden states.
"""

from ._language_step import LanguageStep, StepRecord
from ._step_inputs import read_constraints

__all__ = ["LanguageStep", "StepRecord", "read_constraints"]
