"""From a configuration to something that runs: data, teachers, evidence, weights, trainers.

experiment = build(config, folder)
experiment.trainer().fit(experiment.train, experiment.validation, epochs=...)

Names are imported when first used: reading an experiment file (``config``) needs nothing of what runs it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
