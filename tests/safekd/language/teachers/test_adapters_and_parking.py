"""Several teachers of one base by peft adapters, and models that are in memory only while they are asked."""

from __future__ import annotations

import gc
import stat
from pathlib import Path

import peft
import pytest
import torch

from safekd.errors import InvalidInput
from safekd.language import CausalStudent, CausalTeacher, TeacherSet, distillation_loss
from safekd.language.teachers import _parked_model
from tests.safekd.language.tiny_models import causal_model, tokenizer

from .test_causal_teacher import batch


def adapted(names=("legal", "medical"), seed=0, **settings):
    """A base with random adapters, the last of which is active."""
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], **settings)
    model = peft.get_peft_model(causal_model(seed=seed), config, adapter_name=names[0])
    for name in names[1:]:
        model.add_adapter(name, config)
    torch.manual_seed(5)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "lora_B" in name:
                value.normal_(0, 0.3)
    model.set_adapter(names[-1])
    return model.eval()


def state(model):
    status = model.get_model_status()
    return status.enabled, list(model.active_adapters), {n: v.requires_grad for n, v in model.named_parameters()}


def test_each_adapter_and_the_base_are_teachers_of_their_own():
    model, plain = adapted(), causal_model()
    said = {name: CausalTeacher(model, adapter=name)(batch()).hidden for name in ("legal", "medical", None)}
    torch.testing.assert_close(said[None], CausalTeacher(plain)(batch()).hidden, rtol=0, atol=1e-6)
    for name in ("legal", "medical"):
        model.set_adapter(name)
        with torch.no_grad():
            own = model(**batch().inputs, output_hidden_states=True).hidden_states[-1]
        torch.testing.assert_close(said[name], own, rtol=0, atol=1e-6)
        assert (said[name] - said[None]).abs().max() > 1e-2


@pytest.mark.parametrize("adapter", ["legal", "medical", None])
def test_which_adapter_is_active_and_what_learns_is_as_before(adapter):
    model = adapted()
    before = state(model)
    CausalTeacher(model, adapter=adapter)(batch())
    assert state(model) == before


def test_a_base_that_is_switched_off_stays_so():
    model = adapted()
    model.base_model.disable_adapter_layers()
    before = state(model)
    said = CausalTeacher(model, adapter="legal")(batch()).hidden
    assert state(model) == before
    assert (said - CausalTeacher(model)(batch()).hidden).abs().max() > 1e-2


def test_a_question_that_fails_leaves_the_adapters_as_they_were():
    model = adapted()
    before, teacher = state(model), CausalTeacher(model, adapter="legal")
    with pytest.raises(InvalidInput):
        teacher(batch([[99]]))
    assert state(model) == before


def test_adapters_share_the_weights_of_the_base_in_their_manifests():
    model, plain = adapted(), CausalTeacher(causal_model()).manifest()
    a, b, base = (CausalTeacher(model, adapter=name).manifest() for name in ("legal", "medical", None))
    assert a["weights"] == b["weights"] == base["weights"] == plain["weights"]
    assert len({a["adapter_weights"], b["adapter_weights"], base["adapter_weights"]}) == 3
    assert (base["adapter"], base["adapter_weights"]) == ("", "")
    with torch.no_grad():
        next(v for n, v in model.named_parameters() if "lora_B.legal" in n).add_(1)
    again = CausalTeacher(model, adapter="legal").manifest()
    assert (again["weights"], again["adapter_weights"] == a["adapter_weights"]) == (a["weights"], False)


def test_a_student_in_an_adapter_learns_from_the_base_under_it():
    """One model is teacher and student; asking the teacher within a step leaves its gradients alone."""
    model = adapted(("student",))
    student, teacher, some = CausalStudent(model), CausalTeacher(model, name="base"), batch()
    student.train()
    hidden = student.hidden(some.inputs)
    out = distillation_loss(hidden, student.head, [teacher(some)], labels=some.labels, mask=some.mask)
    out.loss.backward()
    learned = {name for name, value in model.named_parameters() if value.grad is not None}
    assert learned
    assert all("lora_" in name for name in learned)
    assert model.training
    assert out.loss > 1e-3


def test_an_adapter_on_the_output_matrix_gives_logits():
    """Hidden states and the matrix alone would leave the adapter out."""
    config = peft.LoraConfig(r=4, target_modules=["lm_head"])
    model = peft.get_peft_model(causal_model(), config, adapter_name="legal")
    torch.nn.init.normal_(model.base_model.model.lm_head.lora_B["legal"].weight)
    with pytest.raises(InvalidInput, match="gives='logits'"):
        CausalTeacher(model, adapter="legal", gives="hidden")(batch())
    assert CausalTeacher(model, gives="hidden")(batch()).hidden.shape[-1] == 32


def test_adapters_that_are_none_are_refused():
    model = adapted()
    with pytest.raises(InvalidInput, match="adapter is 'other'; the model holds 'legal', 'medical'"):
        CausalTeacher(model, adapter="other")
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    with pytest.raises(InvalidInput, match="learns a prompt"):
        CausalTeacher(peft.get_peft_model(causal_model(), config), adapter="default")
    plain = causal_model()
    plain.peft_config = {"own": peft.LoraConfig(target_modules=["q_proj"])}  # what plain.add_adapter() leaves there
    with pytest.raises(InvalidInput, match="wanted a peft model"):
        CausalTeacher(plain)
    model.merge_adapter(["legal"])
    with pytest.raises(InvalidInput, match="merged into the base"):
        CausalTeacher(model)(batch())


def test_a_saved_adapter_is_loaded_onto_its_base(tmp_path):
    model = adapted(("default",))
    causal_model().save_pretrained(tmp_path / "base")
    model.save_pretrained(tmp_path / "adapter")
    teacher = CausalTeacher.load(str(tmp_path / "base"), adapter=str(tmp_path / "adapter"), name="legal")
    expected = CausalTeacher(model, adapter="default")
    torch.testing.assert_close(teacher(batch()).hidden, expected(batch()).hidden, rtol=0, atol=1e-6)
    assert teacher.manifest()["adapter_weights"] == expected.manifest()["adapter_weights"]
    with pytest.raises(InvalidInput, match="No adapter can be loaded from"):
        CausalTeacher.load(str(tmp_path / "base"), adapter=str(tmp_path / "none"))


# ----------------------------------------------------------------------------------------------------------- parking


def size(model):
    return sum(value.numel() for value in model.parameters())


def folder_of(teacher):
    return teacher._place._folder


@pytest.mark.parametrize("kind", ["llama", "llama tied", "gpt2"])
def test_a_model_on_disk_is_in_memory_only_while_it_is_asked(kind):
    model = causal_model(kind)
    expected, manifest = CausalTeacher(model)(batch()), CausalTeacher(model).manifest()
    teacher = CausalTeacher(model, park="disk")
    for _ in range(2):
        assert size(model) == 0
        said = teacher(batch())
        assert torch.equal(said.hidden, expected.hidden)
        assert torch.equal(said.head.weight, expected.head.weight)  # what was said stays, head and all
    assert size(model) == 0
    assert teacher.manifest() == manifest
    assert size(model) == 0
    with teacher.awake():
        assert size(model) == size(causal_model(kind))
    assert size(model) == 0


def test_files_of_a_parked_model_are_private_plain_and_removed_with_it():
    model = causal_model()
    teacher = CausalTeacher(model, park="disk")
    folder = folder_of(teacher)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [file.suffix for file in folder.iterdir()] == [".safetensors"]
    del teacher, model
    gc.collect()
    assert not folder.exists()


def test_adapters_of_one_parked_base_share_its_place():
    model, expected = adapted(), {}
    for name in ("legal", "medical", None):
        expected[name] = CausalTeacher(model, adapter=name)(batch()).hidden
    teachers = [CausalTeacher(model, adapter=name, name=str(name), park="disk") for name in ("legal", "medical", None)]
    assert size(model) == 0
    reads = []
    read = _parked_model.load_file
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_parked_model, "load_file", lambda *a, **k: reads.append(1) or read(*a, **k))
        said = TeacherSet(teachers)(batch())
    assert len(reads) == 1  # once a batch, for all of them
    assert size(model) == 0
    for name, one in zip(expected, said, strict=True):
        torch.testing.assert_close(one.hidden, expected[name], rtol=0, atol=1e-6)


def test_what_a_parked_model_learned_meanwhile_is_kept():
    model = causal_model()
    teacher = CausalTeacher(model, park="disk")
    before = teacher(batch()).hidden
    with teacher.awake(), torch.no_grad():
        model.lm_head.weight.add_(1)
        model.model.norm.weight.mul_(2)
    after = teacher(batch())
    torch.testing.assert_close(after.hidden, 2 * before, rtol=1e-5, atol=1e-6)
    assert len(list(folder_of(teacher).iterdir())) == 1


def test_parking_on_the_processor_leaves_a_model_of_the_processor_alone():
    model = causal_model()
    expected = CausalTeacher(model)(batch()).hidden
    assert torch.equal(CausalTeacher(model, park="cpu")(batch()).hidden, expected)
    assert size(model) == size(causal_model())


def test_a_full_disk_and_a_lost_file_are_named(monkeypatch):
    model = causal_model()
    teacher = CausalTeacher(model, park="disk", name="lost")
    for file in folder_of(teacher).iterdir():
        file.unlink()
    with pytest.raises(InvalidInput, match=r"Teacher 'lost' was parked in .* cannot be read back"):
        teacher(batch())

    def full(*_):
        raise OSError(28, "No space left on device")

    other = causal_model()
    monkeypatch.setattr(_parked_model, "save_file", full)
    with pytest.raises(InvalidInput, match=r"cannot be parked in .*No space left.*TMPDIR"):
        CausalTeacher(other, park="disk")
    assert size(other) == size(causal_model())  # nothing is lost


def test_parked_teachers_are_used_in_turns():
    """Three models that do not fit side by side: never more than one of them has its weights."""
    models = [causal_model(seed=seed) for seed in range(3)]
    expected = [CausalTeacher(model)(batch()).hidden for model in models]
    teachers = [CausalTeacher(model, tokenizer(), name=str(k), park="disk") for k, model in enumerate(models)]
    held = []
    for model in models:
        model.model.register_forward_hook(lambda *_: held.append(sum(size(m) > 0 for m in models)))
    said = TeacherSet(teachers, tokenizer())(batch())
    assert set(held) == {1}
    assert all(torch.equal(one.hidden, want) for one, want in zip(said, expected, strict=True))
    assert isinstance(folder_of(teachers[0]), Path)
