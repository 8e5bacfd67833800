"""Do runs survive?  Killed at any moment, at every write, flush and rename, they end as if nothing had happened."""

from ._runs import SmallNet, contents_but_clock, make_split, make_teachers, make_trainer, strip_clock

__all__ = ["SmallNet", "contents_but_clock", "make_split", "make_teachers", "make_trainer", "strip_clock"]
