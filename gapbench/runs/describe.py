"""Make docs/results.md: what run folders hold, from the models that read their files.

python -m gapbench.runs.describe > docs/results.md
"""

from __future__ import annotations

from collections.abc import Iterator
from inspect import getdoc
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from gapbench.runs.documents import DOCUMENTS, Document
from gapbench.runs.leases import Lease

HEAD = """# What a run folder holds

`results/runs/<key>/` is the folder of one trial. `python -m gapbench.runs.describe` makes this page
from the models that read the files. A test keeps the page up to date.

| file | content |
|---|---|
| `trial.json` | the trial: plan, task, recipe, seed, versions; the key is a hash of the trial |
| `history.jsonl` | one line per epoch and per mask change |
| `result.json` | the measurements; a trial is completed exactly if this file exists |
| `final.pt` | weights and masks, written by `torch.save`; `gapbench export` writes other formats |
| `checkpoint.pt` | the state from which a run resumes bitwise; deleted when the trial completes |
| `status.json` | the last heartbeat |
| `owner.json` | the process that runs the trial now |
| `exchange.json` | bytes of the files that the branches of P-GaP have returned |
| `log.txt`, `error.txt` | log and last error, for people |
| `rounds/`, `submitit/`, `sacred/` | branches of P-GaP, files of jobs, one Sacred run per attempt |

Every JSON file has a `checksum` of its content. A reader refuses a file whose checksum does not
match. Files may have more fields than this page lists.
"""


def page() -> str:
    """Return the Markdown text of docs/results.md."""
    return "\n".join([HEAD, *(line for model in (*DOCUMENTS, Lease) for line in _section(model))])


def _section(model: type[BaseModel]) -> Iterator[str]:
    yield f"## {_first_words(model)}\n"
    yield "| field | meaning |"
    yield "|---|---|"
    yield from _rows(model, "")
    yield ""


def _first_words(model: type[BaseModel]) -> str:
    words = (model.__doc__ or "").partition("\n")[0]
    return "owner.json: the process that has the folder." if model is Lease else words


def _rows(model: type[BaseModel], outer: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield f"| `{outer}{name}` | {_words(name, field, model)} |"
        for inner in _documents(field.annotation):
            between = ".NAME." if inner.__name__ == "Layer" else "[]." if outer else "."
            yield from _rows(inner, f"{outer}{name}{between}")


def _documents(annotation: Any) -> Iterator[type[Document]]:
    if isinstance(annotation, type) and issubclass(annotation, Document):
        yield annotation
    for part in get_args(annotation):
        yield from _documents(part)


def _words(name: str, field: FieldInfo, model: type[BaseModel]) -> str:
    if field.description:
        return field.description
    told = (getdoc(model) or "").partition(f"    {name}: ")[2]  # as docstrings list attributes
    return told.partition("\n")[0].rstrip(".")


if __name__ == "__main__":
    print(page(), end="")
