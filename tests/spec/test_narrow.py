"""Small-dense: its width is the largest that is no larger than the sparse network."""

from __future__ import annotations

import pytest
import torch

from gapbench.errors import UserError
from gapbench.sparsity.distributions import erk
from gapbench.spec.ablation import read
from gapbench.spec.dry_run import dry_run
from gapbench.spec.grid import expand
from gapbench.spec.models import proxy
from gapbench.spec.trials import Trial

HEAD = """
name: small
question: Which?
scales:
  here: {task: TASK, epochs: 2, sparsity: [0.8, 0.9]}
trials:
"""


def entries(tmp_path, row, task="fashion_mnist"):
    (tmp_path / "small.yaml").write_text(HEAD.replace("TASK", task) + f"  - {row}\n")
    return expand(read(tmp_path / "small.yaml"), "here")


@pytest.mark.parametrize("match", ["parameters", "inference_flops"])
@pytest.mark.parametrize(
    ("task", "full"), [("fashion_mnist", 16), ("cifar10", 16), ("imagenet", 64)]
)
def test_one_channel_more_would_be_too_large(tmp_path, match, task, full):
    row = f"{{method: small_dense, match: {match}}}"
    sparse = entries(tmp_path, "{method: static}", task)
    for one, small in zip(dry_run(sparse), entries(tmp_path, row, task), strict=True):
        trial = small.trial
        width = trial.task_options["width"]
        assert (trial.sparsity, trial.distribution, trial.options["full_width"]) == (
            0,
            "dense",
            full,
        )
        sizes = []
        for candidate in (width, width + 1):
            model = proxy(task, {**trial.task_options, "width": candidate})
            whole = proxy(task, {**trial.task_options, "width": full})
            if match == "parameters":
                sizes.append(model.parameters / whole.parameters)
            else:
                sizes.append(model.cost.total / whole.cost.total)
        wanted = one.model_density if match == "parameters" else one.inference_flops_ratio
        assert sizes[0] <= wanted < sizes[1]


def test_a_forecast_relates_it_to_the_whole_network_and_its_column(tmp_path):
    (first, second) = dry_run(entries(tmp_path, "{method: small_dense}"))
    assert (first.sparsity, second.sparsity) == (0.8, 0.9)
    assert second.model_density < first.model_density <= 0.21
    assert first.inference_flops_ratio == first.train_flops_ratio * 32 / 2 < 0.3
    assert first.coverage == 1


def test_the_distribution_says_how_many_flops_there_are_to_match(tmp_path):
    row = "{method: small_dense, match: inference_flops, distribution: erk}"
    uniform, other = entries(tmp_path, row.replace("erk", "uniform")), entries(tmp_path, row)
    assert other[0].trial.task_options["width"] > uniform[0].trial.task_options["width"]
    whole = other[0].trial.whole
    kept = erk({layer.name: layer.shape for layer in Trial.layers.fget(entries(  # of full width
        tmp_path, "{method: static, distribution: erk}")[0].trial)}, 0.8)  # fmt: skip
    flops = whole.cost.total - sum(whole.cost.macs[n] * (1 - d) for n, d in kept.items())
    assert other[0].trial.proxy.cost.total <= flops


def test_widths_are_those_that_attention_heads_can_share(tmp_path, fairseq):
    (trial, _) = (entry.trial for entry in entries(tmp_path, "{method: small_dense}", "docs_en_de"))
    full = trial.options["full_width"]
    assert trial.task_options["width"] % 32 == 0 and 0 < trial.task_options["width"] < full


def test_a_task_without_a_width_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("gapbench.spec.narrow.WIDTH", "girth")
    with pytest.raises(UserError, match="task digits has no option girth"):
        entries(tmp_path, "{method: small_dense}", "digits")


def test_its_key_is_that_of_what_is_trained(tmp_path):
    same = entries(tmp_path, "{method: small_dense, full_width: 16}")
    assert [e.trial.key for e in same] == [
        e.trial.key for e in entries(tmp_path, "{method: small_dense}")
    ]
    document = same[0].trial.document()
    assert Trial.of_document(document).key == same[0].trial.key and "as_small_as" in document


@pytest.mark.parametrize(
    ("row", "task", "told"),
    [
        (
            "method: small_dense, distribution: global_magnitude",
            "digits",
            "is known only after training",
        ),
        (
            "method: small_dense, match: inference_flops, sparsity: 0.9999, first_layer: sparse",
            "digits",
            "sparsity: 0.9999 is out of reach: a dense network of width 1 is larger",
        ),
        ("method: small_dense, match: flops", "digits", "match"),
        ("method: str", "digits", "method str learns the distribution: give emergent"),
        ("method: rigl, distribution: emergent", "digits", "rigl does not learn: emergent"),
        ("method: rigl, pattern: '2:4'", "imagenet", None),
        ("method: rigl, pattern: '2:4', distribution: erk", "imagenet", "conv1.weight has 3 inp"),
        ("method: rigl, pattern: '4:2'", "digits", "pattern: 4:2: needs 1 <= n < m"),
        ("method: small_dense, pattern: '2:4'", "digits", "small_dense prunes nothing: remove it"),
        ("method: dense, pattern: '2:4'", "digits", "method dense prunes nothing: remove it"),
    ],
)
def test_what_cannot_be_is_told_with_file_line_and_key(tmp_path, row, task, told):
    row = f"{{{row}}}"
    if told is None:
        assert entries(tmp_path, row, task)
        return
    with pytest.raises(UserError) as error:
        entries(tmp_path, row, task)
    message = str(error.value)
    assert message.startswith("small.yaml:7: trials[0]") or "small.yaml:7" in message, message
    assert told in message and "\n" not in message


def test_a_narrow_resnet_50_is_torchvisions_with_fewer_channels():
    from torchvision.models import resnet50

    from gapbench.tasks.models.narrow_resnet import narrow_resnet50

    with torch.device("meta"):
        half = narrow_resnet50(32, num_classes=10).state_dict()
        full, same = resnet50(num_classes=10).state_dict(), narrow_resnet50(64, num_classes=10)
    assert {n: t.shape for n, t in same.state_dict().items()} == {
        n: t.shape for n, t in full.items()
    }
    assert half.keys() == full.keys()
    for name, tensor in full.items():
        dims = [size // 2 for size in tensor.shape]
        if name == "conv1.weight":
            dims = [32, 3, 7, 7]
        elif name.startswith("fc"):
            dims = [10, 1024][: tensor.dim()]
        else:
            dims = [*dims[:2], *tensor.shape[2:]]
        assert list(half[name].shape) == dims, name


def test_a_budget_in_flops_counts_those_of_the_whole_network(tmp_path):
    row = "{method: [small_dense, static], train_flops: 1.0}"
    small, sparse = dry_run(entries(tmp_path, row, "digits"))[::2]
    assert (small.method, sparse.method) == ("small_dense", "static")
    assert small.train_flops_ratio == pytest.approx(1, abs=0.05)
    assert sparse.train_flops_ratio == pytest.approx(1, abs=0.05)
