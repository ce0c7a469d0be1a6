"""Safe output to the terminal: escaped control characters, and streams that may fail.

Logs, labels, folder names and SLURM's messages come from other people and programs. Their control
sequences could rewrite the screen or the clipboard, so they are shown as escapes.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult

# C0 and C1 without tab and line feed, marks that change the direction, separators, lone surrogates
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x80-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def clean(text: str) -> str:
    """Return a text for terminals, in which escapes replace characters that are not printable."""
    return _UNSAFE.sub(lambda found: ascii(found[0])[1:-1], text.replace("\r\n", "\n"))


class Output:
    """A text stream that records a failed write and ignores later writes, so that work continues.

    Args:
        stream: the underlying stream.
        cleans: whether control characters are shown as escapes; rich itself needs them raw.
    """

    def __init__(self, stream: TextIO, cleans: bool) -> None:
        self.stream = stream
        self.cleans = cleans
        self.lost: OSError | None = None

    def write(self, text: str) -> int:
        """Write a text, unless an earlier write has failed."""
        if self.lost is None:
            with self._noting():
                self.stream.write(clean(text) if self.cleans else text)
        return len(text)

    def flush(self) -> None:
        """Flush the underlying stream."""
        if self.lost is None:
            with self._noting():
                self.stream.flush()

    @contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            raise
        except OSError as error:
            self.lost = error

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


class _Clean:
    """Renders an object of rich without the control characters in its texts."""

    def __init__(self, inner: RenderableType) -> None:
        self.inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.segment import Segment

        for text, style, control in console.render(self.inner, options):
            yield Segment(text if control else clean(text), style, control)


class _Hook:
    def process_renderables(self, renderables: Iterable[RenderableType]) -> list[RenderableType]:
        """Clean all objects that are about to be drawn."""
        return [_Clean(inner) for inner in renderables]


def console(stderr: bool = False) -> Console:
    """Return a console of rich that shows texts literally: no markup, no control characters."""
    from rich.console import Console

    stream: Any = sys.stderr if stderr else sys.stdout
    if isinstance(stream, Output):
        stream = Output(stream.stream, cleans=False)
        _lent.append(stream)
    made = Console(file=stream, highlight=False, markup=False, emoji=False)
    made.push_render_hook(_Hook())  # type: ignore[arg-type]
    return made


_lent: list[Output] = []  # what consoles write to, in this command


@contextmanager
def guarded_streams() -> Iterator[list[Output]]:
    """Replace standard output and standard error by `Output` while a command runs.

    A terminal that cannot show a character shows the character's escape.

    Yields:
        the outputs of the block, which know whether text was lost.
    """
    before = sys.stdout, sys.stderr
    for stream in before:
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    devnull = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - closed below
    outputs: Any = [Output(stream or devnull, cleans=True) for stream in before]
    sys.stdout, sys.stderr = outputs
    _lent[:] = outputs
    try:
        yield _lent
    finally:
        sys.stdout, sys.stderr = before
        devnull.close()


def abandon(stream: TextIO | None) -> None:
    """Discard a stream's buffered text, so that Python does not report an error at its exit."""
    with suppress(OSError, ValueError, AttributeError):
        assert stream is not None
        number = os.open(os.devnull, os.O_WRONLY)
        os.dup2(number, stream.fileno())
        os.close(number)
