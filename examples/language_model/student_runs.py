"""Students trained in a plain loop over ``kd.language.LanguageStep``: what differs between variants is two arguments.

    uniform       all teachers alike
    routed        one teacher a context: routing, as in multi-teacher on-policy distillation (MOPD)
    conforming    sure teachers and those that are safe in the context weigh more, none less than a tenth
    constrained   the same, and one safety constraint a context

A run goes on where it was stopped, and takes part in torchrun.  Axes: N windows, T positions, C contexts, K teachers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from real_texts import CONTEXTS
from safetensors.torch import load_file, save_file
from torch import Tensor

import safekd as kd
from safekd.distributed import Ranks

VARIANTS = ("uniform", "routed", "conforming", "constrained")


@dataclass(frozen=True)
class RunSettings:
    """Sizes and numbers of the example; what is asked, 0.15, was set after first runs.

    Attributes:
        length: Positions of a window.
        train: Windows of each text to train on.
        validation: To measure teachers on.
        held_out: For table and certificates.
        adapter_steps: Optimizer steps of each adapter.
        width: Of the student.
        layers: Of the student.
        steps: Optimizer steps of a student.
        batch: Windows of a step, over all processes.
        rate: Learning rate at the start; it falls to a tenth along a cosine.
        promised: Probability that the true critical word is to have on average, in each context.
        asked: What training asks for: above what is promised, since a certificate needs room.
        lower: Least weight of a teacher.
        budget: Memory for distributions.
        keep_every: Steps between checkpoints.
        smoothing: Share of the past in what multipliers see: a step has a handful of critical words, whose average is
            noise; without it multipliers follow that, and fall when the loss of one batch is higher than the last.
    """

    length: int = 96
    train: int = 160
    validation: int = 30
    held_out: int = 195
    adapter_steps: int = 16
    width: int = 256
    layers: int = 6
    steps: int = 80
    batch: int = 4
    rate: float = 2e-3
    promised: tuple[float, ...] = (0.05, 0.05)
    asked: tuple[float, ...] = (0.15, 0.15)
    lower: float = 0.1
    budget: str = "128MiB"
    keep_every: int = 16
    smoothing: float = 0.9


def make_constraints(critical: Sequence[int], thresholds: Sequence[float]) -> list[kd.SafetyConstraint]:
    """Return one constraint a context: the mean probability of the critical word that stands there.

    Args:
        critical: Token numbers.
        thresholds: One a context.
    """
    return [
        kd.SafetyConstraint(
            name, kd.safety.LogTruthProbability(critical, at=threshold), at_least=threshold, contexts=[context]
        )
        for context, (name, threshold) in enumerate(zip(CONTEXTS, thresholds, strict=True))
    ]


def make_rule(variant: str, n_teachers: int, lower: float) -> Any:
    """Return the weighting rule of a variant.

    Args:
        variant: One of VARIANTS.
        n_teachers: K.
        lower: Least weight of a teacher that conforms.
    """
    if variant == "uniform":
        return None
    if variant == "routed":
        return kd.weights.Routed(range(len(CONTEXTS)))
    polytope = kd.WeightPolytope(n_teachers=n_teachers, lower=lower)
    return kd.weights.Unified(token=kd.weights.EntropyDecay(), context=kd.weights.OrdinalSafety(), polytope=polytope)


def make_step(
    variant: str,
    teachers: Sequence[Any],
    evidence: Any,
    critical: Sequence[int],
    settings: RunSettings,
    ranks: Ranks,
    **more: Any,
) -> kd.language.LanguageStep:
    """Return loss and multipliers of a variant.

    Args:
        variant: One of VARIANTS.
        teachers: K of them.
        evidence: What was measured of them.
        critical: Token numbers.
        settings: Numbers of the example.
        ranks: Who takes part.
        **more: What else LanguageStep is told.
    """
    return kd.language.LanguageStep(
        [teacher.name for teacher in teachers],
        weights=make_rule(variant, len(teachers), settings.lower),
        constraints=make_constraints(critical, settings.asked) if variant == "constrained" else [],
        evidence=evidence,
        dual=kd.PIGain(ema=settings.smoothing),
        budget=settings.budget,
        ranks=ranks,
        horizon=settings.steps,
        **more,
    )


def measure_evidence(teachers: Sequence[Any], split: kd.Split, critical: Sequence[int]) -> kd.weights.TeacherEvidence:
    """Return how safe each teacher is in each context, on data that no student learns from.

    Args:
        teachers: K of them.
        split: Windows.
        critical: Token numbers.
    """
    truth_KNT = torch.stack([read_truth(lambda b, t=t: t(b), split) for t in teachers])
    mask_NT = torch.isin(split.labels, torch.tensor(critical))
    safety_CK, loss_CK, count_C = [], [], []
    for context in range(len(CONTEXTS)):
        here_NT = (split.context == context)[:, None].expand_as(mask_NT)
        safety_CK.append(truth_KNT[:, here_NT & mask_NT].exp().mean(1))
        loss_CK.append(-truth_KNT[:, here_NT].mean(1))
        count_C.append((here_NT & mask_NT).sum())
    return kd.weights.TeacherEvidence(
        task_loss_MK=torch.stack(loss_CK).mean(0, keepdim=True),
        safety_CK=torch.stack(safety_CK),
        count_C=torch.stack(count_C),
        source=split.name,
    )


def read_truth(ask: Callable[[Any], Any], split: kd.Split, rows: int = 64) -> Tensor:
    """Return log p(y) of every position, (N, T), float64.

    Args:
        ask: From a batch to hidden states with their head.
        split: Windows.
        rows: Positions whose distributions are held at once.
    """
    read = []
    with torch.no_grad():
        for batch in split.batches(8):
            said = ask(batch)
            pairs = zip(said.hidden.flatten(0, 1).split(rows), batch.labels.flatten().split(rows), strict=True)
            log_p = [said.head.logits(h).float().log_softmax(-1).gather(-1, y[:, None])[:, 0] for h, y in pairs]
            read.append(torch.cat(log_p).view(batch.labels.shape))
    return torch.cat(read).double()


def train_student(
    student: kd.language.CausalStudent,
    step: kd.language.LanguageStep,
    teachers: Sequence[Any],
    split: kd.Split,
    settings: RunSettings,
    file: Path,
    say: Callable[[str], None],
) -> None:
    """Train a student; it goes on from ``file`` where that is there.

    Args:
        student: Learns.
        step: Loss and multipliers.
        teachers: K of them.
        split: Windows to learn from.
        settings: Numbers of the example.
        file: Its checkpoint.
        say: Prints progress.
    """
    learned = list(student.parameters())
    optimizer = torch.optim.AdamW(learned, lr=settings.rate, betas=(0.9, 0.95), weight_decay=0.0)
    state = RunState(student, optimizer, step)
    for number in range(state.load(file), settings.steps):
        index = step.ranks.take_own(choose_windows(number, len(split), settings.batch))
        batch = split.batch(index)
        step.begin([batch])
        loss = step.loss(student.hidden(batch.inputs), student.head, [teacher(batch) for teacher in teachers], batch)
        optimizer.zero_grad()
        loss.backward()
        step.ranks.add_up_in_place([p.grad for p in learned if p.grad is not None])
        torch.nn.utils.clip_grad_norm_(learned, 1.0)
        share = 0.55 + 0.45 * torch.cos(torch.tensor(torch.pi * number / settings.steps)).item()
        for group in optimizer.param_groups:
            group["lr"] = settings.rate * share
        optimizer.step()
        record = step.finish()
        done = number + 1
        if done % settings.keep_every == 0 or done == settings.steps:
            if step.ranks.is_first:
                state.save(file, done)
            of_constraints = "".join(
                f", lambda {m:.3f} at {s:.3f}" for m, s in zip(record.multipliers, record.safety, strict=True)
            )
            say(f"step {done} of {settings.steps}, loss {record.loss:.3f}{of_constraints}")


def choose_windows(number: int, size: int, batch: int) -> Tensor:
    """Return the windows of a step: all of them once an epoch, in another order each time.

    Args:
        number: Of the step.
        size: How many windows there are.
        batch: How many a step takes.
    """
    epoch, place = divmod(number, size // batch)
    order = torch.randperm(size, generator=torch.Generator().manual_seed(epoch))
    return order[place * batch : (place + 1) * batch]


@dataclass(frozen=True)
class RunState:
    """All that moves in a run, in one file of tensors.

    Attributes:
        student: The student.
        optimizer: Its AdamW.
        step: Loss and multipliers.
        others: What else has a state, by name.
    """

    student: torch.nn.Module
    optimizer: torch.optim.Optimizer
    step: kd.language.LanguageStep
    others: Mapping[str, Any] | None = None

    def save(self, file: Path, done: int) -> None:
        """Write it, so that a kill leaves the old file or the new one.

        Args:
            file: Where.
            done: Steps taken.
        """
        moments = self.optimizer.state_dict()["state"]
        state = {f"student.{name}": p for name, p in self.student.named_parameters()}
        state |= {f"optimizer.{n}.{name}": torch.as_tensor(x) for n, of in moments.items() for name, x in of.items()}
        state |= {f"step.{name}": x for name, x in self.step.state_dict().items()}
        for who, other in (self.others or {}).items():
            state |= {f"{who}.{name}": x for name, x in other.state_dict().items()}
        file.parent.mkdir(parents=True, exist_ok=True)
        half = file.with_suffix(".half")
        save_file({name: x.detach().clone().contiguous() for name, x in state.items()}, half, {"done": str(done)})
        os.replace(half, file)

    def load(self, file: Path) -> int:
        """Read it, and return how many steps were taken; 0 where there is none.

        Args:
            file: Where.
        """
        if not file.exists():
            return 0
        state = load_file(file)
        with torch.no_grad():
            for name, parameter in self.student.named_parameters():
                parameter.copy_(state[f"student.{name}"])
        moments: dict[int, dict[str, Tensor]] = {}
        for name, x in state.items():
            if name.startswith("optimizer."):
                _, n, what = name.split(".")
                moments.setdefault(int(n), {})[what] = x
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})
        for who, part in {"step": self.step, **(self.others or {})}.items():
            part.load_state_dict({n[len(who) + 1 :]: x for n, x in state.items() if n.startswith(f"{who}.")})
        return int(self.step.steps)
