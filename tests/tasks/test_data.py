"""Where data come from: every source is a real one, on this machine."""

from __future__ import annotations

import functools
import gzip
import hashlib
import http.server
import multiprocessing
import shutil
import subprocess
import threading
from pathlib import Path

import pytest
import torch

from gapbench.compat.torchvision_ops import load_torchvision
from gapbench.errors import UserError
from gapbench.tasks.data.sources import DataFile, DataSet, is_here, obtain, read_idx

CONTENT = {"one": b"first file", "two": b"second file"}


def dataset(package: str = "gapbench-no-such-package") -> DataSet:
    files = {
        key: DataFile(f"{key}-idx", hashlib.sha256(content).hexdigest())
        for key, content in CONTENT.items()
    }
    system = Path("/usr/share/datasets/gapbench-test")
    return DataSet("toy-data", files, system, package, "FashionMNIST")


def put(folder: Path, *, packed: bool = False) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for key, content in CONTENT.items():
        name = f"{key}-idx.gz" if packed else f"{key}-idx"
        (folder / name).write_bytes(gzip.compress(content) if packed else content)


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """No data anywhere: an empty cache, no archive, a mirror that nobody serves."""
    monkeypatch.delenv("GAPBENCH_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    known = load_torchvision("torchvision.datasets").FashionMNIST
    monkeypatch.setattr(known, "mirrors", ["http://127.0.0.1:9/"])


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """A server of the packed files; yields the paths asked for."""
    served = tmp_path / "served"
    put(served, packed=True)
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            asked.append(self.path)

    build = functools.partial(Handler, directory=str(served))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), build) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/"
        known = load_torchvision("torchvision.datasets").FashionMNIST
        monkeypatch.setattr(known, "mirrors", ["http://127.0.0.1:9/", address])
        yield asked
        server.shutdown()


@pytest.mark.parametrize("below", [".", "toy-data", "FashionMNIST/raw"])
@pytest.mark.parametrize("packed", [False, True])
def test_the_named_folder_is_read_in_every_layout(tmp_path, monkeypatch, below, packed):
    put(tmp_path / "mine" / below, packed=packed)
    monkeypatch.setenv("GAPBENCH_DATA", str(tmp_path / "mine"))
    assert obtain(dataset()) == CONTENT


def test_the_named_folder_goes_before_the_mirrors(tmp_path, monkeypatch, mirror):
    put(tmp_path / "mine")
    monkeypatch.setenv("GAPBENCH_DATA", str(tmp_path / "mine"))
    assert obtain(dataset()) == CONTENT
    assert mirror == []


def test_a_file_with_a_wrong_checksum_is_not_used_but_fetched(tmp_path, monkeypatch, mirror):
    put(tmp_path / "mine" / "toy-data")
    (tmp_path / "mine" / "toy-data" / "one-idx").write_bytes(b"damaged")
    monkeypatch.setenv("GAPBENCH_DATA", str(tmp_path / "mine"))
    assert obtain(dataset()) == CONTENT
    assert (tmp_path / "mine" / "toy-data" / "one-idx").read_bytes() == CONTENT["one"]


def test_fetched_files_are_kept_and_not_fetched_again(tmp_path, mirror):
    assert obtain(dataset()) == CONTENT
    kept = tmp_path / "cache" / "gapbench" / "toy-data"
    assert sorted(path.name for path in kept.iterdir()) == ["one-idx", "two-idx"]
    fetched = len(mirror)
    assert obtain(dataset()) == CONTENT
    assert len(mirror) == fetched == len(CONTENT)


def test_a_mirror_that_serves_something_else_is_refused(tmp_path, mirror):
    (tmp_path / "served" / "two-idx.gz").write_bytes(gzip.compress(b"something else"))
    with pytest.raises(UserError, match=r"mirrors .two-idx has a wrong sha256"):
        obtain(dataset())
    assert not (tmp_path / "cache" / "gapbench" / "toy-data").exists()


def test_several_processes_at_once_fetch_every_file_once(tmp_path, mirror):
    fork = multiprocessing.get_context("fork")
    started = [fork.Process(target=obtain, args=(dataset(),)) for _ in range(6)]
    for process in started:
        process.start()
    for process in started:
        process.join(60)
    assert [process.exitcode for process in started] == [0] * 6
    assert len(mirror) == len(CONTENT)


def test_where_no_source_has_it_one_line_names_each_with_its_reason(tmp_path, monkeypatch):
    monkeypatch.setenv("GAPBENCH_DATA", str(tmp_path / "mine"))
    with pytest.raises(UserError) as caught:
        obtain(dataset())
    message = str(caught.value)
    assert "\n" not in message
    for said in (
        f"{tmp_path}/mine (no one-idx)",
        "/usr/share/datasets/gapbench-test (no one-idx)",
        "Debian's package gapbench-no-such-package (apt-get is not installed)",
        "torchvision's mirrors (",
        "refused",
        "set GAPBENCH_DATA",
    ):
        assert said in message


def test_a_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("GAPBENCH_DATA", str(tmp_path / "file" / "data"))
    with pytest.raises(UserError, match=r"nothing downloaded, since .*file/data cannot be written"):
        obtain(dataset())


def test_preparing_a_folder_puts_the_files_there(tmp_path, monkeypatch):
    put(tmp_path / "mine")
    monkeypatch.setenv("GAPBENCH_DATA", str(tmp_path / "mine"))
    wanted = tmp_path / "elsewhere"
    obtain(dataset(), wanted)
    assert (wanted / "toy-data" / "two-idx").read_bytes() == CONTENT["two"]
    assert obtain(dataset(), wanted) == CONTENT


def test_an_idx_file_becomes_a_tensor_of_its_shape():
    content = bytes([0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3, 1, 2, 3, 4, 5, 255])
    assert torch.equal(read_idx(content), torch.tensor([[1, 2, 3], [4, 5, 255]]).byte())


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """A Debian archive with one package, and an apt that knows this archive alone."""
    monkeypatch.setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        pytest.skip("this system has no apt-get and dpkg-deb")
    tree, archive = tmp_path / "tree", tmp_path / "archive"
    put(tree / "usr/share/datasets/gapbench-test", packed=True)
    control = "Package: gapbench-toy\nVersion: 1\nArchitecture: all\nMaintainer: x <x@y>\n"
    (tree / "DEBIAN").mkdir()
    (tree / "DEBIAN" / "control").write_text(control + "Description: test\n")
    archive.mkdir()
    built = archive / "gapbench-toy_1_all.deb"
    subprocess.run(["dpkg-deb", "-b", tree, built], check=True, capture_output=True)
    content = built.read_bytes()
    (archive / "Packages").write_text(
        f"{control}Filename: ./{built.name}\nSize: {len(content)}\n"
        f"SHA256: {hashlib.sha256(content).hexdigest()}\nDescription: test\n"
    )
    lists = tmp_path / "apt" / "lists" / "partial"
    lists.mkdir(parents=True)
    (tmp_path / "apt" / "sources.list").write_text(f"deb [trusted=yes] file:{archive} ./\n")
    (tmp_path / "apt" / "apt.conf").write_text(
        f'Dir::Etc::sourcelist "{tmp_path}/apt/sources.list";\nDir::Etc::sourceparts "-";\n'
        f'Dir::State::Lists "{lists.parent}";\nDir::Cache "{tmp_path}/apt";\n'
        'APT::Sandbox::User "root";\n'
    )
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt" / "apt.conf"))
    return lists.parent


def test_debians_package_is_unpacked_without_touching_the_systems_lists(archive):
    assert obtain(dataset("gapbench-toy")) == CONTENT
    assert [path.name for path in archive.iterdir()] == ["partial"]


def test_apts_own_words_are_passed_on(archive):
    with pytest.raises(UserError, match="Unable to locate package gapbench-no-such"):
        obtain(dataset())


def test_looking_for_data_fetches_none(tmp_path, monkeypatch):
    monkeypatch.setenv("GAPBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert not is_here(dataset())
    assert list(tmp_path.iterdir()) == []
    put(tmp_path / "data", packed=True)
    assert is_here(dataset())
    (tmp_path / "data" / "two-idx.gz").write_bytes(b"damaged")
    assert not is_here(dataset())
