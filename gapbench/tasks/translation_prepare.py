"""Preparation of archives of parallel text into fairseq's binarised data, step by step.

Every step writes its files atomically, and is skipped if its files exist. So an interrupted
preparation continues where it stopped.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import json
import os
import shutil
import subprocess
import sys
import tarfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from gapbench.base.children import environment
from gapbench.errors import UserError

MAX_WORDS = 250  # of a training sentence, and
MAX_RATIO = 1.5  # between its sides, as clean-corpus-n.perl of Moses is called for this data
CHUNK = 1 << 20
MANIFEST = "manifest.json"

HeldOut = Callable[[], tuple[Sequence[str], Sequence[str]]]


@dataclass(frozen=True)
class Archive:
    """A tar file with `stem`.en and `stem`.de; equal line numbers in both form a pair."""

    url: str
    size: int
    sha256: str
    stem: str

    @property
    def file(self) -> str:
        """The archive's file name in the folder `downloads`."""
        return self.url.rpartition("/")[2]


def prepare(
    folder: Path,
    archives: Sequence[Archive],
    held_out: Mapping[str, HeldOut],
    vocabulary: int,
    workers: int = 1,
) -> None:
    """Fill `folder` with bin/ (fairseq's data), text/ (raw references) and a manifest.

    Args:
        folder: the output folder; about 12 GB for WMT14.
        archives: archives of the training text.
        held_out: for "valid" and "test", a function that returns sources and references.
        vocabulary: size of the joint dictionary, including fairseq's four special symbols.
        workers: number of processes that binarise.

    Raises:
        UserError: if files cannot be downloaded, are damaged, or cannot be written.
    """
    if (folder / MANIFEST).exists():
        return
    try:
        for name in ("downloads", "text", "pieces"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        downloaded = _fetched(archives, held_out, folder)
        _training_text(archives, downloaded, folder / "text")
        _learn_pieces(folder, vocabulary)
        for split in ("train", *held_out):
            _encode(folder, split)
        _binarise(folder, tuple(held_out), workers)
        _write_manifest(folder, tuple(held_out))
    except OSError as error:
        words = f"cannot be written: {error.strerror}"
        if error.errno == errno.ENOSPC:
            free = shutil.disk_usage(folder).free
            words = f"the disk is full ({free >> 20} MB free): make room and prepare again: "
            words += "finished steps are kept"
        raise UserError(f"{folder}: {words}") from None


def _fetched(
    archives: Sequence[Archive], held_out: Mapping[str, HeldOut], folder: Path
) -> list[Path]:
    """Return the archives' paths; one error names all missing files, held-out text included."""
    downloaded: list[Path] = []
    lacking = []
    try:
        downloaded = fetch_all(archives, folder / "downloads")
    except UserError as error:
        lacking.append(str(error))
    for split, read in held_out.items():
        try:
            _held_out_text(split, read, folder / "text")
        except UserError as error:
            lacking.append(str(error))
    if lacking:
        raise UserError("; ".join(lacking))
    return downloaded


def fetch_all(archives: Sequence[Archive], folder: Path) -> list[Path]:
    """Return the paths of all archives; download missing archives.

    Raises:
        UserError: if files are missing; the line names every missing file and its place.
    """
    lacking = [archive for archive in archives if not _fetch(archive, folder / archive.file)]
    if lacking:
        files = ", ".join(
            f"{archive.file} ({archive.size} bytes, sha256 {archive.sha256[:12]}..., {archive.url})"
            for archive in lacking
        )
        raise UserError(f"cannot download; put into {folder}: {files}")
    return [folder / archive.file for archive in archives]


def _fetch(archive: Archive, path: Path) -> bool:
    """Download `path` if necessary, continuing a partial download; return whether it exists."""
    part = path.with_name(path.name + ".part")
    if not path.exists():
        try:
            _download(archive, part)
        except (urllib.error.URLError, ConnectionError, TimeoutError, http.client.HTTPException):
            return False
        _check(archive, part)
        part.rename(path)
        _checked_mark(path).touch()
    elif not _checked_mark(path).exists():
        _check(archive, path)
        _checked_mark(path).touch()
    return True


def _checked_mark(path: Path) -> Path:
    return path.with_name(path.name + ".checked")


def _download(archive: Archive, part: Path) -> None:
    have = part.stat().st_size if part.exists() else 0
    if have >= archive.size:
        return
    request = urllib.request.Request(archive.url, headers={"Range": f"bytes={have}-"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        mode = "ab" if have and getattr(answer, "status", None) == 206 else "wb"
        with part.open(mode) as file:
            shutil.copyfileobj(answer, file, CHUNK)


def _check(archive: Archive, path: Path) -> None:
    if digest(path) != archive.sha256:
        raise UserError(f"{path}: not the expected file (its sha256 differs); delete it")


def digest(path: Path) -> str:
    """Return the sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def lines(path: Path) -> Iterator[str]:
    """Yield the lines of a text; only a newline ends a line."""
    with path.open(encoding="utf-8", newline="\n") as file:
        for line in file:
            yield line.rstrip("\n")


@contextmanager
def appearing(*paths: Path) -> Iterator[list[Path]]:
    """Yield temporary paths, which are renamed to `paths` at the end or deleted after an error."""
    parts = [path.with_name(f".{path.name}.part") for path in paths]
    try:
        yield parts
        for part, path in zip(parts, paths, strict=True):
            os.replace(part, path)
    finally:
        for part in parts:
            part.unlink(missing_ok=True)


def _held_out_text(split: str, read: HeldOut, folder: Path) -> None:
    paths = [folder / f"{split}.{side}" for side in ("en", "de")]
    if all(path.exists() for path in paths):
        return
    with appearing(*paths) as parts:
        for part, lines in zip(parts, read(), strict=True):
            part.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _training_text(archives: Sequence[Archive], downloaded: Sequence[Path], folder: Path) -> None:
    paths = folder / "train.en", folder / "train.de"
    if all(path.exists() for path in paths):
        return
    pairs = chain.from_iterable(map(_pairs, archives, downloaded))
    with (
        appearing(*paths) as (english, german),
        english.open("w", encoding="utf-8") as source,
        german.open("w", encoding="utf-8") as target,
    ):
        for one, other in pairs:
            if _usable(one, other):
                source.write(f"{one}\n")
                target.write(f"{other}\n")


def _pairs(archive: Archive, path: Path) -> Iterator[tuple[str, str]]:
    with tarfile.open(path) as english, tarfile.open(path) as german:
        sides = []
        for tar, side in ((english, "en"), (german, "de")):
            try:
                file = tar.extractfile(f"{archive.stem}.{side}")
            except KeyError:
                raise UserError(f"{path}: has no {archive.stem}.{side}") from None
            assert file is not None
            sides.append(file)
        for one, other in zip(*sides, strict=True):
            yield " ".join(one.decode().split()), " ".join(other.decode().split())


def _usable(english: str, german: str) -> bool:
    words = len(english.split()), len(german.split())
    return min(words) > 0 and max(words) <= min(MAX_WORDS, MAX_RATIO * min(words))


def _learn_pieces(folder: Path, vocabulary: int) -> None:
    """Learn joint sentence pieces, and write fairseq's dictionary of `vocabulary` symbols."""
    import sentencepiece

    model, listed = folder / "pieces/model", folder / "pieces/dict.txt"
    if listed.exists():
        return
    with appearing(model, listed) as (model_part, listed_part), model_part.open("wb") as writer:
        sentencepiece.SentencePieceTrainer.train(
            input=[str(folder / "text/train.en"), str(folder / "text/train.de")],
            model_writer=writer,
            model_type="bpe",
            vocab_size=vocabulary - 1,  # it has three special symbols, fairseq four
            character_coverage=0.9999,
            input_sentence_size=5_000_000,
            minloglevel=2,
        )
        writer.flush()
        pieces = sentencepiece.SentencePieceProcessor(model_file=str(model_part))
        plain = range(3, pieces.get_piece_size())
        listed_text = "".join(f"{pieces.id_to_piece(i)} 1\n" for i in plain)
        listed_part.write_text(listed_text, encoding="utf-8")


def _encode(folder: Path, split: str) -> None:
    import sentencepiece

    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "pieces/model"))
    for side in ("en", "de"):
        target = folder / f"pieces/{split}.{side}"
        if target.exists():
            continue
        with appearing(target) as (part,), part.open("w", encoding="utf-8") as file:
            for line in lines(folder / f"text/{split}.{side}"):
                file.write(" ".join(pieces.encode(line, out_type=str)) + "\n")


def _binarise(folder: Path, held_out: tuple[str, ...], workers: int) -> None:
    """Run fairseq-preprocess into a temporary folder, which is renamed when complete."""
    target, part = folder / "bin", folder / ".bin.part"
    if target.exists():
        return
    shutil.rmtree(part, ignore_errors=True)
    pieces = folder / "pieces"
    command = [sys.executable, "-m", "gapbench.compat.fairseq_import", "preprocess"]
    command += ["--source-lang", "en", "--target-lang", "de", "--joined-dictionary"]
    command += ["--srcdict", str(pieces / "dict.txt"), "--trainpref", str(pieces / "train")]
    for split in held_out:
        command += [f"--{split}pref", str(pieces / split)]
    command += ["--destdir", str(part), "--workers", str(workers)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment())
    if done.returncode:
        shutil.rmtree(part, ignore_errors=True)
        for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            if os.strerror(number) in done.stderr:
                raise OSError(number, os.strerror(number))
        raise UserError(f"fairseq-preprocess failed: {done.stderr.strip().splitlines()[-1]}")
    part.rename(target)


def _write_manifest(folder: Path, held_out: tuple[str, ...]) -> None:
    files = [*sorted((folder / "bin").glob("*.*"))]
    files += [folder / f"text/{split}.de" for split in held_out]
    listed = {str(path.relative_to(folder)): digest(path) for path in files}
    with appearing(folder / MANIFEST) as (part,):
        part.write_text(json.dumps(listed, indent=1) + "\n")
