"""A table, two scikit-learn teachers, and a class that must not be missed.

    python examples/tabular.py

Real data: 569 breast-cancer cases, part of scikit-learn.  The student must give malignant cases of the training split a
probability of at least 0.95 on average; held-out cases, which nothing else saw, then show what holds on new data.
"""

import torch
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

import safekd as kd

MALIGNANT = 0


def main(epochs: int = 1500) -> tuple[kd.FitResult, object]:
    """Train, and certify on held-out cases.

    Args:
        epochs: Passes over the training data at most.

    Returns:
        The result of the training and the certificate.
    """
    torch.manual_seed(0)
    table = load_breast_cancer()
    kept, held, kept_labels, held_labels = train_test_split(
        table.data, table.target, test_size=0.3, random_state=0, stratify=table.target
    )
    scale = StandardScaler().fit(kept)
    inputs, held_inputs = (scale.transform(rows).astype("float32") for rows in (kept, held))  # as the student computes
    train = kd.Split("train", inputs, kept_labels, class_names=["malignant", "benign"])
    held_out = kd.Split("held_out", held_inputs, held_labels, class_names=["malignant", "benign"])

    # Teachers are fitted as usual; safekd asks them for probabilities.
    forest = RandomForestClassifier(100, max_depth=4, random_state=0).fit(inputs, kept_labels)
    linear = LogisticRegression(C=0.1).fit(inputs, kept_labels)
    teachers = [
        kd.teachers.SklearnTeacher("forest", forest, classes=2),
        kd.teachers.SklearnTeacher("linear", linear, classes=2),
    ]

    # Confident teachers weigh more, but none less than a fifth.
    weights = kd.weights.Conforming(kd.weights.EntropyDecay(rate=2.0), kd.WeightPolytope(2, lower=0.2))
    safe = kd.SafetyConstraint("malignant", measure=kd.safety.TruthProbability(critical=[MALIGNANT]), at_least=0.95)
    student = torch.nn.Sequential(torch.nn.Linear(30, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
    trainer = kd.ConstrainedTrainer(
        student,
        teachers,
        weights=weights,
        constraints=[safe],
        optimizer=torch.optim.Adam(student.parameters(), lr=0.01),
    )
    result = trainer.fit(train, epochs=epochs)
    return result, kd.certify(result, safe, held_out)


if __name__ == "__main__":
    result, certificate = main()
    print(result.message)
    print(result.trace[["step", "distillation_loss", "safety_malignant", "lambda_malignant"]].tail(3))
    print(certificate)
