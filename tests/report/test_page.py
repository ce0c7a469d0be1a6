from __future__ import annotations

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
from gapbench.report.page import write_page
from gapbench.report.trials import log_tail, polyline
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
    results, compared = text.split("<tbody>")[2:4]  # after the answers
    row = re.search("<tr.*</tr>", results)
    assert row is not None and re.findall("<(t[hd])", row[0]) == ["th"] * 2 + ["td"] * 3
    row = re.search("<tr.*</tr>", compared)
    assert row is not None and re.findall("<(t[hd])", row[0]) == ["th"] * 3 + ["td"] * 6
    assert row[0].count('<th scope="row"') == 3


def test_a_head_over_columns_is_about_a_group_of_columns(tmp_path: Path) -> None:
    for table in re.findall(r"<table>.*?</table>", page(tmp_path), re.DOTALL):
        groups = re.findall(r'<(?:th scope="colgroup"|td) colspan="(\d+)"', table)
        assert re.findall(r'<colgroup span="(\d+)"></colgroup>', table) == groups
        assert not groups or sum(map(int, groups)) == len(re.findall('<th scope="col"[ >]', table))
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
    assert re.findall(r'(?:src|href)="(?!data:|#)|url\((?!#)', text) == []
    assert "http://" not in text and "https://" not in text
    assert "default-src 'none'" in text and "@import" not in text


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
    told = json.loads(unescape(configuration.group(1)))
    assert told["options"]["partitions"] == 2 and told["seed"] == 1
    for words in ("<dt>seed</dt><dd>1</dd>", "INFO began", "val/accuracy"):
        assert words in section
    assert section.count("<polyline") == 3


def test_what_trials_of_a_task_share_is_told_once(tmp_path: Path) -> None:
    text = page(tmp_path)
    shared = text.split("What all trials share")[1].split("</details>")[0]
    for words in ("<dd>12345678</dd>", "<dd>2.13.0</dd>", "0" * 64):
        assert words in shared and text.count(words) == 1
    configuration = re.search(r"<pre[^>]*>(\{.*?\})</pre>", shared, re.DOTALL)
    assert configuration is not None
    told = json.loads(unescape(configuration.group(1)))
    assert told["task"] == "fashion_mnist" and not {"options", "seed", "plan"} & told.keys()


def test_a_mean_leads_to_a_trial_that_it_is_of(tmp_path: Path) -> None:
    text = page(tmp_path)
    row = next(
        row for row in re.findall("<tr.*</tr>", text) if "87.50" not in row and "#trial" in row
    )
    (key,) = re.findall(r'<a href="#trial-(\w+)">', row)
    kappa = int(re.findall(r"<th[^>]*>(\d)</th>", row)[0])
    assert key == trial_of(seed=0, partitions=kappa).key
    assert f'<details id="trial-{key}">' in text


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
    words = "+2.50 ± 3.04 points (n = 2, first look at 6 seeds)"  # t(2) = 4.303, error .7071
    assert f"<td>C-GaP, κ = 4 against C-GaP, κ = 1: {words}</td>" in answers


def test_figures_are_inside_with_words_for_those_who_cannot_see_them(tmp_path: Path) -> None:
    text = page(tmp_path)
    figures = re.findall(r"<figure.*?</figure>", text, re.DOTALL)
    assert len(figures) == 3
    for figure in figures:
        words = re.search(r'<svg role="img" aria-label="([^"]+)"', figure)
        assert words is not None and len(words[1]) > 40
    assert "Measured differences with intervals" in figures[0]


def test_parts_of_pictures_keep_apart(tmp_path: Path) -> None:
    text = page(tmp_path, ablations=["one", "two"])
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids)) > 20
    used = re.findall(r'(?:<use href="|url\()#([^")]+)', text)
    assert used and set(used) <= set(ids)


def test_the_answers_of_each_of_several_ablations_have_a_picture(tmp_path: Path) -> None:
    text = page(tmp_path, ablations=["one", "two"])
    assert text.count('<figure class="answers">') == 3
    section = text.split('id="ablation-two"')[1]
    assert section.index('<p class="question">') < section.index('<figure class="answers">')
    assert section.index('<figure class="answers">') < section.index("<table>")
    assert section.index("<table>") < section.index("<summary>Comparisons, claims, spread and cost")


def test_a_page_of_many_trials_stays_small(tmp_path: Path) -> None:
    text = page(tmp_path, tasks=["fashion_mnist", "digits"], ablations=["one", "two", "three"])
    trials = text[text.index('id="trials"') : text.index("<script>")]
    assert len(trials) / 12 < 4000


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
    assert polyline([(0, 1.0), (1, 2.0), (2, 3.0)]) == "4,56 120,30 236,4"
    assert polyline([(0, 1.0), (1, 1.0)]) == "4,56 236,56"


@pytest.mark.browser
@pytest.mark.skipif(browser() is None, reason="no Chromium: apt-get install chromium")
@pytest.mark.parametrize(("width", "dark"), [(375, False), (768, True), (1440, False)])
def test_a_real_browser_shows_sorts_and_filters_the_page(
    tmp_path: Path, width: int, dark: bool
) -> None:
    page(tmp_path)
    found, console = opened(tmp_path / "index.html", width, columns=[1, 2], dark=dark)
    assert console == []
    assert found["width"] <= width and found["wide"] == []
    assert len(found["pictures"]) == 3 and all(wide > 200 for wide in found["pictures"])
    kappa_up, kappa_down, value_up, value_down = found["sorted"]
    assert kappa_up == ["1", "2", "4", "–"] and kappa_down == ["4", "2", "1", "–"]
    assert value_up[-1] == value_down[-1] == "not run"
    assert value_up[:3] == value_down[2::-1] and float(value_up[0][:5]) < float(value_up[2][:5])
    assert found["pressed"][2] == "descending" and found["pressed"][1] is None
    assert found["unnamed"] == 0
    assert found["unreached"] == 0
    assert found["methods"] == ["all", "C-GaP", "Dense"] and found["dense"] == ["Dense"]
    assert found["unfolded"]
    light = sum(map(int, re.findall(r"\d+", found["paper"])[:3])) > 600
    assert light != dark
