"""Experiment trackers: TensorBoard, Weights & Biases, MLflow, or one of your own, told of a run while it lasts.

    from safekd.training.trackers import TensorBoard, TrackedRun
    trainer.fit(train, epochs=100, callbacks=[TrackedRun(TensorBoard("runs/tensorboard"), name="first")])

What happens, in this order: ``TrackedRun`` is a callback; it starts a run of its ``Tracker`` with the settings, logs
the numbers of every trace point, and finishes with the verdict.  A tracker that fails is warned of once and left out;
the training goes on, and its result is, to the last bit, that of a run without a tracker.
"""

from ._tracked_run import TrackedRun
from ._tracker_adapters import TRACKERS, MLflow, TensorBoard, Tracker, WeightsAndBiases

__all__ = ["TRACKERS", "MLflow", "TensorBoard", "TrackedRun", "Tracker", "WeightsAndBiases"]
