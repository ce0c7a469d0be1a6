from __future__ import annotations

import dataclasses
import logging
import subprocess
import sys
from argparse import Namespace

import pytest
import torch

from gapbench.compat.fairseq_import import load_fairseq
from gapbench.errors import UserError


@pytest.fixture(scope="module")
def fairseq():
    pytest.importorskip("hydra", reason="needs fairseq")
    try:
        return load_fairseq()
    except UserError as error:
        pytest.skip(str(error))


def build(fairseq, **options):
    """A Transformer of fairseq's own base architecture, made tiny."""
    args = Namespace(
        encoder_embed_dim=16,
        encoder_ffn_embed_dim=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        share_all_embeddings=True,
        **options,
    )
    fairseq.models.ARCH_CONFIG_REGISTRY["transformer_wmt_en_de"](args)
    dictionary = fairseq.data.Dictionary()
    for word in "abcdefgh":
        dictionary.add_symbol(word)
    config = fairseq.tasks.translation.TranslationConfig()
    task = fairseq.tasks.translation.TranslationTask(config, dictionary, dictionary)
    return fairseq.models.transformer.TransformerModel.build_model(args, task)


def forward(model, seed=0):
    torch.manual_seed(seed)
    source, target = torch.randint(4, 12, (3, 6)), torch.randint(4, 12, (3, 5))
    with torch.no_grad():
        return model(source, torch.full((3,), 6), target)[0]


def test_models_tasks_and_criterions_can_be_imported(fairseq):
    assert "transformer" in fairseq.models.MODEL_REGISTRY
    assert "transformer_wmt_en_de_big_t2t" in fairseq.models.ARCH_CONFIG_REGISTRY
    assert "translation" in fairseq.tasks.TASK_REGISTRY
    assert "label_smoothed_cross_entropy" in fairseq.criterions.CRITERION_REGISTRY


def test_importing_leaves_dataclasses_and_the_root_logger_as_they_were():
    code = (
        "import dataclasses, logging\n"
        "before = dataclasses.dataclass, logging.root.level, list(logging.root.handlers)\n"
        "from gapbench.compat.fairseq_import import load_fairseq\n"
        "load_fairseq()\n"
        "after = dataclasses.dataclass, logging.root.level, list(logging.root.handlers)\n"
        "assert before == after, (before, after)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if "is not installed" in done.stderr:
        pytest.skip("needs fairseq")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_dataclasses_of_others_keep_their_lack_of_a_hash(fairseq):
    @dataclasses.dataclass
    class Ours:
        field: int = 0

    assert Ours.__hash__ is None
    assert logging.root.level == logging.WARNING


def test_encoder_layers_have_no_second_copy_of_their_weights(fairseq):
    names = [name for name, _ in build(fairseq).named_parameters()]
    assert "encoder.layers.0.fc1.weight" in names
    assert not [name for name in names if name.endswith(("in_proj_weight", "fc1_weight"))]


def test_evaluation_after_loading_reads_the_weights_themselves(fairseq):
    first, second = build(fairseq), build(fairseq)
    expected = forward(first.eval())
    second.load_state_dict(first.state_dict())
    second.eval()
    assert torch.equal(forward(second), expected)
    with torch.no_grad():
        second.encoder.layers[0].fc1.weight.mul_(3)
    assert not torch.equal(forward(second), expected)


def test_a_state_dict_with_the_copies_is_loaded_without_them(fairseq):
    model = build(fairseq)
    state = model.state_dict()
    state["encoder.layers.0.fc1_weight"] = torch.zeros(32, 16)
    assert model.load_state_dict(state)


def test_a_fairseq_checkpoint_is_loaded_with_weights_only(fairseq, tmp_path):
    path = tmp_path / "checkpoint.pt"
    torch.save({"args": Namespace(arch="transformer"), "model": {}}, path)
    assert torch.load(path, weights_only=True)["args"].arch == "transformer"


def test_a_missing_fairseq_is_told_in_one_line_with_the_way_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "fairseq", None)
    with pytest.raises(
        UserError, match=r"fairseq.* make translation, or pip install .*fairseq==0\.12\.2"
    ) as e:
        load_fairseq.__wrapped__()
    assert "\n" not in str(e.value)


def test_fairseqs_own_commands_run_under_the_patches():
    command = [sys.executable, "-m", "gapbench.compat.fairseq_import", "preprocess", "--help"]
    done = subprocess.run(command, capture_output=True, text=True)
    if "is not installed" in done.stderr:
        pytest.skip("needs fairseq")
    assert done.returncode == 0, done.stderr
    assert "--joined-dictionary" in done.stdout
