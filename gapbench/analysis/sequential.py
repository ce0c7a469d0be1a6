"""The fixed analysis of a claim: Welch's test at planned looks, four answers (docs/analysis.md).

    python -m gapbench.analysis.sequential [studies]

prints the rates of wrong and right answers in simulated studies.
"""

from __future__ import annotations

import itertools
import math
import operator
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from scipy import special

from gapbench.analysis.looks import LOOKS

POWER = 0.8
MOST_SEEDS = 1000  # of those that an open answer asks for

Word = Literal["supported", "contradicted", "equivalent", "not resolved"]


@dataclass(frozen=True)
class Welch:
    """The difference of two means of independent samples.

    Attributes:
        mean: mean of the first sample minus mean of the second sample.
        error: standard error of the difference; infinite if a sample has only one value.
        freedom: degrees of freedom by Welch and Satterthwaite.

    Source: B. L. Welch, The generalization of Student's problem when several different population
    variances are involved, 1947.
    """

    mean: float
    error: float
    freedom: float

    def p_above(self, bound: float) -> float:
        """Return the p-value of the one-sided test that the true difference is above `bound`."""
        if self.error == 0 or math.isinf(self.error):
            return 0.5  # equal numbers are no evidence of certainty
        return float(special.stdtr(self.freedom, (bound - self.mean) / self.error))

    def half_width(self, level: float) -> float:
        """Return the half-width of the confidence interval of a two-sided test of this level."""
        return float(special.stdtrit(self.freedom, 1 - level / 2)) * self.error

    def p(self, bound: float = 0.0) -> float:
        """Return the p-value of the two-sided test that the true difference is not `bound`."""
        above = self.p_above(bound)
        return 2 * min(above, 1 - above)

    def detectable(self, level: float) -> float:
        """Return the true difference that a two-sided test of this level finds with 80 % power.

        This is the normal approximation, within half a percent of the power at every look. Source:
        N. L. Johnson and B. L. Welch, Applications of the non-central t-distribution, 1940.
        """
        critical = float(special.stdtrit(self.freedom, 1 - level / 2))
        spread = math.sqrt(1 + critical**2 / (2 * self.freedom))
        centre = critical * (1 - 1 / (4 * self.freedom))
        return (centre + float(special.ndtri(POWER)) * spread) * self.error


def welch(first: Sequence[float], second: Sequence[float]) -> Welch:
    """Return the difference of two samples of at least one value each."""
    mean = float(np.mean(first) - np.mean(second))
    if min(len(first), len(second)) == 1:
        return Welch(mean, math.inf, 1.0)
    parts = [float(np.var(values, ddof=1)) / len(values) for values in (first, second)]
    error = math.sqrt(sum(parts))
    freedom = 1.0
    if error > 0:
        shares = zip(parts, (first, second), strict=True)
        freedom = error**4 / sum(part**2 / (len(values) - 1) for part, values in shares)
    return Welch(mean, error, float(freedom))


def difference_of(first: Mapping[int, float], second: Mapping[int, float]) -> Welch | None:
    """Return the difference of two rows' values by seed; None if a row has no seed."""
    if not (first and second):
        return None
    return welch(list(first.values()), list(second.values()))


@dataclass(frozen=True)
class Answer:
    """The answer of the available seeds to a claim.

    Attributes:
        difference: difference of the last look; a positive difference is in favour.
        n: number of seeds of each row in the look; 0 before the first look.
        level: significance level of the look.
    """

    word: Word
    difference: Welch | None
    n: int
    level: float


def answer(
    better: Mapping[int, float],
    than: Mapping[int, float],
    *,
    margin: float,
    as_good: bool = False,
    higher_is_better: bool = True,
) -> Answer:
    """Answer a claim by the looks that both rows' seeds allow; the first resolved look counts.

    A look takes its planned number of seeds 0, 1, ... of both rows, and needs all of them. Seeds
    with NaN have diverged and are left out. A row with a diverged seed counts neither as better nor
    as equivalent. Supported: the two-sided test at the look's level finds a difference in favour.
    Contradicted: the test finds a difference against. Equivalent: two one-sided tests at the look's
    level place the difference within the margin. A difference that is both found and within the
    margin counts as found.

    Args:
        better: values by seed of the row that is claimed to be better.
        than: values by seed of the other row.
        margin: margin of equivalence, fixed beforehand for each task.
        as_good: whether the claim is that the row is not worse by more than the margin; equivalence
            is no answer to such a claim.
        higher_is_better: whether higher values of the metric are better.
    """
    sign = 1 if higher_is_better else -1
    last = Answer("not resolved", None, 0, LOOKS[0][1])
    for n, level in LOOKS:
        if not all(seed in row for row in (better, than) for seed in range(n)):
            break
        taken = [[row[seed] for seed in range(n)] for row in (better, than)]
        finite = [[sign * value for value in row if math.isfinite(value)] for row in taken]
        if not all(finite):
            last = Answer("not resolved", None, n, level)
            continue
        found = welch(*finite)
        word = _word(found, level, margin, as_good)
        lost = [len(row) < n for row in finite]
        if {"supported": lost[0], "contradicted": lost[1], "equivalent": any(lost)}.get(word):
            word = "not resolved"
        last = Answer(word, found, n, level)
        if word != "not resolved":
            break
    return last


def _word(found: Welch, level: float, margin: float, as_good: bool) -> Word:
    bound = -margin if as_good else 0.0
    if found.p_above(bound) < level / 2:
        return "supported"
    if 1 - found.p_above(bound) < level / 2:
        return "contradicted"
    inside = max(found.p_above(-margin), 1 - found.p_above(margin)) < level
    return "equivalent" if inside and not as_good else "not resolved"


def needed(found: Welch, n: int, margin: float, as_good: bool = False) -> int:
    """Return the number of seeds that would resolve a measured difference with 80 % power.

    The number is the seeds of the first later look with this power; beyond the last look, any
    number at the last look's level. A resolution is a difference or equivalence, whichever needs
    fewer seeds. Both rows are assumed to have the same standard deviation.

    Args:
        found: difference measured with `n` seeds of each row; positive is in favour.
        n: number of seeds of each row, at least 2; the result is at most `MOST_SEEDS`.
        margin: margin of equivalence.
        as_good: as in `answer`.
    """
    sd = found.error * math.sqrt(n / 2)
    last, level = LOOKS[-1]
    planned = [look for look in LOOKS if look[0] > n]
    further = ((size, level) for size in range(max(n, last) + 1, MOST_SEEDS))
    shift = abs(found.mean + (margin if as_good else 0.0))
    room = 0.0 if as_good else margin - abs(found.mean)
    for size, level in itertools.chain(planned, further):
        test = Welch(0.0, sd * math.sqrt(2 / size), 2 * size - 2)
        # both one-sided tests must pass, each with half of the power that may be lost
        sides = (special.stdtrit(test.freedom, 1 - level), special.ndtri((1 + POWER) / 2))
        if shift >= test.detectable(level) or room >= float(sum(sides)) * test.error:
            return size
    return MOST_SEEDS


def confirmatory(supported: Iterable[bool]) -> list[bool]:
    """Say which claims of a fixed order confirm: all claims before the first unsupported one.

    Each claim has the whole ALPHA, and is tested only if all claims before are supported. So the
    familywise error rate is at most ALPHA (the fixed-sequence procedure). Later claims are
    exploratory.
    """
    return list(itertools.accumulate(supported, operator.and_, initial=True))[:-1]


def simulated(
    difference: float, sd: float, margin: float, studies: int, *, ratio: float = 1.0, seed: int = 0
) -> tuple[dict[Word, float], float]:
    """Simulate claims with a known true difference and normally distributed seeds.

    Seeds of the first row have the standard deviation `sd`, those of the second row `ratio` times
    that.

    Returns:
        the share of studies with each answer, and the mean number of seeds.
    """
    drawn = np.random.default_rng(seed)
    found = [
        answer(_row(drawn, difference, sd), _row(drawn, 0.0, ratio * sd), margin=margin)
        for _ in range(studies)
    ]
    counts = Counter(one.word for one in found)
    shares = {word: counts[word] / studies for word in get_args(Word)}
    return shares, sum(one.n for one in found) / studies


def _row(drawn: np.random.Generator, mean: float, sd: float) -> dict[int, float]:
    return dict(enumerate(drawn.normal(mean, sd, LOOKS[-1][0])))


def wrong_in_sequence(claims: int, sd: float, margin: float, studies: int, seed: int = 0) -> float:
    """Return the share of studies in which a fixed sequence of true null claims has any error.

    As in this benchmark, all claims of a study compare rows with the same reference row.
    """
    drawn = np.random.default_rng(seed)
    wrong = 0
    for _ in range(studies):
        reference = _row(drawn, 0.0, sd)
        words = [answer(_row(drawn, 0.0, sd), reference, margin=margin).word for _ in range(claims)]
        pairs = zip(words, confirmatory(word == "supported" for word in words), strict=True)
        wrong += any(sure and word in ("supported", "contradicted") for word, sure in pairs)
    return wrong / studies


def table(studies: int) -> str:
    """Return the simulated rates as a Markdown table, for seeds of standard deviation 0.35."""
    heads = ("true difference", "supported", "contradicted", "equivalent within 0.3",
             "not resolved", "seeds")  # fmt: skip
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for true in (0.0, 0.15, 0.3, 0.5, 1.0):
        shares, seeds = simulated(true, 0.35, 0.3, studies)
        told = " | ".join(f"{100 * share:.1f} %" for share in shares.values())
        lines.append(f"| {true:g} | {told} | {seeds:.1f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    asked = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    print(table(asked))
    share = wrong_in_sequence(6, 0.35, 0.3, asked)
    print(f"\nSix claims without a difference: {100 * share:.1f} % of studies answer one wrongly.")
