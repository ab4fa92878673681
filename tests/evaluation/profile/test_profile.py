import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from aya_jax.config.errors import UserError
from aya_jax.evaluation.analyses.resampling import Bootstrap
from aya_jax.evaluation.profile.profile import Answer, compare, profile, table_rows, weighted_median
from aya_jax.evaluation.profile.text_metrics import METRICS, text_profile

FEW = Bootstrap(50)


def answers(lengths, language="en"):
    return [Answer(str(n), language, " ".join(["word"] * length)) for n, length in enumerate(lengths)]


def test_profile_by_language():
    texts = ["One two. Three four five.", "A longer answer, which has eight words altogether.", "Short."]
    found = profile([Answer(str(n), "en", t) for n, t in enumerate(texts)] + [Answer("0", "zh", "今天很好。")], FEW)
    assert list(found) == ["en", "zh"]
    assert list(found["en"]) == list(METRICS)
    for metric in METRICS:
        values = [getattr(text_profile(text, "en"), metric) for text in texts]
        assert found["en"][metric].mean.value == pytest.approx(np.mean(values))
        assert found["en"][metric].median.value == pytest.approx(np.median(values))
        assert found["en"][metric].mean.low <= found["en"][metric].mean.value <= found["en"][metric].mean.high
    fog = found["zh"]["gunning_fog"]
    assert (fog.count, fog.undefined, fog.mean.value, fog.median.value) == (0, 1, None, None)
    assert found["zh"]["words"].mean.value == 4


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(0, 4)), min_size=1, max_size=12))
def test_weighted_median_is_numpys(pairs):
    values, counts = (np.array(column, float) for column in zip(*pairs, strict=True))
    counts[0] += counts.sum() == 0
    expected = np.median(np.repeat(values, counts.astype(int)))
    np.testing.assert_allclose(weighted_median(values, counts[None]), [expected])


def test_comparison_is_paired():
    rng = np.random.default_rng(0)
    before = rng.integers(10, 200, size=40)  # prompts differ a great deal
    found = compare(answers(before), answers(before + 3), answers(before + 5), Bootstrap(500))["en"]["words"]
    assert (found.count, found.undefined) == (40, 0)
    assert found.change == (3.0, 3.0, 3.0)  # the same for every prompt: no spread at all
    assert (found.distance_before.value, found.distance_after.value) == (-5.0, -2.0)
    assert found.before.high - found.before.low > 10


def test_interval_of_a_difference_is_scipys():
    rng = np.random.default_rng(1)
    before, after = rng.integers(5, 60, size=(2, 50))
    found = compare(answers(before), answers(after), answers(before), Bootstrap(5000))["en"]["words"].change
    expected = stats.bootstrap((after - before,), np.mean, n_resamples=5000, method="percentile", rng=1)
    low, high = expected.confidence_interval
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.8)
    assert found.value == pytest.approx(np.mean(after - before))


def test_only_shared_prompts_count():
    found = compare(answers([1, 2, 3]), answers([2, 3]), answers([4, 4, 4, 4]), FEW)["en"]["words"]
    assert (found.count, found.before.value, found.after.value, found.teacher.value) == (2, 1.5, 2.5, 4.0)
    # A metric that one answer leaves undefined takes its prompt out of that metric only.
    some = compare(answers([3, 0]), answers([3, 3]), answers([3, 3]), FEW)["en"]
    assert (some["gunning_fog"].count, some["gunning_fog"].undefined, some["words"].count) == (1, 1, 2)
    none = compare(answers([0]), answers([3]), answers([3]), FEW)["en"]["rix"]
    assert (none.count, none.undefined, none.change.value) == (0, 1, None)
    with pytest.raises(UserError, match="no prompt was answered"):
        compare(answers([1]), answers([1], "tr"), answers([1]))
    with pytest.raises(UserError, match="prompt '0' is answered twice in language 'en'"):
        profile(answers([1]) * 2)


def test_table_rows():
    rows = table_rows(compare(answers([1, 2]), answers([2, 3]), answers([4, 4]), FEW))
    assert len(rows) == len(METRICS)
    words = next(row for row in rows if row["metric"] == "words")
    assert (words["language"], words["count"], words["change"], words["change_low"]) == ("en", 2, 1.0, 1.0)
    assert {"before", "before_low", "teacher_high", "distance_after", "undefined"} <= set(words)
    assert table_rows(profile(answers([1, 2]), FEW))[0]["median"] == pytest.approx(6.5)
