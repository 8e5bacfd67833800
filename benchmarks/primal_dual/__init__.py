"""Who solves constrained problems, in how many steps, at what cost a step?  ``python -m benchmarks.primal_dual``."""
