"""Numerical optimisation for safekd: polytopes, projections, Lagrangians, primal-dual steps.

Knows nothing of teachers, students or tokens.  Names are imported when first used, so ``import solvers``
is instant; ``__init__.pyi`` beside this file lists them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
