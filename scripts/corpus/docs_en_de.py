"""Extract the English-German corpus of the task docs_en_de from two Debian packages.

    apt-get download libreoffice-help-en-us=4:7.4.7-1+deb12u14 \
        libreoffice-help-de=4:7.4.7-1+deb12u14
    python scripts/corpus/docs_en_de.py libreoffice-help-en-us_*.deb libreoffice-help-de_*.deb \
        gapbench/tasks/corpus

It writes `docs_en_de.tsv.xz` (split, page, English, German; one pair a line) and prints the sha256
of its text, which the task checks. Security updates replace the packages in the archive; the
version named above stays at https://snapshot.debian.org/package/libreoffice/. Needs `dpkg-deb`.
"""

from __future__ import annotations

import hashlib
import io
import lzma
import math
import re
import subprocess
import sys
import tarfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple

PACKAGES = {  # sha256 of the packages the committed file was made from
    "en-US": "8faa840285734d6cfe1ed25537b48f07e74bd6412e3917bf8e5f8a653f7b3712",
    "de": "00490b63c509ac96f7f212d6a6e40452d3e0d1f97ccf4b824dd5ec4c01e8277f",
}
HELP = "./usr/share/libreoffice/help"
MAX_WORDS = 50
NEAR = 0.8  # two sources with this Jaccard similarity of their words are near-duplicates
SPLITS = ("test", "val", "train")  # the order in which near-duplicates are kept


class Pair(NamedTuple):
    """One sentence pair and the help page it stands on."""

    page: str
    english: str
    german: str

    @property
    def split(self) -> str:
        """Return the split of the page: a twentieth each for test and val, by its hash."""
        bucket = hashlib.sha256(self.page.encode()).digest()[0] * 20 // 256
        return {0: "test", 1: "val"}.get(bucket, "train")


class Paragraphs(HTMLParser):
    """Collects the text of every paragraph and heading that carries an id.

    Of an inline switch (one text for each system or program) only the default is read.
    """

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.texts: dict[str, str] = {}
        self._id: str | None = None
        self._parts: list[str] = []
        self._spans: list[bool] = []  # for each open span, whether it hides its text

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Begin a paragraph, or note whether a span hides its text."""
        values = {key: value or "" for key, value in attrs}
        name = values.get("id", "")
        if tag == "p" or re.fullmatch(r"h[1-6]", tag):
            code = re.search("code|example", values.get("class", ""))
            self._id = name if name.startswith(("par_", "hd_")) and not code else None
            self._parts, self._spans = [], []
        elif tag == "span":
            self._spans.append("hidden" in values and not name.startswith("default"))
        elif tag == "br":
            self._parts.append(" ")

    def handle_endtag(self, tag: str) -> None:
        """End a paragraph or a span."""
        if tag == "span" and self._spans:
            self._spans.pop()
        elif (tag == "p" or re.fullmatch(r"h[1-6]", tag)) and self._id is not None:
            self.texts.setdefault(self._id, " ".join("".join(self._parts).split()))
            self._id = None

    def handle_data(self, data: str) -> None:
        """Add visible text to the paragraph."""
        if self._id is not None and not any(self._spans):
            self._parts.append(data)


def pages(package: Path, language: str) -> dict[str, dict[str, str]]:
    """Return {page: {paragraph id: text}} of one package, after a check of its sha256."""
    found = hashlib.sha256(package.read_bytes()).hexdigest()
    if found != PACKAGES[language]:
        raise SystemExit(f"{package}: sha256 {found}, expected {PACKAGES[language]}")
    command = ["dpkg-deb", "--fsys-tarfile", str(package)]
    archive = subprocess.run(command, check=True, capture_output=True).stdout
    root = f"{HELP}/{language}/text/"
    texts = {}
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for member in tar:
            if member.name.startswith(root) and member.name.endswith(".html"):
                content = tar.extractfile(member)
                assert content is not None
                parser = Paragraphs()
                parser.feed(content.read().decode())
                texts[member.name.removeprefix(root).removesuffix(".html")] = parser.texts
    return texts


ABBREVIATION = re.compile(r"(?:\b(?:[A-Za-z]|etc|bzw|usw|ca|vs|Nr|No|evtl|ggf|Abb|inkl)|\d)\.$")


def sentences(text: str) -> list[str]:
    """Split a paragraph after . ! ? or : where a new sentence seems to begin."""
    parts = re.split(r"(?<=[.!?:])\s+(?=[\"„“(]?[A-ZÄÖÜ])", text)
    joined = parts[:1]
    for part in parts[1:]:
        if ABBREVIATION.search(joined[-1]):
            joined[-1] += f" {part}"
        else:
            joined.append(part)
    return joined


def clean(english: str, german: str) -> bool:
    """Say whether a pair looks like two sentences of natural language with the same content."""
    if english.casefold() == german.casefold():
        return False
    for text in (english, german):
        letters = sum(character.isalpha() for character in text)
        if not re.search(r"[^\W\d_]{3}", text) or letters < 0.6 * len(text.replace(" ", "")):
            return False
        if re.search(r"[{}\\<>|=_@]|://|\w\(\)", text):  # code, formulas, paths, addresses
            return False
        if len(text.split()) > MAX_WORDS:
            return False
    words = len(english.split()), len(german.split())
    ratio = len(english) / len(german)
    if set(re.findall(r"\d+", english)) != set(re.findall(r"\d+", german)):
        return False
    return 1 / 2.2 <= ratio <= 2.2 and max(words) <= 2 * min(words) + 3


def pairs(english: dict[str, dict[str, str]], german: dict[str, dict[str, str]]) -> Iterator[Pair]:
    """Yield the clean sentence pairs of all paragraphs that both languages have."""
    for page in sorted(english.keys() & german.keys()):
        for name, text in english[page].items():
            left, right = sentences(text), sentences(german[page].get(name, ""))
            if len(left) == len(right):
                for one, other in zip(left, right, strict=True):
                    if clean(one, other):
                        yield Pair(page, one, other)


def distinct(candidates: Iterable[Pair]) -> list[Pair]:
    """Keep of each group of near-duplicate sources the first, so that test comes before train.

    Words are compared in lower case, digits as one sign, order and punctuation ignored.
    """
    order = sorted(candidates, key=lambda pair: SPLITS.index(pair.split))
    bags = [frozenset(re.findall(r"\w+", _plain(pair.english))) for pair in order]
    count = Counter(word for bag in bags for word in bag)
    kept: list[int] = []
    having: defaultdict[str, list[int]] = defaultdict(list)
    for index, bag in enumerate(bags):
        # Near-duplicates share a word even among this many of their rarest ones.
        rarest = sorted(bag, key=lambda word: (count[word], word))
        rarest = rarest[: len(bag) - math.ceil(NEAR * len(bag)) + 1]
        rivals = {rival for word in rarest for rival in having[word]}
        if any(len(bag & bags[rival]) >= NEAR * len(bag | bags[rival]) for rival in rivals):
            continue
        kept.append(index)
        for word in rarest:
            having[word].append(index)
    return [order[index] for index in kept]


def _plain(text: str) -> str:
    return re.sub(r"\d+", "0", text.casefold())


def main(english: Path, german: Path, folder: Path) -> None:
    """Write the corpus into `folder` and print what identifies it."""
    corpus = distinct(pairs(pages(english, "en-US"), pages(german, "de")))
    lines = sorted((pair.split, *pair) for pair in corpus)
    text = "".join("\t".join(line) + "\n" for line in lines).encode()
    target = folder / "docs_en_de.tsv.xz"
    target.write_bytes(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME))
    counts = {split: sum(line[0] == split for line in lines) for split in SPLITS}
    print(f"{target}: {counts}, {target.stat().st_size} bytes")
    print(f"sha256 of the text: {hashlib.sha256(text).hexdigest()}")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        raise SystemExit(__doc__)
    main(*map(Path, sys.argv[1:]))
