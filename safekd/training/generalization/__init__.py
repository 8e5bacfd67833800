"""Thresholds posed so high that new data show what was asked for.

``CrossFit`` searches out of fold (``FoldSearch``): students of the folds are read on the examples that they did not
see, and the thresholds are posed where a lower bound on those readings reaches what was asked for.  ``Tighten`` takes
candidates from there, from the safest to the cheapest (``descend_shares``), trains each, and tests it on a split of its
own until the first that does not clear (``run_fixed_sequence``).  Both train by ``fit_once``, through
``TighteningRounds``, which keeps the account.  A threshold is named by its share of the way, in log-odds, from what was
asked for (0) to the highest allowed (1): ``interpolate_threshold``.
"""

from ._crossfit import CrossFit
from ._tighten import Tighten
from ._tightening_rounds import OnRound, TighteningRounds, interpolate_threshold

__all__ = ["CrossFit", "OnRound", "Tighten", "TighteningRounds", "interpolate_threshold"]
