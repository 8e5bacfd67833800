"""What do weighting rules bring a student?  ``python -m benchmarks.weightings``."""
