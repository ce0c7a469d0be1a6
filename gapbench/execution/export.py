"""Export of a trial's model as one file: sparse, CSR, or in the form of the model's own library.

The sparse file is safetensors. A pruned layer NAME has two tensors: `NAME.values`, the weights
inside its mask in row-major order, and `NAME.mask`, the mask coded by `sparsity.mask_codes`. Every
other tensor is stored as it is; tied tensors are stored once. The metadata "gapbench" is JSON with
the trial, the shapes of the pruned layers, and the names of tied tensors.
"""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import safetensors
import torch
from safetensors.torch import save as to_bytes
from torch import Tensor

from gapbench.base import documents
from gapbench.errors import UserError
from gapbench.runs.store import RunFolder
from gapbench.sparsity import mask_codes
from gapbench.spec.trials import Trial
from gapbench.training import state
from gapbench.training.setup import build

Format = Literal["sparse", "dense", "csr"]
SUFFIXES: dict[Format, str] = {"sparse": ".safetensors", "dense": ".pt", "csr": ".csr.pt"}
METADATA = "gapbench"
VERSION = 1
AGAIN = "`gapbench export KEY` writes it anew"
# limit of a sparse file's expansion; float32 weights pruned to 99.99 % have 2,500 entries per byte
ENTRIES_A_BYTE = 16_384


@dataclass(frozen=True)
class Exported:
    """An exported file.

    Attributes:
        size: size of the file in bytes.
        dense: size of all tensors of the model in bytes, with tied tensors counted once.
    """

    path: Path
    size: int
    dense: int


def export(folder: RunFolder, form: Format, out: Path, partial: bool = False) -> Exported:
    """Write the model of a completed trial or, with `partial`, of an unfinished trial.

    Args:
        folder: the trial's run folder.
        form: "sparse", which `load` reads; "dense", a file of `torch.save` with the result of the
            task's `checkpoint` (torchvision's state dict, fairseq's checkpoint); "csr", a file of
            `torch.save` with a state dict in which the weights of pruned linear layers are CSR
            tensors, which `gapbench.sparsity.inference.load_csr` reads.
        out: the output file; it must not exist, and is written atomically.
        partial: whether to export the last checkpoint of a trial that has not completed; layers
            that are dense there are pruned in the copy.

    Raises:
        UserError: if the trial has not completed (with `partial`: if the trial has completed), if
            its weights are missing or damaged, or if the file exists or cannot be written.
    """
    key = folder.path.name
    trial = Trial.read(folder.trial)
    model, masks = unfinished(folder, trial) if partial else finished(folder)
    if form == "csr":
        flat = {name for name, mask in masks.items() if mask.dim() == 2}
        with warnings.catch_warnings():  # torch calls its CSR tensors a beta
            warnings.simplefilter("ignore", UserWarning)
            rows = {n: t.to_sparse_csr() if n in flat else t for n, t in model.items()}
        _write(out, lambda file: torch.save(rows, file))
    elif form == "sparse":
        about = {"key": key, "task": trial.task, "label": trial.label}
        content = sparse(model, masks, about)
        _write(out, lambda file: file.write(content))
    else:
        checkpoint = trial.make_task().checkpoint(model)
        _write(out, lambda file: torch.save(checkpoint, file))
    tied = _tied(model, ())
    dense = sum(tensor.nbytes for name, tensor in model.items() if name not in tied)
    return Exported(out, out.stat().st_size, dense)


def finished(folder: RunFolder) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the weights and the masks of a completed trial, by name, on the CPU.

    Raises:
        UserError: if the trial has not completed, or final.pt cannot be read or has other content.
    """
    if not folder.completed():
        raise UserError(
            f"trial {folder.path.name}: {folder.state()}, not completed: `gapbench run FILE` "
            "completes it, or --checkpoint exports what it has so far"
        )
    if not os.path.lexists(folder.model):
        raise UserError(f"{folder.model}: is missing: run the trial again with --force")
    found = state.read(folder.model, torch.device("cpu"))
    for part in ("model", "masks"):
        tensors = found.get(part)
        if not isinstance(tensors, dict) or not all(map(torch.is_tensor, tensors.values())):
            raise UserError(
                f"{folder.model}: holds no {part} of gapbench: run the trial again with --force"
            )
    return found["model"], found["masks"]


def unfinished(folder: RunFolder, trial: Trial) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return weights and masks of the last checkpoint, with every layer pruned to its target.

    Raises:
        UserError: if the trial has completed, or its checkpoint is missing or damaged.
    """
    if folder.completed():
        raise UserError(f"trial {trial.key}: has completed: leave --checkpoint out")
    if not os.path.lexists(folder.checkpoint):
        raise UserError(
            f"trial {trial.key}: {folder.state()}, without a checkpoint yet: "
            "`gapbench run FILE` makes one"
        )
    trial.require_versions()
    cpu = torch.device("cpu")
    whole = state.load(folder.checkpoint, cpu)
    with state.restoring(folder.checkpoint):
        steps, _ = whole["training"]["sparsifier"]["counted_by"]
    training = build(trial.make_task(), trial.settings(), cpu, steps)
    with state.restoring(folder.checkpoint):
        training.model.load_state_dict(whole["training"]["model"])
        training.sparsifier.load_state_dict(whole["training"]["sparsifier"])
    return training.sparsifier.sparse_state_dict(), training.sparsifier.sparse_masks()


def sparse(
    model: Mapping[str, Tensor], masks: Mapping[str, Tensor], about: Mapping[str, Any]
) -> bytes:
    """Return the content of a sparse file.

    Args:
        model: a state dict.
        masks: boolean masks of layers by name; weights outside the masks are 0.
        about: entries for the metadata.

    Raises:
        UserError: if a weight outside its mask is not 0.
    """
    tied = _tied(model, masks)
    tensors: dict[str, Tensor] = {}
    for name, tensor in model.items():
        if name in tied:
            continue
        if name not in masks:
            tensors[name] = tensor.contiguous()
            continue
        mask = masks[name]
        values = tensor.contiguous()[mask]
        if tensor.count_nonzero() != values.count_nonzero():
            raise UserError(f"layer {name}: has weights outside its mask")
        tensors[f"{name}.values"] = values
        tensors[f"{name}.mask"] = mask_codes.encode(mask)
    written = {
        "version": VERSION,
        **about,
        "layers": {
            name: {"shape": list(mask.shape), "dtype": str(model[name].dtype).partition(".")[2]}
            for name, mask in masks.items()
        },
        "tied": tied,
        "names": list(model),
    }
    return to_bytes(tensors, {METADATA: json.dumps(written)})


def load(path: str | Path) -> dict[str, Tensor]:
    """Return the dense state dict of a sparse file, equal to the trained model's state dict.

    Raises:
        UserError: if the file cannot be read, is damaged, or is not a sparse file.
    """
    try:
        with documents.open_plain(Path(path)) as plain:
            size = os.fstat(plain.fileno()).st_size
        with safetensors.safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            told = documents.parse((file.metadata() or {}).get(METADATA, "null"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (safetensors.SafetensorError, ValueError) as error:
        raise UserError(f"{path}: damaged, or not a safetensors file: {error}: {AGAIN}") from None
    if not isinstance(told, dict) or told.get("version") != VERSION:
        raise UserError(f"{path}: not written by this version: {AGAIN}")
    try:
        entries = sum(math.prod(layer["shape"]) for layer in told["layers"].values())
        if entries > ENTRIES_A_BYTE * size:
            raise UserError(f"{entries:,} weights are too many for {size:,} bytes")
        for name, layer in told["layers"].items():
            mask = mask_codes.decode(tensors.pop(f"{name}.mask"), tuple(layer["shape"]))
            values = tensors.pop(f"{name}.values")
            tensors[name] = torch.zeros(mask.shape, dtype=values.dtype)
            tensors[name][mask] = values
        return {name: tensors[told["tied"].get(name, name)] for name in told["names"]}
    except KeyError as error:
        raise UserError(f"{path}: damaged: {error.args[0]} is missing: {AGAIN}") from None
    except (UserError, IndexError, RuntimeError, AttributeError, TypeError, ValueError) as error:
        raise UserError(f"{path}: damaged: {error}: {AGAIN}") from None


def _tied(model: Mapping[str, Tensor], first: Mapping[str, Any] | tuple[()]) -> dict[str, str]:
    """Return a mapping of names of tied tensors to stored names; names in `first` are stored."""
    known: dict[tuple[Any, ...], str] = {}
    tied = {}
    for name in sorted(model, key=lambda name: name not in first):
        tensor = model[name]
        place = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        other = known.setdefault(place, name) if tensor.numel() else name
        if other != name:
            tied[name] = other
    return tied


def _write(out: Path, write: Callable[[IO[bytes]], object]) -> None:
    if out.exists():
        raise UserError(f"{out}: exists already; remove it, or name another file with --out")
    try:
        with documents.replacing(out, durable=True) as file:
            write(file)
    except OSError as error:
        raise UserError(f"{out}: cannot be written: {error.strerror}") from None
