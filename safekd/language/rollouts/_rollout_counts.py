"""What became of the texts that a student wrote."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class RolloutCounts:
    """What became of the student's texts so far, on this rank.

    Attributes:
        batches: Batches handed out.
        own_batches: Those of the student's own text.
        rounds: How often the student wrote.
        written: Texts that it wrote.
        used: Texts that were handed out.
        dropped: Texts that had become too old.
        tokens: Tokens that it wrote.
        age_sum: Sum of the ages of the texts that were handed out, in steps.
        oldest: The oldest of them.
    """

    batches: int = 0
    own_batches: int = 0
    rounds: int = 0
    written: int = 0
    used: int = 0
    dropped: int = 0
    tokens: int = 0
    age_sum: int = 0
    oldest: int = 0

    @property
    def average_age(self) -> float:
        """Average age of the texts that were handed out, in steps."""
        return self.age_sum / max(self.used, 1)
