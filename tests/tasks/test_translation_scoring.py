from __future__ import annotations

import pytest

from gapbench.tasks.docs_en_de import DocsEnDe
from gapbench.tasks.translation_scoring import Search, score, signatures

pytest.importorskip("sacrebleu")

GERMAN = ["Klicken Sie auf die Schaltfläche OK.", "Öffnet den Dialog Seite."]


def test_equal_text_scores_100_and_case_counts_only_in_the_cased_figure():
    assert score(GERMAN, GERMAN) == pytest.approx({"bleu": 100, "bleu_lowercase": 100})
    lowered = score([line.lower() for line in GERMAN], GERMAN)
    assert lowered["bleu"] < 90
    assert lowered["bleu_lowercase"] == pytest.approx(100)


def test_scores_are_those_of_sacrebleus_own_function():
    import sacrebleu

    found = ["Klicken Sie die Schaltfläche OK.", "Öffnet den Dialog Seite."]
    assert score(found, GERMAN)["bleu"] == sacrebleu.corpus_bleu(found, [GERMAN]).score


def test_signatures_tell_case_tokenizer_references_and_version():
    found = signatures()
    assert found["bleu"].startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    assert "case:lc" in found["bleu_lowercase"]


def test_a_result_says_how_each_split_was_translated():
    found = DocsEnDe().signatures()
    assert found["test/search"] == str(Search(length=(1.5, 10)))
    assert "beam=4, length_penalty=0.6" in found["test/search"]
    assert "beam=1" in found["val/search"]
    assert found["bleu"] == signatures()["bleu"]
