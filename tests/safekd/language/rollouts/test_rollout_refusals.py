"""Settings of writing that cannot be used are refused in the student's own words, before or where it writes."""

from __future__ import annotations

import pytest
import torch

import safekd as kd
from safekd.language import CausalStudent, Rollouts

from .small_student import PROMPTS, VOCABULARY, make_student


@pytest.fixture(scope="module")
def student():
    return make_student(0)


def roll(generate, prompts=PROMPTS, **settings):
    return Rollouts(prompts, generate, length=3, batch_size=2, **settings)


def test_an_option_that_generate_does_not_read_is_refused_with_the_nearest(student):
    for generate in (student, student.generate, CausalStudent(student)):
        with pytest.raises(kd.InvalidInput, match=r"'tmperature'.*LlamaForCausalLM.*Did you mean 'temperature'\?"):
            roll(generate, options={"tmperature": 0.5})
    assert roll(student, options={"temperature": 0.5, "repetition_penalty": 1.1}).next_batch().positions > 0


def test_a_generate_that_fails_is_said_with_what_it_was_called_with(student):
    with pytest.raises(kd.InvalidInput, match=r"`generate` failed on 2 prompts.*'num_beams': 0.*ZeroDivisionError"):
        roll(student, options={"num_beams": 0}).next_batch()
    with pytest.raises(kd.InvalidInput, match=r"unexpected keyword.*def generate\(input_ids, attention_mask, \*\*"):
        roll(lambda input_ids, attention_mask: input_ids).next_batch()


def test_tokens_that_the_student_does_not_know_are_refused_before_it_writes(student):
    with pytest.raises(kd.InvalidInput, match=rf"Prompt 1: .* token 99, .* knows tokens 0 to {VOCABULARY - 1}"):
        roll(student, [[3, 4], [5, 99]])
    with pytest.raises(kd.InvalidInput, match=f"`padding` is token {VOCABULARY}"):
        roll(student, padding=VOCABULARY)


def test_examples_of_rollouts_without_fixed_data_are_refused(student):
    with pytest.raises(kd.InvalidInput, match="These rollouts have no fixed data; give `fixed`"):
        roll(student).take_fixed(torch.tensor([0]))
