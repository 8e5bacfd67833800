"""Claims of the papers beside the main one: ensembles of teachers, recursive meta-distillation, temperature."""

from . import _pools as pools
from . import _recursion_claims as recursion
from . import _softening as softening

__all__ = ["pools", "recursion", "softening"]
