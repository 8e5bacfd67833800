"""Causal models as students of everything that takes a module: certificates, trainers, the loss over a vocabulary."""

from __future__ import annotations

import peft
import pytest
import torch

import safekd as kd
from safekd.errors import InvalidInput
from safekd.language import CausalStudent, CausalTeacher, TokenBatches, as_text_source
from tests.safekd.language.tiny_models import V, causal_model, configs

from .test_causal_teacher import batch, bert_decoder, padded_on_left

CRITICAL = [3, 5, 7, 11, 13]


@pytest.mark.parametrize("padded", [batch, padded_on_left], ids=["right", "left"])
@pytest.mark.parametrize("kind", configs())
def test_logits_and_hidden_states_say_the_same(kind, padded):
    model = causal_model(kind)
    student, some = CausalStudent(model), padded()
    counted = some.inputs["attention_mask"] > 0
    logits = student(**some.inputs)
    torch.testing.assert_close(
        student.head.logits(student.hidden(some.inputs))[counted], logits[counted], rtol=0, atol=1e-5
    )


def test_it_learns_by_the_loss_over_the_vocabulary():
    """Gradients are those of autograd through the whole logits."""
    model, teacher = causal_model("llama tied"), CausalTeacher(causal_model(seed=1))
    student, some = CausalStudent(model), batch()
    out = kd.language.distillation_loss(
        student.hidden(some.inputs), student.head, [teacher(some)], labels=some.labels, mask=some.mask
    )
    out.loss.backward()
    mine = {name: value.grad.clone() for name, value in model.named_parameters()}
    model.zero_grad()
    log_s = torch.log_softmax(student(**some.inputs), -1)
    q = torch.softmax(teacher.model(**some.inputs).logits.detach(), -1)
    some.average_positions((q * (q.log() - log_s)).sum(-1)).backward()
    for name, value in model.named_parameters():
        torch.testing.assert_close(mine[name], value.grad, rtol=1e-4, atol=1e-6)


def test_a_student_with_adapters_learns_in_them():
    model = peft.get_peft_model(causal_model(), peft.LoraConfig(r=2, target_modules=["q_proj"]))
    student = CausalStudent(model)
    student(**batch().inputs).logsumexp(-1).sum().backward()
    learned = {name for name, value in student.named_parameters() if value.grad is not None}
    assert learned
    assert all("lora_" in name for name in learned)


def test_models_that_do_not_fit_are_refused():
    student = CausalStudent(bert_decoder())
    assert student(**batch().inputs).shape == (3, 5, V)
    with pytest.raises(InvalidInput, match=r"BertLMHeadModel: its logits and those of its head differ.*None"):
        student.hidden(batch().inputs)
    with pytest.raises(InvalidInput, match="no output matrix"):
        CausalStudent(causal_model().model)
    with pytest.raises(InvalidInput, match="is a str"):
        CausalStudent("gpt2")


def test_a_constrained_trainer_trains_it_as_any_other_module():
    generator = torch.Generator().manual_seed(0)
    texts = [
        torch.randint(3, 20, (int(n),), generator=generator) for n in torch.randint(4, 9, (24,), generator=generator)
    ]
    split = as_text_source(texts, context=[n % 2 for n in range(24)], name="train")
    student = CausalStudent(causal_model())
    safe = kd.SafetyConstraint("named", kd.safety.TruthProbability(critical=CRITICAL), at_least=0.05)
    teachers = [CausalTeacher(causal_model(seed=seed), name=f"t{seed}") for seed in (1, 2)]
    adam = torch.optim.Adam(student.parameters(), lr=0.01)
    trainer = kd.ConstrainedTrainer(student, teachers, constraints=[safe], optimizer=adam, batch_size=8)
    result = trainer.fit(split, epochs=3)
    assert result.point.step == 9
    certificate = kd.certify(student, safe, as_text_source(texts[:9], name="new"))
    assert certificate.clusters <= 9


# ------------------------------------------------------------------------------------------------------ certificates

SETTINGS = {
    "avoids": {"unsafe": [40, 41]},
    "unsafe_mass": {"unsafe": [40, 41]},
    "top_k": {"k": 3},
    "log_truth_probability": {"at": 0.1},
    "calibration": {"of": 3},
}


@pytest.mark.parametrize("name", sorted(kd.safety.MEASURES))
def test_certificates_of_every_measure_count_sequences_and_not_positions(name):
    measure = kd.safety.MEASURES[name](critical=CRITICAL, **SETTINGS.get(name, {}))
    generator = torch.Generator().manual_seed(1)
    texts = [torch.randint(3, 16, (12,), generator=generator) for _ in range(7)]
    student = CausalStudent(causal_model())
    safe = kd.SafetyConstraint("named", measure, at_least=0.5)
    short = kd.certify(student, safe, as_text_source(texts, name="short", length=4))
    whole = kd.certify(student, safe, as_text_source(texts, name="whole"))
    assert short.clusters == whole.clusters == 7  # pieces of one text are one
    assert short.count == whole.count > 7


class RememberedWords(torch.nn.Module):
    """A student that knows the critical token of a sequence at all of its positions, or at none."""

    def __init__(self, p_V):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def forward(self, input_ids, attention_mask=None):
        known = (input_ids[..., :1] % 2 == 0).expand(input_ids.shape)
        logits = torch.zeros(*input_ids.shape, 8)
        logits[..., 1] = torch.where(known, 20.0, -20.0)
        return logits


def test_false_certificates_of_sequences_are_as_rare_as_promised():
    """30 sequences of 40 positions whose safety is all or nothing: by position 3 of 20 such certificates were false."""
    safe = kd.SafetyConstraint("named", kd.safety.Recall([1]), at_least=0.5)
    generator = torch.Generator().manual_seed(0)
    student, false, by_position = RememberedWords(0), 0, 0
    trials = 200
    for _ in range(trials):
        ids = torch.randint(0, 10_000, (30, 1), generator=generator).expand(30, 40)  # the truth is exactly a half
        data = kd.Split("new", {"input_ids": ids}, torch.ones(30, 40, dtype=torch.long))
        certificate = kd.certify(student, safe, data)
        assert certificate.clusters == 30
        false += certificate.lower_bound > 0.5
        rows = kd.Split("rows", {"input_ids": ids.reshape(-1, 1)}, torch.ones(1200, dtype=torch.long).unsqueeze(-1))
        by_position += kd.certify(student, safe, rows).lower_bound > 0.5
    assert false <= 0.05 * trials
    assert by_position > 0.1 * trials  # what sequences taken apart would claim


def test_tokens_of_a_batch_are_read_by_the_student_as_they_are_by_a_trainer():
    some = TokenBatches().batch([[3, 4, 5], [6, 7]])
    student = CausalStudent(causal_model())
    assert student(**some.inputs, token_type_ids=torch.zeros(2, 3)).shape == (2, 3, V)
