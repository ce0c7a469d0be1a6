"""The image tasks: order of the data, augmentation, loss, evaluation, splits."""

from __future__ import annotations

import random
from collections import Counter

import pytest
import torch
from torch import nn

from gapbench.errors import UserError
from gapbench.plan.partitions import partition
from gapbench.sparsity.layers import layers_of
from gapbench.tasks.data.sources import FASHION_MNIST, obtain, read_idx
from gapbench.tasks.digits import Digits
from gapbench.tasks.fashion_mnist import FashionMnist
from gapbench.tasks.imagenet import ImageNet
from gapbench.tasks.images.batching import fixed_order
from gapbench.tasks.models.small_resnet import SmallResNet

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def digits():
    task = Digits()
    task.load(CPU)
    return task


@pytest.fixture(scope="module")
def moving():
    """Digits with every augmentation."""
    task = Digits()
    task.shift, task.flip = 1, True
    task.load(CPU)
    return task


@pytest.fixture(scope="module")
def fashion(fashion_mnist_data):
    task = FashionMnist(train_examples=1000, augment=True)
    task.load(CPU)
    return task


def batches(task, seed=5, batch_size=100, **options):
    return list(task.batches(seed, batch_size=batch_size, **options))


def equal(one, other):
    return len(one) == len(other) and all(
        torch.equal(a, b)
        for left, right in zip(one, other, strict=True)
        for a, b in zip(left, right, strict=True)
    )


@pytest.mark.parametrize("kind", ["digits", "moving", "fashion"])
def test_an_epoch_can_be_entered_at_any_batch(kind, request):
    task = request.getfixturevalue(kind)
    whole = batches(task)
    assert len(whole) == task.steps_per_epoch(100) == task.train_examples // 100
    for start in (0, 1, 7, len(whole)):
        assert equal(batches(task, start=start), whole[start:])


def test_the_order_follows_from_the_seed_alone(moving):
    torch.manual_seed(1)
    first = batches(moving)
    torch.manual_seed(2)
    assert equal(batches(moving), first)
    assert not equal(batches(moving, seed=6), first)


@pytest.mark.parametrize("world", [2, 4])
def test_the_ranks_slices_make_up_each_batch(moving, world):
    shares = [batches(moving, rank=rank, world=world) for rank in range(world)]
    joined = [
        tuple(torch.cat(part) for part in zip(*parts, strict=True))
        for parts in zip(*shares, strict=True)
    ]
    assert equal(joined, batches(moving))


def test_ranks_that_cannot_share_a_batch_equally_are_refused(digits):
    with pytest.raises(UserError, match=r"batch_size: 100 .* 3 ranks"):
        batches(digits, world=3)


def test_an_epoch_shows_every_image_at_most_once(digits):
    shown = torch.cat([images for images, _ in batches(digits, batch_size=1)])
    [(known, _)] = _whole(digits, "train")
    assert Counter(map(_bytes, shown)) == Counter(map(_bytes, known))


def _whole(task, split):
    images, labels = zip(*task.examples(split), strict=True)
    yield torch.cat(images), torch.cat(labels)


def _bytes(image):
    return image.numpy().tobytes()


def test_augmented_images_are_shifted_or_mirrored_originals(moving):
    [(known, labels)] = _whole(moving, "train")
    black = known.min()
    padded = nn.functional.pad(known, [1] * 4, value=black.item())
    versions = {}
    for row in range(3):
        for column in range(3):
            cut = padded[:, :, row : row + 8, column : column + 8]
            for mirrored in (False, True):
                for index, image in enumerate(cut.flip(-1) if mirrored else cut):
                    versions.setdefault(_bytes(image.contiguous()), []).append(
                        (int(labels[index]), (row, column, mirrored))
                    )
    seen = set()
    for images, answers in batches(moving, batch_size=64):
        for image, answer in zip(images, answers, strict=True):
            found = versions[_bytes(image)]
            assert int(answer) in {label for label, _ in found}
            seen |= {kind for _, kind in found}
    assert len(seen) == 18


def test_pixels_are_normalised_by_the_training_images(fashion):
    [(images, _)] = _whole(fashion, "train")
    assert abs(images.mean()) < 1e-3 and abs(images.std() - 1) < 1e-3


def test_label_smoothing_mixes_in_the_uniform_distribution(digits):
    torch.manual_seed(0)
    model = digits.build_model().eval()
    images, labels = batches(digits)[0]
    recipe = digits.recipe.model_copy(update={"label_smoothing": 0.1})
    logs = model(images).log_softmax(1)
    truth = 0.9 * nn.functional.one_hot(labels, 10) + 0.01
    assert torch.allclose(
        digits.loss(model, (images, labels), recipe), -(truth * logs).sum(1).mean()
    )


class Always(nn.Module):
    """Answers 3, whatever it sees."""

    def forward(self, images):
        return nn.functional.one_hot(torch.full((len(images),), 3), 10).float()


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_accuracy_is_the_percentage_of_right_answers(digits, split):
    [(_, labels)] = _whole(digits, split)
    found = digits.evaluate(Always(), split)
    share = (labels == 3).float().mean().item()
    assert found["accuracy"] == pytest.approx(100 * share)
    # cross-entropy of logits that are 1 at class 3 and 0 elsewhere
    assert found["loss"] == pytest.approx(torch.tensor(9 + torch.e).log().item() - share, rel=1e-5)


def test_evaluating_changes_nothing_in_the_model(digits):
    torch.manual_seed(0)
    model = digits.build_model().train()
    model.layer1.eval()
    modes = [module.training for module in model.modules()]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    first = digits.evaluate(model, "val")
    assert digits.evaluate(model, "val") == first
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_the_splits_are_cut_from_one_fixed_permutation():
    order = fixed_order(1797)
    assert sorted(order.tolist()) == list(range(1797))
    assert order[:5].tolist() == [459, 663, 1625, 1686, 1363]


def test_digits_are_split_without_rest(digits):
    sizes = {split: len(next(_whole(digits, split))[1]) for split in ("train", "val", "test")}
    assert sizes == {"train": 1152, "val": 256, "test": 389}


def test_a_few_epochs_on_digits_teach_the_model(digits):
    torch.manual_seed(0)
    model = digits.build_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for epoch in range(4):
        for batch in batches(digits, seed=epoch, batch_size=64):
            digits.loss(model, batch, digits.recipe).backward()
            optimizer.step()
            optimizer.zero_grad()
    assert digits.evaluate(model, "test")["accuracy"] > 90


def test_small_images_average_four_pixels(fashion):
    files = obtain(FASHION_MNIST)
    pixels = read_idx(files["test-images"]).float()
    means = pixels.view(-1, 14, 2, 14, 2).mean(dim=(2, 4))
    assert (fashion.read()["test"].images.float() - means).abs().max() <= 0.5


def test_the_validation_images_are_the_same_for_every_size_and_never_trained_on(fashion):
    full = FashionMnist(size=28, train_examples=55_000).read()
    assert [len(full[split].labels) for split in ("train", "val", "test")] == [
        55_000,
        5_000,
        10_000,
    ]
    assert torch.equal(full["val"].labels, fashion.read()["val"].labels)
    assert torch.equal(full["train"].labels[:1000], fashion.read()["train"].labels)
    order = fixed_order(60_000)
    labels = read_idx(obtain(FASHION_MNIST)["train-labels"]).long()
    assert torch.equal(torch.cat([full["val"].labels, full["train"].labels]), labels[order])


def test_the_digest_names_data_and_split(fashion):
    other = FashionMnist(train_examples=1001)
    other.load(CPU)
    again = FashionMnist(train_examples=1000)
    again.load(CPU)
    assert again.data_digest() == fashion.data_digest() != other.data_digest()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_examples": 55_001}, "train_examples: 55001 is not within 1 to 55000"),
        ({"train_examples": 0}, "train_examples: 0 is not within"),
        ({"depth": 9}, "depth: 9 is not a depth"),
        ({"depth": 2}, "depth: 2 is not a depth"),
        ({"width": 0}, "width: 0 is not positive"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        FashionMnist(**options).build_model()


@pytest.mark.parametrize(("depth", "layers"), [(8, 10), (14, 16), (20, 22)])
def test_a_small_resnet_has_its_depth_and_two_projections(depth, layers):
    model = SmallResNet(depth=depth, width=4)
    assert len(Digits().prunable(model)) == layers
    assert model(torch.zeros(2, 1, 14, 14)).shape == (2, 10)


@pytest.fixture(scope="module")
def resnet50():
    with torch.device("meta"):
        return ImageNet().build_model()


def test_resnet50_has_the_layers_of_the_papers_tables(resnet50):
    layers = layers_of(resnet50, ImageNet().prunable(resnet50))
    assert len(layers) == 54
    assert sum(layer.numel for layer in layers) == 25_502_912
    assert layers[0].name == ImageNet.first_layer


def test_resnet50_is_partitioned_by_stage(resnet50):
    layers = layers_of(resnet50, ImageNet().prunable(resnet50))
    patterns = ImageNet().partition_patterns(4)
    parts = partition(layers, 4, "patterns", random.Random(0), patterns)
    assert [len(part) for part in parts] == [11, 13, 19, 11]
    assert {"conv1.weight", "layer1.2.conv3.weight"} < parts[0]
    assert "fc.weight" in parts[3]
    assert ImageNet().partition_patterns(3) is None


def test_tasks_that_were_made_alike_share_their_data():
    class Counting(Digits):
        reads = 0

        def read(self):
            type(self).reads += 1
            return super().read()

    made = [Counting(epoch_steps=20) for _ in range(3)] + [Counting(epoch_steps=10)]
    for task in made:
        task.load(CPU)
    assert Counting.reads == 2
    assert equal(batches(made[0]), batches(made[2]))
    made[0].shift = 1  # made alike no longer
    made[0].load(CPU)
    other = Counting(epoch_steps=20)
    other.chosen = torch.ones(3)  # what its data are cannot be said in words
    other.load(CPU)
    assert Counting.reads == 4
