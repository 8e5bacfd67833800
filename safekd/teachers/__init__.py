"""Teachers: anything that gives a distribution over classes, behind one door.

TorchTeacher("bert", module)                # logits from a torch module
SklearnTeacher("forest", fitted, classes=2) # predict_proba of a fitted classifier
CallableTeacher("rule", function)           # a function of the inputs
StoredTeacher("api", probabilities)         # rows computed elsewhere, one an example of each split

ensemble = TeacherEnsemble([...])           # K of them; checks that their classes agree
evidence = measure(ensemble, audit, TruthProbability(critical=[0]))   # losses and safety, for rules and orderings
orderings = significant_orderings(ensemble, audit, Recall([0]))       # only what the counts support
"""

from ._adapters import CallableTeacher, SklearnTeacher, StoredTeacher, TorchTeacher
from ._ensemble import TeacherEnsemble
from ._evidence import measure, significant_orderings
from ._teacher import Teacher

__all__ = [
    "CallableTeacher",
    "SklearnTeacher",
    "StoredTeacher",
    "Teacher",
    "TeacherEnsemble",
    "TorchTeacher",
    "measure",
    "significant_orderings",
]
