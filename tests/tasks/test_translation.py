from __future__ import annotations

from itertools import chain

import pytest
import torch

from gapbench.compat.fairseq_import import load_fairseq
from gapbench.errors import UserError
from gapbench.methods.method import plan
from gapbench.sparsity.cost import forward_macs
from gapbench.sparsity.layers import layers_of
from gapbench.tasks.docs_en_de import DocsEnDe
from gapbench.tasks.wmt14_en_de import Wmt14EnDe
from gapbench.training.setup import Settings, build

pytestmark = pytest.mark.fairseq

try:
    load_fairseq()
except UserError as missing:
    pytest.skip(str(missing), allow_module_level=True)


@pytest.fixture(scope="module")
def big():
    task = Wmt14EnDe()
    with torch.device("meta"):
        return task, task.build_model()


@pytest.fixture(scope="module")
def docs():
    torch.set_num_threads(1)
    task = DocsEnDe(pairs=200, width=32)
    task.load(torch.device("cpu"))
    return task


def small_model(docs, seed=0):
    torch.manual_seed(seed)
    return docs.build_model()


def test_the_big_model_has_96_prunable_tensors_of_176160768_weights(big):
    task, model = big
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    prunable = task.prunable(model)
    assert len(prunable) == 96
    assert sum(sizes[name] for name in prunable) == 176_160_768
    assert sum(sizes.values()) == 210_882_560


def test_nothing_of_a_model_built_on_meta_has_memory(big):
    _, model = big
    tensors = [*model.parameters(), *model.buffers()]
    assert {tensor.device.type for tensor in tensors} == {"meta"}


def test_every_token_passes_every_prunable_weight_once(big):
    task, model = big
    cost = forward_macs(model, task.example_inputs())
    prunable = task.prunable(model)
    sizes = dict(model.named_parameters())
    assert all(cost.macs[name] == task.sentence * sizes[name].numel() for name in prunable)
    others = {name for name, macs in cost.macs.items() if macs} - set(prunable)
    assert others == {"encoder.embed_tokens.weight"}  # tied to the output


def blocks(patterns):
    """Shortens ("encoder.layers.0.*", ...) to ("e0", ...)."""
    return [[f"{name[0]}{name.split('.')[2]}" for name in group] for group in patterns]


def test_three_partitions_are_four_consecutive_blocks_each(big):
    task, _ = big
    assert blocks(task.partition_patterns(3)) == [
        ["e0", "e1", "e2", "e3"],
        ["e4", "e5", "d0", "d1"],
        ["d2", "d3", "d4", "d5"],
    ]


@pytest.mark.parametrize("partitions", [1, 2, 3, 6])
def test_partitions_have_equally_many_blocks_and_all_of_them_in_order(big, partitions):
    task, _ = big
    groups = blocks(task.partition_patterns(partitions))
    assert [len(group) for group in groups] == [12 // partitions] * partitions
    assert list(chain(*groups)) == [f"{side}{index}" for side in "ed" for index in range(6)]


def test_a_number_that_does_not_divide_the_blocks_has_no_patterns(big):
    assert big[0].partition_patterns(5) is None


def test_the_wmt14_recipe_is_the_papers(big):
    task, model = big
    recipe = task.recipe
    assert (recipe.lr, recipe.betas, recipe.warmup_steps) == (8.46e-4, (0.9, 0.997), 4000)
    assert (recipe.batch_size, recipe.schedule) == (5120 * 8, "inverse_sqrt")
    assert model.encoder.dropout_module.p == 0.1
    assert recipe.label_smoothing == 0.1


def test_batches_are_a_function_of_seed_and_index_alone(docs):
    whole = list(docs.batches(7, batch_size=300))
    rest = list(docs.batches(7, batch_size=300, start=2))
    assert len(whole) == docs.steps_per_epoch(300) == len(rest) + 2
    for one, other in zip(whole[2:], rest, strict=True):
        assert torch.equal(one["id"], other["id"])
        assert torch.equal(one["target"], other["target"])


def test_another_seed_gives_as_many_other_batches(docs):
    one, other = (list(docs.batches(seed, batch_size=300)) for seed in (1, 2**62))
    assert len(one) == len(other)
    assert any(not torch.equal(a["id"], b["id"]) for a, b in zip(one, other, strict=True))


def test_batches_too_small_for_a_sentence_are_refused(docs):
    with pytest.raises(
        UserError, match=r"batch_size: 9 tokens are too few for the longest sentence"
    ):
        docs.steps_per_epoch(9)


def test_making_batches_leaves_the_global_generators_alone(docs):
    import numpy as np

    np.random.seed(0)
    expected = np.random.random()
    np.random.seed(0)
    list(docs.batches(3, batch_size=300))
    assert np.random.random() == expected


def test_the_mean_loss_of_the_ranks_is_the_loss_of_the_whole_batch(docs):
    model = small_model(docs).eval()
    whole = next(docs.batches(7, batch_size=300))
    shares = [next(docs.batches(7, batch_size=300, rank=rank, world=3)) for rank in range(3)]
    assert sorted(torch.cat([share["id"] for share in shares])) == sorted(whole["id"])
    losses = [docs.loss(model, share, docs.recipe) for share in shares]
    expected = docs.loss(model, whole, docs.recipe)
    torch.testing.assert_close(torch.stack(losses).mean(), expected)


def test_a_rank_without_a_sentence_takes_part_with_a_loss_of_zero(docs):
    model = small_model(docs)
    world = 1 + max(len(batch["id"]) for batch in docs.batches(7, batch_size=300))
    batch = next(docs.batches(7, batch_size=300, rank=world - 1, world=world))
    loss = docs.loss(model, batch, docs.recipe)
    loss.backward()
    assert loss.item() == 0
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_the_loss_is_the_label_smoothed_cross_entropy_of_torch(docs):
    model = small_model(docs).eval()
    batch = next(docs.batches(7, batch_size=300))
    logits = model(**batch["net_input"])[0]
    smoothing = docs.recipe.label_smoothing
    classes = logits.shape[-1]
    # fairseq gives the true class 1 - e, torch 1 - e + e / classes
    expected = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1),
        batch["target"].flatten(),
        ignore_index=1,
        label_smoothing=smoothing * classes / (classes - 1),
    )
    torch.testing.assert_close(docs.loss(model, batch, docs.recipe), expected)


def test_evaluation_is_deterministic_and_leaves_the_mode_as_it_was(docs):
    model = small_model(docs).train()
    before = torch.get_rng_state()
    first = docs.evaluate(model, "val")
    assert model.training
    assert first == docs.evaluate(model, "val")
    assert torch.equal(torch.get_rng_state(), before)
    assert first["loss"] == pytest.approx(7.6, abs=1.5)  # about ln 2000: nothing is learned yet


def test_a_model_that_learned_its_pairs_translates_them(docs):
    few = DocsEnDe(pairs=24, width=64, dropout=0.0)
    few.load(torch.device("cpu"))
    model = small_model(few)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for epoch in range(60):
        for batch in few.batches(epoch, batch_size=500):
            optimizer.zero_grad()
            few.loss(model, batch, few.recipe).backward()
            optimizer.step()
    few.searches = {**few.searches, "train": few.searches["test"]}
    assert few.evaluate(model, "train")["bleu"] > 80


def test_every_option_of_the_model_is_read(docs):
    model = DocsEnDe(width=64, layers=2, dropout=0.25).build_model()
    assert model.encoder.dropout_module.p == 0.25
    assert (len(model.encoder.layers), len(model.decoder.layers)) == (2, 2)
    assert model.encoder.layers[0].fc1.weight.shape == (128, 64)


@pytest.mark.parametrize(
    ("option", "value", "valid"),
    [
        ("words", 0, "1 or more"),
        ("pairs", -5, "0 or more"),
        ("layers", 0, "1 or more"),
        ("width", 100, "a multiple of 32"),
        ("width", 0, "a multiple of 32"),
        ("dropout", 1.5, "a number in [0, 1)"),
    ],
)
def test_an_option_out_of_range_is_refused_before_anything_runs(option, value, valid):
    with pytest.raises(UserError) as told:
        DocsEnDe(**{option: value})
    assert str(told.value) == f"{option}: {value} is not possible: give {valid}"


def test_using_a_task_before_its_data_is_loaded_is_told():
    with pytest.raises(UserError, match="not loaded"):
        DocsEnDe().evaluate(torch.nn.Identity(), "val")


def test_a_dictionary_that_does_not_fit_the_model_is_told():
    task = DocsEnDe(pairs=8)
    task.vocabulary = 1992
    with pytest.raises(UserError, match="dictionary has 2000 symbols, but the model is built for"):
        task.load(torch.device("cpu"))


def test_a_checkpoint_is_not_continued_with_other_data(docs):
    model = docs.build_model()
    dense = plan("dense", layers_of(model, docs.prunable(model)), 2)
    settings = Settings(docs.recipe, dense, "dense", "sparse", 0.0, 0)
    training = build(docs, settings, torch.device("cpu"))
    state = training.state_dict()
    training.load_state_dict(state)
    with pytest.raises(UserError, match="task docs_en_de: the data differ from the checkpoint's"):
        training.load_state_dict({**state, "data": DocsEnDe(pairs=100).data_digest()})
