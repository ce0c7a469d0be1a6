"""fairseq's batches with a maximum number of tokens, as a function of a seed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gapbench.base.streams import stream
from gapbench.compat.fairseq_import import load_fairseq
from gapbench.errors import UserError

MULTIPLE = 8  # batches of more than 8 sentences have a multiple of 8, as in fairseq
EVAL_SENTENCES = 100  # larger batches of logits take a slow path of the C allocator


def token_batches(pairs: Any, seed: int, max_tokens: int) -> list[Any]:
    """Return the batches of one epoch, as arrays of indices.

    Sentences are sorted by length, with equal lengths in random order. They are cut into batches of
    at most `max_tokens` tokens on either side, padding included, and the batches are shuffled. The
    number of batches does not depend on `seed`.

    Raises:
        UserError: if a sentence is longer than `max_tokens`.
    """
    longest = max(pairs.src_sizes.max(), pairs.tgt_sizes.max())
    if longest > max_tokens:
        raise UserError(
            f"recipe.batch_size: {max_tokens} tokens are too few for the longest sentence: "
            f"give {longest} or more"
        )
    data_utils = load_fairseq().data.data_utils
    with data_utils.numpy_seed(seed % 2**32):
        order = pairs.ordered_indices()
    batches = list(
        pairs.batch_by_size(order, max_tokens=max_tokens, required_batch_size_multiple=MULTIPLE)
    )
    stream(seed, "batches").shuffle(batches)
    return batches


def share_of(pairs: Any, batch: Any, rank: int, world: int) -> dict[str, Any]:
    """Return one rank's collated part of a batch; `ntokens` is the mean over all ranks.

    A rank without a sentence gets a sentence of weight zero, so that all ranks take the step.
    """
    mine = batch[rank::world]
    idle = len(mine) == 0
    sample: dict[str, Any] = pairs.collater([pairs[i] for i in (batch[:1] if idle else mine)])
    if idle:
        sample["target"].fill_(pairs.tgt_dict.pad())
    sample["ntokens"] = sum(int(pairs.tgt_sizes[index]) for index in batch) / world
    return sample


def eval_batches(pairs: Any, limit: int | None) -> Iterator[dict[str, Any]]:
    """Yield batches of the first `limit` sentences (None: all), collated by similar length."""
    import numpy as np

    sizes = np.asarray(pairs.src_sizes)[:limit]
    order = np.argsort(sizes, kind="stable")
    for start in range(0, len(order), EVAL_SENTENCES):
        yield pairs.collater([pairs[index] for index in order[start : start + EVAL_SENTENCES]])
