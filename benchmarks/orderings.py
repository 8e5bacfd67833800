"""Does an ordering that is called significant hold, and how many are found?  Beside a paired t test with Holm.

    python -m benchmarks.orderings [--runs 2000] [--power-runs 400] [--out PATH]

Synthetic teachers, read on the same 100 to 120 cases of one context.  Error: the share of runs in which even one
ordering is asserted although all teachers are equally safe on average, at a level of 0.05.  Power: orderings found, as
a share of what the t test finds.

No test that holds its level whatever the distribution finds all of that.  Let i be safer than j by m on average.  Mix a
share ``q = m / (1 + m)`` of cases into the population on which i reads 0 and j reads 1: now they are equally safe, so
"i is safer" may be asserted with probability ``level`` at most.  In n cases none of the new kind shows with probability
``(1 - q)^n``, and then the data are those of the old population.  So there the probability is at most
``level / (1 - q)^n``, for every procedure; summed up over pairs it bounds how many orderings anybody finds.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import beta, norm
from scipy.stats import t as student_t

from safekd.safety import PairedSums, adjust_p_values, adjust_pair_p_values

from ._timing import report_path, today, versions
from .projection._report import table

Floats = npt.NDArray[np.float64]
Draw = Callable[[np.random.Generator, int, int], Floats]  # of so many runs and cases, values (R, N, K)
LEVEL, GOAL = 0.05, 0.9


@dataclass(frozen=True)
class Population:
    """Teachers to compare.

    name: for the report.  draw: their values.  binary: whether values are 0 and 1.
    """

    name: str
    draw: Draw
    binary: bool = False


@dataclass(frozen=True)
class OrderingScore:
    """What was found, errors or orderings a run: by us, the t test and betting with Holm; and the most that can be."""

    name: str
    teachers: int
    ours: float
    t_test: float
    betting: float | None
    most: float | None = None


def _alike(means: Sequence[float], concentration: float, shared: float) -> Draw:
    """Beta values; what makes a case hard is shared."""
    mean_K = np.asarray(means)

    def draw(rng: np.random.Generator, runs: int, cases: int) -> Floats:
        own = rng.standard_normal((runs, cases, len(mean_K)))
        z = shared**0.5 * rng.standard_normal((runs, cases, 1)) + (1 - shared) ** 0.5 * own
        return np.asarray(beta.ppf(norm.cdf(z), mean_K * concentration, (1 - mean_K) * concentration))

    return draw


def _skilled(skills: Sequence[float], cases_sd: float, own_sd: float) -> Draw:
    """Probabilities of the truth, a sigmoid of skill and of how hard a case is: skewed, most near 1."""

    def draw(rng: np.random.Generator, runs: int, cases: int) -> Floats:
        hard = cases_sd * rng.standard_normal((runs, cases, 1))
        return np.asarray(
            1 / (1 + np.exp(-np.asarray(skills) - hard - own_sd * rng.standard_normal((runs, cases, len(skills)))))
        )

    return draw


def _right(chances: Sequence[float], shared: float) -> Draw:
    """0 and 1."""

    def draw(rng: np.random.Generator, runs: int, cases: int) -> Floats:
        own = rng.standard_normal((runs, cases, len(chances)))
        z = shared**0.5 * rng.standard_normal((runs, cases, 1)) + (1 - shared) ** 0.5 * own
        return np.asarray(norm.cdf(z) < np.asarray(chances), dtype=np.float64)

    return draw


def _failing(shares: Sequence[float], mean: float | None, noise: float = 0.0, depth: float = 0.9) -> Draw:
    """Nearly always the same, and ``depth`` lower in a share of cases; with equal means where a mean is given."""
    share_K = np.asarray(shares)
    usual_K = np.full(len(share_K), 0.95) if mean is None else mean + depth * share_K

    def draw(rng: np.random.Generator, runs: int, cases: int) -> Floats:
        shape = runs, cases, len(share_K)
        x = np.where(rng.random(shape) < share_K, usual_K - depth, usual_K)
        return np.asarray(np.clip(x + noise * rng.uniform(-1, 1, shape), 0, 1))

    return draw


def _spaced(low: float, high: float, teachers: int = 5) -> list[float]:
    return np.linspace(low, high, teachers).tolist()


EQUAL = [
    Population("beta, two teachers", _alike([0.7] * 2, 4, 0.3)),
    Population("beta", _alike([0.7] * 5, 4, 0.3)),
    Population("skewed, two teachers", _skilled([2.0] * 2, 2.0, 1.0)),
    Population("skewed", _skilled([2.0] * 5, 2.0, 1.0)),
    Population("0 and 1, two teachers", _right([0.8] * 2, 0.5), binary=True),
    Population("0 and 1", _right([0.8] * 5, 0.5), binary=True),
    Population("failing alike", _failing([0.1] * 5, 0.85)),
    *(Population(f"steady, and failing in {q:.1%}", _failing([0.0, q], 0.9)) for q in (0.01, 0.025, 0.04, 0.1)),
    Population("steady, and failing in 4.0%, with noise", _failing([0.0, 0.04], 0.9, noise=0.02)),
    Population("two steady, three failing in 4.0%", _failing([0.0, 0.0, 0.04, 0.04, 0.04], 0.9)),
    Population("two steady, three failing in 10.0%, with noise", _failing([0.0, 0.0, 0.1, 0.1, 0.1], 0.85, noise=0.05)),
    Population("two steady, three lower by .3 in 5.0%", _failing([0.0, 0.0, 0.05, 0.05, 0.05], 0.9, depth=0.3)),
]
DIFFERENT = [
    Population("beta, far apart", _alike(_spaced(0.55, 0.8), 4, 0.3)),
    Population("beta, near", _alike(_spaced(0.65, 0.75), 4, 0.5)),
    Population("beta, two humps", _alike(_spaced(0.5, 0.8), 1.5, 0.3)),
    Population("beta, narrow", _alike(_spaced(0.6, 0.75), 10, 0.3)),
    Population("skewed", _skilled(_spaced(0.5, 1.5), 1.0, 0.7)),
    Population("skewed, hard cases", _skilled(_spaced(0.5, 1.8), 2.0, 1.0)),
    Population("failing", _failing(_spaced(0.05, 0.3), None, noise=0.03)),
    Population("0 and 1", _right(_spaced(0.6, 0.9), 0.3), binary=True),
    Population("0 and 1, mostly right", _right(_spaced(0.8, 0.95), 0.5), binary=True),
    Population("nearly deterministic", _skilled(_spaced(0.5, 1.0), 2.0, 0.3)),
]


def count_orderings(population: Population, runs: int, seed: int, cases: int) -> tuple[Floats, Floats, Floats | None]:
    """Return how many orderings each run asserts: ours, those of the t test, and those of betting with Holm."""
    x_RNK = population.draw(np.random.default_rng(seed), runs, cases)
    K = x_RNK.shape[-1]
    group_P = np.repeat(np.arange(runs), cases)
    sums = PairedSums.from_values(x_RNK.reshape(-1, K), group_P, binary=population.binary)
    ours = np.array([(adjust_pair_p_values(p_KK) <= LEVEL).sum() for p_KK in sums.p_values()])
    t_R = np.array([_count_by_t_test(x_NK) for x_NK in x_RNK])
    if population.binary:
        return ours, t_R, None
    return ours, t_R, np.array([_count_by_betting(x_NK) for x_NK in x_RNK])


def _count_by_t_test(x_NK: Floats) -> int:
    """Two-sided for each pair, with Holm's correction."""
    n, K = x_NK.shape
    p = []
    for i in range(K):
        for j in range(i + 1, K):
            d_N = x_NK[:, i] - x_NK[:, j]
            error = float(d_N.std(ddof=1)) / n**0.5
            mean = abs(float(d_N.mean()))
            p.append(2 * float(student_t.sf(mean / error, n - 1)) if error > 1e-12 else float(mean < 1e-12))
    return int((adjust_p_values(p) <= LEVEL).sum())


def _count_by_betting(x_NK: Floats) -> int:
    """What was done before: seven fixed bets, Markov's inequality, Holm over both directions."""
    K = x_NK.shape[1]
    d_NKK = x_NK[:, :, None] - x_NK[:, None, :]
    capital_KK = np.mean([np.exp(np.log1p(0.95 * 0.5**b * d_NKK).sum(0)) for b in range(7)], axis=0)
    return int((adjust_p_values(np.minimum(1, 1 / capital_KK[~np.eye(K, dtype=bool)])) <= LEVEL).sum())


def bound_power(population: Population, cases: int, draws: int = 200_000) -> float:
    """Return how many orderings a procedure of that level for every distribution can find, on average, at most."""
    mean_K = population.draw(np.random.default_rng(0), 1, draws)[0].mean(0)
    lead = mean_K[:, None] - mean_K
    unseen = (1 / (1 + lead[lead > 0])) ** cases  # 1 - q = 1 / (1 + m)
    return float(np.minimum(1.0, LEVEL / unseen).sum())


def measure_errors(runs: int) -> list[OrderingScore]:
    """Return the share of runs with a false ordering, for each population of equal teachers."""
    scores = []
    for seed, population in enumerate(EQUAL):
        counts = count_orderings(population, runs, seed, 110)
        ours, by_t, bet = (None if count is None else float((count > 0).mean()) for count in counts)
        scores.append(OrderingScore(population.name, _count_teachers(population), ours or 0.0, by_t or 0.0, bet))
    return scores


def measure_power(runs: int) -> list[OrderingScore]:
    """Return orderings a run, for each population of different teachers, over 100, 110 and 120 cases."""
    scores = []
    for seed, population in enumerate(DIFFERENT):
        parts = [count_orderings(population, -(-runs // 3), 100 + seed, cases) for cases in (100, 110, 120)]
        ours, by_t = (float(np.mean([part[which] for part in parts])) for which in (0, 1))
        bet = None if population.binary else float(np.mean([part[2] for part in parts]))
        most = float(np.mean([bound_power(population, cases) for cases in (100, 110, 120)]))
        scores.append(OrderingScore(population.name, _count_teachers(population), ours, by_t, bet, most))
    return scores


def allow_error(runs: int) -> float:
    """Return the share of runs that an error of exactly the level may show, two standard errors above it."""
    return float(LEVEL + 2 * (LEVEL * (1 - LEVEL) / runs) ** 0.5)


def _share(found: float | None, of: float) -> str:
    return "" if found is None else f"{found / of:.0%}"


def _share_at_most(score: OrderingScore) -> str:
    return "" if score.most is None else f"{min(1.0, score.most / score.t_test):.0%}"


def _count_teachers(population: Population) -> int:
    return int(population.draw(np.random.default_rng(0), 1, 1).shape[-1])


def write_report(errors: Sequence[OrderingScore], power: Sequence[OrderingScore], runs: int, power_runs: int) -> str:
    """Return the report."""
    worst = max(errors, key=lambda score: score.ours)
    total = sum(score.ours for score in power) / sum(score.t_test for score in power)
    below = [
        f"{score.name} ({score.ours / score.t_test:.0%}; no valid procedure finds more than {_share_at_most(score)})"
        for score in power
        if score.ours < GOAL * score.t_test
    ]
    error_rows = [
        [s.name, str(s.teachers), f"{s.ours:.4f}", f"{s.t_test:.4f}", "" if s.betting is None else f"{s.betting:.4f}"]
        for s in errors
    ]
    power_rows = [
        [
            s.name,
            *(f"{x:.2f}" for x in (s.t_test, s.ours)),
            *(_share(x, s.t_test) for x in (s.ours, s.betting)),
            _share_at_most(s),
        ]
        for s in power
    ]
    parts = [
        "# Do significant orderings hold, and how many are found?",
        "Written by `python -m benchmarks.orderings`: synthetic teachers on the same cases of one context, at a level "
        f"of {LEVEL:g}, as `find_significant_orderings` compares them, beside a paired t test with Holm's correction, "
        "and beside what stood here before, fixed bets with Holm's over both directions.",
        table(["", ""], [["date", today()], ["versions", versions(["numpy", "scipy"])]]),
        "## Error",
        f"The share of {runs} runs with even one ordering, all teachers equally safe on average, 110 cases. Failing: "
        "0.9 lower in that share of cases, which 110 cases may not show at all.",
        table(["teachers", "how many", "ours", "t test", "bets"], error_rows),
        f"Goal: at most {LEVEL:g}; so many runs of an error of just that may show {allow_error(runs):.4f}, two "
        f"standard errors more. Worst: {worst.ours:.4f} ({worst.name}), "
        f"{'met' if worst.ours <= allow_error(runs) else 'missed'}.",
        "## Power",
        f"Orderings found among the 10 pairs of five teachers, on average over {power_runs} runs of 100, 110 and 120 "
        "cases.",
        table(["teachers", "t test", "ours", "share", "bets, share", "at most"], power_rows),
        "At most: what any procedure can find that keeps its level whatever the distribution. Let i be safer than j by "
        "m on average. Mix a share q = m / (1 + m) of cases into the population on which i reads 0 and j reads 1: now "
        f'they are equally safe, and "i is safer" may be asserted with probability {LEVEL:g} at most. In n cases none '
        "of that kind shows with probability (1 - q)^n, and then the data are those of the population as it is. So "
        f"there the probability is at most {LEVEL:g} / (1 - q)^n, for every procedure, and the sum over pairs bounds "
        "what is found.",
        f"Goal: at least {GOAL:.0%} of the t test's. All together: {total:.0%}. Below: {', '.join(below) or 'none'}. "
        "Nearly deterministic differences are small and always there; one case in forty at the other end would undo "
        "them, and 110 cases need not show it. The t test asserts them, and is wrong as often as the first table says.",
    ]
    return "\n\n".join(parts) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulate, print, write; return 0 where every error is within the level."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.orderings", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--runs", type=int, default=2000, help="of equal teachers")
    parser.add_argument("--power-runs", type=int, default=400, help="of different teachers")
    parser.add_argument("--out", type=report_path, help="write the report here")
    options = parser.parse_args(arguments)
    errors, power = measure_errors(options.runs), measure_power(options.power_runs)
    report = write_report(errors, power, options.runs, options.power_runs)
    print(report)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(report, encoding="utf-8")
    return 0 if all(score.ours <= allow_error(options.runs) for score in errors) else 1


if __name__ == "__main__":
    raise SystemExit(main())
