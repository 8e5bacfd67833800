"""Saved students need nothing of this library; models of many families are read as they compute."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import peft
import pytest
import torch
import transformers
from huggingface_hub import ModelCard

import safekd as kd
from safekd.fingerprints import hash_model
from safekd.language.hugging_face.passes import capture_hidden, require_head, require_same_logits

from .tiny_run import make_model, make_rows, make_teachers, make_trainer

torch.set_num_threads(1)
SMALL = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 40,
    "max_position_embeddings": 32,
}


def run_python(code, *, path, cwd):
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, cwd=cwd, env=environment
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    trainer = make_trainer(
        folder,
        arguments={"max_steps": 4, "save_strategy": "steps", "save_steps": 2},
        eval_dataset=make_rows(6, seed=4),
        held_out=make_rows(12, seed=5),
    )
    trainer.train()
    trainer.certify()
    trainer.save_model()
    trainer.create_model_card()
    return trainer


def test_a_saved_student_loads_where_this_library_cannot_be_imported(trained, tmp_path):
    """The model, a checkpoint and the best student, by transformers alone, with the same logits."""
    folder = trained.args.output_dir
    best = trained.result().most_feasible
    code = f"""
        import sys
        sys.modules["safekd"] = sys.modules["solvers"] = None
        import torch
        from transformers import AutoModelForCausalLM
        ids = torch.tensor([[1, 2, 3, 4]])
        for path in ({folder!r}, {f"{folder}/checkpoint-2"!r}, {str(best)!r}):
            model = AutoModelForCausalLM.from_pretrained(path)
            print(path, model(input_ids=ids).logits.double().sum().item())
        AutoModelForCausalLM.from_pretrained({folder!r}).generate(ids, max_new_tokens=3)
    """
    ran = run_python(code, path="", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    said = dict(line.rsplit(" ", 1) for line in ran.stdout.splitlines())
    assert len(said) == 3
    trained.model.eval()
    own = trained.model(input_ids=torch.tensor([[1, 2, 3, 4]])).logits.double().sum().item()
    assert float(said[folder]) == pytest.approx(own, rel=1e-6)


def test_a_certificate_names_the_student_that_was_saved(trained):
    loaded = transformers.AutoModelForCausalLM.from_pretrained(trained.args.output_dir)
    certificates = trained.certificates
    assert {certificate.model_hash for certificate in certificates} == {hash_model(loaded)}
    assert len({certificate.data_hash for certificate in certificates}) == 2  # news, and all
    with torch.no_grad():
        next(loaded.parameters()).add_(1e-3)
    assert hash_model(loaded) != certificates[0].model_hash


def test_a_saved_student_has_no_file_that_is_not_transformers_own(trained):
    files = {path.name for path in os.scandir(trained.args.output_dir) if path.is_file()}
    assert files == {"config.json", "generation_config.json", "model.safetensors", "training_args.bin", "README.md"}


def test_the_model_card_says_what_was_promised_and_shown(trained):
    path = os.path.join(trained.args.output_dir, "README.md")
    card = ModelCard.load(path)
    assert "| news | >= 0.3 |" in card.text
    assert f"The run ended `{trained.result().status}`" in card.text
    assert "Held-out text:" in card.text
    assert "not shown" in card.text
    trained.create_model_card()
    assert ModelCard.load(path).text.count("## Safety") == 1


def test_pushing_uploads_the_student_and_its_card(trained, monkeypatch):
    """What push_to_hub hands to the hub's client; nothing is sent."""
    sent = {}

    class Hub:
        def upload_folder(self, **given):
            sent.update(given)

    monkeypatch.setattr(transformers.trainer, "hf_api", Hub)
    monkeypatch.setattr(
        type(trained), "init_hf_repo", lambda self, **given: setattr(self, "hub_model_id", "me/student")
    )
    trained.push_to_hub(blocking=True)
    assert sent["folder_path"] == trained.args.output_dir
    assert "_*" in sent["ignore_patterns"]
    assert trained.result().most_feasible.name.startswith("_")


@pytest.mark.parametrize(
    "kind",
    ["Llama", "Gemma2", "Granite", "Cohere", "Qwen2", "OPT", "GPT2", "GPTNeoX", "Phi"],
)
def test_hidden_states_and_head_give_the_models_own_logits(kind):
    """Soft caps, scales, biases, projections behind the last layer: the head reads what the model's own does."""
    settings = dict(SMALL)
    if kind == "GPT2":
        settings = {"n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 40, "n_positions": 32}
        settings |= {"bos_token_id": 0, "eos_token_id": 0}
    if kind == "OPT":
        settings |= {"ffn_dim": 24, "word_embed_proj_dim": 8}
    if kind == "Gemma2":
        settings |= {"head_dim": 8, "final_logit_softcapping": 2.0}
    if kind == "Granite":
        settings |= {"logits_scaling": 3.0}
    settings |= {"pad_token_id": 0}
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**settings, initializer_range=0.5)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    inputs = {"input_ids": torch.randint(0, 40, (2, 6)), "attention_mask": torch.ones(2, 6, dtype=torch.long)}
    require_head(model)
    require_same_logits(model, inputs)
    hidden = capture_hidden(model, model, inputs)
    own = kd.language.Head.of(model).logits(hidden)
    assert torch.allclose(own, model(**inputs).logits, atol=1e-5)
    assert model(**inputs).logits.shape == (2, 6, 40)


def test_a_model_that_changes_its_logits_afterwards_is_refused(tmp_path):
    class Doubled(transformers.LlamaForCausalLM):
        def forward(self, *args, **kwargs):
            out = super().forward(*args, **kwargs)
            out.logits = 2 * out.logits
            return out

    plain = make_model()
    student = Doubled(plain.config)
    student.load_state_dict(plain.state_dict())
    with pytest.raises(kd.InvalidInput, match="logits of Doubled are not those of its output matrix"):
        make_trainer(tmp_path, student=student).train()


def test_adapters_are_trained_but_not_on_the_output_matrix(tmp_path):
    lora = peft.LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj", "v_proj"])
    trainer = make_trainer(
        tmp_path,
        student=peft.get_peft_model(make_model(), lora),
        arguments={"max_steps": 2, "save_strategy": "steps", "save_steps": 1},
    )
    trainer.train()
    assert trainer.trace["distillation_loss"].iloc[-1] < trainer.trace["distillation_loss"].iloc[0]
    assert os.path.exists(tmp_path / "checkpoint-2" / "adapter_model.safetensors")
    on_head = peft.LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["lm_head"])
    with pytest.raises(kd.InvalidInput, match="output layer carries an adapter"):
        make_trainer(tmp_path, student=peft.get_peft_model(make_model(tied=False), on_head))


def test_padded_vocabularies_are_cut(tmp_path):
    """A teacher of 64 tokens and a student of 72 whose last eight are padding."""
    with pytest.raises(kd.InvalidInput, match="vocabulary"):
        make_trainer(tmp_path, student=make_model(vocabulary=72)).train()
    trainer = make_trainer(tmp_path, student=make_model(vocabulary=72), vocabulary=64, arguments={"weight_decay": 0.0})
    before = trainer.model.get_input_embeddings().weight[64:].detach().clone()
    trainer.train()
    assert torch.equal(before, trainer.model.get_input_embeddings().weight[64:])
    assert trainer.evaluate(make_rows(4))["eval_loss"] > 0


def test_the_core_imports_no_transformers_and_says_what_is_missing(tmp_path):
    root = os.path.dirname(os.path.dirname(kd.__file__))
    code = """
        import sys
        import safekd as kd
        kd.language.Head, kd.ConstrainedTrainer, kd.language.distillation_loss, kd.language.CausalTeacher
        print([name for name in ("transformers", "accelerate", "peft") if name in sys.modules])
        for missing in ("accelerate", "transformers"):
            sys.modules[missing] = None
            try:
                kd.language.SafeKDTrainer
            except kd.InvalidInput as error:
                print(error)
            del sys.modules[missing]
    """
    ran = run_python(code, path=root, cwd=tmp_path)
    core, *missing = ran.stdout.splitlines()
    assert core == "[]", ran.stderr
    assert len(missing) == 2
    for name, said in zip(("accelerate", "transformers"), missing, strict=True):
        assert f"needs the package {name}" in said
        assert "pip install 'safekd[lm]'" in said


def test_teachers_are_asked_once_a_microbatch(tmp_path):
    teachers = make_teachers()
    trainer = make_trainer(
        tmp_path,
        teachers=teachers,
        arguments={"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "max_steps": 3},
        trace_steps=1000,
    )
    trainer.train()
    sample = 2 * 8  # two points of the trace, eight batches of two each
    assert teachers[0].asked == 3 * 2 + sample
