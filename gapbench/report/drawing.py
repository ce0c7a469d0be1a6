"""Drawing of figures into files, with fonts that have all their characters."""

from __future__ import annotations

import html
import io
import re
import warnings
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path

import matplotlib
from matplotlib import font_manager

from gapbench.report.canvas import Drawn, Evidence, figures

# fonts with the characters of other scripts, as systems provide them
KINDS = ("png", "svg", "csv")  # of files
_LONG = re.compile(rb"(\d\.\d\d)\d+")  # a hundredth of a point cannot be seen
_USED = re.compile(r'(?:href="#|url\(#)([^")]+)')
_ONLY_IN_FILES = re.compile(
    r' xmlns(:xlink)?="[^"]*"|<metadata>.*?</metadata>|<title>.*?</title>|<!--.*?-->'
    r"|xlink:(?=href)"
)
_TITLE = re.compile(rb"<title>(.*?)</title>")
_NAMED = re.compile(r' id="([^"]+)"')
_DARK = """<style>@media (prefers-color-scheme: dark) {
 svg { filter: invert(0.9) hue-rotate(180deg) } }</style>"""
FALLBACKS = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "Noto Sans SC", "Noto Sans"),
    *("Noto Sans Arabic", "Noto Sans Devanagari", "Noto Sans Hebrew", "Noto Emoji", "Unifont"),
    *("Source Han Sans SC", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Droid Sans Fallback"),
    *("IPAexGothic", "NanumGothic", "PingFang SC", "Hiragino Sans", "Microsoft YaHei", "SimHei"),
    *("Arial Unicode MS", "STIXGeneral"),
)


def draw(name: str, evidence: Evidence) -> dict[str, bytes] | None:
    """Return a figure of one task as files by suffix; None if the figure is empty."""
    return files_of(lambda: figures[name](evidence))


def files_of(make: Callable[[], Drawn | None]) -> dict[str, bytes] | None:
    """Return the bytes of a figure as png and svg, and of its data as csv; None if it is empty.

    Two calls return the same bytes: the fonts come with matplotlib, and no date is written. This
    machine's fonts are used only for characters that matplotlib's fonts lack.
    """
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        files = _drawn(make, ())
    if any("missing from" in str(warning.message) for warning in told):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*missing from")  # `unshown` tells of them
            return _drawn(make, families())
    for warning in told:
        warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return files


def families() -> list[str]:
    """Return the fonts of this machine that have the characters of other scripts."""
    known = set(font_manager.get_font_names())
    return [name for name in FALLBACKS if name in known]


def unshown(text: str) -> str:
    """Return the characters of a text that no font for figures has."""
    places = [font_manager.findfont(name) for name in ("DejaVu Sans", *families())]
    fonts = [font_manager.get_font(place) for place in places]
    signs = sorted({sign for sign in text if sign.isprintable() and not sign.isspace()})
    return "".join(s for s in signs if not any(font.get_char_index(ord(s)) for font in fonts))


def _drawn(make: Callable[[], Drawn | None], further: Sequence[str]) -> dict[str, bytes] | None:
    style = resources.files("gapbench.report").joinpath("gapbench.mplstyle")
    with resources.as_file(style) as path, matplotlib.rc_context(fname=path):
        matplotlib.rcParams["font.family"] = [*matplotlib.rcParams["font.family"], *further]
        drawn = make()
        if drawn is None:
            return None
        made, frame = drawn
        layout = made.get_layout_engine()
        if layout is not None:
            layout.execute(made)
        made.set_layout_engine("none")  # each format would lay out again
        files = {"csv": frame.to_csv(index=False, lineterminator="\n").encode()}
        title = {"Title": str(made.get_label())} if made.get_label() else {}
        for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None, **title})):
            stream = io.BytesIO()
            made.savefig(stream, format=kind, metadata=metadata)
            files[kind] = stream.getvalue()
        files["svg"] = _LONG.sub(rb"\1", files["svg"])
    return files


def save(files: dict[str, bytes], folder: Path, stem: str) -> list[Path]:
    """Write the files from `draw` as `folder`/`stem`.png, .svg and .csv."""
    paths = []
    for kind, content in sorted(files.items()):
        path = folder / f"{stem}.{kind}"
        path.write_bytes(content)
        paths.append(path)
    return paths


def title_of(svg: bytes) -> str:
    """Return what a picture says about itself, beyond what all of its name are; mostly nothing."""
    found = _TITLE.search(svg)
    return html.unescape(found[1].decode()) if found else ""


def inline(svg: bytes, name: str, words: str) -> str:
    """Return a picture as an element of a page.

    Ids of its parts begin with `name`, which is unique on the page; `words` are for readers who
    cannot see the picture.
    """
    text = svg.decode()
    body = _ONLY_IN_FILES.sub("", re.sub(r"\n\s*", " ", text[text.index("<svg") :]))
    used = {part: f"{name}-{number}" for number, part in enumerate(_USED.findall(body))}
    body = _NAMED.sub(lambda m: f' id="{used[m[1]]}"' if m[1] in used else "", body)
    body = _USED.sub(lambda m: m[0].replace(m[1], used[m[1]]), body)
    return body.replace("<svg", f'<svg role="img" aria-label="{html.escape(words)}"', 1)


def for_both_schemes(svg: bytes) -> bytes:
    """Return a picture that follows the reader's dark mode: lightness changes, and hue does not."""
    return svg.replace(b"<metadata>", _DARK.encode() + b"<metadata>", 1)
