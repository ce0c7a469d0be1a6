"""Files of run folders: what is read from them, and what they may be."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys

import pytest

from gapbench.base.documents import (
    append_plain,
    open_plain,
    read_document,
    read_json,
    require_real,
    write_json,
    write_text,
)
from gapbench.errors import UserError
from tests.report.folders import result_of, trial_of

DOCUMENT = {"a": 1, "b": [1.5, None, "ü"], "c": {"d": True, "e": float("inf")}}


def test_a_document_is_read_as_it_was_written_and_written_again_without_a_second_checksum(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, DOCUMENT)
    assert read_json(path) == DOCUMENT
    write_json(path, json.loads(path.read_text()))
    assert read_json(path) == DOCUMENT
    assert list(tmp_path.iterdir()) == [path]


def test_no_flipped_bit_of_a_document_changes_what_is_read(tmp_path):
    path, rng = tmp_path / "result.json", random.Random(5)
    value = result_of(trial_of(), 88.0)
    write_json(path, value)
    whole = path.read_bytes()
    read = 0
    for _ in range(2000):
        flipped = bytearray(whole)
        flipped[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        path.write_bytes(flipped)
        found = read_json(path)
        if found is not None:  # white space, or the name of the checksum
            read += 1
            assert {name: found[name] for name in value} == value
    assert read < 500


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"a": ' + "9" * 400 + "}", '{"a": "\\ud800"}', '{"a": "\\uDfff"}',
     '{"a":' + "[" * 100_000 + "]" * 100_000 + "}", '{"a": 1, "checksum": "0123456789abcdef"}',
     '{"a": 1, "checksum": 0}'],
)  # fmt: skip
def test_what_no_document_of_ours_holds_is_damage(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_text(text)
    assert read_json(path) is None
    with pytest.raises(ValueError, match=r"\w"):
        read_document(path)


def test_documents_of_earlier_versions_are_read(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"a": "\\u00fc\\ud83d\\ude00"}')
    assert read_json(path) == {"a": "ü😀"}


def make(path, kind):
    kinds = {
        "link": lambda: path.symlink_to(path.with_name("target")),
        "pipe": lambda: os.mkfifo(path),
        "folder": path.mkdir,
        "device": lambda: path.symlink_to("/dev/zero"),
    }
    path.with_name("target").write_text("{}")
    kinds[kind]()


@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "device"])
def test_only_plain_files_are_opened_and_nothing_is_waited_for(tmp_path, kind):
    path = tmp_path / "file"
    make(path, kind)
    for opened in (open_plain, append_plain):
        with pytest.raises(OSError, match=r"not a plain file|directory"):
            opened(path)
    assert read_json(path) is None
    assert path.with_name("target").read_text() == "{}"


def test_a_write_replaces_a_link_and_not_what_it_leads_to(tmp_path):
    path = tmp_path / "file"
    make(path, "link")
    write_text(path, "new")
    assert not path.is_symlink() and path.read_text() == "new"
    assert path.with_name("target").read_text() == "{}"


def test_a_file_beyond_its_limit_is_not_read(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    with open_plain(path, 5) as file:
        assert file.read() == b"12345"
    with pytest.raises(OSError, match="has 5 bytes, more than 4"):
        open_plain(path, 4)


def test_links_are_followed_down_to_the_root_and_not_below(tmp_path):
    (tmp_path / "real" / "a").mkdir(parents=True)
    root = tmp_path / "root"
    root.symlink_to(tmp_path / "real")
    require_real(root / "a" / "b", root)
    (root / "link").symlink_to(tmp_path)
    with pytest.raises(UserError, match="link: is a link"):
        require_real(root / "link" / "b", root)


FULL = """
mount -t tmpfs -o size=2m tmpfs {place} && cp -r {runs} {place}/runs || exit 9
dd if=/dev/zero of={place}/filler bs=4k status=none 2> /dev/null
exec {python} -m gapbench report {ablation} --scale smoke --results {place}
"""


@pytest.mark.slow
def test_a_full_disk_is_named_with_the_file_that_it_stopped(tmp_path):
    from tests.runs import ABLATIONS

    place, runs = tmp_path / "results", tmp_path / "runs"
    place.mkdir()
    runs.mkdir()
    script = FULL.format(
        place=place, runs=runs, python=sys.executable, ablation=ABLATIONS / "partitions.yaml"
    )
    told = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", script],
        capture_output=True, text=True,
    )  # fmt: skip
    assert told.returncode == 2
    (line,) = told.stderr.splitlines()
    assert line.startswith(f"gapbench: {place}/reports/smoke/partitions")
    assert line.endswith(": cannot be written: No space left on device")
