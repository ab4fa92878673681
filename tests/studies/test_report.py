"""The report: its numbers against their sources, and both files as a reader's tools take them."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pytest
from scipy import stats

from aya_jax.config import UserError
from aya_jax.studies import runs
from aya_jax.studies.comparison import compare
from aya_jax.studies.config import AnalysisConfig
from aya_jax.studies.report import write
from aya_jax.studies.tables import count
from tests.studies.fixtures import (
    KINDS,
    LANGUAGES,
    bits_per_byte,
    write_evaluation,
    write_run,
    write_store,
    write_study,
)

VOID = {"meta", "br", "hr", "img", "input", "link", "use"}


class Page(HTMLParser):
    """Checks that elements close in order, and collects ids, links and text."""

    def __init__(self, html: str):
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.text: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)
        self._collect(attrs)

    def handle_startendtag(self, tag, attrs):
        self._collect(attrs)

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> out of order"

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text.append(data)

    def _collect(self, attrs):
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in ("href", "src", "xlink:href"):
                self.links.append(value)


@pytest.fixture(scope="module")
def seeded(tmp_path_factory):
    """A study of three shares and three seeds, with its report."""
    directory = tmp_path_factory.mktemp("seeded")
    write_study(directory, shares=(0, 25, 50), seeds=(1, 2, 3))
    return directory, write(directory, AnalysisConfig())


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """A study with one seed, of which one training run failed."""
    directory = tmp_path_factory.mktemp("broken")
    write_study(directory, shares=(0, 25, 50), failed=["pretrain/code_50-seed_1"])
    return directory, write(directory, AnalysisConfig(resamples=200))


def test_differences_over_seeds_are_scipys_paired_intervals(seeded):
    comparison = compare(runs.read(seeded[0]).models, AnalysisConfig())
    assert comparison.by_share
    assert [group.share for group in comparison.groups] == pytest.approx([0.0, 0.25, 0.5])
    assert [measure.title for measure in comparison.languages] == sorted(
        measure.title for measure in comparison.languages
    )
    for measure, tasks in ((comparison.text, [f"text_{code}" for code in LANGUAGES]), (comparison.code, list(KINDS))):
        values = {
            group.label: np.array(
                [
                    np.mean([model.evaluation.tasks[task].bits_per_byte for task in tasks])
                    for model in group.models.values()
                ]
            )
            for group in comparison.groups
        }
        change = values["code_50"] - values["code_00"]
        expected = stats.ttest_rel(values["code_50"], values["code_00"]).confidence_interval(0.95)
        got = comparison.difference(measure, comparison.groups[2])
        assert (got.estimate, got.low, got.high) == pytest.approx((change.mean(), expected.low, expected.high))
        assert got.method == "seeds"


def test_one_seed_is_compared_document_by_document(broken):
    comparison = compare(runs.read(broken[0]).models, AnalysisConfig())
    got = comparison.difference(comparison.code, comparison.groups[1])
    expected = np.mean([bits_per_byte(task, 0.25, 1) - bits_per_byte(task, 0.0, 1) for task in KINDS])
    assert got.method == "documents"
    assert got.low < got.estimate < got.high < 0
    assert got.estimate == pytest.approx(expected, rel=0.05)
    # pairing: what makes documents hard is common to both models, so the difference is known far better than the level
    level = comparison.level(comparison.text, comparison.groups[1])
    paired = comparison.difference(comparison.text, comparison.groups[1])
    assert paired.high - paired.low < 0.2 * (level.high - level.low)


def test_models_that_saw_different_documents_are_not_paired(tmp_path):
    write_study(tmp_path, shares=(0, 25))
    write_evaluation(tmp_path / "evaluate/code_25-seed_1", 0.25, 1, ["text_en", "code_web"], documents=12)
    comparison = compare(runs.read(tmp_path).models, AnalysisConfig())
    assert comparison.difference(comparison.text, comparison.groups[1]).method == "none"
    assert comparison.text.tasks == ("text_en",)


def test_few_documents_give_no_interval_rather_than_a_narrow_one(tmp_path):
    write_study(tmp_path, shares=(0, 25))
    for share in (0, 25):
        write_evaluation(
            tmp_path / f"evaluate/code_{share:02d}-seed_1", share / 100, 1, ["text_en", "code_web"], documents=1
        )
    comparison = compare(runs.read(tmp_path).models, AnalysisConfig())
    assert comparison.difference(comparison.text, comparison.groups[1]).method == "none"
    assert "No intervals" in write(tmp_path, AnalysisConfig()).html.read_text()


@pytest.mark.parametrize("which", ["seeded", "broken"])
def test_the_page_is_well_formed_and_needs_nothing_else(which, request):
    html = request.getfixturevalue(which)[1].html.read_text(encoding="utf-8")
    page = Page(html)
    assert page.open == []
    assert len(set(page.ids)) == len(page.ids), "an id appears twice"
    assert all(link.startswith("#") and link[1:] in page.ids for link in page.links)
    assert not re.search(r"url\((?!#)|@import|<script|<link|<img", html)
    assert not re.findall(r"#0[1-6]\d{4}|#0[1-6]0[1-6]0[1-6]", html), "a stand-in colour is left"
    text = " ".join(page.text)
    assert {"Arabic", "Chinese", "High-quality code"} <= {part for part in page.text if part} or "Arabic" in text
    assert "nan" not in text.lower().split()


def test_the_page_says_which_intervals_it_shows(seeded, broken):
    assert "Student&#39;s t over 3 seeds" in seeded[1].html.read_text()
    assert "bootstrap over held-out documents, 200 resamples" in broken[1].html.read_text()


def test_the_headline_is_made_from_the_numbers(seeded):
    comparison = compare(runs.read(seeded[0]).models, AnalysisConfig())
    first, last = (comparison.difference(comparison.code, group).estimate for group in comparison.groups[1:])
    headline = re.search(r'class="headline">(.*?)</p>', seeded[1].html.read_text())[1]
    assert f"{100 * first / last:.0f} % of the largest gain on code" in headline


def test_failures_stand_in_the_report_with_log_and_command(broken):
    for path in (broken[1].html, broken[1].markdown):
        text = path.read_text()
        assert "OutOfMemory" in text
        assert "pretrain/code_50-seed_1" in text
        assert "evaluate/code_50-seed_1" in text
    assert "<the device>" not in broken[1].html.read_text()


def test_the_markdown_has_whole_tables_and_figures_that_are_there(seeded):
    directory, paths = seeded
    lines = paths.markdown.read_text(encoding="utf-8").splitlines()
    for name in re.findall(r"!\[.*?\]\((.*?)\)", "\n".join(lines)):
        assert (directory / name).read_text().startswith("<?xml")
    tables = "\n".join(lines).split("\n\n")
    found = [block.splitlines() for block in tables if block.startswith("| ")]
    assert len(found) >= 5
    for table in found:
        assert len({line.count(" | ") for line in table}) == 1, table[0]
        assert set(table[1]) <= set("|-: ")


def test_a_run_alone_has_a_report(tmp_path):
    tasks = ["text_en", "text_de", "text_fr", "code_web"]
    write_store(tmp_path / "store", tasks)
    write_run(tmp_path / "run", tmp_path / "store", 0.25, 1, tasks)
    paths = write(tmp_path / "run", AnalysisConfig())
    validated = np.mean([bits_per_byte(task, 0.25, 1) for task in tasks[:3]]) + 1.5 * np.exp(-200 / 60)
    assert f"{validated:.3f} bits per byte on text over 3 languages" in paths.html.read_text()
    write_evaluation(tmp_path / "run", 0.25, 1, tasks)
    output = tmp_path / "elsewhere"
    assert write(tmp_path / "run", AnalysisConfig(title="Mine"), output).html == output / "report.html"
    assert "<title>Mine</title>" in (output / "report.html").read_text()


def test_a_directory_of_neither_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"neither a study .* nor a training run"):
        write(tmp_path, AnalysisConfig())


def test_counts_have_three_figures():
    assert [count(x) for x in (12, 409_600, 1_228_800, 999_600, 40e9, 400e9)] == [
        "12",
        "410 k",
        "1.23 M",
        "1000 k",
        "40.0 B",
        "400 B",
    ]
