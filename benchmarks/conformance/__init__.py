"""Do a million projected rows of all kinds conform?  ``python -m benchmarks.conformance``."""
