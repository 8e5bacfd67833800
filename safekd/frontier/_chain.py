"""The epsilon-constraint sweep of one slice: anchor, grid, gaps, one reverse pass, and who takes whose student.

Thresholds are tightened step by step, so concave parts of the frontier are reached too, which a sweep over weights
cannot do (Miettinen 1999, theorem 3.2.2: every epsilon-constraint optimum is weakly Pareto optimal).  A chain only says
which runs it wants next and takes their cells; who runs them, and where, is none of its business.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, replace

from solvers.pareto import largest_gaps

from ._cells import Cell, Request
from ._plan import EXACT, USUAL, Plan
from ._solve import LOOSEST

Steps = Generator[list[Request], list[Cell], None]
_AT_AN_END = 0.05  # of a gap: a run that lands so near one of its ends has found nothing inside
_SLACK = 0.05  # of a slope: less than this above what a neighbour's branch would cost is no reason to go back
_BRANCH = 1e-4  # of the range of losses, likewise


@dataclass(frozen=True)
class Entry:
    """One row of a sweep.  asked: its threshold; cell: whose student it has, None where there is none.

    warm_from: threshold whose student was the start, NaN for a cold one.  steps, wall_s: of all runs for this row.
    weight: of a mu sweep.
    """

    asked: float
    cell: Cell | None
    status: str
    warm_from: float = math.nan
    note: str = ""
    steps: int = 0
    wall_s: float = 0.0
    weight: float = math.nan

    @property
    def solved(self) -> bool:
        """Whether a run was spent on it that left a student."""
        return self.cell is not None and self.cell.finite and self.steps > 0

    @property
    def meets(self) -> bool:
        """Whether its student meets its threshold."""
        return self.cell is not None and self.cell.meets(self.asked)


class Chain:
    """One slice of a sweep: one seed, one set of held thresholds.

    told: called with every entry as it lands; what a later pass changes is told once more by the table alone.
    """

    def __init__(
        self, plan: Plan, seed: int | None, held: Mapping[str, float], name: str, told: Callable[[Entry], None]
    ) -> None:
        self.plan, self.seed, self.held, self.name, self.told = plan, seed, held, name, told
        self.entries: list[Entry] = []
        self.runs, self.most = 1, 1
        self.anchor: Cell | None = None
        self.tolerance = EXACT if plan.tolerance is None else plan.tolerance
        self._announced: set[str] = set()

    def steps(self) -> Steps:
        """Ask for runs, batch by batch, until the slice is traced."""
        (anchor,) = yield [Request(f"{self.name}anchor", self.seed, LOOSEST, self.held, self.tolerance)]
        self.anchor = anchor
        if self.plan.tolerance is None and anchor.status != "converged":
            self.tolerance = _as_exact_as(anchor.stationarity)
        grid = self.plan.grid(anchor.safety if anchor.finite else LOOSEST)
        self.most = self.plan.runs(len(grid))
        loosest = anchor.safety if grid[0] > anchor.safety else grid[0]
        self._add(
            Entry(loosest, anchor, _of(anchor, "anchor"), note=anchor.note, steps=anchor.steps, wall_s=anchor.wall_s)
        )
        rest = [target for target in grid if target > loosest]
        if anchor.finite:
            yield from self._traced(rest)
        else:
            for target in rest:
                self._add(Entry(target, None, "failed", note="the unconstrained run left no student to begin from"))
        self.entries.sort(key=lambda entry: entry.asked)

    def _traced(self, grid: list[float]) -> Steps:
        yield from self._forward(grid) if self.plan.warm else self._at_once(grid)
        yield from self._gaps()
        if self.plan.warm:
            yield from self._back()
        self._share()

    def landed(self, request: Request, cell: Cell) -> None:
        """Tell of one cell of a batch, in whatever order they come."""
        self._announced.add(request.name)
        self.told(self._entry(request.target, cell, None))

    def _forward(self, grid: list[float]) -> Steps:
        before: Cell | None = None
        last = self.entries[0].cell
        assert last is not None
        for target in grid:
            if self._known(target):
                continue
            request = self._request("target", target, last, before)
            (cell,) = yield [request]
            self._count(cell)
            self._add(self._entry(target, cell, last))
            if _leads_on(cell):
                straight = cell.safety <= target + _AT_AN_END * (target - last.safety)
                before, last = (last if straight and last is not self.anchor else None), cell

    def _at_once(self, grid: list[float]) -> Steps:
        open_ = [target for target in grid if not self._known(target)]
        may = open_[: max(self.most - self.runs, 0)]
        requests = [self._request("target", target) for target in may]
        if requests:
            cells = yield requests
            self._count(*cells)
            for target, cell in zip(may, cells, strict=True):
                self._add(self._entry(target, cell, None))
        for target in open_[len(may) :]:
            self._add(self._unsolved(target))

    def _known(self, target: float) -> bool:
        """Add the row of a target that needs no run, and say whether it is one."""
        looser = [e for e in self.entries if e.cell is not None and e.asked <= target]
        for entry in looser:
            if entry.status in ("anchor", "converged") and entry.cell is not None and entry.cell.misses(target) == 0:
                self._add(Entry(target, entry.cell, "redundant", note=f"target {entry.asked:.6g} meets it already"))
                return True
        for entry in looser:
            if entry.cell is not None and entry.cell.impossible:
                note = f"target {entry.asked:.6g}, which is looser, was proved to be out of reach"
                self._add(Entry(target, entry.cell, "infeasible", note=note))
                return True
        if self.runs >= self.most:
            self._add(self._unsolved(target))
            return True
        return False

    def _unsolved(self, target: float) -> Entry:
        return Entry(target, None, "budget_spent", note=f"the budget of {self.most} runs was spent before")

    def _gaps(self) -> Steps:
        """Spend what is left of the budget between the neighbours that are farthest apart."""
        closed: list[tuple[float, float]] = []
        while self.runs < self.most:
            front = self._front()
            points = [(e.cell.loss, -e.cell.safety) for e in front if e.cell is not None]
            pairs = largest_gaps(points, len(points), self.plan.smallest_gap(len(points)))
            wanted: list[tuple[Entry, Entry, float]] = []
            for i, j in pairs:
                low, high = sorted((front[i], front[j]), key=lambda e: e.cell.safety if e.cell is not None else 0.0)
                a, b = low.cell, high.cell
                if a is None or b is None:
                    continue
                middle = (a.safety + b.safety) / 2
                if b.safety - a.safety > 1e-9 and not any(x < middle < y for x, y in closed):
                    wanted.append((low, high, middle))
            wanted = wanted[: 1 if self.plan.warm else self.most - self.runs]
            if not wanted:
                return
            starts = [low.cell if self.plan.warm else None for low, _, _ in wanted]
            requests = [self._request("gap", t, start) for (_, _, t), start in zip(wanted, starts, strict=True)]
            cells = yield requests
            self._count(*cells)
            for (low, high, target), cell, start in zip(wanted, cells, starts, strict=True):
                entry = self._entry(target, cell, start)
                assert low.cell is not None
                assert high.cell is not None
                left, right = low.cell.safety, high.cell.safety
                room = _AT_AN_END * (right - left)
                if not (entry.meets and left + room < cell.safety < right - room):
                    closed.append((left, right))
                    note = f"no student was found between safety {left:.6g} and {right:.6g}: this run {_ended(entry)}"
                    entry = replace(entry, status="gap", note=note)
                self._add(entry)

    def _back(self) -> Steps:
        """Go once from tight to loose, where a student from the right may do better; keep the better."""
        self.entries.sort(key=lambda entry: entry.asked)
        for i in range(len(self.entries) - 2, -1, -1):
            entry = self.entries[i]
            right = next((e for e in self.entries[i + 1 :] if e.solved and e.meets), None)
            if right is None or right.cell is None or self.runs >= self.most or not self._may_gain(entry, right):
                continue
            request = self._request("back", entry.asked, right.cell)
            (cell,) = yield [request]
            self._count(cell)
            spent = replace(entry, steps=entry.steps + cell.steps, wall_s=entry.wall_s + cell.wall_s)
            if _better(cell, entry):
                note = f"begun from the right; from the left it {_ended(entry)}"
                spent = replace(spent, cell=cell, status=cell.status, warm_from=right.asked, note=note)
            self.entries[i] = spent

    def _may_gain(self, entry: Entry, right: Entry) -> bool:
        """Say whether the branch on which ``right`` lies may pass below ``entry``.

        Along a branch the loss falls by the multiplier times the step; where both multipliers say that the right
        student's branch costs less at this target than what was found, it is worth following.
        """
        if entry.status in ("redundant", "anchor"):
            return False
        if entry.cell is None or right.cell is None or not entry.meets:
            return True
        step = right.asked - entry.asked
        gained = right.cell.loss - entry.cell.loss
        price = min(entry.cell.multipliers[0], right.cell.multipliers[0])
        losses = [e.cell.loss for e in self.entries if e.cell is not None and e.meets]
        return gained < (1 - _SLACK) * price * step - _BRANCH * (max(losses) - min(losses))

    def _share(self) -> None:
        """Let a row take the student of a tighter one that costs less: it meets the looser threshold too."""
        self.entries.sort(key=lambda entry: entry.asked)
        best: Entry | None = None
        for i in range(len(self.entries) - 1, -1, -1):
            entry = self.entries[i]
            if entry.status == "failed":  # an error is not to be covered up
                continue
            if best is not None and best.cell is not None and _better(best.cell, entry):
                note = (
                    f"the student of target {best.asked:.6g} meets this one too, for less; its own run {_ended(entry)}"
                )
                status = entry.status if entry.status in ("anchor", "redundant") else "taken"
                entry = replace(entry, cell=best.cell, status=status, warm_from=best.asked, note=note)
                self.entries[i] = entry
            elif entry.meets:
                best = entry

    def _front(self) -> list[Entry]:
        """Return the rows that are points of the frontier, one for each student."""
        found: dict[str, Entry] = {}
        for entry in self.entries:
            if entry.meets and entry.cell is not None:
                found.setdefault(entry.cell.request.name, entry)
        return list(found.values())

    def _request(self, kind: str, target: float, start: Cell | None = None, before: Cell | None = None) -> Request:
        return Request(
            f"{self.name}{kind}-{target!r}",
            self.seed,
            target,
            self.held,
            self.tolerance,
            start=None if start is None else start.request.name,
            before=None if before is None else before.request.name,
            trace_every=None if start is None else self._interval(),
        )

    def _interval(self) -> int | None:
        """Return how often a warm run is read: oftener than a cold one, since it is soon over.

        A run of L steps, read every k of them at the cost of c steps, wastes about 3 k / 2 + c L / k; for the trainer's
        own interval c is a fiftieth of it, and warm runs take some 80 steps.
        """
        usual = None if self.anchor is None else self.anchor.interval
        return None if usual is None else max(1, min(usual, math.ceil(math.sqrt(usual))))

    def _entry(self, target: float, cell: Cell, start: Cell | None) -> Entry:
        warm_from = math.nan
        if start is not None:
            warm_from = start.safety if start is self.anchor else start.request.target
        return Entry(target, cell, cell.status, warm_from, cell.note, cell.steps, cell.wall_s)

    def _count(self, *cells: Cell) -> None:
        """Count runs, and ask for less exactness from here on where a run fell short of what was tried."""
        self.runs += len(cells)
        if self.plan.tolerance is None and any(cell.status == "budget_spent" for cell in cells):
            self.tolerance = min(10 * self.tolerance, USUAL)

    def _add(self, entry: Entry) -> None:
        self.entries.append(entry)
        if entry.cell is None or entry.steps == 0 or entry.cell.request.name not in self._announced:
            self.told(entry)


def _as_exact_as(stationarity: float) -> float:
    """Return the power of ten above a residual, at most the usual tolerance."""
    level = EXACT
    while level < USUAL and not stationarity <= level:
        level *= 10
    return min(level, USUAL)


def _of(cell: Cell, status: str) -> str:
    """Return the status of an anchor: its own, where it is no usable one."""
    return (
        status if cell.finite and cell.status in ("converged", "budget_spent", "stationary_unverified") else cell.status
    )


def _leads_on(cell: Cell) -> bool:
    """Say whether the next run may begin here."""
    return cell.finite and cell.status not in ("diverged", "infeasible", "no_multiplier", "failed")


def _better(cell: Cell, entry: Entry) -> bool:
    """Say whether a student is better for a row than its own: feasible first, then of lower loss."""
    if not cell.finite:
        return False
    if entry.cell is None or not entry.cell.finite:
        return True
    if cell.meets(entry.asked) != entry.meets:
        return cell.meets(entry.asked)
    if not entry.meets:
        return cell.misses(entry.asked) < entry.cell.misses(entry.asked)
    return cell.loss < entry.cell.loss


def _ended(entry: Entry) -> str:
    if entry.cell is None or not entry.cell.finite:
        return f"ended {entry.status}" + (f": {entry.note}" if entry.note else "")
    return f"ended {entry.status} at a loss of {entry.cell.loss:.6g} and a safety of {entry.cell.safety:.6g}"
