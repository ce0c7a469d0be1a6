"""docs/sparsifier.md: its blocks run, one after another."""

from __future__ import annotations

import re
from pathlib import Path

import torch

PAGE = Path(__file__).parents[2] / "docs/sparsifier.md"


def test_every_block_runs():
    torch.manual_seed(0)
    names: dict[str, object] = {}
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 12
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
