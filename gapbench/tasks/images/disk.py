"""Images that are read from files on demand."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from gapbench.base.streams import stream
from gapbench.tasks.data.imagenet_files import Tree
from gapbench.tasks.images.batching import Images, epoch_order, fixed_order, shares
from gapbench.tasks.images.reading import Request, read
from gapbench.tasks.task import Split

EVALUATION_BATCH = 256
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, by channel


class ImageFolderDataset:
    """The splits of a task with images in class folders, normalised by ImageNet's statistics.

    Args:
        train: images for training and validation; the first `validation` images in a fixed order
            form the validation split.
        test: images of the test split.
        device: device of the images and labels.
        validation: number of images of the validation split.
        size: side of the square crop of an image, in pixels.
        mixup: parameter of the beta distribution of mixup; 0 turns mixup off.

    Attributes:
        splits: the files of each split: a tree, and indices into the tree.
        digest: sha256 over the files' relative paths and sizes, and the split.
    """

    def __init__(
        self,
        train: Tree,
        test: Tree,
        device: torch.device,
        *,
        validation: int,
        size: int,
        mixup: float,
    ) -> None:
        order = fixed_order(len(train.paths))
        self.splits: dict[Split, tuple[Tree, Tensor]] = {
            "train": (train, order[validation:]),
            "val": (train, order[:validation]),
            "test": (test, torch.arange(len(test.paths))),
        }
        content = f"{train.digest} {test.digest} validation={validation}"
        self.digest = hashlib.sha256(content.encode()).hexdigest()
        self._device, self._size, self._mixup = device, size, mixup
        self._classes = len(train.classes)

    def batches(
        self, seed: int, *, batch_size: int, start: int, rank: int, world: int
    ) -> Iterator[Images]:
        """Yield this rank's slice of every training batch; leave out an incomplete batch.

        Mixup mixes images of one slice with each other, with the same proportion for a whole batch.

        Raises:
            UserError: if the ranks cannot share a batch equally, or a file cannot be decoded.
        """
        tree, members = self.splits["train"]
        count = len(members)
        order = members[epoch_order(seed, count)]
        requests = [
            Request(order[own].tolist(), seed, own.start)
            for own in shares(count, batch_size=batch_size, start=start, rank=rank, world=world)
        ]
        for index, (images, labels) in enumerate(self._read(tree, requests), start):
            yield self._mixed(images, labels, seed, index)

    def examples(self, split: Split) -> Iterator[Images]:
        """Yield the images of a split, cropped at the centre, in batches of at most 256."""
        tree, members = self.splits[split]
        batches = torch.split(members, EVALUATION_BATCH)
        yield from self._read(tree, [Request(batch.tolist()) for batch in batches])

    def _read(self, tree: Tree, requests: Sequence[Request]) -> Iterator[Images]:
        mean, deviation = (
            255 * torch.tensor(values, device=self._device).view(3, 1, 1)
            for values in (MEAN, DEVIATION)
        )
        pixels = read(tree, self._size, requests, self._device)
        for request, images in zip(requests, pixels, strict=True):
            labels = torch.from_numpy(tree.labels[request.indices]).to(self._device)
            yield (images.float() - mean) / deviation, labels

    def _mixed(self, images: Tensor, labels: Tensor, seed: int, index: int) -> Images:
        """Mix each image and its label with the preceding image and label (mixup, Zhang 2018)."""
        if not self._mixup:
            return images, labels
        weight = stream(seed, "mixup", index).betavariate(self._mixup, self._mixup)
        truth = functional.one_hot(labels, self._classes).float()
        return torch.lerp(images.roll(1, 0), images, weight), torch.lerp(
            truth.roll(1, 0), truth, weight
        )
