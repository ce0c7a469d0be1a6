"""Imports the unmodified release fairseq 0.12.2 on current Python and torch.

Every use of fairseq goes through `load_fairseq`. The import fixes four problems, none on disk:

1. Python 3.11 refuses unhashable dataclass instances as field defaults, which fairseq's
   configurations use. fairseq's dataclasses become hashable during the import.
2. The import of fairseq configures the root logger and warns about `torch.jit`. fairseq's attention
   calls torch with two kinds of mask, which warns. All three effects are suppressed.
3. Each encoder layer has a second copy of its weights for a fused inference path. These 8
   parameters are never trained, evaluation after `load_state_dict` reads them instead of the real
   weights, and current torch cannot run the path. The copies are removed, and the path is switched
   off.
4. torch 2.6 loads weights only; a fairseq checkpoint also contains an `argparse.Namespace`, which
   is allowed by name.

This module can be removed once a release of fairseq imports without changes.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import importlib
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from gapbench.errors import NotInstalled

INSTALL = (
    "make translation, or pip install -c constraints.txt -e '.[suite,translation]' "
    "&& pip install --no-deps fairseq==0.12.2"
)

_FUSED = tuple(
    f"{matrix}_{part}"
    for matrix in ("in_proj", "out_proj", "fc1", "fc2")
    for part in ("weight", "bias")
)


@functools.cache
def load_fairseq() -> ModuleType:
    """Import fairseq with its models, tasks and criterions, and return it.

    Raises:
        NotInstalled: if fairseq, or a package it imports, is not installed.
    """
    try:
        with _hashable_dataclasses("fairseq"), _own_logging():
            fairseq = importlib.import_module("fairseq")
    except ModuleNotFoundError as error:
        raise NotInstalled(f"{error.name} is not installed; get fairseq with: {INSTALL}") from None
    _drop_fused_weights(importlib.import_module("fairseq.modules.transformer_layer"))
    warnings.filterwarnings("ignore", "Support for mismatched key_padding_mask and attn_mask")
    importlib.import_module("torch.serialization").add_safe_globals([argparse.Namespace])
    return fairseq


@contextmanager
def _hashable_dataclasses(package: str) -> Iterator[None]:
    """Make the dataclasses of `package` hashable, as Python 3.11 requires of field defaults."""
    original = dataclasses.dataclass

    def dataclass(cls: type | None = None, /, **options: Any) -> Any:
        def decorate(target: type) -> type:
            if target.__module__.partition(".")[0] != package or options.get("frozen"):
                return original(**options)(target)
            return original(**{"unsafe_hash": True, **options})(target)

        return decorate if cls is None else decorate(cls)

    dataclasses.dataclass = dataclass
    try:
        yield
    finally:
        dataclasses.dataclass = original


@contextmanager
def _own_logging() -> Iterator[None]:
    """Prevent an import from configuring the root logger and showing deprecation warnings."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    quiet = logging.NullHandler()
    root.addHandler(quiet)  # with a handler in place, logging.basicConfig does nothing
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


def _drop_fused_weights(transformer_layer: ModuleType) -> None:
    """Build encoder layers without the copied weights; load checkpoints with or without them."""
    from torch import nn

    layer = transformer_layer.TransformerEncoderLayerBase
    build: Callable[..., None] = layer.__init__

    @functools.wraps(build)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        build(self, *args, **kwargs)
        self.can_use_fastpath = False
        for name in _FUSED:
            delattr(self, name)

    def load(self: Any, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for name in _FUSED:
            state_dict.pop(prefix + name, None)
        nn.Module._load_from_state_dict(self, state_dict, prefix, *args)

    layer.__init__ = __init__
    layer._load_from_state_dict = load


def main() -> None:
    """Run one of fairseq's commands: `python -m gapbench.compat.fairseq_import generate ...`."""
    if len(sys.argv) < 2:
        raise SystemExit("usage: python -m gapbench.compat.fairseq_import COMMAND [OPTION ...]")
    try:
        load_fairseq()
    except NotInstalled as error:
        raise SystemExit(str(error)) from None
    command = sys.argv.pop(1)
    importlib.import_module(f"fairseq_cli.{command}").cli_main()


if __name__ == "__main__":
    main()
