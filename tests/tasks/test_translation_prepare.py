from __future__ import annotations

import errno
import hashlib
import io
import json
import subprocess
import sys
import tarfile
from dataclasses import asdict
from itertools import islice

import pytest
import torch

import gapbench.tasks.translation_prepare as steps
from gapbench.__main__ import main
from gapbench.compat.fairseq_import import load_fairseq
from gapbench.errors import UserError
from gapbench.tasks.docs_en_de import _corpus
from gapbench.tasks.translation_prepare import Archive, appearing, digest, fetch_all, prepare
from gapbench.tasks.wmt14_en_de import Wmt14EnDe
from tests.runs import ABLATIONS

pytestmark = pytest.mark.fairseq

VOCABULARY = 400
ROOT = ABLATIONS.parent
PREPARE = ["prepare", str(ABLATIONS / "translation.yaml"), "--scale", "paper"]


def make_archive(folder, name, pairs):
    """Write a tar file of real sentences as statmt.org packs them, and describe it."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.tgz"
    with tarfile.open(path, "w:gz") as tar:
        for side, lines in zip(("en", "de"), zip(*pairs, strict=True), strict=True):
            content = "".join(f"{line}\n" for line in lines).encode()
            member = tarfile.TarInfo(f"training/{name}.{side}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return Archive(path.as_uri(), path.stat().st_size, digest(path), f"training/{name}")


def held_out(split):
    pairs = _corpus()[split][:20]
    return lambda: ([pair[0] for pair in pairs], [pair[1] for pair in pairs])


HELD_OUT = {"valid": held_out("val"), "test": held_out("test")}


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mirror")
    pairs = list(islice(_corpus()["train"], 400))
    spoiled = [("", "Nichts."), ("Much " * 10, "Viel."), ("long " * 251, "lang " * 251)]
    return [
        make_archive(folder, "one", pairs[:250] + spoiled),
        make_archive(folder, "two", pairs[250:]),
    ]


@pytest.fixture(scope="module")
def prepared(archives, tmp_path_factory):
    try:
        load_fairseq()
    except UserError as missing:
        pytest.skip(str(missing))
    folder = tmp_path_factory.mktemp("data") / "wmt14_en_de"
    prepare(folder, archives, HELD_OUT, VOCABULARY)
    return folder


def test_the_task_trains_on_and_scores_what_was_prepared(prepared, monkeypatch):
    monkeypatch.setenv("GAPBENCH_DATA", str(prepared.parent))
    task = Wmt14EnDe(vocabulary=VOCABULARY)
    task.architecture_options = {
        **task.architecture_options,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_embed_dim": 32,
        "decoder_embed_dim": 32,
        "encoder_ffn_embed_dim": 32,
        "decoder_ffn_embed_dim": 32,
    }
    task.load(torch.device("cpu"))
    torch.manual_seed(0)
    model = task.build_model()
    batch = next(task.batches(0, batch_size=500))
    loss = task.loss(model, batch, task.recipe)
    loss.backward()
    assert model.encoder.layers[0].fc1.weight.grad.any()
    assert 300 < task.train_examples < 400
    for split in ("train", "val", "test"):
        assert {"loss", "bleu", "bleu_lowercase"} == task.evaluate(model, split).keys()


def test_the_digest_is_that_of_the_manifest_with_all_sums(prepared, monkeypatch):
    monkeypatch.setenv("GAPBENCH_DATA", str(prepared.parent))
    manifest = (prepared / "manifest.json").read_bytes()
    assert Wmt14EnDe().data_digest() == hashlib.sha256(manifest).hexdigest()
    listed = json.loads(manifest)
    assert {"bin/train.en-de.de.bin", "bin/dict.en.txt", "text/test.de"} <= listed.keys()
    assert all(digest(prepared / name) == value for name, value in listed.items())


def test_pairs_that_are_empty_too_long_or_too_unequal_are_left_out(prepared):
    english = (prepared / "text/train.en").read_text()
    german = (prepared / "text/train.de").read_text()
    assert english.count("\n") == german.count("\n")
    assert "Much" not in english and "long long" not in english and "Nichts." not in german


def test_the_dictionary_has_exactly_the_size_that_was_asked_for(prepared):
    dictionary = load_fairseq().data.Dictionary.load(str(prepared / "bin/dict.en.txt"))
    assert len(dictionary) == VOCABULARY


def test_preparing_again_touches_nothing(prepared, archives):
    before = {path: path.stat().st_mtime_ns for path in prepared.rglob("*")}
    prepare(prepared, archives, HELD_OUT, VOCABULARY)
    assert before == {path: path.stat().st_mtime_ns for path in prepared.rglob("*")}


def test_a_dictionary_of_another_size_is_told_when_loading(prepared, monkeypatch):
    monkeypatch.setenv("GAPBENCH_DATA", str(prepared.parent))
    with pytest.raises(UserError, match=r"dictionary has 400 symbols.*33712"):
        Wmt14EnDe().load(torch.device("cpu"))


def test_references_that_do_not_fit_the_data_are_told(prepared, monkeypatch):
    monkeypatch.setenv("GAPBENCH_DATA", str(prepared.parent))
    path = prepared / "text/test.de"
    whole = path.read_text()
    path.write_text(whole.partition("\n")[2])
    with pytest.raises(UserError, match="test has 20 pairs and 19 references"):
        Wmt14EnDe(vocabulary=VOCABULARY).load(torch.device("cpu"))
    path.write_text(whole)


def test_without_prepared_data_the_way_to_get_it_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("GAPBENCH_DATA", str(tmp_path))
    with pytest.raises(UserError, match=r"wmt14_en_de: `gapbench prepare FILE` makes it"):
        Wmt14EnDe().data_digest()


def test_every_file_that_cannot_be_downloaded_is_named_in_one_line(tmp_path):
    absent = [
        Archive((tmp_path / f"{name}.tgz").as_uri(), 7, "ab" * 32, name) for name in ("x", "y")
    ]
    with pytest.raises(UserError, match=r"x\.tgz \(7 bytes, sha256 abab.*y\.tgz") as error:
        fetch_all(absent, tmp_path / "downloads")
    assert "\n" not in str(error.value)


def test_without_a_network_one_line_names_all_that_is_lacking(tmp_path, capsys, monkeypatch):
    pytest.importorskip("fairseq")
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr("sacrebleu.utils.SACREBLEU_DIR", str(tmp_path / "sacrebleu"))
    monkeypatch.setattr("sacrebleu.dataset.base.SACREBLEU_DIR", str(tmp_path / "sacrebleu"))
    assert main([*PREPARE, "--data", str(tmp_path / "data")]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    lacking = ("europarl-v7.tgz (657632379 bytes", "commoncrawl.tgz", "nc-v9.tgz")
    assert all(name in err for name in (*lacking, "test set wmt13", "test set wmt14/full"))
    assert not [path for path in (tmp_path / "data").rglob("*") if path.is_file()]


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path, capsys):
    pytest.importorskip("fairseq")
    (tmp_path / "file").write_text("")
    assert main([*PREPARE, "--data", str(tmp_path / "file")]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "file/wmt14_en_de: cannot be written: Not a directory" in err


LIMITED = """
import json, resource, signal, sys
from pathlib import Path
from gapbench.__main__ import guarded
from gapbench.tasks import wmt14_en_de
from gapbench.tasks.translation_prepare import Archive
import typer

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
app = typer.Typer()
archives = [Archive(**each) for each in json.loads(sys.argv[3])]
one = {"valid": lambda: (["one"], ["eins"])}
app.command()(lambda: wmt14_en_de.prepare(Path(sys.argv[2]), archives, one, 400))
sys.exit(guarded(app, []))
"""


@pytest.mark.parametrize("limit", [10_000, 16_000])
def test_a_write_that_fails_is_one_line_and_leaves_nothing_half_written(archives, tmp_path, limit):
    """A limit on the size of files stops a download, then the text that is cut out of it."""
    told = json.dumps([asdict(archive) for archive in archives])
    command = [sys.executable, "-c", LIMITED, str(limit), str(tmp_path), told]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    assert "cannot be written: File too large" in done.stderr
    names = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert not {name for name in names if name.startswith(("train", "model", "."))}


def test_a_damaged_download_is_refused(archives, tmp_path):
    path = tmp_path / archives[0].file
    path.write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"one\.tgz: not the expected file"):
        fetch_all(archives, tmp_path)


def test_an_archive_put_there_by_hand_is_taken(archives, tmp_path):
    by_hand = [
        Archive("http://localhost:9/one.tgz", a.size, a.sha256, a.stem) for a in archives[:1]
    ]
    (tmp_path / "one.tgz").write_bytes(
        (tmp_path.parent / archives[0].url.removeprefix("file://")).read_bytes()
    )
    assert fetch_all(by_hand, tmp_path) == [tmp_path / "one.tgz"]


def test_an_interrupted_step_leaves_nothing_half_written(tmp_path):
    with pytest.raises(KeyboardInterrupt), appearing(tmp_path / "a", tmp_path / "b") as parts:
        parts[0].write_text("half")
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_told_in_one_line_and_leaves_nothing_half_written(
    archives, tmp_path, monkeypatch
):
    def full():
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(UserError, match=r"the disk is full .* prepare again"):
        prepare(tmp_path, archives, {"valid": full}, VOCABULARY)
    assert not list((tmp_path / "text").iterdir())
    assert steps.MANIFEST not in {path.name for path in tmp_path.iterdir()}
