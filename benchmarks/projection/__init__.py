"""What does a projected row cost, beside the real peers?  ``python -m benchmarks.projection``, ``.gpu`` on a GPU."""
