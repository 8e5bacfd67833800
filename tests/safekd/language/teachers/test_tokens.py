"""Token lists as batches, texts as splits, critical tokens, and whether tokenizers are one."""

from __future__ import annotations

import json
import re

import pytest
import torch
from tokenizers import Tokenizer
from torch.utils.data import DataLoader

import safekd as kd
from safekd.errors import InvalidInput
from safekd.language import (
    CausalTeacher,
    TeacherSet,
    TokenBatches,
    as_text_source,
    critical_tokens,
    require_same_tokenizer,
    shared_vocabulary,
    shift_labels,
    write_cache,
)
from tests.safekd.language.tiny_models import causal_model, tokenizer

# ----------------------------------------------------------------------------------------------------------- batches


def test_lists_of_unequal_lengths_become_a_batch():
    batch = TokenBatches(pad=9).batch([[3, 4, 5], [6, 7, 8, 2, 1]])
    assert batch.inputs["input_ids"].tolist() == [[3, 4, 5, 9, 9], [6, 7, 8, 2, 1]]
    assert batch.inputs["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert batch.mask.tolist() == [[True, True, False, False, False], [True] * 4 + [False]]
    assert batch.labels[batch.mask].tolist() == [4, 5, 7, 8, 2, 1]
    assert batch.context.tolist() == [0, 0]


def test_labels_are_aligned_with_hidden_states():
    """The mean cross-entropy over positions that count is the loss of transformers on the same data."""
    model = causal_model()
    examples = [[3, 4, 5, 6], {"input_ids": [7, 8, 9], "labels": [-100, -100, 9]}]
    batch = TokenBatches().batch(examples)
    log_p = torch.log_softmax(model(**batch.inputs).logits, -1)
    mine = -batch.average_positions(log_p.gather(-1, batch.labels.unsqueeze(-1)).squeeze(-1))
    labels = torch.tensor([[3, 4, 5, 6], [-100, -100, 9, -100]])
    torch.testing.assert_close(mine, model(**batch.inputs, labels=labels).loss)


def test_what_examples_say_of_themselves_is_kept():
    examples = [
        {"input_ids": [3, 4], "context": 1, "task": 0, "index": 17},
        {"input_ids": torch.tensor([5, 6, 7]), "attention_mask": [1, 1, 0], "context": 0, "task": 2, "numbers": 4},
    ]
    batch = TokenBatches(length=4).batch(examples)
    assert batch.labels.shape == (2, 4)
    assert (batch.context.tolist(), batch.task.tolist(), batch.index.tolist()) == ([1, 0], [0, 2], [17, 4])
    assert batch.mask.tolist() == [[True, False, False, False], [True, False, False, False]]
    named = [{"input_ids": [3, 4], "context": "law"}, {"input_ids": [3, 4], "context": "home"}]
    names = kd.data.GroupNames("t", contexts=("home", "law"))
    assert TokenBatches().batch(named, names).context.tolist() == [1, 0]


def test_a_data_loader_collates_with_it_and_a_source_reads_that():
    examples = [{"input_ids": list(range(3, 3 + n)), "context": n % 2} for n in (4, 7, 3, 5, 6)]
    loader = DataLoader(examples, batch_size=2, collate_fn=TokenBatches())
    source = kd.data.StreamSource("train", loader)
    batches = list(source.batches(2))
    assert [len(batch) for batch in batches] == [2, 2, 1]
    assert sum(batch.positions for batch in batches) == sum(n - 1 for n in (4, 7, 3, 5, 6))


def test_an_encoder_is_asked_about_the_token_itself():
    batch = TokenBatches(shift=False).batch([[3, 4], [5]])
    assert batch.labels[batch.mask].tolist() == [3, 4, 5]


@pytest.mark.parametrize(
    ("examples", "said"),
    [
        ([], "no examples"),
        ([[3], []], "Example 1: input_ids is of shape"),
        ([[0.5]], "wanted a list of token numbers"),
        (["text"], "Example 0: input_ids is str"),
        ([[-1]], "input_ids holds -1"),
        ([{"labels": [3]}], "Example 0 has no input_ids"),
        ([{"input_ids": [3], "pixels": 1}], "a part 'pixels'"),
        ([{"input_ids": [3, 4], "labels": [3]}], "labels has 1 entries, input_ids 2"),
        ([{"input_ids": [3], "context": 1}, [4]], "1 of 2 examples have a context"),
        ([[3, 4, 5, 6, 7]], "A sequence has 5 tokens, and `length` is 4"),
    ],
)
def test_lists_that_are_none_are_refused(examples, said):
    with pytest.raises(InvalidInput, match=said):
        TokenBatches(length=4)(examples)


def test_settings_out_of_range_are_refused():
    for settings in ({"pad": -1}, {"length": 0}, {"length": True}):
        with pytest.raises(InvalidInput, match="of TokenBatches is"):
            TokenBatches(**settings)


# ------------------------------------------------------------------------------------------------------------- texts


def test_long_texts_are_cut_and_stay_one_cluster():
    """Every next token of every text is asked for exactly once."""
    texts = [list(range(3, 14)), [20, 21], [22], [], list(range(30, 38))]
    split = as_text_source(texts, length=4, context=[0, 1, 1, 0, 2])
    assert len(split) == 3 + 1 + 2
    asked = sorted(split.labels[split.mask].tolist())
    assert asked == sorted(token for text in texts for token in text[1:])
    assert split.cluster.tolist() == [0, 0, 0, 1, 4, 4]
    assert split.context.tolist() == [0, 0, 0, 1, 2, 2]
    ids, labels = split.inputs["input_ids"], split.labels
    inside = split.mask[:, :-1] & split.mask[:, 1:]
    assert torch.equal(labels[:, :-1][inside], ids[:, 1:][inside])


def test_texts_that_fit_are_left_whole():
    split = as_text_source([[3, 4, 5], [6, 7]])
    assert split.cluster is None
    assert torch.equal(split.labels[0], shift_labels(torch.tensor([3, 4, 5])))


def test_words_are_tokens_of_the_tokenizer():
    words = tokenizer()
    split = as_text_source(["the cat is", "a dog"], words, context=["home", "law"], end=True)
    assert split.context_names == ("home", "law")
    first = split.inputs["input_ids"][0][split.inputs["attention_mask"][0] > 0].tolist()
    assert first == [*words("the cat is")["input_ids"], words.eos_token_id][: len(first)]
    assert split.labels[1][split.mask[1]].tolist()[-1] == words.eos_token_id


def test_texts_of_an_author_stay_together():
    split = as_text_source([[3, 4, 5, 6, 7], [8, 9], [3, 9]], length=2, cluster=["ann", "bob", "ann"])
    assert split.cluster.tolist() == [0, 0, 1, 0]


@pytest.mark.parametrize(
    ("texts", "settings", "said"),
    [
        ("one text", {}, "`texts` is one text"),
        ([], {}, "`texts` is empty"),
        (["words"], {}, "Text 0 is words, and there is no tokenizer"),
        ([[3], [4]], {}, "No text has two tokens"),
        ([[3, 4]], {"context": [0, 1]}, "`context` has 2 entries, and there are 1 texts"),
        ([[3, 4]], {"length": 1}, "`length` is 1"),
        ([[3, 4]], {"end": True}, "no end token"),
        ([[3, 0.5]], {}, "Text 0 is of shape"),
    ],
)
def test_texts_that_are_none_are_refused(texts, settings, said):
    with pytest.raises(InvalidInput, match=said):
        as_text_source(texts, **settings)


# --------------------------------------------------------------------------------------------------- critical tokens


def written(words, numbers):
    return [words.decode([number]) for number in numbers]


def test_a_word_is_every_token_that_writes_it():
    words = tokenizer()
    assert written(words, critical_tokens(words, "bomb")) == [" bomb", "bomb"]
    assert written(words, critical_tokens(words, [" bomb"])) == [" bomb"]
    assert critical_tokens(words, "<s>") == [1]


def test_numbers_texts_and_functions_are_mixed():
    words = tokenizer()
    numbers = critical_tokens(words, [5, "cat", re.compile("^ ?do").search, lambda text: text == "z"])
    assert set(written(words, numbers)) == {words.decode([5]), "cat", " cat", "do", "dog", " do", " dog", "z"}
    assert numbers == sorted(set(numbers))
    assert critical_tokens(words, 5) == [5]


def test_a_word_of_several_tokens_is_refused_with_its_tokens_or_chosen():
    words = tokenizer()
    with pytest.raises(
        InvalidInput, match=r"No single token writes 'bombs'; it consists of 'bomb' \(\d+\) \+ 's' \(\d+\) or ' bomb'"
    ):
        critical_tokens(words, "bombs")
    assert set(written(words, critical_tokens(words, "bombs", several="first"))) == {"bomb", " bomb"}
    assert set(written(words, critical_tokens(words, "bombs", several="all"))) == {"bomb", " bomb", "s"}


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ([], "No critical token is named"),
        ([""], "A critical text is empty"),
        ([10**6], "is 1000000; wanted a number from 0 to"),
        ([-1], "is -1"),
        ([0.5], "is 0.5"),
        (lambda text: False, "finds no token critical"),
    ],
)
def test_critical_tokens_that_are_none_are_refused(wanted, said):
    with pytest.raises(InvalidInput, match=said):
        critical_tokens(tokenizer(), wanted)
    with pytest.raises(InvalidInput, match="`several` is 'some'"):
        critical_tokens(tokenizer(), 5, several="some")


def test_thousands_of_critical_tokens_are_found_as_by_a_loop():
    """A chunk of 4,096 positions."""
    measure = kd.safety.TruthProbability(critical=range(0, 20_000, 2))
    labels = torch.randint(0, 49_152, (4096,), generator=torch.Generator().manual_seed(0))
    expected = torch.tensor([label < 20_000 and label % 2 == 0 for label in labels.tolist()])
    assert torch.equal(measure.is_critical(labels), expected)


# -------------------------------------------------------------------------------------------------------- tokenizers


def test_teachers_of_another_tokenizer_are_refused_with_the_first_token_that_differs():
    own, other = tokenizer(), tokenizer(("the", "cat", "bank", "is", "a", "dog"))
    a = CausalTeacher(causal_model(), tokenizer(), name="same")
    b = CausalTeacher(causal_model(), other, name="bank")
    require_same_tokenizer([a, a, own], own)
    first = next(n for n in range(len(own)) if own.convert_ids_to_tokens(n) != other.convert_ids_to_tokens(n))
    tokens = other.convert_ids_to_tokens(first), own.convert_ids_to_tokens(first)
    with pytest.raises(
        InvalidInput,
        match=f"teacher 'bank'.*the student's.*token {first} is '{tokens[0]}' there and '{tokens[1]}' here",
    ):
        require_same_tokenizer([a, b], own)
    with pytest.raises(InvalidInput, match="teacher 'bank'"):
        TeacherSet([a, b], own)


def test_a_token_more_and_another_merge_are_differences():
    own, more = tokenizer(), tokenizer(extra=("<tool>",))
    with pytest.raises(InvalidInput, match=f"token {len(own)} is '<tool>' there and nothing here"):
        require_same_tokenizer([more], own)
    with pytest.raises(InvalidInput, match=f"token {len(own)} is nothing there and '<tool>' here"):
        require_same_tokenizer([own], more)
    fewer = tokenizer()
    state = json.loads(fewer.backend_tokenizer.to_str())
    state["model"]["merges"].pop()
    fewer = type(own)(tokenizer_object=Tokenizer.from_str(json.dumps(state)))
    with pytest.raises(InvalidInput, match=r"the tokens are the same, and merge .* is none there"):
        require_same_tokenizer([fewer], own)


def test_another_end_token_is_no_other_vocabulary():
    """As of an instruction-tuned teacher and a base student; the hash in the manifest tells them apart."""
    own, chat = tokenizer(), tokenizer()
    chat.eos_token = "<s>"
    require_same_tokenizer([chat], own)
    a, b = (CausalTeacher(causal_model(), words).manifest() for words in (own, chat))
    assert a["token_map"] == b["token_map"]
    assert a["tokenizer"] != b["tokenizer"]


def test_use_does_not_change_the_hash():
    words = tokenizer()
    teacher = CausalTeacher(causal_model(), words)
    before = teacher.manifest()
    words(["the cat", "a"], padding=True, truncation=True, max_length=2)
    assert teacher.manifest() == before


def test_a_teacher_in_a_cache_is_compared_by_its_manifest(tmp_path):
    own, data = tokenizer(), as_text_source([[3, 4, 5], [6, 7]])
    teachers = TeacherSet([CausalTeacher(causal_model(seed=s), own, name=f"t{s}") for s in (0, 1)])
    kept = write_cache(tmp_path / "cache", teachers, data, dtype=torch.float32)
    TeacherSet(kept, own)
    for cached, teacher in zip(kept, teachers, strict=True):
        cached.require(teacher.manifest())
        counted = data.batch().mask
        torch.testing.assert_close(cached(data.batch()).hidden[counted], teacher(data.batch()).hidden[counted])
    with pytest.raises(InvalidInput, match="teacher 't0' is another one than the student's"):
        require_same_tokenizer(kept, tokenizer(extra=("x1",)))
    with pytest.raises(InvalidInput, match="teacher 'LlamaForCausalLM' is not known"):
        require_same_tokenizer([CausalTeacher(causal_model())], own)


def test_padded_vocabularies_share_the_smaller_size():
    words = tokenizer()
    heads = [kd.language.Head(torch.zeros(n, 4)) for n in (128, 96)]
    teacher = CausalTeacher(causal_model(vocab_size=104), words)
    assert shared_vocabulary(words, heads) == 96
    assert shared_vocabulary(words, [*heads, teacher]) == 96
    assert shared_vocabulary(words, [128, 152_064]) == 128
    with pytest.raises(InvalidInput, match=f"A Head scores 30 tokens, and the tokenizer .* has {len(words)}"):
        shared_vocabulary(words, [heads[0], kd.language.Head(torch.zeros(30, 4))])
    with pytest.raises(InvalidInput, match="There are no heads"):
        shared_vocabulary(words, [])


def test_weights_are_told_apart_by_one_number():
    a, b = causal_model(), causal_model()
    assert CausalTeacher(a).manifest() == CausalTeacher(b).manifest()
    teacher = CausalTeacher(b)
    before = teacher.manifest()
    with torch.no_grad():
        b.model.layers[1].mlp.up_proj.weight[3, 4] += 1e-6
    now = teacher.manifest()
    assert {name for name in now if now[name] != before[name]} == {"weights"}
    assert CausalTeacher(causal_model("llama tied")).manifest()["tied"] == 1
    capped = CausalTeacher(causal_model("gemma2 with soft cap")).manifest()
    assert (capped["softcap"], capped["scale"]) == ("0.5", "1.0")
