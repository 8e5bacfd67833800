"""From a configuration to something that runs: data, teachers, evidence, weights, trainers.

    config, folder = load_config("experiment.toml")
    experiment = build_experiment(config, folder)
    experiment.trainer().fit(experiment.train, experiment.validation, epochs=...)

In this order: ``config`` reads and checks the file; ``_example_table`` reads the examples and cuts them into splits;
``configured_parts`` fits or reads the teachers, states the constraints and finds the tracker;
``_build_experiment`` puts all of it together.  ``_variants`` trains one student in several ways, for comparison.

Names are imported when first used: reading the rules of weights in a file (``config``) needs nothing of what runs an
experiment.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
