"""The format of ablation files: strict models, and a one-line message for each error."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from gapbench.errors import choose
from gapbench.spec.loading import LAST_SEED, MOST_SEEDS, Document, Keys
from gapbench.tasks.task import MOST_EPOCHS, Recipe

T = TypeVar("T")
M = TypeVar("M", bound="Strict")

WORDS = {
    "value_error": "{error}",
    "int_type": "give a whole number",
    "int_from_float": "give a whole number",
    "float_type": "give a number",
    "finite_number": "give a finite number",
    "bool_type": "give true or false",
    "string_type": "give text",
    "string_pattern_mismatch": "give lower-case letters, digits, - and _",
    "tuple_type": "give a list",
    "too_short": "give at least one value",
    "dict_type": "give a mapping of keys",
    "model_type": "give a mapping of keys",
    "greater_than": "give more than {gt}",
    "greater_than_equal": "give {ge} or more",
    "less_than": "give less than {lt}",
    "less_than_equal": "give {le} or less",
    "too_long": "give at most {max_length} values",
    "string_too_long": "give at most {max_length} characters",
    "string_too_short": "give text",
}
MULTIPLE = r"[0-9]{1,4}(\.[0-9]{1,4})?x"  # of a task's own epochs
OTHER_FOLDERS = ("runs", "reports")  # which results/ has beside those of scales
MOST_SHOWN = 80  # characters of a value in an error
RECIPE_KEYS = tuple(name for name in Recipe.model_fields if name != "epochs")


def _axis(value: object) -> object:
    return tuple(value) if isinstance(value, list) else (value,)


def _tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _seeds(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool):
        if value > MOST_SEEDS:
            raise ValueError(f"give at most {MOST_SEEDS:,} seeds")
        return tuple(range(value))
    return _tuple(value)


def _no_folder(value: str) -> str:
    if value in OTHER_FOLDERS:
        raise ValueError(f"{value} is a folder of results: choose another name")
    return value


def _nothing(value: object) -> object:
    return {} if value is None else value


def _unless_false(value: object) -> object:
    if value is None:
        raise ValueError("give what changes at this scale, or false to leave the row out")
    return None if value is False else value


def _file(value: object) -> object:
    return {"file": value} if isinstance(value, str) else value


def _below_one(value: float) -> float:
    if not 0 <= value < 1:
        raise ValueError("give a number in [0, 1)")
    return value


def _one_line(value: str) -> str:
    if "\n" in value:
        raise ValueError("give one line")
    return value


def _epochs(value: object) -> object:
    if isinstance(value, str) and is_multiple(value):
        return value
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("give a whole number, or a multiple of the task's epochs such as 5x")
    if not 1 <= value <= MOST_EPOCHS:
        raise ValueError(f"give {MOST_EPOCHS} or less" if value > 1 else "give 1 or more")
    return value


def is_multiple(text: str) -> bool:
    """Say whether epochs are given as a multiple of the task's own: "5x" or "2.5x"."""
    return re.fullmatch(MULTIPLE, text, re.ASCII) is not None


def epochs_of(text: str, own: int) -> float:
    """Return the epochs of a multiple such as "5x" for a task with `own` epochs."""
    return float(text.removesuffix("x")) * own


def _no_mapping(value: object) -> object:
    """Refuse mappings and empty lists, which no setting of a trial can equal."""
    values = value if isinstance(value, list) else [value]
    if any(isinstance(inner, dict) for inner in values) or value == []:
        raise ValueError("give a value, or a list of values")
    return value


Sparsity = Annotated[
    float,
    AfterValidator(_below_one),
    Field(json_schema_extra={"minimum": 0, "exclusiveMaximum": 1}),
]
Epochs = Annotated[
    int | str,
    PlainValidator(_epochs),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1, "maximum": MOST_EPOCHS},
                {"type": "string", "pattern": f"^{MULTIPLE}$"},
            ]
        }
    ),
]
Axis = Annotated[tuple[T, ...], BeforeValidator(_axis), Field(min_length=1)]
Names = Annotated[tuple[str, ...], BeforeValidator(_tuple)]
Seeds = Annotated[
    tuple[Annotated[int, Field(ge=0, le=LAST_SEED)], ...],
    BeforeValidator(_seeds),
    Field(min_length=1, max_length=MOST_SEEDS),
]
Label = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_one_line)]
Question = Annotated[str, Field(max_length=2000)]
Fits = dict[str, Annotated[Any, AfterValidator(_no_mapping)]]
# name of files and folders; 255 bytes must hold the name and its suffixes
Name = Annotated[str, Field(pattern="^[a-z0-9][a-z0-9_-]*$", max_length=100)]
Scale = Annotated[Name, AfterValidator(_no_folder)]


class Strict(BaseModel):
    """Unknown keys, NaN, and booleans in place of numbers are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Axes(Strict):
    """Settings that every method has; a list is an axis of the grid.

    Attributes:
        task: name of a registered task.
        distribution: distribution of the zeros over the layers; uniform by default.
        first_layer: whether the input layer is pruned; by default it is dense in uniform rows only.
        pattern: which masks are allowed; unstructured by default.
        sparsity: fraction of zeros among the prunable weights.
        epochs: the budget in machine-epochs, or a multiple of the task's epochs such as 5x; by
            default the task's epochs.
        train_flops: the budget in training FLOPs, as a multiple of dense training for the task's
            epochs; it replaces `epochs`.
    """

    task: Axis[str] | None = None
    distribution: Axis[str] | None = None
    first_layer: Axis[Literal["dense", "sparse"]] | None = None
    pattern: Axis[str] | None = None
    sparsity: Axis[Sparsity] | None = None
    epochs: Axis[Epochs] | None = None
    train_flops: Axis[Annotated[float, Field(gt=0)]] | None = None


class Zip(Axes):
    """Lists that move together; options of methods and `recipe.x` may be among them."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Axis[Any]]

    def axes(self) -> dict[str, tuple[Any, ...]]:
        """Return the lists that are given, by key."""
        return {key: values for key, values in self if values is not None}


class Settings(Axes):
    """Settings of trials. The next outer level supplies absent settings.

    Attributes:
        task_options: options of the task.
        recipe: changed fields of the task's recipe; a list is an axis.
        seeds: number of seeds, or list of seeds.
    """

    task_options: dict[str, Any] = Field(default_factory=dict)
    recipe: dict[str, Any] = Field(default_factory=dict)
    seeds: Seeds | None = None


AXES = tuple(name for name in Settings.model_fields if name not in ("task_options", "recipe"))


class MethodSettings(Settings):
    """Settings together with options of a method, which stand beside them in the file."""

    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, data: object) -> object:
        if not isinstance(data, Mapping):
            return data
        known = {name for name in cls.model_fields if name != "options"}
        inside = {key: value for key, value in data.items() if key in known}
        options = {str(key): value for key, value in data.items() if key not in known}
        return {**inside, "options": options}


class Override(MethodSettings):
    """The changes of one scale to a row; a list replaces the list of the row.

    Attributes:
        zip: lists that move together.
    """

    zip: Zip | None = None


class Row(Override):
    """A block of trials: the product of its lists; lists under `zip` move together.

    Attributes:
        method: a registered method; its options stand beside it.
        label: name of the row in tables and figures; the name of the method by default.
        scales: changes of single scales to the row; false leaves the row out.
    """

    method: Axis[str]
    label: Label | None = None
    scales: dict[Scale, Annotated[Override | None, BeforeValidator(_unless_false)]] = Field(
        default_factory=dict
    )


class ScaleSettings(Settings):
    """Settings of every trial at a scale, and settings of single methods.

    Attributes:
        methods: settings and options of the trials of a method, by its name.
    """

    methods: dict[str, MethodSettings] = Field(default_factory=dict)


class Include(Strict):
    """A file whose rows belong to the ablation: all rows, or the rows that match `only`.

    Attributes:
        file: path relative to this file; the file may include no other file.
        only: patterns that trials must match, as for `--only`.
    """

    file: str
    only: Names = ()


class Claim(Strict):
    """A question to the rows: is the value higher where `better` fits than where `than` does?

    A list of values fits any of them.

    Attributes:
        asks: the question, as people read it.
        source: the source of the claim; None for a question of this project.
        better: fields of the rows on one side.
        than: fields of the rows on the other side.
        at: fields of both sides.
        equal: the cost that must be equal in each pair of rows; by default rows keep their epochs.
        margin: the loss up to which a row counts as good as another, in units of the metric;
            without a margin the row must be better.
        sequence: place in the fixed sequence of confirmatory claims (docs/analysis.md); without a
            place the answer is exploratory.
    """

    asks: Question
    source: Question | None = None
    better: Fits
    than: Fits
    at: Fits = Field(default_factory=dict)
    equal: Literal["epochs", "train_flops"] | None = None
    margin: float | None = Field(default=None, gt=0)
    sequence: int | None = Field(default=None, ge=1)


class Report(Strict):
    """The layout of results; names are fields of trials.

    Attributes:
        rows: fields whose combinations are the rows.
        columns: the field whose values are the columns.
        value: metric of the cells.
        baseline: fields of the row to which differences are taken; a list fits any of its values.
        figures: names of figures.
    """

    rows: Annotated[Names, Field(min_length=1)] = ("label", "distribution")
    columns: str = "sparsity"
    value: str = "test/accuracy"
    baseline: Fits = Field(default_factory=dict)
    figures: Names = ()


Scales = dict[Scale, Annotated[ScaleSettings, BeforeValidator(_nothing)]]


class BaseSpec(Strict):
    """A file of scales that ablations start from."""

    scales: Scales


class AblationSpec(Strict):
    """One ablation file.

    Attributes:
        name: lower-case letters, digits, - and _; it names the folder of results too.
        question: the question of the ablation, for people.
        claims: questions that statistical tests answer.
        plugins: Python files beside it that register methods, tasks or others.
        base: a file of scales beside it.
        scales: settings of every trial, by name of the scale.
        include: files whose rows belong to the ablation.
        trials: the rows.
        report: the layout of results.
    """

    name: Name
    question: Question
    claims: Annotated[tuple[Claim, ...], BeforeValidator(_tuple)] = ()
    plugins: Annotated[Names, Field(max_length=100)] = ()
    base: str | None = None
    scales: Scales = Field(default_factory=dict)
    include: Annotated[
        tuple[Annotated[Include, BeforeValidator(_file)], ...], BeforeValidator(_tuple)
    ] = ()
    trials: Annotated[tuple[Row, ...], BeforeValidator(_tuple)] = ()
    report: Report = Report()


def validated(model: type[M], document: Document) -> M:
    """Return a document as an instance of a model.

    Raises:
        UserError: naming the first invalid value.
    """
    try:
        return model.model_validate(document.data)
    except ValidationError as error:
        first = error.errors()[0]
        raise document.problem(*_explained(model, document, first)) from None


def _explained(model: type[Strict], document: Document, problem: Any) -> tuple[Keys, str]:
    """Return the position and the message of an error of pydantic."""
    keys: Keys = tuple(problem["loc"])
    if problem["type"] == "extra_forbidden":
        return keys, choose("key", str(keys[-1]), _keys_at(model, keys))
    if problem["type"] == "missing":
        return keys, "is missing"
    known = keys
    while len(known) > 1 and not document.has(known):
        known = known[:-1]  # pydantic numbers the values of a list that is a single value here
    return known, explain(problem)


def explain(problem: Any) -> str:
    """Return a message about an invalid value, from an error of pydantic."""
    if problem["type"] == "literal_error":
        valid = problem["ctx"]["expected"].replace("'", "").replace(" or ", ", ").split(", ")
        return choose("value", str(problem["input"]), valid)
    text = WORDS.get(problem["type"], problem["msg"]).format(**problem.get("ctx", {}))
    given = repr(problem["input"])
    shown = given if len(given) <= MOST_SHOWN else f"{given[:MOST_SHOWN]}..."
    return f"{shown} is not possible: {text}"


def _keys_at(model: type[Strict], keys: Keys) -> list[str]:
    """Return the keys that are valid beside an unknown one."""
    inner: dict[str, type[Strict]] = {
        "claims": Claim,
        "report": Report,
        "include": Include,
        "scales": ScaleSettings,
    }
    at = model if len(keys) == 1 else inner[str(keys[0])]
    return list(at.model_fields)
