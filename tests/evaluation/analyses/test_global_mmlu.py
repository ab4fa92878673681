import statistics

import numpy as np
import pytest
from scipy import stats

from aya_jax.config.errors import UserError
from aya_jax.evaluation.analyses.global_mmlu import (
    COUNTS,
    GROUPS,
    HUMAN_TRANSLATED,
    LANGUAGES,
    RESOURCES,
    TEST_QUESTIONS,
    accuracy,
    counted,
    spread,
    tabulate,
)
from aya_jax.evaluation.analyses.records import ChoiceRecord, choice_records
from aya_jax.evaluation.analyses.resampling import Bootstrap

FEW = Bootstrap(50)


def row(number, language="en", label="CA", correct=True, category="STEM", subject="anatomy", **changes):
    metadata = {
        "cultural_sensitivity_label": label,
        "is_annotated": label != "-",
        "subject": subject,
        "subject_category": category,
    }
    return ChoiceRecord(f"{subject}/test/{number}", language, correct, 0, (), metadata | changes)


def drawn(languages=("en", "tr", "yo", "de"), size=60, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.choice(["CS", "CA", "-"], size=size)
    return [
        row(n, language, labels[n], bool(rng.random() < 0.3 + 0.15 * at))
        for at, language in enumerate(languages)
        for n in range(size)
    ]


def test_published_counts_add_up():
    assert [sum(column) for column in zip(*COUNTS.values(), strict=True)] == [57, 45, 55, 2850, 792, 2058]
    assert all(counts.ma == counts.cs + counts.ca == 50 * counts.ma_subjects for counts in COUNTS.values())
    assert len(LANGUAGES) * TEST_QUESTIONS == 589_764
    assert [42 * n for n in (2850, 792, 2058)] == [119_700, 33_264, 86_436]


def test_groups_of_languages():
    assert [len(group) for group in RESOURCES.values()] == [18, 11, 13]
    assert len(set(LANGUAGES)) == 42
    assert len(set(HUMAN_TRANSLATED)) == 14
    assert set(GROUPS["human"]) <= set(LANGUAGES)


def test_counts_come_back_from_rows_of_the_published_sizes():
    rows = []
    for category, counts in COUNTS.items():
        # Every subject gets 50; those that have both kinds get the sensitive ones spread over them.
        sensitive = [f"{category} {n}" for n in range(counts.ma_subjects)][-counts.cs_subjects :]
        mixed = counts.cs_subjects + counts.ca_subjects - counts.ma_subjects
        only_cs = sensitive[mixed:]
        left = counts.cs - 50 * len(only_cs)
        share = {subject: left // mixed + (n < left % mixed) for n, subject in enumerate(sensitive[:mixed])}
        share |= dict.fromkeys(only_cs, 50)
        for n in range(counts.ma_subjects):
            subject = f"{category} {n}"
            labels = ["CS"] * share.get(subject, 0) + ["CA"] * (50 - share.get(subject, 0))
            rows += [row(i, label=label, category=category, subject=subject) for i, label in enumerate(labels)]
        rows.append(row(50, label="-", category=category, subject=f"{category} 0"))
    assert counted(tabulate(rows)) == COUNTS


def test_an_oracle_is_always_right_and_a_constant_answer_as_often_as_it_is_the_answer():
    rng = np.random.default_rng(3)
    answers = rng.choice(list("ABCD"), size=200, p=[0.4, 0.3, 0.2, 0.1])
    rows = [
        {
            "doc_id": n,
            "doc": {"sample_id": f"law/test/{n}", "answer": answer, **row(n, label="CS").metadata},
            "target": answer,
        }
        for n, answer in enumerate(answers)
    ]

    def share(scores_of):
        responses = [{"filtered_resps": [[str(s), "False"] for s in scores_of(answer)]} for answer in answers]
        records = choice_records([r | s for r, s in zip(rows, responses, strict=True)], language="tr")
        return accuracy(tabulate(records), ["CS"], FEW)["CS"]["tr"]

    assert share(lambda answer: [-1.0 - (letter != answer) for letter in "ABCD"]) == (1.0, 1.0, 1.0)
    constant = share(lambda _: [-1.0, -2.0, -2.0, -2.0])
    assert constant.value == np.mean(answers == "A")
    assert constant.low < constant.value < constant.high


def test_accuracy_is_a_mean_by_subset_language_and_category():
    rows = drawn()
    found = accuracy(tabulate(rows), bootstrap=FEW)
    for subset, labels in {"all": ("CS", "CA", "-"), "MA": ("CS", "CA"), "CS": ("CS",), "CA": ("CA",)}.items():
        for language in ("en", "tr", "yo", "de"):
            chosen = [
                r.correct for r in rows if r.language == language and r.metadata["cultural_sensitivity_label"] in labels
            ]
            assert found[subset][language].value == pytest.approx(np.mean(chosen))
    rows += [row(100 + n, label="CA", category="Medical", correct=n < 1) for n in range(4)]
    assert accuracy(tabulate(rows), ["CA"], FEW, "Medical")["CA"]["en"].value == 0.25
    assert accuracy(tabulate(rows), ["CA"], FEW, "Medical")["CA"]["tr"].value is None


def test_interval_of_accuracy_covers_as_often_as_it_says():
    rng, covered = np.random.default_rng(0), 0
    for trial in range(200):
        rows = [row(n, correct=bool(c)) for n, c in enumerate(rng.random(150) < 0.7)]
        found = accuracy(tabulate(rows), ["CA"], Bootstrap(200, 0.9, trial))["CA"]["en"]
        covered += found.low <= 0.7 <= found.high
    assert 0.82 < covered / 200 < 0.96


def test_spread_is_mean_and_sample_deviation_over_languages():
    found = spread(tabulate(drawn()), ["MA"], bootstrap=FEW)["MA"]
    accuracies = {name: e.value for name, e in accuracy(tabulate(drawn()), ["MA"], FEW)["MA"].items()}
    assert found["all"].mean.value == pytest.approx(statistics.mean(accuracies.values()))
    assert found["all"].deviation.value == pytest.approx(statistics.stdev(accuracies.values()))
    high = [accuracies[language] for language in ("en", "tr", "de")]
    assert found["high"].languages == ("en", "tr", "de")
    assert found["high"].deviation.value == pytest.approx(statistics.stdev(high))
    assert found["low"].mean.value == pytest.approx(accuracies["yo"])
    assert found["low"].deviation.value is None
    assert found["human"].languages == ("en", "yo", "de")
    assert "mid" not in found


def test_languages_are_resampled_jointly():
    # The same answers in every language: the spread is 0 in every resample; drawn apart it would not be.
    right = np.random.default_rng(2).random(40) < 0.5
    same = [row(n, language, correct=bool(c)) for language in ("en", "tr", "de") for n, c in enumerate(right)]
    found = spread(tabulate(same), ["CA"], bootstrap=FEW)["CA"]["all"]
    assert found.deviation == pytest.approx((0.0, 0.0, 0.0), abs=1e-12)
    assert found.mean.high - found.mean.low > 0.1


def test_interval_of_a_mean_over_languages_is_scipys():
    answers = tabulate(drawn(size=80))
    found = spread(answers, ["all"], bootstrap=Bootstrap(5000))["all"]["all"].mean
    questions = answers.correct.mean(axis=0)
    expected = stats.bootstrap((questions,), np.mean, n_resamples=5000, method="percentile", rng=1).confidence_interval
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.01)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row(1), row(2, subject_category=None)], r"r:2: field 'subject_category' is None"),
        ([row(1), row(2, is_annotated="yes")], r"r:2: field 'is_annotated' is 'yes'"),
        ([row(1), row(2, cultural_sensitivity_label="-")], r"r:2: field 'cultural_sensitivity_label' is '-'"),
        ([row(1), row(1)], r"r:2: question 'anatomy/test/1' is there twice in language 'en'"),
        ([row(1), row(1, "tr", "CS")], r"r:2: question 'anatomy/test/1' has the label, subject and category"),
    ],
)
def test_bad_rows_are_named(rows, message):
    with pytest.raises(UserError, match=message):
        tabulate(rows, "r")


def test_unknown_subset():
    with pytest.raises(UserError, match="known are all, MA, CS, CA"):
        accuracy(tabulate([row(1)]), ["CX"])
