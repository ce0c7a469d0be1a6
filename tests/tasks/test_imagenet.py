"""Images in class folders: what a batch holds, whatever reads it, and what is refused."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from gapbench.base.streams import stream_seed
from gapbench.compat.torchvision_ops import load_torchvision
from gapbench.errors import UserError
from gapbench.tasks.imagenet import ImageNet
from gapbench.tasks.images.disk import DEVIATION, MEAN
from tests.jpegs import CLASSES, TRAIN, plant, truncate

CPU = torch.device("cpu")
SIZE = 24
OPTIONS = {"image_size": SIZE, "classes": 4, "train_examples": 32, "validation": 8}
SPLITS = ("train", "val", "test")


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    return plant(tmp_path_factory.mktemp("data") / "imagenet").parent


@pytest.fixture(autouse=True)
def _here(request, monkeypatch):
    monkeypatch.setenv("GAPBENCH_WORKERS", "0")
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nonexistent")
    if "planted" in request.fixturenames:
        monkeypatch.setenv("GAPBENCH_DATA", str(request.getfixturevalue("planted")))


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A tree that the test may damage."""
    monkeypatch.setenv("GAPBENCH_DATA", str(tmp_path))
    return plant(tmp_path / "imagenet", val=1)


def loaded(**options):
    task = ImageNet(**{**OPTIONS, **options})
    task.load(CPU)
    return task


def batches(task, seed=5, **options):
    return list(task.batches(seed, **{"batch_size": 8, **options}))


def equal(one, other):
    return len(one) == len(other) and all(
        torch.equal(a, b)
        for left, right in zip(one, other, strict=True)
        for a, b in zip(left, right, strict=True)
    )


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_do_not_depend_on_the_number_of_reading_processes(planted, monkeypatch, workers):
    monkeypatch.setattr("gapbench.tasks.images.reading.PIECE", 3)
    task = loaded()
    alone = batches(task)
    evaluated = list(task.examples("val"))
    monkeypatch.setenv("GAPBENCH_WORKERS", str(workers))
    assert equal(batches(task), alone)
    assert equal(list(task.examples("val")), evaluated)


def test_an_epoch_can_be_entered_at_any_batch(planted):
    task = loaded()
    whole = batches(task)
    assert len(whole) == task.steps_per_epoch(8) == 4
    for start in range(5):
        assert equal(batches(task, start=start), whole[start:])


def test_an_epoch_follows_from_its_seed_and_leaves_torchs_generator_alone(planted):
    task = loaded()
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = batches(task)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert equal(batches(task), first)
    assert not equal(batches(task, seed=6), first)


def test_the_ranks_slices_make_up_each_batch(planted):
    task = loaded(mixup=0.0)
    shares = [batches(task, rank=rank, world=2) for rank in range(2)]
    joined = [
        tuple(torch.cat(part) for part in zip(*parts, strict=True))
        for parts in zip(*shares, strict=True)
    ]
    assert equal(joined, batches(task))
    with pytest.raises(UserError, match=r"batch_size: 8 .* 3 ranks"):
        batches(task, world=3)


def test_training_images_are_the_pixels_that_torchvisions_transforms_cut(planted):
    """Cutting before the pixels leave PIL must not change them."""
    v2 = load_torchvision("torchvision.transforms.v2")
    plain = v2.Compose(
        [v2.ToImage(), v2.RandomResizedCrop(SIZE), v2.RandomHorizontalFlip(),
         v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, DEVIATION)]
    )  # fmt: skip
    task = loaded(mixup=0.0)
    tree, members = task._dataset.splits["train"]
    generator = torch.Generator().manual_seed(stream_seed(5, "order"))
    order = members[torch.randperm(32, generator=generator)]
    images = torch.cat([images for images, _ in batches(task)])
    modes = set()
    for place, index in enumerate(order.tolist()):
        with Image.open(tree.path(index)) as image:
            modes.add(image.mode)
            torch.manual_seed(stream_seed(5, "augment", place))
            expected = plain(image.convert("RGB"))
        assert torch.allclose(images[place], expected, atol=1e-5), tree.path(index)
    assert modes == {"RGB", "L", "CMYK"}


def test_evaluated_images_are_resized_and_cut_at_the_centre(planted):
    v2 = load_torchvision("torchvision.transforms.v2")
    plain = v2.Compose(
        [v2.ToImage(), v2.Resize(round(SIZE * 256 / 224)), v2.CenterCrop(SIZE),
         v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, DEVIATION)]
    )  # fmt: skip
    [(images, labels)] = loaded().examples("test")
    files = sorted((planted / "imagenet" / "val").glob("*/*"))
    assert len(files) == len(images) == 12
    for file, image, label in zip(files, images, labels, strict=True):
        with Image.open(file) as original:
            assert torch.allclose(image, plain(original.convert("RGB")), atol=1e-5)
        assert CLASSES[label] == file.parent.name


def test_the_splits_are_disjoint_and_the_same_for_every_seed(planted):
    task = loaded()
    train, val = (set(task._dataset.splits[name][1].tolist()) for name in ("train", "val"))
    assert not train & val
    assert train | val == set(range(4 * TRAIN))
    assert loaded()._dataset.splits["val"][1].tolist() == task._dataset.splits["val"][1].tolist()
    assert task._dataset.splits["test"][0].folder.name == "val"


def test_mixup_mixes_each_image_and_its_label_with_a_neighbour(planted):
    plain, mixed = batches(loaded(mixup=0.0)), batches(loaded(mixup=0.2))
    weights = set()
    for (images, labels), (mixture, shares) in zip(plain, mixed, strict=True):
        weight = ((mixture - images.roll(1, 0)) / (images - images.roll(1, 0))).nanmedian().item()
        weights.add(round(weight, 6))
        assert 0 <= weight <= 1
        assert torch.allclose(
            mixture, weight * images + (1 - weight) * images.roll(1, 0), atol=1e-3
        )
        truth = torch.nn.functional.one_hot(labels, 4).float()
        assert torch.allclose(shares, weight * truth + (1 - weight) * truth.roll(1, 0), atol=1e-4)
        assert torch.allclose(shares.sum(1), torch.ones(8))
    assert len(weights) == 4
    assert equal(batches(loaded(mixup=0.2)), mixed)


def test_mixed_labels_are_smoothed_like_plain_ones(planted):
    images = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 3])
    task = ImageNet(**OPTIONS)
    mixed = torch.nn.functional.one_hot(labels, 4).float()
    identity = torch.nn.Identity()
    assert torch.allclose(
        task.loss(identity, (images, mixed), task.recipe),
        task.loss(identity, (images, labels), task.recipe),
    )


def test_the_digest_names_files_sizes_and_split(mine):
    first = loaded().data_digest()
    assert loaded().data_digest() == first
    assert loaded(train_examples=33, validation=7).data_digest() != first
    file = mine / "train" / "n01" / "n01_0.JPEG"
    with file.open("ab") as end:
        end.write(b"\0")
    assert loaded().data_digest() != first


def test_zero_init_begins_with_blocks_that_pass_through():
    norms = [
        dict(ImageNet(zero_init=zero, **OPTIONS).build_model().named_parameters())
        for zero in (False, True)
    ]
    name = "layer3.4.bn3.weight"
    assert bool(norms[0][name].all()) and not bool(norms[1][name].any())


def test_only_matrices_decay():
    from gapbench.training.setup import build_optimizer

    task = ImageNet(**OPTIONS)
    model = task.build_model()
    decayed, free = build_optimizer(model, task.recipe).param_groups
    assert (decayed["weight_decay"], free["weight_decay"]) == (2**-15, 0.0)
    assert len(decayed["params"]) == 54
    assert {parameter.dim() for parameter in free["params"]} == {1}


def missing_val(root):
    shutil.rmtree(root / "val")
    return f"{root}/val: the folder is missing"


def missing_train(root):
    shutil.rmtree(root / "train")
    return f"{root}/train: the folder is missing"


def an_empty_class(root):
    shutil.rmtree(root / "train" / "n03")
    (root / "train" / "n03").mkdir()
    return f"{root}/train: class n03 without an image"


def a_class_only_in_train(root):
    shutil.rmtree(root / "val" / "n02")
    return f"{root}/train: class n02 not in {root}/val"


def another_class_in_val(root):
    (root / "val" / "n02").rename(root / "val" / "n05")
    return f"{root}/train: class n02 not in {root}/val"


def one_class_less(root):
    for split in ("train", "val"):
        shutil.rmtree(root / split / "n04")
    return f"{root}/train: 3 class folders, not 4: complete it, or set task_options.classes to 3"


def an_image_less(root):
    (root / "train" / "n04" / "n04_0.JPEG").unlink()
    return (
        f"{root}/train: 39 images, not 40 (train_examples 32 + validation 8): complete it, or "
        "set task_options.train_examples to 31"
    )


def validation_images_without_folders(root):
    shutil.rmtree(root / "val")
    (root / "val").mkdir()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(root / "val" / "ILSVRC2012_val_1.JPEG")
    return f"{root}/val: no class folders; images belong in {root}/val/<class>"


@pytest.mark.parametrize(
    "damage",
    [missing_val, missing_train, an_empty_class, a_class_only_in_train, another_class_in_val,
     one_class_less, an_image_less, validation_images_without_folders],
)  # fmt: skip
def test_a_tree_that_is_not_what_the_options_say_is_refused_in_one_line(mine, damage):
    expected = damage(mine)
    for use in (lambda: loaded(), lambda: ImageNet(**OPTIONS).prepare(None)):
        with pytest.raises(UserError) as refused:
            use()
        assert str(refused.value).startswith(expected)
        assert "\n" not in str(refused.value)


def test_without_data_the_places_and_the_layout_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("GAPBENCH_DATA", str(tmp_path))
    with pytest.raises(UserError) as refused:
        ImageNet().load(CPU)
    message = str(refused.value)
    assert f"{tmp_path}/imagenet, {tmp_path}, /proc/nonexistent/gapbench/imagenet;" in message
    assert "imagenet/train/<class>/*.JPEG and imagenet/val/<class>/*.JPEG" in message
    assert "\n" not in message


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_truncated_file_is_named_wherever_it_is_read(mine, monkeypatch, workers):
    task = loaded()
    tree, members = task._dataset.splits["train"]
    file = truncate(tree.path(int(members[3])))
    monkeypatch.setenv("GAPBENCH_WORKERS", workers)
    expected = f"{file}: cannot be decoded: image file is truncated"
    for use in (lambda: batches(task), lambda: ImageNet(**OPTIONS).prepare(None)):
        with pytest.raises(UserError) as refused:
            use()
        assert str(refused.value).startswith(expected)
        assert "\n" not in str(refused.value)


def test_prepare_checks_a_folder_that_it_is_given_and_counts_bad_files(mine, monkeypatch):
    monkeypatch.delenv("GAPBENCH_DATA")
    task = ImageNet(**OPTIONS)
    task.prepare(mine)
    task.prepare(mine.parent)
    (mine / "train" / "n01" / "n01_3.JPEG").write_bytes(b"no picture")
    truncate(mine / "train" / "n02" / "n02_4.JPEG")
    truncate(mine / "val" / "n02" / "n02_0.JPEG")
    expected = (
        r"n01/n01_3.JPEG: cannot be decoded: not an image that PIL can read \(and 2 files more\)$"
    )
    with pytest.raises(UserError, match=expected):
        task.prepare(mine)


def deep(kind):
    """Return a picture that PIL does not turn into RGB bytes as people would."""
    grey = np.linspace(0, 1, 48)[None, :].repeat(48, 0)
    alpha = (grey * 255).astype("uint8")
    return {
        "16.png": Image.fromarray((grey * 65535).astype("uint16")),
        "12.png": Image.fromarray((grey * 4095).astype("uint16")),
        "16.tif": Image.fromarray((grey * 65535).astype("uint16")),
        "float.tif": Image.fromarray(grey.astype("float32")),
        "int.tiff": Image.fromarray((grey * 1e6).astype("int32")),
        "16.pgm": Image.fromarray((grey * 65535).astype("uint16")),
        "rgba.png": Image.fromarray(np.dstack([alpha * 0] * 3 + [alpha])),
        "la.png": Image.fromarray(np.dstack([alpha * 0, alpha])),
    }[kind]


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize(
    "kind",
    ["16.png", "12.png", "16.tif", "float.tif", "int.tiff", "16.pgm", "rgba.png", "la.png"],
)
def test_a_picture_that_would_be_all_white_or_black_is_refused_by_its_path(mine, split, kind):
    tree, members = loaded()._dataset.splits["train" if split == "train" else "test"]
    file = tree.path(int(members[0]))  # its name says nothing of its form
    form = {"png": "PNG", "pgm": "PPM"}.get(kind.partition(".")[2], "TIFF")
    deep(kind).save(file, format=form)
    for use in (lambda: batches(loaded()), lambda: ImageNet(**OPTIONS).prepare(None)):
        with pytest.raises(UserError) as refused:
            use()
        words = "alpha channel" if "a.png" in kind else "more than 8 bits a channel"
        assert str(refused.value).startswith(f"{file}: cannot be decoded: ")
        assert words in str(refused.value)


def test_a_bad_test_picture_is_found_before_training(mine, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    loaded()
    (checked,) = (tmp_path / "cache" / "gapbench" / "decodable").iterdir()
    before = checked.stat().st_mtime_ns
    loaded()  # what is remembered is not read again
    assert checked.stat().st_mtime_ns == before
    file = truncate(next((mine / "val" / "n02").iterdir()))
    with pytest.raises(UserError, match="cannot be decoded: image file is truncated") as refused:
        loaded()
    assert str(refused.value).startswith(str(file))


def test_files_that_are_no_images_are_passed_over(mine):
    first = loaded().data_digest()
    (mine / "train" / "n01" / "README.txt").write_text("hello")
    (mine / "train" / ".cache").mkdir()
    for hidden in ("._n01_0.JPEG", ".DS_Store"):
        (mine / "train" / "n01" / hidden).write_bytes(b"kept by a file system")
    assert loaded().data_digest() == first


@pytest.mark.parametrize(
    ("options", "message"),
    [({"classes": 0}, "classes: 0 is not possible"), ({"mixup": -0.1}, "mixup: -0.1 is not"),
     ({"validation": 0}, "validation: 0 is not"), ({"image_size": -1}, "image_size: -1 is not")],
)  # fmt: skip
def test_impossible_options_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        ImageNet(**options)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [({"GAPBENCH_WORKERS": "7"}, 7), ({"SLURM_CPUS_PER_TASK": "3"}, 2),
     ({"SLURM_CPUS_PER_TASK": "99"}, 11), ({"LOCAL_WORLD_SIZE": "4"}, 2),
     ({"LOCAL_WORLD_SIZE": "12"}, 0), ({}, 11)],
)  # fmt: skip
def test_a_rank_reads_with_all_but_one_of_its_processors(monkeypatch, variables, expected):
    from gapbench.tasks.images.reading import workers

    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(12)))
    for name in ("GAPBENCH_WORKERS", "SLURM_CPUS_PER_TASK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert workers() == expected
    monkeypatch.setenv("GAPBENCH_WORKERS", "many")
    with pytest.raises(UserError, match="GAPBENCH_WORKERS: 'many' is not a number"):
        workers()
