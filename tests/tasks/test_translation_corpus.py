from __future__ import annotations

import re
from itertools import pairwise

import pytest

import gapbench.tasks.docs_en_de as docs_en_de
from gapbench.errors import UserError
from gapbench.tasks.docs_en_de import CORPUS, SHA256, DocsEnDe, _content, _corpus


def rows():
    lines = _content("docs_en_de.tsv.xz").decode().splitlines()
    return [line.split("\t") for line in lines]


def words(sentence):
    return frozenset(re.findall(r"\w+", re.sub(r"\d+", "0", sentence.casefold())))


def test_the_committed_files_have_the_size_and_the_sums_they_should():
    for name in SHA256:
        assert _content(name)
    assert sum(path.stat().st_size for path in CORPUS.iterdir()) < 3e6


def test_splits_share_no_page():
    pages = {split: {row[1] for row in rows() if row[0] == split} for split in _corpus()}
    assert all(pages.values())
    for one, other in pairwise([*pages, *pages][:4]):
        assert not pages[one] & pages[other]


def test_no_source_sentence_occurs_twice_even_with_other_digits_case_or_punctuation():
    sources = [words(row[2]) for row in rows()]
    assert len(sources) == len(set(sources)) == 35064


@pytest.mark.slow
def test_no_test_source_nearly_equals_one_in_training():
    train = [words(row[2]) for row in rows() if row[0] == "train"]
    having = {}
    for index, bag in enumerate(train):
        for word in bag:
            having.setdefault(word, set()).add(index)
    for row in [row for row in rows() if row[0] == "test"][:200]:
        bag = words(row[2])
        for index in set().union(*(having.get(word, set()) for word in bag)):
            assert len(bag & train[index]) < 0.8 * len(bag | train[index])


def test_sentences_are_as_short_as_asked_and_the_digest_says_so():
    short, long = DocsEnDe(words=8), DocsEnDe(words=12)
    assert 0 < short.train_examples < long.train_examples == 18579
    assert max(len(side.split()) for pair in short._pairs("train") for side in pair) == 8
    assert short.data_digest() != long.data_digest()


def test_few_pairs_are_the_first_of_many():
    assert DocsEnDe(pairs=50)._pairs("train") == DocsEnDe(pairs=60)._pairs("train")[:50]
    assert DocsEnDe(pairs=50)._pairs("test") == DocsEnDe()._pairs("test")


def test_a_changed_corpus_is_told_in_one_line(tmp_path, monkeypatch):
    import lzma

    (tmp_path / "docs_en_de.tsv.xz").write_bytes(lzma.compress(b"train\tp\tyes\tja\n"))
    monkeypatch.setattr(docs_en_de, "CORPUS", tmp_path)
    with pytest.raises(UserError, match=r"docs_en_de\.tsv\.xz: not the committed file"):
        _content("docs_en_de.tsv.xz")
