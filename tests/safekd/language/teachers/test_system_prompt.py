"""A prompt makes another teacher: what stands before each sequence, and what is answered for."""

from __future__ import annotations

import pytest
import torch

import safekd as kd
from safekd.errors import InvalidInput
from safekd.language import CausalTeacher
from safekd.language.teachers import _causal_teacher
from tests.safekd.language.tiny_models import causal_model, configs, tokenizer

from .test_causal_teacher import ROWS, batch, bert_decoder, padded_on_left

PROMPT = [20, 21, 22, 23]
TEMPLATE = "{% for m in messages %}{{ '<s>' + m['content'] + '</s>' }}{% endfor %}"


@pytest.mark.parametrize("padded", [batch, padded_on_left], ids=["right", "left"])
@pytest.mark.parametrize("kind", configs())
def test_each_sequence_is_read_after_the_prompt_and_answered_alone(kind, padded):
    """Against the model asked about each row by itself, prompt and all, without any padding."""
    model, some = causal_model(kind), padded()
    hidden = CausalTeacher(model, prompt=PROMPT)(some).hidden
    assert hidden.shape == (*some.labels.shape, model.get_output_embeddings().weight.shape[1])
    for row, tokens in enumerate(ROWS):
        with torch.no_grad():
            alone = model.base_model(torch.tensor([PROMPT + tokens])).last_hidden_state[0, len(PROMPT) :]
        inside = some.inputs["attention_mask"][row] > 0
        torch.testing.assert_close(hidden[row][inside], alone, rtol=0, atol=1e-5)


def test_a_prompt_changes_what_is_said():
    model = causal_model()
    said = [CausalTeacher(model, prompt=prompt)(batch()).hidden for prompt in (None, PROMPT, PROMPT[:2])]
    assert all((a - b).abs().max() > 1e-3 for a, b in ((said[0], said[1]), (said[1], said[2])))


def test_the_prompt_is_read_once_for_all_rows(monkeypatch):
    """And the hidden states are those of the prompt written into each row."""
    model = causal_model()
    teacher = CausalTeacher(model, prompt=PROMPT)
    teacher(batch())  # looks at the head
    read = []
    model.model.embed_tokens.register_forward_hook(lambda _m, _i, out: read.append(tuple(out.shape[:2])))
    once = teacher(batch()).hidden
    assert read == [(1, 4), (3, 5)]
    monkeypatch.setattr(_causal_teacher, "read_hidden_after", lambda *_: None)
    torch.testing.assert_close(once, teacher(batch()).hidden, rtol=0, atol=1e-6)
    assert read[2:] == [(3, 9)]


def test_logits_after_a_prompt_are_those_of_the_tokens():
    model = bert_decoder()
    said = CausalTeacher(model, prompt=PROMPT, gives="logits")(batch()).logits
    with torch.no_grad():
        alone = model(torch.tensor([PROMPT + ROWS[1]])).logits[0, len(PROMPT) :]
    torch.testing.assert_close(said[1, :2], alone, rtol=0, atol=1e-5)


def test_words_become_tokens():
    words = tokenizer(template=TEMPLATE)
    model = causal_model()
    spelled = words("the cat is", add_special_tokens=False)["input_ids"]
    assert CausalTeacher(model, words, prompt="the cat is").prompt == tuple(spelled)
    assert CausalTeacher(model, words, system="the cat").prompt == (1, *words("the cat")["input_ids"], 2)
    other = "{{ messages[0]['content'] }}"
    assert CausalTeacher(model, words, system="the cat", template=other).prompt == tuple(words("the cat")["input_ids"])


def test_a_prompt_begins_as_the_tokenizer_begins_a_text():
    from tokenizers.processors import TemplateProcessing

    words = tokenizer()
    words.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    spelled = words("the cat")["input_ids"]
    assert (spelled[0], spelled[-1]) == (1, 2)
    assert CausalTeacher(causal_model(), words, prompt="the cat").prompt == tuple(spelled[:-1])


@pytest.mark.parametrize(
    ("words", "settings", "said"),
    [
        (tokenizer(), {"system": "x"}, "a tokenizer without a chat template"),
        (None, {"system": "x"}, "no tokenizer"),
        (tokenizer(), {"template": TEMPLATE}, "nothing stands in it"),
        (
            tokenizer(template="{{ raise_exception('no system') }}"),
            {"system": "x"},
            "does not take a system's turn alone",
        ),
        (tokenizer(template="{{ '' }}"), {"system": "x"}, "leaves out what the system says"),
    ],
)
def test_what_no_template_can_say_is_refused(words, settings, said):
    with pytest.raises(InvalidInput, match=said):
        CausalTeacher(causal_model(), words, **settings)


def test_sequences_longer_than_the_places_of_a_model_are_named():
    rows = [[3] * 62]
    assert CausalTeacher(causal_model("gpt2"))(batch(rows)).hidden.shape == (1, 62, 32)
    with pytest.raises(
        InvalidInput, match="sequences of 62 tokens after a prompt of 4, and its configuration says 64 at most"
    ):
        CausalTeacher(causal_model("gpt2"), prompt=PROMPT)(batch(rows))


def test_sequences_packed_into_one_row_are_refused():
    some = batch([[3, 4, 5, 6]])
    packed = {**some.inputs, "position_ids": torch.tensor([[0, 1, 0, 1]])}
    packed = kd.data.build_batch({"inputs": packed, "labels": some.labels}, kd.data.GroupNames("t"))
    CausalTeacher(causal_model())(packed)
    with pytest.raises(InvalidInput, match="packed into one row"):
        CausalTeacher(causal_model(), prompt=PROMPT)(packed)
