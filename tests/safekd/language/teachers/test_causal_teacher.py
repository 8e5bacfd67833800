"""Causal models of transformers as teachers: what they say is what the model says, to rounding."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import transformers

import safekd as kd
from safekd.errors import InvalidInput, SafekdWarning
from safekd.language import CausalTeacher, EncoderTeacher, Hidden, Logits, TeacherSet, TokenBatches
from tests.safekd.language.tiny_models import V, causal_model, configs, tokenizer

ROWS = [[3, 4, 5, 6, 7], [8, 9], [10, 11, 12]]


def batch(rows=ROWS, **settings):
    return TokenBatches(**settings).batch(rows)


def padded_on_left(rows=ROWS):
    plain = batch(rows)
    roll = plain.inputs["attention_mask"].shape[1] - plain.inputs["attention_mask"].sum(-1)
    rolled = {
        name: torch.stack([v.roll(int(r)) for v, r in zip(value, roll, strict=True)])
        for name, value in plain.inputs.items()
    }
    labels = torch.where(rolled["attention_mask"] > 0, rolled["input_ids"], -100)
    return kd.data.build_batch({"inputs": rolled, "labels": kd.language.shift_labels(labels)}, kd.data.GroupNames("t"))


def bert_decoder():
    """Its head transforms the hidden states once more, so that hidden states and matrix do not say what it says."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    config = transformers.BertConfig(vocab_size=V, **sizes, is_decoder=True)
    return transformers.BertLMHeadModel(config).eval()


@pytest.mark.parametrize("kind", configs())
def test_hidden_states_and_head_give_the_logits_of_the_model(kind):
    model, some = causal_model(kind), batch()
    said = CausalTeacher(model)(some)
    assert isinstance(said, Hidden)
    with torch.no_grad():
        expected = model(**some.inputs).logits
    assert expected.abs().max() > 0.1
    counted = some.inputs["attention_mask"] > 0
    torch.testing.assert_close(said.head.logits(said.hidden)[counted], expected[counted], rtol=0, atol=1e-6)
    assert not said.hidden.requires_grad
    assert not said.head.weight.requires_grad


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_teacher_answers_in_its_own_type(dtype):
    model = causal_model("gemma2 with soft cap")
    teacher = CausalTeacher(model, dtype=dtype)
    said, expected = teacher(batch()), model(**batch().inputs).logits
    assert said.hidden.dtype == said.head.weight.dtype == dtype
    assert teacher.manifest()["dtype"] == str(dtype)[6:]
    assert torch.equal(said.head.logits(said.hidden)[0], expected[0])


def test_no_logits_are_computed_after_the_first_look():
    model = causal_model()
    teacher = CausalTeacher(model)
    calls = []
    model.lm_head.register_forward_hook(lambda *_: calls.append(1))
    teacher(batch())
    assert len(calls) == 1  # eight tokens, to see that the head is all there is
    teacher(batch())
    assert len(calls) == 1


def test_a_teacher_with_dropout_is_asked_in_eval_mode_and_keeps_its_mode():
    model = causal_model("gpt2", resid_pdrop=0.5, embd_pdrop=0.5).train()
    teacher = CausalTeacher(model)
    assert torch.equal(teacher(batch()).hidden, teacher(batch()).hidden)
    assert model.training
    assert model.transformer.h[0].mlp.dropout.training


@pytest.mark.parametrize("kind", ["llama", "gpt2", "opt with projection", "bloom", "gemma2 with soft cap"])
def test_padding_on_the_left_changes_nothing(kind):
    teacher, left, right = CausalTeacher(causal_model(kind)), padded_on_left(), batch()
    a, b = teacher(left).hidden, teacher(right).hidden
    inside = left.inputs["attention_mask"] > 0, right.inputs["attention_mask"] > 0
    torch.testing.assert_close(a[inside[0]], b[inside[1]], rtol=0, atol=1e-5)


def test_a_model_whose_head_does_more_gives_logits_with_a_warning():
    model = bert_decoder()
    teacher = CausalTeacher(model, name="bert")
    with pytest.warns(SafekdWarning, match=r"Teacher 'bert' gives logits, 64 numbers a position.*differ by up to"):
        said = teacher(batch())
    assert isinstance(said, Logits)
    assert teacher.gives == "logits"
    with torch.no_grad():
        assert torch.equal(said.logits[0], model(**batch().inputs).logits[0])


def test_a_model_whose_head_does_more_is_refused_where_hidden_states_are_asked_for():
    with pytest.raises(
        InvalidInput, match=r"Teacher 'BertLMHeadModel': its logits and those of its head differ.*gives='logits'"
    ):
        CausalTeacher(bert_decoder(), gives="hidden")(batch())


def test_logits_are_given_where_they_are_asked_for():
    model = causal_model()
    said = CausalTeacher(model, gives="logits")(batch())
    assert isinstance(said, Logits)
    assert torch.equal(said.logits, model(**batch().inputs).logits)


def test_a_model_that_translates_is_refused():
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    model = transformers.T5ForConditionalGeneration(transformers.T5Config(vocab_size=V, **sizes))
    with pytest.raises(InvalidInput, match="reads one text and writes another"):
        CausalTeacher(model)(batch())


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"pixels": torch.zeros(2, 3)}, "no `input_ids`"),
        ({"input_ids": torch.zeros(2, 3)}, r"shape \(2, 3\) \(torch.float32\)"),
        ({"input_ids": torch.zeros(2, 3, dtype=torch.long), "attention_mask": torch.ones(2, 4)}, r"shape \(2, 4\)"),
        ({"input_ids": torch.full((2, 3), V)}, "knows tokens 0 to 63, and a batch holds 64"),
    ],
)
def test_inputs_that_a_model_cannot_read_are_refused(inputs, said):
    some = kd.data.Batch(inputs, *(torch.zeros(2, 3, dtype=torch.long),) * 1, *(torch.zeros(2, dtype=torch.long),) * 3)
    with pytest.raises(InvalidInput, match=f"Teacher 'LlamaForCausalLM'.*{said}"):
        CausalTeacher(causal_model())(some)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"park": "tape"}, "`park` is 'tape'; wanted 'cpu', 'disk'"),
        ({"gives": "top"}, "`gives` is 'top'"),
        ({"adapter": "legal"}, "adapter is 'legal'; the model holds none"),
        ({"device": "cuda:99"}, "which this machine does not have"),
        ({"prompt": "hello"}, "a prompt in words and no tokenizer"),
        ({"prompt": []}, "has no tokens"),
        ({"prompt": [V]}, "holds 64"),
        ({"prompt": 3}, "`prompt` is 3; wanted a text, or a list of token numbers"),
        ({"prompt": [0.5]}, r"`prompt` is \[0\.5\]; wanted a text"),
        ({"prompt": ["the", "cat"]}, r"`prompt` is \['the', 'cat'\]; wanted a text"),
        ({"prompt": [[1, 2], [3]]}, r"`prompt` is \[\[1, 2\], \[3\]\]; wanted a text"),
        ({"prompt": [1], "system": "x"}, "give one of them"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, said):
    with pytest.raises(InvalidInput, match=said):
        CausalTeacher(causal_model(), **settings)


@pytest.mark.parametrize("kind", [CausalTeacher, EncoderTeacher])
def test_a_name_is_no_model(kind):
    with pytest.raises(
        InvalidInput, match=r"A teacher's model is a str; wanted a model .* CausalTeacher\.load\('folder"
    ):
        kind("gpt2")


def test_a_module_of_ones_own_is_no_language_model():
    with pytest.raises(
        InvalidInput, match=r"Linear has no output matrix, and its configuration no `.*a model of transf"
    ):
        _ = CausalTeacher(torch.nn.Linear(4, V)).vocabulary


class Bare(torch.nn.Module):
    """Has the head of a language model, and what is below it under no name that is known."""

    def __init__(self, body=None):
        super().__init__()
        self.head = torch.nn.Linear(4, V)
        if body is not None:
            self.base_model = body

    def get_output_embeddings(self):
        return self.head

    def forward(self, input_ids, attention_mask=None):
        return SimpleNamespace(logits=torch.zeros(*input_ids.shape, V))


class Tuples(torch.nn.Module):
    def forward(self, input_ids, attention_mask=None):
        return (torch.zeros(*input_ids.shape, 4),)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (None, r"is a Bare, whose part below the head was not found; wanted .* or gives='logits'"),
        (Tuples(), r"Tuples gave no `last_hidden_state`; ask it with gives='logits'"),
    ],
)
def test_a_model_whose_hidden_states_are_nowhere_is_refused_with_the_way_out(body, said):
    with pytest.raises(InvalidInput, match=said):
        CausalTeacher(Bare(body), gives="hidden")(batch())


def test_an_encoder_without_a_head_or_without_tokens_is_refused():
    config = transformers.BertConfig(
        vocab_size=V, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    with pytest.raises(
        InvalidInput, match=r"is a BertModel, which gives no logits; wanted .* such as AutoModelForMask"
    ):
        EncoderTeacher(transformers.BertModel(config).eval())(batch())
    some = kd.data.Batch({"pixels": torch.zeros(2, 3)}, *(torch.zeros(2, dtype=torch.long),) * 4)
    with pytest.raises(InvalidInput, match=r"was given 'pixels'; wanted inputs that have 'input_ids', \(B, T\)"):
        EncoderTeacher(transformers.BertForMaskedLM(config).eval())(some)


def test_a_model_without_a_head_is_refused():
    with pytest.raises(InvalidInput, match="LlamaModel has no output matrix"):
        CausalTeacher(causal_model().model)(batch())


# --------------------------------------------------------------------------------------------- other ways to be asked


def test_the_same_object_is_a_teacher_of_a_constrained_trainer():
    """Its log-probabilities are those of the model, and the measured safety is the table's."""
    models = [causal_model(seed=seed) for seed in (0, 1)]
    teachers = [CausalTeacher(model, name=name) for model, name in zip(models, "ab", strict=True)]
    split = kd.language.as_text_source([list(range(3, 12)), list(range(20, 27)), list(range(5, 20))], length=6)
    measure = kd.safety.TruthProbability(critical=[6, 7, 8, 25])
    evidence = kd.teachers.measure_teachers(kd.teachers.TeacherEnsemble(teachers), split, measure)
    log_p = [torch.log_softmax(model(**split.inputs).logits, -1) for model in models]
    critical = torch.isin(split.labels, torch.tensor([6, 7, 8, 25])) & split.mask
    safety = [p.gather(-1, split.labels.clamp_min(0).unsqueeze(-1)).squeeze(-1).exp()[critical].mean() for p in log_p]
    torch.testing.assert_close(evidence.safety_CK[0], torch.stack(safety).detach(), rtol=1e-5, atol=1e-8)


def test_an_encoder_answers_about_each_position():
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 48}
    config = transformers.BertConfig(vocab_size=V, **sizes, num_labels=3)
    some = batch(shift=False)
    for kind, V_ in ((transformers.BertForMaskedLM, V), (transformers.BertForTokenClassification, 3)):
        model = kind(config).eval()
        teacher = EncoderTeacher(model, name="encoder")
        said = teacher(some)
        assert (teacher.vocabulary, teacher.manifest()["kind"]) == (V_, "encoder")
        assert torch.equal(said.logits, model(**some.inputs).logits)


def test_a_sequence_classifier_is_a_teacher_by_the_adapters_for_modules():
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 48}
    model = transformers.BertForSequenceClassification(
        transformers.BertConfig(vocab_size=V, **sizes, num_labels=3)
    ).eval()
    some = kd.data.build_batch({"inputs": batch().inputs, "labels": torch.tensor([0, 1, 2])}, kd.data.GroupNames("t"))
    expected = torch.log_softmax(model(**some.inputs).logits, -1)
    for teacher in (kd.teachers.TorchTeacher("bert", model), EncoderTeacher(model, name="bert")):
        torch.testing.assert_close(teacher.log_probabilities(some, "t"), expected, rtol=0, atol=1e-6)


# ------------------------------------------------------------------------------------------------ several teachers


def test_several_teachers_are_asked_in_their_order():
    models = [causal_model(seed=seed) for seed in (0, 1)]
    words = tokenizer()
    a, b = (CausalTeacher(model, words, name=name) for model, name in zip(models, "ab", strict=True))
    c = CausalTeacher(models[0], words, name="c", prompt=[3, 4])
    several = TeacherSet([a, b, c], words)
    for said, teacher in zip(several(batch()), several, strict=True):
        assert torch.equal(said.hidden, teacher(batch()).hidden)
    assert several.names == ["a", "b", "c"]
    assert [m["prompt"] != "" for m in several.manifests()] == [False, False, True]


def test_teachers_of_one_name_or_none_are_refused():
    teacher = CausalTeacher(causal_model())
    with pytest.raises(InvalidInput, match="Two teachers are called 'LlamaForCausalLM'"):
        TeacherSet([teacher, teacher])
    with pytest.raises(InvalidInput, match="There are no teachers"):
        TeacherSet([])


# ---------------------------------------------------------------------------------------------------- from a folder


def test_a_saved_model_is_loaded_with_its_tokenizer(tmp_path):
    model, words = causal_model("llama tied"), tokenizer()
    model.save_pretrained(tmp_path / "small")
    words.save_pretrained(tmp_path / "small")
    teacher = CausalTeacher.load(str(tmp_path / "small"), prompt="the cat")
    direct = CausalTeacher(model, words, prompt="the cat")
    assert torch.equal(teacher(batch()).hidden, direct(batch()).hidden)
    assert teacher.name == "small"
    (tmp_path / "other").mkdir()
    (tmp_path / "small").rename(tmp_path / "other" / "small")  # which does not make another teacher of it
    assert CausalTeacher.load(str(tmp_path / "other" / "small"), prompt="the cat").manifest() == teacher.manifest()
    same = [name for name in direct.manifest() if direct.manifest()[name] == teacher.manifest()[name]]
    assert {"weights", "tokenizer", "token_map", "prompt", "tied", "dtype"} <= set(same)
    assert teacher.manifest()["tied"] == 1
    assert CausalTeacher.load(str(tmp_path / "other" / "small"), dtype=torch.bfloat16).dtype == torch.bfloat16


def test_weights_alone_are_loaded_too(tmp_path):
    causal_model().save_pretrained(tmp_path)
    teacher = CausalTeacher.load(str(tmp_path))
    assert teacher.tokenizer is None
    assert teacher.manifest()["tokenizer"] == ""


@pytest.mark.parametrize("content", [None, "{}", "not json"])
def test_a_folder_without_a_model_is_named(tmp_path, content):
    folder = tmp_path / "nothing here"
    folder.mkdir()
    if content is not None:
        (folder / "config.json").write_text(content)
    with pytest.raises(
        InvalidInput, match=r"No causal language model can be loaded from '.*nothing here'.*save_pretrained"
    ):
        CausalTeacher.load(str(folder))
