"""Train the sentence pieces of the task docs_en_de on the training split of its corpus.

    python scripts/corpus/docs_en_de_vocabulary.py gapbench/tasks/corpus

It writes `docs_en_de.spm.xz` and prints the sha256 of the model, which the task checks. Tried with
sentencepiece 0.2.3; another version may learn other pieces.
"""

from __future__ import annotations

import hashlib
import io
import lzma
import sys
from pathlib import Path

import sentencepiece

PIECES = 1999  # with fairseq's special symbols, one more than sentencepiece's, 2000
MAX_WORDS = 20  # of the sentences it is trained on: the small scales use short ones


def main(folder: Path) -> None:
    """Write the model beside the corpus."""
    text = lzma.decompress((folder / "docs_en_de.tsv.xz").read_bytes()).decode()
    rows = [line.split("\t") for line in text.splitlines()]
    sentences = [
        sentence
        for split, _, *pair in rows
        if split == "train" and max(len(side.split()) for side in pair) <= MAX_WORDS
        for sentence in pair
    ]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_writer=model,
        model_type="unigram",
        vocab_size=PIECES,
        character_coverage=0.9998,
        normalization_rule_name="identity",
        num_threads=1,
        minloglevel=2,
    )
    target = folder / "docs_en_de.spm.xz"
    target.write_bytes(lzma.compress(model.getvalue(), preset=9 | lzma.PRESET_EXTREME))
    print(f"{target}: {target.stat().st_size} bytes")
    print(f"sha256 of the model: {hashlib.sha256(model.getvalue()).hexdigest()}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]))
