"""Models of the JSON files of a run folder, for reading, checking and describing the files.

`python -m gapbench.runs.describe` makes docs/results.md from these models. Files of trials that ran
with earlier versions lack some fields; a file may have more fields than its model names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from gapbench.errors import UserError

M = TypeVar("M", bound="Document")

ERROR_LETTERS = 10_000  # of a heartbeat; error.txt has all
WORD_LETTERS = 10_000
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def _line(text: str) -> str:
    if len(text) > WORD_LETTERS or _CONTROL.search(text):
        raise ValueError("is not a line of text")
    return text


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError("is not a number")
    return value


def about(text: str, made: Any = None) -> Any:
    """Return a field that a file may lack; the default is None, or the result of `made`."""
    if made is None:
        return Field(default=None, description=text)
    return Field(default_factory=made, description=text)


# any number, including NaN and infinity, which mark a diverged run
Number = Annotated[Any, AfterValidator(_number)]
Line = Annotated[str, AfterValidator(_line)]
Count = Annotated[int, Field(ge=0, lt=2**31)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Short = Annotated[str, Field(max_length=ERROR_LETTERS)]
Metrics = dict[Line, Number]


def _cell(value: Any) -> Any:
    return _line(value) if isinstance(value, str) else value


Cell = Annotated[Any, AfterValidator(_cell)]


class Document(BaseModel):
    """A JSON object; fields that a model does not name are kept unchecked."""

    model_config = ConfigDict(strict=True, extra="allow")

    @model_validator(mode="after")
    def _names(self) -> Self:
        for name in self.__pydantic_extra__ or ():
            if len(name) > WORD_LETTERS or _CONTROL.search(name):
                raise ValueError("has a name that is not a line of text")
        return self


class Numbers(Document):
    """A part of a result in which everything else is a number too."""

    __pydantic_extra__: dict[str, Number | dict[str, Any] | None]


class Layer(Document):
    """A layer of the finished model."""

    density: Number = Field(description="share of the weights that are not zero")
    numel: Number = Field(description="number of weights")


class Sparsity(Numbers):
    """Zeros, counted on the weights."""

    target: Number | None = about("requested fraction of zeros")
    prunable: Number | None = about("fraction of zeros in the prunable layers")
    model: Number | None = about("zeros of the prunable layers over all parameters")
    active_zeros: Number | None = about("weights inside their mask that are zero")


class Density(Numbers):
    """Shares of the weights that are not zero."""

    prunable: Number | None = about("share in the prunable layers")
    model: Number | None = about("share of all parameters")
    layers: dict[Line, Layer] = about("share and size of each prunable layer", dict)


class Parameters(Numbers):
    """Numbers of parameters."""

    prunable: Number | None = about("parameters of the prunable layers")
    model: Number | None = about("parameters of the whole model")


class Cost(Numbers):
    """Exact multiply-accumulates of the layers; no other operation is counted."""

    train_flops: Number | None = about("operations of the whole training")
    train_flops_ratio: Number | None = about(
        "train_flops over dense training for the recipe's epochs"
    )
    inference_flops: Number | None = about("operations of the forward pass of one example")
    inference_flops_ratio: Number | None = about("inference_flops over the dense model")
    peak_density: Number | None = about("largest density of a step")
    mean_density: Number | None = about("mean density of the steps")


class Exploration(Numbers):
    """How much of the weight space was explored."""

    coverage: Number | None = about("share of the weights that were ever active")
    coverage_layers: dict[Line, Number] = about("coverage of each layer", dict)
    epochs: Number | None = about(
        "machine-epochs until 99 % of the weights had been active; null: never"
    )
    iou: Number | None = about(
        "intersection over union of masks before and after a change, mean over changes and layers"
    )


class Digests(Document):
    """Sha256 digests of bits."""

    weights: Line | None = about("digest of all tensors of the model, by name")
    masks: Line | None = about("digest of all masks, by name")


class Result(Document):
    """result.json: the measurements of a completed trial; no other trial has the file."""

    key: str = Field(description="key of the trial, which is also the folder's name")
    metrics: Metrics = Field(description="metrics of the finished model, by split/name")
    sparsity: Sparsity = about("zeros on the weights", Sparsity)
    density: Density = about("weights that are not zero", Density)
    parameters: Parameters = about("numbers of parameters", Parameters)
    cost: Cost = about("operations and densities of the training", Cost)
    exploration: Exploration = about("coverage", Exploration)
    epochs: Number | None = about("machine-epochs")
    wall_epochs: Number | None = about("epochs on the longest path")
    seconds: Number | None = about("seconds of training in all attempts")
    attempts: Number | None = about("number of attempts")
    seed: Number | None = about("seed of the trial")
    ranks: Number | None = about("processes that shared each batch")
    data_sha256: Line | None = about("digest of the data and their split")
    signatures: dict[Line, Line] = about("signatures of metrics, such as sacreBLEU's", dict)
    digest: Digests = about("digests of weights and masks", Digests)
    history_sha256: Line | None = about("digest of history.jsonl")
    environment: dict[Line, Annotated[Any, AfterValidator(_cell)]] = Field(
        {}, description="versions, processor, commit"
    )
    command: Line | None = about("command that started the trial")
    finished: Line | None = about("time of the end, in UTC")


class Heartbeat(Document):
    """status.json: the last sign of life of an attempt, and the place of its process."""

    state: str | None = about("running, interrupted or failed")
    attempt: Count | None = about("number of the attempt, from 1")
    legs: Count | None = about("jobs of its chain that have ended")
    epoch: Finite | None = about("trained machine-epochs")
    epochs: Count | None = about("machine-epochs of the plan")
    phase: str | None = about("label of the phase")
    metric: dict[str, float] | None = about("validation metrics of the last epoch")
    density: Finite | None = about("density of the prunable weights now")
    seconds_left: Finite | None = about("estimated seconds to the end")
    error: Annotated[str, Field(max_length=ERROR_LETTERS)] | None = about(
        "reason of the failure, in one line"
    )


class EpochLine(Document):
    """history.jsonl, a line of kind epoch: a trained epoch. Metrics stand beside these fields."""

    epoch: Number = Field(description="trained machine-epochs")
    step: Number | None = about("optimiser steps so far")
    phase: Line | None = about("label of the phase")
    branch: Number | None = about("branch of the P-GaP round")
    lr: Number | None = about("last learning rate")
    density: Number | None = about("density of the prunable weights")
    coverage: Number | None = about("share of the weights that were ever active")
    train_flops_ratio: Number | None = about("operations so far over dense training")


class ChangeLine(Document):
    """history.jsonl, a line of kind change: a change of masks."""

    epoch: Number = Field(description="machine-epochs before the change")
    step: Number | None = about("optimiser steps before the change")
    event: Line | None = about("initial, prune, grow, update or merge")
    layers: list[str] | None = about("names of the changed layers")
    mask_error: Number | None = about("pruned share of the squared norm of the weights")
    iou: dict[str, Number] | None = about(
        "intersection over union of each new mask and the old mask"
    )
    before: dict[str, Number] | None = about("validation metrics before")
    after: dict[str, Number] | None = about("validation metrics after")
    densities: dict[str, Number] | None = about("density of every layer after the change")


class Handed(Document):
    """The file that one branch of a P-GaP round has handed back."""

    part: Count = Field(description="part of the plan")
    branch: Count = Field(description="branch of the round")
    file: Count | None = about("bytes of the file")


class Exchange(Document):
    """exchange.json: the bytes that the branches of P-GaP have handed back."""

    branches: list[Handed] = Field(description="one entry for each branch that has ended")


LINES: Mapping[str, type[Document]] = {"epoch": EpochLine, "change": ChangeLine}
DOCUMENTS = (Result, Heartbeat, EpochLine, ChangeLine, Exchange)


def checked(model: type[M], value: object, file: str) -> M:
    """Return a document as an instance of its model.

    Raises:
        UserError: naming the file and the invalid field.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = "/".join(str(part)[:80] for part in first["loc"])
        told = {"missing": "is missing", "value_error": first["msg"].partition(", ")[2]}
        raise UserError(f"{file}: {place} {told.get(first['type'], 'is damaged')}") from None
