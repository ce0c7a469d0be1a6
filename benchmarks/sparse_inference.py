"""How fast exported linear layers are: CSR on this CPU, 2:4 on a GPU that has it.

    python -m benchmarks.sparse_inference [--quick] [--json FILE]

The reference is the same layer with a dense weight. Convolutions do not get faster: torch has no
sparse kernels for them, on CPUs or GPUs.
"""

from __future__ import annotations

import statistics

import torch
from torch import Tensor, nn

from benchmarks.rows import Row, interleaved, main, paired
from benchmarks.step_overhead import one_thread
from gapbench.errors import UserError
from gapbench.sparsity.inference import to_csr, to_semi_structured
from gapbench.sparsity.pattern import pattern_of

BATCH = 64
NOTE = "batch 64, one thread; convolutions have no sparse kernel in torch"


def rows(quick: bool) -> list[Row]:
    """Return the rows of this benchmark."""
    size, rounds = (64, 2) if quick else (1024, 30)
    with one_thread(), torch.inference_mode():
        return [*(on_cpu(size, sparsity, rounds) for sparsity in (0.9, 0.95)), on_gpu(size, rounds)]


def layer(size: int, sparsity: float, pattern: str) -> tuple[nn.Sequential, nn.Sequential, Tensor]:
    """Return a layer under random masks twice, and inputs."""
    generator = torch.Generator().manual_seed(0)
    shape = (size, size)
    keep = round((1 - sparsity) * size * size)
    weight = torch.randn(shape, generator=generator)
    weight *= pattern_of(pattern).random(shape, keep, generator)
    models = [nn.Sequential(nn.Linear(size, size, bias=False)) for _ in range(2)]
    for model in models:
        model[0].weight.data = weight.clone()
    return models[0], models[1], torch.randn(BATCH, size, generator=generator)


def on_cpu(size: int, sparsity: float, rounds: int) -> Row:
    """Return the row of a CSR layer."""
    dense, sparse, inputs = layer(size, sparsity, "unstructured")
    to_csr(sparse)
    seen = interleaved({"csr": lambda: sparse(inputs), "dense": lambda: dense(inputs)}, rounds)
    what = f"linear layer of {size} x {size}, {100 * sparsity:g} % sparse, CSR"
    return against_dense(what, seen["csr"], seen["dense"], NOTE)


def on_gpu(size: int, rounds: int) -> Row:
    """Return the row of a semi-structured layer, or one that says why there is none."""
    what = f"linear layer of {4 * size} x {4 * size}, 2:4, semi-structured, bfloat16"
    dense, sparse, inputs = layer(4 * size, 0.5, "2:4")
    try:
        for model in (dense, sparse):
            model.to("cuda" if torch.cuda.is_available() else "cpu", torch.bfloat16)
        to_semi_structured(sparse)
    except UserError as error:
        return Row(what, None, "ms", note=str(error))
    inputs = inputs.repeat(16, 1).to("cuda", torch.bfloat16)

    def run(model: nn.Module) -> None:
        model(inputs)
        torch.cuda.synchronize()

    seen = interleaved({"2:4": lambda: run(sparse), "dense": lambda: run(dense)}, rounds, warm=3)
    return against_dense(what, seen["2:4"], seen["dense"], f"batch {len(inputs)}")


def against_dense(what: str, sparse: list[float], dense: list[float], note: str) -> Row:
    """Return a row of seconds that a layer took, sparse and dense in turn."""
    ours, theirs = (1000 * statistics.median(taken) for taken in (sparse, dense))
    return Row(what, ours, "ms", "dense", theirs, paired(sparse, dense), 1.0, note=note)


if __name__ == "__main__":
    main(__doc__, rows)
