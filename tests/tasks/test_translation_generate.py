from __future__ import annotations

import re
import subprocess
import sys

import pytest
import torch

from gapbench.compat.fairseq_import import load_fairseq
from gapbench.errors import UserError
from gapbench.tasks.docs_en_de import DocsEnDe
from gapbench.tasks.translation_scoring import Search

pytestmark = pytest.mark.fairseq

try:
    load_fairseq()
except UserError as missing:
    pytest.skip(str(missing), allow_module_level=True)


def write_data(folder, pairs, dictionary):
    """The dictionaries and the test split as fairseq-preprocess writes them."""
    indexed_dataset = load_fairseq().data.indexed_dataset
    for language, side in (("en", pairs.src), ("de", pairs.tgt)):
        dictionary.save(str(folder / f"dict.{language}.txt"))
        stem = str(folder / f"test.en-de.{language}")
        builder = indexed_dataset.make_builder(f"{stem}.bin", "mmap", len(dictionary))
        for sentence in side:
            builder.add_item(sentence)
        builder.finalize(f"{stem}.idx")


def test_fairseqs_own_generate_scores_a_checkpoint_as_we_do(tmp_path):
    task = DocsEnDe(pairs=48, width=64, dropout=0.0)
    task.load(torch.device("cpu"))
    torch.manual_seed(0)
    model = task.build_model()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for epoch in range(20):
        for batch in task.batches(epoch, batch_size=500):
            optimizer.zero_grad()
            task.loss(model, batch, task.recipe).backward()
            optimizer.step()
    task.searches = {**task.searches, "train": Search(length=(1.5, 10))}
    ours = task.evaluate(model, "train")["bleu"]
    assert 5 < ours < 95, "neither all wrong nor all right, or the comparison says little"

    torch.save(task.checkpoint(model.state_dict()), tmp_path / "checkpoint.pt")
    write_data(tmp_path, task._texts["train"].pairs, task._dictionary)
    command = [sys.executable, "-m", "gapbench.compat.fairseq_import", "generate", str(tmp_path)]
    command += ["--path", str(tmp_path / "checkpoint.pt"), "--cpu", "--scoring", "sacrebleu"]
    command += ["--beam", "4", "--lenpen", "0.6", "--max-len-a", "1.5", "--max-len-b", "10"]
    command += ["--remove-bpe", "sentencepiece"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    theirs = re.search(r"BLEU[^=]* = ([\d.]+)", done.stdout)
    assert theirs, done.stdout[-500:]
    assert float(theirs[1]) == pytest.approx(ours, abs=0.06)
