"""The paper's translation task: WMT14 English to German with fairseq's Transformer-big."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from gapbench.base.places import data_folders
from gapbench.compat.fairseq_import import load_fairseq
from gapbench.errors import UserError
from gapbench.tasks.task import Recipe, Resources, Split, task
from gapbench.tasks.translation import Text, Translation
from gapbench.tasks.translation_prepare import MANIFEST, Archive, lines, prepare
from gapbench.tasks.translation_scoring import Search

STATMT = "http://www.statmt.org"
ARCHIVES = (
    Archive(
        url=f"{STATMT}/wmt13/training-parallel-europarl-v7.tgz",
        size=657632379,
        sha256="0224c7c710c8a063dfd893b0cc0830202d61f4c75c17eb8e31836103d27d96e7",
        stem="training/europarl-v7.de-en",
    ),
    Archive(
        url=f"{STATMT}/wmt13/training-parallel-commoncrawl.tgz",
        size=918311367,
        sha256="c7a74e2ea01ac6c920123108627e35278d4ccb5701e15428ffa34de86fa3a9e5",
        stem="commoncrawl.de-en",
    ),
    Archive(
        url=f"{STATMT}/wmt14/training-parallel-nc-v9.tgz",
        size=80418416,
        sha256="cb8953f292298e6877ae433c98912b927cb0766b303f4540512ddd286c748485",
        stem="training/news-commentary-v9.de-en",
    ),
)
HELD_OUT = {"valid": "wmt13", "test": "wmt14/full"}  # names of sacreBLEU: newstest2013 and 2014
TOKENS_PER_PAIR = 32  # of the longer side with padding; an estimate, until the data is prepared


@task("wmt14_en_de", version=1)
class Wmt14EnDe(Translation):
    """Transformer-big with NVIDIA's recipe, which the paper's authors used: 8 x 5120 tokens a step.

    Args:
        vocabulary: size of the joint dictionary.
    """

    architecture = "transformer_wmt_en_de_big_t2t"
    sentence = 30
    train_examples = 4_500_000  # an estimate, until the data is prepared
    resources = Resources(gpus=8, cpus=32, memory_gb=128, hours=48)

    def __init__(self, vocabulary: int = 33_712) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        greedy = Search(beam=1, sentences=500)
        self.searches = {"train": greedy, "val": greedy, "test": Search()}
        self.architecture_options = {"share_all_embeddings": True, "dropout": 0.1}
        self.recipe = Recipe(
            epochs=40,
            batch_size=8 * 5120,
            optimizer="adam",
            lr=8.46e-4,
            betas=(0.9, 0.997),
            schedule="inverse_sqrt",
            warmup_steps=4000,
            label_smoothing=0.1,
            bf16=True,
        )

    def prepare(self, data_dir: Path | None) -> None:
        """Download, clean, encode and binarise the data, once; about 12 GB and some hours.

        Raises:
            UserError: naming files that are missing and cannot be downloaded.
        """
        load_fairseq()
        held_out = {split: partial(_held_out, name) for split, name in HELD_OUT.items()}
        prepare(_folder(data_dir), ARCHIVES, held_out, self.vocabulary, os.cpu_count() or 1)

    def read(self) -> tuple[dict[Split, Text], Any]:
        """Open the binarised data that `prepare` wrote.

        Raises:
            UserError: if the binarised data are missing.
        """
        folder = self._prepared()
        fairseq = load_fairseq()
        dictionary = fairseq.data.Dictionary.load(str(folder / "bin/dict.en.txt"))
        texts: dict[Split, Text] = {
            "val": _text(folder, "valid", dictionary),
            "test": _text(folder, "test", dictionary),
        }
        pairs = _pairs(folder, "train", dictionary)
        some = range(min(self.searches["train"].sentences or 0, len(pairs)))
        targets = [dictionary.string(pairs.tgt[i], bpe_symbol="sentencepiece") for i in some]
        texts["train"] = Text(pairs, targets)
        self.train_examples = len(pairs)
        return texts, dictionary

    def data_digest(self) -> str:
        """Return the sha256 of the manifest, which lists the sha256 of every data file."""
        return hashlib.sha256((self._prepared() / MANIFEST).read_bytes()).hexdigest()

    def steps_per_epoch(self, batch_size: int, world: int = 1) -> int:
        """Return the number of batches of an epoch; before `load`, an estimate."""
        if not self._texts:
            return self.train_examples * TOKENS_PER_PAIR // batch_size
        return super().steps_per_epoch(batch_size, world)

    def _prepared(self) -> Path:
        folder = _folder(None)
        if not (folder / MANIFEST).exists():
            raise UserError(
                f"task {self.name}: no prepared data in {folder}: `gapbench prepare FILE` makes "
                "it, or set GAPBENCH_DATA to the folder that holds wmt14_en_de"
            )
        return folder


def _folder(data_dir: Path | None) -> Path:
    return data_folders(data_dir)[0] / "wmt14_en_de"


def _text(folder: Path, split: str, dictionary: Any) -> Text:
    references = list(lines(folder / f"text/{split}.de"))
    pairs = _pairs(folder, split, dictionary)
    if len(pairs) != len(references):
        raise UserError(
            f"{folder}: {split} has {len(pairs)} pairs and {len(references)} references: "
            "delete the folder and run `gapbench prepare FILE`"
        )
    return Text(pairs, references)


def _pairs(folder: Path, split: str, dictionary: Any) -> Any:
    translation = load_fairseq().tasks.translation
    config = translation.TranslationConfig()
    return translation.load_langpair_dataset(
        str(folder / "bin"),
        split,
        "en",
        dictionary,
        "de",
        dictionary,
        combine=False,
        dataset_impl="mmap",
        upsample_primary=1,
        left_pad_source=config.left_pad_source,
        left_pad_target=config.left_pad_target,
        max_source_positions=config.max_source_positions,
        max_target_positions=config.max_target_positions,
        shuffle=split == "train",
    )


def _held_out(name: str) -> tuple[Sequence[str], Sequence[str]]:
    """Return the sources and the references of one of sacreBLEU's test sets."""
    import sacrebleu

    try:
        source = sacrebleu.get_source_file(name, "en-de")
        (reference,) = sacrebleu.get_reference_files(name, "en-de")
    except (OSError, SystemExit):
        raise UserError(
            f"cannot download the test set {name} of sacreBLEU: run `sacrebleu -t {name} -l "
            "en-de --echo src` on a machine with a network, and copy ~/.sacrebleu"
        ) from None
    return list(lines(Path(source))), list(lines(Path(reference)))
