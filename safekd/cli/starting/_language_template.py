"""The text of a script that distills a language model: what ``safekd init --language`` writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...errors import InvalidInput

_SCRIPT = '''"""Distills language models into a smaller one under a safety constraint.  Needs: pip install 'safekd[lm]'.

Look first: python THIS_FILE --check          Run: python THIS_FILE
Several processes: torchrun --nproc-per-node=2 THIS_FILE
More: docs/hugging_face.md, docs/language.md
"""

import sys

from transformers import AutoModelForCausalLM, AutoTokenizer, TrainingArguments

import safekd as kd

STUDENT = @STUDENT@  # a folder or a name on the hub; it shares its tokenizer with the teachers
TEACHERS = @TEACHERS@
TEXT = @TEXT@  # one text a line
LENGTH, SHARE = 256, 0.15  # tokens of a sequence at most; share of the texts that is looked at, and that certifies
CRITICAL = @CRITICAL@  # words that the student must not lose
AT_LEAST = @AT_LEAST@  # their probability, on average over the positions where they stand

tokenizer = AutoTokenizer.from_pretrained(STUDENT)
tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
with open(TEXT, encoding="utf-8") as stream:
    texts = [line.strip() for line in stream if line.strip()]
rows = [{"input_ids": tokenizer(text)["input_ids"][:LENGTH]} for text in texts]
rows = [row for row in rows if len(row["input_ids"]) > 1]
share = max(1, round(SHARE * len(rows)))
held_out, judging, training = rows[:share], rows[share : 2 * share], rows[2 * share :]

teachers = [
    kd.language.CausalTeacher(
        AutoModelForCausalLM.from_pretrained(name),
        AutoTokenizer.from_pretrained(name),  # another than the student's is refused
        name=f"teacher {k}: {name}",
    )
    for k, name in enumerate(TEACHERS)
]
weights = kd.weights.EntropyDecay()  # surer teachers weigh more, position by position
if len(teachers) > 1:  # and none vanishes
    weights = kd.weights.Conforming(weights, kd.WeightPolytope(len(teachers), lower=0.5 / len(teachers)))
critical = kd.language.critical_tokens(tokenizer, CRITICAL)
careful = kd.SafetyConstraint("critical words", kd.safety.LogTruthProbability(critical, at=AT_LEAST), AT_LEAST)

trainer = kd.language.SafeKDTrainer(
    AutoModelForCausalLM.from_pretrained(STUDENT),
    TrainingArguments(
        "runs/language",
        max_steps=@STEPS@,
        per_device_train_batch_size=8,
        learning_rate=5e-4,
        save_strategy="steps",
        save_steps=@STEPS@,
        report_to=[],
    ),
    teachers=teachers,
    weights=weights,
    constraints=[careful],
    train_dataset=training,
    eval_dataset=judging,
    processing_class=tokenizer,
)
if "--check" in sys.argv:  # models, vocabularies and tokenizers go together, or the trainer had refused them
    print(f"{len(tokenizer):,} tokens; heads: " + ", ".join(f"{one.name} {one.vocabulary:,}" for one in teachers))
    for name, some in (("training", training), ("judging", judging), ("held out", held_out)):
        counts = [sum(token in critical for token in row["input_ids"][1:]) for row in some]
        print(f"{name}: {len(some):,} texts, {sum(map(bool, counts)):,} with critical words, {sum(counts):,} positions")
    hoped = (1 + AT_LEAST) / 2
    needed = kd.safety.cases_needed(AT_LEAST, hoped, binary=False)  # texts count, not their positions
    print(f"a certificate takes some {needed:,} held-out texts with critical words, at an average of {hoped:g}")
    raise SystemExit
trainer.train()  # resume_from_checkpoint=True goes on where a run was stopped
result = trainer.result()
print(result.status, result.message, result.next_move, sep="\\n")
for certificate in trainer.certify(held_out):  # which nothing else has read
    print(certificate)
trainer.save_model("runs/language/student")  # loads with transformers alone
'''


@dataclass(frozen=True)
class LanguageDraft:
    """What is known of somebody's language models.

    Attributes:
        student: Folder or name of the student.
        teachers: Folders or names of the teachers.
        text: File with a text a line.
        critical: Words that must not be lost.
        at_least: Their probability, on average.
        steps: Of training.
    """

    student: str
    teachers: Sequence[str]
    text: str
    critical: Sequence[str]
    at_least: float
    steps: int = 1000


def format_language_script(draft: LanguageDraft) -> str:
    """Return the text of the script.

    Args:
        draft: What is known of the models.

    Raises:
        InvalidInput: A teacher, the student or the text is not said.
    """
    for name, known in (("--student", draft.student), ("--teacher", draft.teachers), ("--data", draft.text)):
        if not known:
            raise InvalidInput(f"--language needs {name}: folders or names of causal models, and a text a line.")
    words = list(draft.critical) or ["not", "no", "never", "cannot"]
    given: dict[str, object] = {
        "STUDENT": draft.student,
        "TEACHERS": list(draft.teachers),
        "TEXT": draft.text,
        "CRITICAL": words,
        "AT_LEAST": draft.at_least,
        "STEPS": draft.steps,
    }
    text = _SCRIPT
    for name, value in given.items():
        text = text.replace(f"@{name}@", repr(value))
    return text
