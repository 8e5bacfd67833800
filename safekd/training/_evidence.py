"""Evidence for a verdict, looked up only when one is due: it costs passes over the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from ..data import Split
from ..safety import Constraint
from ._curvature import Curvature, curvature
from ._keeper import Keeper
from ._merit import Merit
from ._nudge import hidden_drop
from ._objective import Objective
from ._outlook import Outlook, outlook
from ._restoration import Restoration, restore
from .trace import TracePoint


class Evidence:
    """What can still be asked once the last step is taken.  splits: the training split among them, by name."""

    def __init__(
        self, objective: Objective, splits: Mapping[str, Split], rules: Sequence[Constraint], keeper: Keeper
    ) -> None:
        self.objective, self.splits, self.rules, self.keeper = objective, splits, rules, keeper

    def outlook(self) -> Outlook | None:
        """Return what any student could reach, see Outlook."""
        return outlook(self.objective, self.splits, self.rules)

    def curvature(self, point: TracePoint, jacobian_Mn: Tensor, tolerance: float, passes: int) -> Curvature:
        """Look at the curvature where the student is, which must be at ``point``."""
        return curvature(Merit(self.objective, self.splits, self.rules, point), jacobian_Mn, tolerance, passes)

    def hidden_drop(self, point: TracePoint, passes: int) -> tuple[Sequence[str], float]:
        """Name blind parameters, and say how much lower a descent ends once they are nudged."""
        return hidden_drop(Merit(self.objective, self.splits, self.rules, point), passes)

    def restoration(self, passes: int) -> Restoration:
        """Bring the violation down from the most feasible student on; the keeper sees where that ends."""
        student = self.objective.student
        final = {name: value.detach().clone() for name, value in student.state_dict().items()}
        try:
            student.load_state_dict(self.keeper.most_feasible(student).state_dict())
            found = restore(self.objective, self.splits, self.rules, passes)
            self.keeper.see_restored(student, found.full)
        finally:
            student.load_state_dict(final)
        return found
