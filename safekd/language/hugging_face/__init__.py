"""The trainer of Hugging Face's transformers, distilling several teachers under safety constraints.

    trainer = SafeKDTrainer(student, TrainingArguments("out", bf16=True), teachers=[a, b], constraints=[safe],
                            train_dataset=rows, eval_dataset=others, processing_class=tokenizer)
    trainer.train(); trainer.result().status; trainer.trace; trainer.certify(held_out); trainer.save_model()

In this order: arguments are checked and rows become batches; transformers runs its loop, and asks ``SafeKDTrainer`` for
the loss (``passes/``); after each optimizer step multipliers move (``_language_run``); a trace is read on a sample of
the training data; checkpoints get a folder of their own; verdict, certificates and model card say what was shown.

This room alone imports transformers when it is entered; nothing else of safekd enters it unasked.
"""

from ...errors import InvalidInput

try:
    import accelerate as _accelerate  # noqa: F401  # transformers trains by it
    import transformers as _transformers  # noqa: F401
except ImportError as error:
    raise InvalidInput(
        f"SafeKDTrainer needs the package {error.name or 'transformers'}, which is not installed: "
        "pip install 'safekd[lm]'."
    ) from error

from ._safe_kd_trainer import SafeKDTrainer
from ._trainer_frontier import trace_trainer_frontier
from ._trainer_verdict import TrainerResult
from ._verify_trainer_frontier import verify_trainer_frontier

__all__ = ["SafeKDTrainer", "TrainerResult", "trace_trainer_frontier", "verify_trainer_frontier"]
