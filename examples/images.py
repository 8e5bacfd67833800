"""Images: a small convolutional student learns from two teachers and keeps its recall of the digits 3 and 8.

    python examples/images.py

Real data: 1,797 handwritten digits of 8 x 8 pixels, part of scikit-learn.  Recall is counted, so it has no gradient:
the multiplier follows the count, the student a smooth surrogate.
"""

import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC

import safekd as kd

CONFUSED = [3, 8]


def main(examples: int = 1200, epochs: int = 40) -> kd.FitResult:
    """Train in minibatches.

    Args:
        examples: Of the training split.
        epochs: Passes over the training data at most.

    Returns:
        The result of the training.
    """
    torch.manual_seed(0)
    data, target = load_digits(return_X_y=True)
    order = torch.randperm(len(data))  # writers stand one after the other there
    pixels, labels = torch.tensor(data / 16.0, dtype=torch.float32)[order], torch.tensor(target)[order]
    images = pixels.reshape(-1, 1, 8, 8)
    train = kd.Split("train", images[:examples], labels[:examples])
    validation = kd.Split("validation", images[1200:], labels[1200:])

    # Teachers saw half of the data each.  They read rows of pixels: a function turns images into what they read.
    half = examples // 2
    first = SVC().fit(pixels[:half], labels[:half])
    second = LogisticRegression(max_iter=300).fit(pixels[half:examples], labels[half:examples])
    teachers = [
        kd.teachers.CallableTeacher(
            "vectors", lambda x: torch.as_tensor(first.decision_function(x.flatten(1).numpy())).float(), gives="logits"
        ),
        kd.teachers.CallableTeacher(
            "linear", lambda x: torch.as_tensor(second.decision_function(x.flatten(1).numpy())).float(), gives="logits"
        ),
    ]
    student = torch.nn.Sequential(
        torch.nn.Conv2d(1, 8, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(128, 10),
    )
    recall = kd.SafetyConstraint("recall of 3 and 8", measure=kd.safety.Recall(critical=CONFUSED), at_least=0.97)
    trainer = kd.ConstrainedTrainer(
        student,
        teachers,
        constraints=[recall],
        optimizer=torch.optim.Adam(student.parameters(), lr=0.01),
        batch_size=64,
    )
    return trainer.fit(train, validation, epochs=epochs, trace_every=200, stationarity=kd.training.Sampled())


if __name__ == "__main__":
    result = main()
    columns = ["step", "distillation_loss", "safety_recall of 3 and 8", "validation_safety_recall of 3 and 8"]
    print(result.message)
    print(result.trace[columns].to_string(index=False))
