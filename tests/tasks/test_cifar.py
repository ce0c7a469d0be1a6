"""CIFAR-10 and CIFAR-100 from small files in the real format."""

from __future__ import annotations

import hashlib
import pickle

import numpy as np
import pytest
import torch

from gapbench.__main__ import main
from gapbench.compat.torchvision_ops import load_torchvision
from gapbench.errors import UserError
from gapbench.tasks.cifar10 import Cifar10
from gapbench.tasks.cifar100 import Cifar100
from gapbench.tasks.data import cifar
from gapbench.tasks.images.batching import fixed_order
from gapbench.tasks.models.small_resnet import SmallResNet
from gapbench.tasks.models.wide_resnet import WideResNet

CPU = torch.device("cpu")
COUNT, VALIDATION = 60, 20  # of training images
DATASETS = load_torchvision("torchvision.datasets")


def pickled(path, content):
    path.write_bytes(pickle.dumps(content))
    return hashlib.md5(path.read_bytes()).hexdigest()


def pixels(seed, count, classes):
    drawn = np.random.default_rng(seed)
    images = drawn.integers(0, 256, (count, 3 * 32 * 32), dtype=np.uint8)
    return {"data": images, "labels": drawn.integers(0, classes, count).tolist()}


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Write a data set of 60 + 10 images as the real archives have them; return its content."""
    monkeypatch.setenv("GAPBENCH_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(cifar, "IMAGES", COUNT)

    def make(name):
        known = getattr(DATASETS, name)
        folder = tmp_path / known.base_folder
        folder.mkdir()
        fine, classes = ("labels", 10) if name == "CIFAR10" else ("fine_labels", 100)
        train = [file for file, _ in known.train_list]
        contents = {f: pixels(i, COUNT // len(train), classes) for i, f in enumerate(train)}
        test = {file: pixels(9, 10, classes) for file, _ in known.test_list}
        for part, files in (("train_list", contents), ("test_list", test)):
            sums = [
                [file, pickled(folder / file, {"data": c["data"], fine: c["labels"]})]
                for file, c in files.items()
            ]
            monkeypatch.setattr(known, part, sums)
        words = {known.meta["key"]: [f"class {n}" for n in range(classes)]}
        md5 = pickled(folder / known.meta["filename"], words)
        monkeypatch.setattr(known, "meta", {**known.meta, "md5": md5})
        return folder, [*contents.values()], [*test.values()]

    return make


@pytest.mark.parametrize(("kind", "name"), [(Cifar10, "CIFAR10"), (Cifar100, "CIFAR100")])
def test_splits_are_those_of_the_files(small, kind, name):
    _, train, test = small(name)
    splits = kind(validation=VALIDATION).read()
    images = np.concatenate([part["data"] for part in train]).reshape(-1, 3, 32, 32)
    labels = [label for part in train for label in part["labels"]]
    order = fixed_order(COUNT)
    for split, cut in (("val", order[:VALIDATION]), ("train", order[VALIDATION:])):
        assert torch.equal(splits[split].images, torch.from_numpy(images)[cut])
        assert splits[split].labels.tolist() == [labels[index] for index in cut]
    assert torch.equal(splits["test"].images.flatten(1), torch.from_numpy(test[0]["data"]))
    assert splits["test"].labels.tolist() == test[0]["labels"]


def test_images_are_normalised_by_channel_and_cut_out_of_a_black_frame(small):
    small("CIFAR10")
    task = Cifar10(validation=VALIDATION)
    task.load(CPU)
    [(images, _)] = task.batches(3, batch_size=40)
    assert images.shape == (40, 3, 32, 32)
    pixels = task.read()["train"].images.float()
    mean, deviation = pixels.mean((0, 2, 3)), pixels.transpose(0, 1).flatten(1).std(1)
    black = -mean / deviation
    shifted = [image for image in images if torch.equal(image[:, 0, 0], black)]
    assert shifted  # of shifts by up to four pixels in each direction
    inner = images * deviation[:, None, None] + mean[:, None, None]
    assert inner.min() > -1e-3 and inner.max() < 255.001
    whole = next(task.examples("train"))[0]
    assert whole.mean((0, 2, 3)).abs().max() < 1e-5


def test_a_batch_is_each_ranks_share_and_goes_on_where_it_stopped(small):
    small("CIFAR10")
    task = Cifar10(validation=VALIDATION)
    task.load(CPU)
    whole = list(task.batches(5, batch_size=8))
    assert len(whole) == task.steps_per_epoch(8) == 5
    ranks = [list(task.batches(5, batch_size=8, rank=rank, world=2)) for rank in (0, 1)]
    for (images, labels), one, other in zip(whole, *ranks, strict=True):
        assert torch.equal(images, torch.cat([one[0], other[0]]))
        assert torch.equal(labels, torch.cat([one[1], other[1]]))
    later = list(task.batches(5, batch_size=8, start=3))
    assert all(torch.equal(a[0], b[0]) for a, b in zip(whole[3:], later, strict=True))


@pytest.mark.parametrize(
    ("model", "classes", "layers", "parameters"),
    [
        # He et al., table 6: ResNet-20 0.27 M, ResNet-32 0.46 M
        ("wrn-22-2", 10, 23, 1_079_642),
        ("resnet-20", 10, 22, 272_474),
        ("resnet-32", 10, 34, 466_906),
        ("resnet-32", 100, 34, 472_756),
    ],
)
def test_models_are_of_the_published_size(model, classes, layers, parameters):
    task = (Cifar10 if classes == 10 else Cifar100)(model=model)
    with torch.device("meta"):
        built = task.build_model()
        assert built(*task.example_inputs()).shape == (1, classes)
    pruned = task.prunable(built)
    shortcuts = sum(name.endswith(("downsample.weight", "downsample.0.weight")) for name in pruned)
    assert len(pruned) - shortcuts == int(model.replace("wrn-22-2", "resnet-20").split("-")[1])
    assert len(pruned) == layers
    assert sum(parameter.numel() for parameter in built.parameters()) == parameters


def test_a_depth_that_is_none_is_refused():
    with pytest.raises(UserError, match=r"depth: 20 .* valid: 10, 16, 22"):
        WideResNet(depth=20, widen=2)
    with pytest.raises(UserError, match=r"depth: 22 .* valid: 8, 14, 20"):
        SmallResNet(depth=22, width=16)
    with pytest.raises(UserError, match="validation: 50000 is not within 1 to 49999"):
        Cifar10(validation=50_000)


def test_files_that_are_missing_or_damaged_are_named(small, tmp_path):
    with pytest.raises(UserError, match=rf"CIFAR10 is in none of {tmp_path}.*gapbench prepare"):
        Cifar10(validation=VALIDATION).load(CPU)
    folder, _, _ = small("CIFAR10")
    Cifar10(validation=VALIDATION).prepare(None)  # all is there: nothing is downloaded
    (folder / "data_batch_3").write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"CIFAR10 is in none of"):
        Cifar10(validation=VALIDATION).load(CPU)


def test_without_a_network_the_place_to_get_it_from_is_named(small, monkeypatch):
    def fail(*_, **__):
        raise OSError("no route")

    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", fail)
    with pytest.raises(UserError, match=r"CIFAR100 cannot be downloaded from https.*: no route"):
        Cifar100(validation=VALIDATION).prepare(None)


def test_a_trial_trains_to_its_end(small, tmp_path, monkeypatch):
    small("CIFAR10")
    file = tmp_path / "tiny.yaml"
    file.write_text(
        "name: tiny\nquestion: q\n"
        "scales: {tiny: {task: cifar10, task_options: {model: resnet-20, validation: 20}}}\n"
        "trials: [{method: static, seeds: 1, epochs: 2, sparsity: 0.9,\n"
        "          recipe: {batch_size: 20, bf16: false}}]\n"
    )
    words = [str(file), "--scale", "tiny", "--executor", "debug", "--results", str(tmp_path / "r")]
    assert main(["run", *words]) == 0
