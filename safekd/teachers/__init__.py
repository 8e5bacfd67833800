"""Teachers: anything that gives a distribution over classes, behind one door.

TorchTeacher("bert", module)                # logits from a torch module
SklearnTeacher("forest", fitted, classes=2) # predict_proba of a fitted classifier
CallableTeacher("rule", function)           # a function of the inputs
StoredTeacher("api", probabilities)         # rows computed elsewhere, one an example of each split
StoredTeacher("llm", "logits.safetensors", gives="logits")  # rows that stay in their file: .npy, .safetensors, Parquet
TorchTeacher("ema", average, moving=True)   # changes while the student learns: asked anew each batch

ensemble = TeacherEnsemble([...])           # K of them; checks that their classes agree
evidence = measure_teachers(ensemble, validation, TruthProbability(critical=[0]))    # losses and safety
Perturbation(passes=8, noise=0.1)           # asks teachers again about inputs with noise: how steady are they?
orderings = find_significant_orderings(ensemble, validation, Recall([0]))   # only what the counts support
"""

from ._domain_distances import measure_domain_distances
from ._input_perturbation import Perturbation
from ._stored_teacher import StoredTeacher
from ._teacher import Teacher
from ._teacher_adapters import CallableTeacher, SklearnTeacher, TorchTeacher
from ._teacher_ensemble import TeacherEnsemble
from ._teacher_measurement import find_significant_orderings, measure_teachers

__all__ = [
    "CallableTeacher",
    "Perturbation",
    "SklearnTeacher",
    "StoredTeacher",
    "Teacher",
    "TeacherEnsemble",
    "TorchTeacher",
    "find_significant_orderings",
    "measure_domain_distances",
    "measure_teachers",
]
