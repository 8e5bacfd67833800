"""One vocabulary of endings: every status has a meaning, and what solvers hand out is in it."""

from __future__ import annotations

from typing import get_args

from solvers.statuses import STATUS_MEANINGS, Status


def test_every_status_has_a_meaning_of_its_own():
    assert tuple(STATUS_MEANINGS) == get_args(Status)
    assert len(set(STATUS_MEANINGS.values())) == len(STATUS_MEANINGS)
    assert all(meaning.endswith(".") for meaning in STATUS_MEANINGS.values())
