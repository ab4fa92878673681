"""Laws of the sweep algebra."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aya_jax.studies.sweeps import Choices, ListOf, Product, Values, Zip, variants_of


@st.composite
def axes(draw: st.DrawFn, count: int | None = None, same_length: bool = False) -> list[Values | Choices]:
    """Sweeps over different axes and different bindings."""
    number = count or draw(st.integers(1, 4))
    lengths = [draw(st.integers(1, 4))] * number if same_length else [draw(st.integers(1, 4)) for _ in range(number)]
    made: list[Values | Choices] = []
    for index, length in enumerate(lengths):
        if draw(st.booleans()):
            made.append(Values(name=f"v{index}", binding=f"B{index}", values=tuple(range(length))))
        else:
            choices = {f"c{i}": {f"B{index}": i, f"D{index}": str(i)} for i in range(length)}
            made.append(Choices(name=f"k{index}", choices=choices))
    return made


@given(axes())
def test_a_product_has_every_combination_once_the_last_axis_fastest(sweeps):
    variants = Product(of=tuple(sweeps)).variants()
    assert len(variants) == math.prod(len(sweep.variants()) for sweep in sweeps)
    expected = itertools.product(*(sweep.variants() for sweep in sweeps))
    assert [v.bindings for v in variants] == [
        {k: x for part in row for k, x in part.bindings.items()} for row in expected
    ]
    assert list(Product(of=tuple(sweeps)).validate()) == []


@given(axes())
def test_labels_are_unique_and_the_order_is_always_the_same(sweeps):
    product = Product(of=tuple(sweeps))
    labels = [variant.label for variant in product.variants()]
    assert len(set(labels)) == len(labels)
    assert labels == [variant.label for variant in product.variants()]


@given(axes(count=4))
def test_products_are_associative(sweeps):
    a, b, c, d = sweeps
    nested = Product(of=(Product(of=(a, b)), Product(of=(c, d))))
    assert nested.variants() == Product(of=(a, b, c, d)).variants()


@given(axes(same_length=True))
def test_zip_pairs_variants_by_position(sweeps):
    zipped = Zip(of=tuple(sweeps))
    assert list(zipped.validate()) == []
    parts = [sweep.variants() for sweep in sweeps]
    assert len(zipped.variants()) == len(parts[0])
    for index, variant in enumerate(zipped.variants()):
        for part in parts:
            assert part[index].bindings.items() <= variant.bindings.items()


@given(st.integers(1, 5), st.integers(1, 5))
def test_zip_refuses_unequal_lengths(first, second):
    left = Values(name="a", binding="A", values=tuple(range(first)))
    right = Values(name="b", binding="B", values=tuple(range(second)))
    problems = list(Zip(of=(left, right)).validate())
    assert bool(problems) == (first != second)
    assert all(f"{first}, {second}" in problem.expected for problem in problems)


@given(axes(count=3))
def test_a_list_joins_end_to_end(sweeps):
    joined = ListOf(of=tuple(sweeps))
    assert joined.variants() == [variant for sweep in sweeps for variant in sweep.variants()]
    assert list(joined.validate()) == []


def test_labels_read_as_a_person_would_write_them():
    sweep = Product(
        of=(
            Choices(name="code", choices={"00": {}, "25": {"MIXTURE": {"text_*": 0.75}}}),
            Values(name="lr", binding="LEARNING_RATE", values=(1e-3, 1e-6)),
            Values(name="seed", binding="SEED", values=(1,)),
        )
    )
    assert [v.label for v in sweep.variants()][-1] == "code_25-lr_1e-06-seed_1"
    assert variants_of(None)[0].label == ""


@pytest.mark.parametrize(
    ("sweep", "field", "told"),
    [
        (Values(name="a b", binding="A", values=(1,)), "name", "letter"),
        (Values(name="a", binding="A", values=()), "values", "at least one"),
        (Values(name="a", binding="A", values=(1, 1)), "values", "'1' appears more than once"),
        (Values(name="a", binding="A", values=("x/y",)), "values", "'x/y'"),
        (Choices(name="a", choices={"..": {}}), "choices", "'..'"),
        (Choices(name="a", choices={}), "choices", "at least one"),
        (ListOf(of=(Values(name="a", binding="A", values=(1,)),) * 2), "of", "'a_1' appears more than once"),
    ],
)
def test_what_is_wrong_is_named(sweep, field, told):
    problems = list(sweep.validate())
    assert [problem.field for problem in problems] == [field]
    assert told in problems[0].expected


@pytest.mark.parametrize("operator", [Product, Zip])
def test_an_axis_or_a_binding_in_two_factors_is_refused(operator):
    seeds = Values(name="seed", binding="SEED", values=(1, 2))
    same_axis = operator(of=(seeds, Values(name="seed", binding="OTHER", values=(1, 2))))
    same_binding = operator(of=(seeds, Values(name="other", binding="SEED", values=(1, 2))))
    assert "'seed'" in next(iter(same_axis.validate())).expected
    assert "SEED" in next(iter(same_binding.validate())).expected
