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
        raise ValueError("is no line of text")
    return text


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError("is no number")
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
                raise ValueError("has a name that is no line of text")
        return self


class Numbers(Document):
    """A part of a result in which everything else is a number too."""

    __pydantic_extra__: dict[str, Number | dict[str, Any] | None]


class Layer(Document):
    """A layer of the finished model."""

    density: Number = Field(description="weights that are not zero, over all of them")
    numel: Number = Field(description="number of weights")


class Sparsity(Numbers):
    """Zeros, counted on the weights."""

    target: Number | None = about("fraction of zeros that was asked for")
    prunable: Number | None = about("fraction of zeros in the prunable layers")
    model: Number | None = about("zeros of these layers over all parameters")
    active_zeros: Number | None = about("weights inside their mask that are zero")


class Density(Numbers):
    """What is not zero."""

    prunable: Number | None = about("of the prunable layers")
    model: Number | None = about("of all parameters")
    layers: dict[Line, Layer] = about("of each prunable layer", dict)


class Parameters(Numbers):
    """Numbers of parameters."""

    prunable: Number | None = about("in the layers that are pruned")
    model: Number | None = about("in the whole model")


class Cost(Numbers):
    """Multiply-accumulates of the layers, exactly; nothing else is counted."""

    train_flops: Number | None = about("operations of the whole training")
    train_flops_ratio: Number | None = about("over those of dense training for the recipe's epochs")
    inference_flops: Number | None = about("of one example, forward")
    inference_flops_ratio: Number | None = about("over the dense model's")
    peak_density: Number | None = about("the largest of any step")
    mean_density: Number | None = about("averaged over the steps")


class Exploration(Numbers):
    """How much of the weight space was explored."""

    coverage: Number | None = about("weights that were ever active, over all")
    coverage_layers: dict[Line, Number] = about("the same of each layer", dict)
    epochs: Number | None = about(
        "machine-epochs after which 99 % of the weights had been active; none: never"
    )
    iou: Number | None = about(
        "intersection over union of masks before and after a change, mean over changes and layers"
    )


class Digests(Document):
    """Sha256 over bits."""

    weights: Line | None = about("of all tensors of the model, by name")
    masks: Line | None = about("of all masks, by name")


class Result(Document):
    """result.json: what a completed trial has measured. A trial is completed when it is there."""

    key: str = Field(description="the trial's, which is also the folder's name")
    metrics: Metrics = Field(description="of the finished model, by split/name")
    sparsity: Sparsity = about("zeros on the weights", Sparsity)
    density: Density = about("what is left", Density)
    parameters: Parameters = about("how many there are", Parameters)
    cost: Cost = about("operations and densities of training", Cost)
    exploration: Exploration = about("coverage", Exploration)
    epochs: Number | None = about("machine-epochs")
    wall_epochs: Number | None = about("epochs on the longest path")
    seconds: Number | None = about("of training, over all attempts")
    attempts: Number | None = about("how many there were")
    seed: Number | None = about("the trial's")
    ranks: Number | None = about("processes that shared each batch")
    data_sha256: Line | None = about("of the data and their split")
    signatures: dict[Line, Line] = about("of metrics, such as sacreBLEU's", dict)
    digest: Digests = about("of weights and masks", Digests)
    history_sha256: Line | None = about("of history.jsonl")
    environment: dict[Line, Annotated[Any, AfterValidator(_cell)]] = Field(
        {}, description="versions, processor, commit"
    )
    command: Line | None = about("how the trial was started")
    finished: Line | None = about("when, in UTC")


class Heartbeat(Document):
    """status.json: the last sign of life of an attempt; it also says where its process runs."""

    state: str | None = about("running, interrupted or failed")
    attempt: Count | None = about("number of the attempt, from 1")
    legs: Count | None = about("jobs of its chain that have ended")
    epoch: Finite | None = about("machine-epochs that are trained")
    epochs: Count | None = about("of the plan")
    phase: str | None = about("the plan's label")
    metric: dict[str, float] | None = about("of the last epoch, on validation")
    density: Finite | None = about("of the prunable weights now")
    seconds_left: Finite | None = about("an estimate")
    error: Annotated[str, Field(max_length=ERROR_LETTERS)] | None = about(
        "why it failed, in one line"
    )


class EpochLine(Document):
    """history.jsonl, a line of kind epoch: an epoch that is trained. Metrics stand beside these."""

    epoch: Number = Field(description="machine-epochs that are trained")
    step: Number | None = about("optimiser steps")
    phase: Line | None = about("the plan's label")
    branch: Number | None = about("of a P-GaP round")
    lr: Number | None = about("the last learning rate")
    density: Number | None = about("of the prunable weights")
    coverage: Number | None = about("weights that were ever active, over all")
    train_flops_ratio: Number | None = about("of training so far")


class ChangeLine(Document):
    """history.jsonl, a line of kind change: masks have changed."""

    epoch: Number = Field(description="where, in machine-epochs")
    step: Number | None = about("optimiser steps before it")
    event: Line | None = about("initial, prune, grow, update or merge")
    layers: list[str] | None = about("names of the layers that changed")
    mask_error: Number | None = about("share of the squared norm of the weights that was pruned")
    iou: dict[str, Number] | None = about("of each mask with the one before")
    before: dict[str, Number] | None = about("validation metrics before")
    after: dict[str, Number] | None = about("validation metrics after")
    densities: dict[str, Number] | None = about("of every layer, after")


class Handed(Document):
    """What one branch of a P-GaP round has handed back."""

    part: Count = Field(description="the plan's part")
    branch: Count = Field(description="of the round")
    file: Count | None = about("bytes of the whole file")


class Exchange(Document):
    """exchange.json: bytes that P-GaP's branches have handed back."""

    branches: list[Handed] = Field(description="one a branch that has ended")


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
