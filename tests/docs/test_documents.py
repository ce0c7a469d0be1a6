"""docs/results.md is what the models of run folders say, and real runs write what they say."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import BaseModel

from gapbench.runs.describe import page
from gapbench.runs.documents import LINES, EpochLine, Exchange, Heartbeat, Result
from gapbench.runs.leases import Lease, this_process
from tests.runs import attempt, entry, prepared

PAGE = Path(__file__).parents[2] / "docs/results.md"


def test_the_page_is_up_to_date():
    assert PAGE.read_text() == page(), "run: python -m gapbench.runs.describe > docs/results.md"


def unnamed(document: BaseModel) -> set[str]:
    """Return the fields of a document that its model does not name."""
    found = set(document.__pydantic_extra__ or ())
    for name in type(document).model_fields:
        value = getattr(document, name)
        inner = value if isinstance(value, list) else [value]
        found |= {
            f"{name}.{x}" for one in inner if isinstance(one, BaseModel) for x in unnamed(one)
        }
    return found


def test_a_run_writes_what_the_models_name(tmp_path):
    folder = prepared(tmp_path, entry("main", only="p_gap"))
    assert attempt(folder, branches=2) == "completed"
    result = json.loads(folder.result.read_text())
    assert unnamed(Result.model_validate(result)) == {"schema", "checksum"}
    assert all(getattr(Result.model_validate(result), name) is not None
               for name in Result.model_fields if name != "command")  # fmt: skip
    of_process = set(this_process())
    status = json.loads(folder.status.read_text())
    known = {"started", "updated", "checksum", *of_process}
    assert unnamed(Heartbeat.model_validate(status)) <= known
    for text in folder.history.read_text().splitlines():
        line = json.loads(text)
        model = LINES[line["kind"]]
        extra = {name for name in unnamed(model.model_validate(line)) if "/" not in name}
        assert extra == {"kind"}
    exchange = Exchange.model_validate(json.loads(folder.exchange.read_text()))
    assert len(exchange.branches) == 4
    assert of_process == set(Lease.model_fields)
    assert EpochLine.model_fields["epoch"].is_required()
