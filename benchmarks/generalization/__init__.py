"""Do constraints that hold in training hold on new data?  ``python -m benchmarks.generalization``."""
