"""Translation by fairseq's beam search, and BLEU by sacreBLEU."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Search:
    """Options of the beam search.

    Attributes:
        beam: number of hypotheses; 1 is greedy search.
        length_penalty: exponent of the length by which scores are divided.
        length: (a, b): a translation has at most a x source tokens + b tokens.
        sentences: number of sentences to translate, the first of the split; None for all.
    """

    beam: int = 4
    length_penalty: float = 0.6
    length: tuple[float, int] = (0, 200)
    sentences: int | None = None

    def arguments(self) -> argparse.Namespace:
        """Return the options in the form that fairseq's generator reads."""
        a, b = self.length
        return argparse.Namespace(
            beam=self.beam, lenpen=self.length_penalty, max_len_a=a, max_len_b=b
        )


def translate(
    generator: Any, model: nn.Module, sample: dict[str, Any], dictionary: Any
) -> Iterator[tuple[int, str]]:
    """Yield (index in the split, translation) with sentence pieces joined to plain text."""
    found = generator.generate([model], sample)
    for index, hypotheses in zip(sample["id"].tolist(), found, strict=True):
        tokens = hypotheses[0]["tokens"].int().cpu()
        yield index, dictionary.string(tokens, bpe_symbol="sentencepiece")


def score(hypotheses: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Return `bleu` (cased) and `bleu_lowercase`, from 0 to 100."""
    return {
        name: float(metric.corpus_score(hypotheses, [references]).score)
        for name, metric in _metrics().items()
    }


def signatures() -> dict[str, str]:
    """Return sacreBLEU's signature of each metric of `score`, which comparisons need."""
    metrics = _metrics()
    for metric in metrics.values():
        metric.corpus_score(["a"], [["a"]])  # the number of references is known afterwards
    return {name: str(metric.get_signature()) for name, metric in metrics.items()}


def _metrics() -> dict[str, Any]:
    from sacrebleu.metrics.bleu import BLEU

    return {"bleu": BLEU(), "bleu_lowercase": BLEU(lowercase=True)}
