"""The benchmarks' tables against what is published of them."""

from __future__ import annotations

from collections import Counter

from aya_jax.evaluation.reward_bench.subsets import M_REWARD_BENCH, M_REWARD_BENCH_LANGUAGES, REWARD_BENCH, SECTIONS


def sizes(table, field):
    counted = Counter()
    for subset in table.values():
        counted[subset.section] += getattr(subset, field)
    return [counted[section] for section in SECTIONS]


def test_m_reward_bench_has_2869_instances():
    assert sizes(M_REWARD_BENCH, "instances") == [296, 407, 736, 1430]
    assert sum(sizes(M_REWARD_BENCH, "instances")) == 2869
    assert len(set(M_REWARD_BENCH_LANGUAGES)) == 23


def test_reward_bench_has_2985_instances():
    assert sizes(REWARD_BENCH, "instances") == [358, 456, 740, 1431]
    assert sum(sizes(REWARD_BENCH, "instances")) == 2985


def test_mathematics_counts_as_much_as_all_code():
    for table in (REWARD_BENCH, M_REWARD_BENCH):
        assert table["math-prm"].weight == sum(s.weight for name, s in table.items() if name.startswith("hep-"))
        assert table["math-prm"].instances == 447
        assert all(s.weight == s.instances for name, s in table.items() if name != "math-prm")


def test_both_have_the_same_subsets_in_the_same_sections():
    assert {name: s.section for name, s in REWARD_BENCH.items()} == {
        name: s.section for name, s in M_REWARD_BENCH.items()
    }
    assert len(REWARD_BENCH) == 23
    assert all(M_REWARD_BENCH[name].instances <= subset.instances for name, subset in REWARD_BENCH.items())
