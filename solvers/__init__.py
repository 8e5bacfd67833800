"""Numerical optimization for safekd: polytopes, projections, Lagrangians, primal-dual steps.

Knows nothing of teachers, students or tokens.  In here, each room using only those before it: exceptions (``errors``);
sets of weights (``polytope``) and the nearest point of one (``projection``), quadratics over them (``simplex_qp``);
signs and penalty terms (``lagrangian``), the second-order check (``second_order``), proofs of infeasibility
(``infeasibility``), the words for endings (``statuses``) and residuals (``kkt``); multipliers inside a training loop
(``primal_dual``); whole problems (``minimization``) and frontiers of them (``pareto``, judged by ``indicators``).

Names are imported when first used, so ``import solvers`` is instant; ``__init__.pyi`` beside this file lists them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
