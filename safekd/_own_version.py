"""The version of safekd: here and nowhere else; ``setup.cfg``, records of runs and ``safekd --version`` read it."""

__version__ = "0.1.0"
