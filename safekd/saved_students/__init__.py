"""Students that leave the building: out of a run folder, onto new rows, into other programs.

    student = load("runs/demo")                             # a callable: rows of a table in, probabilities out
    predict_file(student, "new.csv", "predictions.csv")     # `safekd predict`
    certify(student.result, constraint, read_labeled_rows(student, "new.csv"))      # `safekd certify`
    export_student(student, "student.onnx")                 # or .pt2: needs no safekd

``_run_files`` writes what a run leaves beside its result, ``student.json`` (``_student_spec``) and the model card among
it; ``_saved_student`` reads it back; ``_prediction_file`` and ``_export_student`` use it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
