"""The data's configuration: mistakes are found without reading anything."""

import subprocess
import sys

import pytest

from aya_jax.data.config import DataConfig, InspectConfig, MixtureConfig, mixture_keys

MIXTURE = MixtureConfig(rates={"text_*": 1.0})


def data(**changes):
    values = {"store_dir": "stores", "mixture": MIXTURE, "sequence_length": 8, "global_batch": 2}
    return DataConfig(**values | changes)


def fields(config):
    return [problem.field for problem in config.validate()]


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({}, []),
        ({"rates": "text_en"}, []),
        ({"schedule": ((10, {"a": 1.0}), (20, {"b": 2.0}))}, []),
        ({"rates": {}}, ["rates"]),
        ({"rates": ""}, ["rates"]),
        ({"rates": {"a": 0.0, "b": -1.0, "c": float("nan"), "d": float("inf"), "e": 1.0}}, ["rates"] * 4),
        ({"temperature": 0.0}, ["temperature"]),
        ({"temperature": float("nan")}, ["temperature"]),
        ({"schedule": ((0, {"a": 1.0}),)}, ["schedule"]),
        ({"schedule": ((5, {"a": 1.0}), (5, {"a": 1.0}))}, ["schedule"]),
        ({"schedule": ((5, {"a": 0.0}),)}, ["schedule"]),
        ({"schedule": ((5, {}),)}, ["schedule"]),
    ],
)
def test_mixtures(changes, wrong):
    assert fields(MixtureConfig(**{"rates": {"a": 1.0}} | changes)) == wrong


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({}, []),
        ({"data_dir": "sample", "vocabulary": "bytes"}, []),
        ({"store_dir": ""}, ["store_dir"]),
        ({"sequence_length": 0, "global_batch": 0}, ["sequence_length", "global_batch"]),
        ({"read_threads": 0, "prefetch": 0}, ["read_threads", "prefetch"]),
        ({"seed": -1}, ["seed"]),
        ({"seed": 2**32}, ["seed"]),
        ({"data_dir": "sample"}, ["vocabulary"]),
        ({"packing": "documents", "long_documents": "drop"}, []),
        ({"long_documents": "truncate"}, ["long_documents"]),
    ],
)
def test_data(changes, wrong):
    assert fields(data(**changes)) == wrong


def test_inspect():
    assert fields(InspectConfig(data=data())) == []
    assert fields(InspectConfig(data=data(), step=-1, rows=0, steps=0, max_tokens=-1)) == [
        "step",
        "rows",
        "steps",
        "max_tokens",
    ]


def test_the_keys_of_a_mixture_include_those_of_its_schedule():
    mixture = MixtureConfig(rates={"a": 1.0, "b*": 1.0}, schedule=((1, {"c": 1.0, "a": 2.0}),))
    assert mixture_keys(mixture) == ("a", "b*", "c")
    assert mixture_keys(MixtureConfig(rates="text_en")) == ("text_en",)


def test_importing_it_takes_no_library():
    code = "import sys, aya_jax.data.config; print([m for m in ('numpy', 'jax', 'tensorflow') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
