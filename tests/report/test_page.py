from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from html import unescape
from html.parser import HTMLParser
from itertools import product
from pathlib import Path

import pytest

from gapbench.analysis.collect import scan
from gapbench.report.build import report
from gapbench.report.page import log_tail, polyline, write_page
from gapbench.spec.ablation import Ablation
from gapbench.spec.loading import Document
from tests.report.browser import browser, opened
from tests.report.folders import entry_of, spec_of, trial_of, write_run

NASTY = "<script>alert(1)</script> & \"x\" 'y'"
VOID = {"meta", "img", "br", "polyline"}


def page(
    results: Path,
    name: str = "C-GaP",
    tasks: Sequence[str] = ("fashion_mnist",),
    ablations: Sequence[str] = ("partitions",),
) -> str:
    entries = []
    for task, partitions, seed in product(tasks, (4, 2, 1), range(2)):
        trial = trial_of(seed=seed, partitions=partitions, task=task)
        entries.append(entry_of(trial, name))
        write_run(results, trial, 85 + 2.5 * partitions**0.5 + seed)
    dense = trial_of("dense")
    entries.append(entry_of(dense))
    claim = {
        "asks": "Four?",
        "source": "slides",
        "better": {"partitions": 4},
        "than": {"partitions": 1},
    }
    spec = spec_of(rows=["label", "partitions"], baseline={"partitions": 1}, claims=[claim],
                   figures=["means", "coverage"])  # fmt: skip
    (results / "runs" / f"{name[:3].strip('<')}-foreign").mkdir()
    found = scan(results)
    made = []
    for ablation in ablations:
        named = spec.model_copy(update={"name": ablation})
        whole = Ablation(named, Document("x", {}, {}), (), {})
        made.append(report(whole, "mini", entries, results, found))
    return write_page(made, f"Results {name}", found, results / "index.html").read_text()


class Nesting(HTMLParser):
    """Fails on an element that is closed where it is not open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value for name, value in attrs if name == "id" and value]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def test_elements_are_nested_and_ids_are_unique(tmp_path: Path) -> None:
    parser = Nesting()
    parser.feed(page(tmp_path))
    assert parser.open == [] and len(set(parser.ids)) == len(parser.ids)


def test_every_cell_that_names_a_row_heads_it(tmp_path: Path) -> None:
    text = page(tmp_path)
    results, compared = text.split("<tbody>")[3:5]  # after the summary and the answers
    row = re.search("<tr>.*</tr>", results)
    assert row is not None and re.findall("<(t[hd])", row[0]) == ["th"] * 2 + ["td"] * 3
    row = re.search("<tr>.*</tr>", compared)
    assert row is not None and re.findall("<(t[hd])", row[0]) == ["th"] * 3 + ["td"] * 6
    assert row[0].count('<th scope="row"') == 3


def test_a_head_over_columns_is_about_a_group_of_columns(tmp_path: Path) -> None:
    for table in re.findall(r"<table>.*?</table>", page(tmp_path), re.DOTALL):
        groups = re.findall(r'<(?:th scope="colgroup"|td) colspan="(\d+)"', table)
        assert re.findall(r'<colgroup span="(\d+)"></colgroup>', table) == groups
        assert not groups or sum(map(int, groups)) == table.count('<th scope="col">')
        assert not groups or table.index("</caption>") < table.index("<colgroup") < table.index(
            "<thead"
        )


def test_what_scrolls_has_a_name_of_its_own(tmp_path: Path) -> None:
    text = page(tmp_path, tasks=["fashion_mnist", "digits"], ablations=["one", "two"])
    names = re.findall(
        r'<div class="scroll[^"]*" role="group" aria-label="([^"]+)" tabindex="0">', text
    )
    assert len(names) == text.count('<div class="scroll') > 20
    assert len(set(names)) == len(names)
    assert "one: Four? (slides; digits)" in names
    assert "two, fashion_mnist: figure means" in names
    assert 'role="region"' not in text  # a landmark each would bury those of the page


def test_nothing_is_fetched_from_anywhere(tmp_path: Path) -> None:
    text = page(tmp_path)
    assert re.findall(r'(?:src|href)="(?!data:|#)', text) == []
    assert "http://" not in text and "https://" not in text
    assert "default-src 'none'" in text


def test_special_characters_appear_literally(tmp_path: Path) -> None:
    text = page(tmp_path, NASTY)
    assert text.count("<script>") == 1  # the page's own
    assert NASTY in unescape(re.sub(r"<[^>]*>", "", text))
    assert "&lt;done&gt; &amp; gone" in text and "a &lt;cpu&gt; &amp; more" in text


def test_trials_show_configuration_provenance_log_and_curves(tmp_path: Path) -> None:
    text = page(tmp_path)
    key = trial_of(seed=1, partitions=2).key
    section = text.split(f'id="trial-{key}"')[1].split("</details>")[0]
    configuration = re.search(r"<pre[^>]*>(\{.*?\})</pre>", section, re.DOTALL)
    assert configuration is not None
    assert json.loads(unescape(configuration.group(1)))["options"]["partitions"] == 2
    for words in ("<dd>12345678</dd>", "<dd>2.13.0</dd>", "0" * 64, "INFO began", "val/accuracy"):
        assert words in section
    assert section.count("<polyline") == 3


def test_trials_of_one_name_are_told_apart_by_what_differs(tmp_path: Path) -> None:
    names = re.findall(r"<summary>(.*?) <code>", page(tmp_path))
    assert "C-GaP uniform 0.9 seed 1, partitions 2" in names
    assert len(names) == len(set(names)) == 6


def test_trials_of_several_tasks_name_theirs(tmp_path: Path) -> None:
    names = re.findall(r"<summary>(.*?) <code>", page(tmp_path, tasks=["fashion_mnist", "digits"]))
    assert "C-GaP uniform 0.9 seed 1 (digits), partitions 2" in names
    assert len(names) == len(set(names)) == 12


def test_the_page_answers_the_question_of_the_claim(tmp_path: Path) -> None:
    text = page(tmp_path)
    answers = text.split('id="answers"')[1].split("</table>")[0]
    assert "6 of 7" in text and "<td>not resolved</td>" in answers
    words = "+2.50 ± 3.04 points (n = 2, first look at 6)"  # t(2) = 4.303, error .7071
    assert f"<td>C-GaP, κ = 4 against C-GaP, κ = 1: {words}</td>" in answers


def test_figures_are_inside_with_words_for_those_who_cannot_see_them(tmp_path: Path) -> None:
    text = page(tmp_path)
    images = re.findall(r'<img src="data:image/svg\+xml;base64,([^"]+)" alt="([^"]+)"', text)
    assert len(images) == 3 and images[0][1].startswith("Differences that the claims are about")
    for data, words in images:
        assert b"<svg" in base64.b64decode(data) and len(words) > 40


def test_what_was_left_out_is_on_the_page(tmp_path: Path) -> None:
    assert "no trial.json: not a run folder" in page(tmp_path)


def test_the_page_is_the_same_to_the_byte_when_made_again(tmp_path: Path) -> None:
    assert page(tmp_path / "a") == page(tmp_path / "b")


def test_only_the_end_of_a_log_is_shown_without_control_codes(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_bytes(b"x" * 100_000 + b"\n" + b"line\n" * 40 + b"\x1b[31mred\x1b[0m \x07\xff end\n")
    tail = log_tail(log)
    assert len(tail.splitlines()) == 15 and tail.endswith("red \ufffd end")
    link = tmp_path / "link.txt"
    link.symlink_to(log)
    assert log_tail(link) == "" and log_tail(tmp_path / "absent") == ""


def test_a_curve_fills_its_box_from_corner_to_corner() -> None:
    assert polyline([(0, 1.0), (1, 2.0), (2, 3.0)]) == "4.0,56.0 120.0,30.0 236.0,4.0"
    assert polyline([(0, 1.0), (1, 1.0)]) == "4.0,56.0 236.0,56.0"


@pytest.mark.browser
@pytest.mark.skipif(browser() is None, reason="no Chromium: apt-get install chromium")
@pytest.mark.parametrize("width", [375, 1440])
def test_a_real_browser_shows_and_sorts_the_page(tmp_path: Path, width: int) -> None:
    page(tmp_path)
    found, console = opened(tmp_path / "index.html", width, columns=[1, 2])
    assert console == []
    assert found["width"] <= width and found["wide"] == []
    assert all(complete and size > 0 and words for complete, size, words in found["images"])
    kappa_up, kappa_down, value_up, value_down = found["sorted"]
    assert kappa_up == ["1", "2", "4", "–"] and kappa_down == ["4", "2", "1", "–"]
    assert value_up[-1] == value_down[-1] == "not run"
    assert value_up[:3] == value_down[2::-1] and float(value_up[0][:5]) < float(value_up[2][:5])
    assert found["pressed"][2] == "descending" and found["pressed"][1] is None
    assert found["unnamed"] == 0
    assert found["unreached"] == 0
