"""safekd: multi-teacher knowledge distillation that is safe by construction.

Three jobs, three calls:

1. project any heuristic teacher weights into the set that you can answer for

       P = kd.WeightPolytope(n_teachers=4, lower=0.05, upper=0.6, orderings=[(0, 2)])
       w = kd.project(scores, P)                       # (..., K) in, (..., K) out, differentiable

2. train a student whose safety is a constraint and not a hope

       safe = kd.SafetyConstraint("malignant", measure=kd.safety.TruthProbability(critical=[0]), at_least=0.95)
       result = kd.ConstrainedTrainer(student, teachers, constraints=[safe], optimizer=...).fit(train, epochs=2000)

3. trace what safety costs

       kd.trace_frontier(make_trainer, train, targets=11).to_csv("frontier.csv")

Names are imported when first used, so ``import safekd`` does not import torch; ``__init__.pyi`` lists them.
"""

import lazy_loader

from ._own_version import __version__ as __version__
from ._shadowed_solvers import require_our_solvers

require_our_solvers()

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
