"""English to German on sentences of LibreOffice's help: a real, small translation task.

The corpus is committed beside this file (see corpus/LICENSE.md for its origin), so nothing is
downloaded. The splits divide help pages. No source sentence of val or test has a near-duplicate in
another split.
"""

from __future__ import annotations

import functools
import hashlib
import lzma
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gapbench.compat.fairseq_import import load_fairseq
from gapbench.errors import UserError
from gapbench.tasks.task import Recipe, Split, task
from gapbench.tasks.translation import Text, Translation
from gapbench.tasks.translation_scoring import Search

if TYPE_CHECKING:
    import torch

CORPUS = Path(__file__).parent / "corpus"
SHA256 = {
    "docs_en_de.tsv.xz": "89e1d55aa5bc6268a169af8319efa03eb9cb5710303044f741cfc47e83399ce3",
    "docs_en_de.spm.xz": "46fc6d3f2aeea8b7e6ebfd6da87df6c4e36cf51aeee6a37440b5648bc7542f95",
}
LENGTH = (1.5, 10)  # longest translation: 1.5 x source tokens + 10
VAL_SENTENCES = 400
HEAD_WIDTH = 32

Pairs = list[tuple[str, str]]

SPLITS: tuple[Split, ...] = ("train", "val", "test")


@task("docs_en_de", version=2)
class DocsEnDe(Translation):
    """Short sentences and a small Transformer: minutes on one core.

    Args:
        words: maximum length of a sentence on either side, in words.
        pairs: number of training pairs, the first pairs of the corpus; 0 for all pairs.
        width: model width; the feed-forward layers are twice as wide.
        layers: number of blocks of the encoder, and of the decoder.
        dropout: dropout rate after embeddings and sublayers.

    Raises:
        UserError: if an option is out of range.
    """

    architecture = "transformer_wmt_en_de"
    vocabulary = 2000
    sentence = 15  # the mean of the training sentences at 12 words, with its end symbol

    def __init__(
        self,
        words: int = 12,
        pairs: int = 0,
        width: int = 128,
        layers: int = 3,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        least = {"words": (words, 1), "pairs": (pairs, 0), "layers": (layers, 1)}
        for name, (value, lowest) in least.items():
            if value < lowest:
                raise UserError(f"{name}: {value} is not possible: give {lowest} or more")
        if width < 1 or width % HEAD_WIDTH:
            raise UserError(f"width: {width} is not possible: give a multiple of {HEAD_WIDTH}")
        if not 0 <= dropout < 1:
            raise UserError(f"dropout: {dropout} is not possible: give a number in [0, 1)")
        self.words = words
        self.pairs = pairs
        few = VAL_SENTENCES if not pairs else min(VAL_SENTENCES, max(pairs // 8, 1))
        greedy = Search(beam=1, length=LENGTH, sentences=few)
        self.searches = {
            "train": greedy,
            "val": greedy,
            "test": Search(length=LENGTH, sentences=None if not pairs else few),
        }
        self.architecture_options = {
            "encoder_embed_dim": width,
            "encoder_ffn_embed_dim": 2 * width,
            "encoder_layers": layers,
            "decoder_layers": layers,
            "encoder_attention_heads": width // HEAD_WIDTH,
            "decoder_attention_heads": width // HEAD_WIDTH,
            "encoder_normalize_before": True,
            "decoder_normalize_before": True,
            "share_all_embeddings": True,
            "dropout": dropout,
        }
        self.recipe = Recipe(
            epochs=12,
            batch_size=1000,
            optimizer="adam",
            lr=2e-3,
            betas=(0.9, 0.98),
            schedule="cosine",
            warmup_steps=300,
            label_smoothing=0.1,
            clip_norm=1.0,
        )

    @property
    def train_examples(self) -> int:  # type: ignore[override]
        """Number of training pairs of one epoch."""
        return len(self._pairs("train"))

    def read(self) -> tuple[dict[Split, Text], Any]:
        """Encode the committed corpus with its committed sentence pieces.

        Raises:
            UserError: if a file differs from the committed file.
        """
        import sentencepiece

        pieces = sentencepiece.SentencePieceProcessor(model_proto=_content("docs_en_de.spm.xz"))
        dictionary = load_fairseq().data.Dictionary()
        for index in range(pieces.get_piece_size()):
            if not (pieces.is_control(index) or pieces.is_unknown(index)):
                dictionary.add_symbol(pieces.id_to_piece(index))
        texts = {
            split: _encoded(self._pairs(split), pieces, dictionary, split == "train")
            for split in SPLITS
        }
        return texts, dictionary

    def data_digest(self) -> str:
        """Return the sha256 of the corpus, its sentence pieces, and the choice of sentences."""
        chosen = f"{sorted(SHA256.items())} words={self.words} pairs={self.pairs}"
        return hashlib.sha256(chosen.encode()).hexdigest()

    def steps_per_epoch(self, batch_size: int, world: int = 1) -> int:
        """Return the number of batches of an epoch; the committed corpus gives it before `load`."""
        import torch

        if not self._texts:
            self.load(torch.device("cpu"))
        return super().steps_per_epoch(batch_size, world)

    def _pairs(self, split: Split) -> Pairs:
        chosen = [
            pair
            for pair in _corpus()[split]
            if max(len(side.split()) for side in pair) <= self.words
        ]
        return chosen[: self.pairs or None] if split == "train" else chosen


def _encoded(pairs: Pairs, pieces: Any, dictionary: Any, shuffle: bool) -> Text:
    import numpy as np

    sides = [
        [_tokens(sentence, dictionary) for sentence in pieces.encode(list(side), out_type=str)]
        for side in zip(*pairs, strict=True)
    ]
    sizes = [np.array([len(tokens) for tokens in side]) for side in sides]
    dataset = load_fairseq().data.LanguagePairDataset(
        sides[0], sizes[0], dictionary, sides[1], sizes[1], dictionary, shuffle=shuffle
    )
    return Text(dataset, [german for _, german in pairs])


def _tokens(pieces: list[str], dictionary: Any) -> torch.Tensor:
    import torch

    return torch.tensor([dictionary.index(piece) for piece in pieces] + [dictionary.eos()])


@functools.cache
def _corpus() -> dict[Split, Pairs]:
    """Return the pairs of each split in the order of a hash; the first pairs are a sample."""
    splits: dict[Split, Pairs] = {split: [] for split in SPLITS}
    for line in _content("docs_en_de.tsv.xz").decode().splitlines():
        split, _, english, german = line.split("\t")
        splits[split].append((english, german))  # type: ignore[index]
    for pairs in splits.values():
        pairs.sort(key=lambda pair: hashlib.sha256(pair[0].encode()).digest())
    return splits


def _content(name: str) -> bytes:
    content = lzma.decompress((CORPUS / name).read_bytes())
    if hashlib.sha256(content).hexdigest() != SHA256[name]:
        raise UserError(f"{CORPUS / name}: not the committed file; restore it from the repository")
    return content
