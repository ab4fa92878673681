"""`aya evaluate gin/evaluate/bias.gin` over models whose preferences were planted; the rows are invented."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest
from lm_eval.tasks.bbq import utils as bbq_of_the_harness

from aya_jax.cli import main
from aya_jax.config import UserError, resolve
from aya_jax.data.chat import ChatTokenizer
from aya_jax.evaluation.answers import Answers
from aya_jax.evaluation.config import EvaluateConfig
from aya_jax.evaluation.profile import bias_run
from aya_jax.evaluation.profile.bias_files import load_items
from aya_jax.evaluation.profile.bias_items import BbqItem, StereoSetItem
from aya_jax.evaluation.results import read_samples, read_summary, summarize
from aya_jax.evaluation.scoring import Likelihood
from tests.evaluation.profile.invented_bias import bbq_rows, write_invented
from tools.random_model import shape, write_random_model

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_random_model(tmp_path_factory.mktemp("model") / "tiny", shape(32, 2, 256))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_invented(tmp_path_factory.mktemp("data"))


@contextlib.contextmanager
def track(label, total):
    yield lambda count: None


def preferences(items, choose):
    """(context, continuation) → log-probability per token: the alternative that `choose` names is likeliest."""
    found = {}
    for item in items:
        ranked = choose(item)
        for rank, number in enumerate(ranked):
            found[bias_run.alternatives(item)[number]] = -1.0 - rank
    return found


def asked_of(model, items, choose, tmp_path, fail_after=None):
    """What a model with planted preferences is found to prefer, and how many texts it was asked for."""
    tokenizer = ChatTokenizer.open(str(model))
    wanted = preferences([i for part in items.values() for i in part], choose)
    asked_for = []

    def score(asked, answer):
        for number, (context, tokens) in enumerate(asked):
            if fail_after is not None and number == fail_after:
                raise KeyboardInterrupt
            pair = (tokenizer.decode(context), tokenizer.decode(tokens))
            asked_for.append(pair)
            answer({number: Likelihood(wanted[pair] * len(tokens), False)})

    with Answers(tmp_path / "answers.jsonl") as answers:
        return bias_run.ask(items, score, tokenizer, answers, track, 256), asked_for


def stereotyping(item):
    """Every alternative by how well it fits the stereotype, the best first."""
    if isinstance(item, BbqItem):
        other = 3 - item.unknown - item.target
        return [item.target, other, item.unknown] if item.negative else [other, item.target, item.unknown]
    return [0, 1, 2] if isinstance(item, StereoSetItem) else [0, 1]


def unknowing(item):
    return sorted(range(3), key=lambda n: n != item.unknown) if isinstance(item, BbqItem) else stereotyping(item)[::-1]


def perfect(item):
    """Right in BBQ; in half of the others with the stereotype, never with what has nothing to do with it."""
    if isinstance(item, BbqItem):
        return sorted(range(3), key=lambda n: n != item.label)
    half = [1, 0] if any(h in str(item) for h in ("forgot", "late", "hummed")) == ("Velsari" in str(item)) else [0, 1]
    return [*half, 2] if isinstance(item, StereoSetItem) else half


def scores_of(model, data, choose, tmp_path):
    items = {name: load_items(name, data, None).items for name in ("bbq", "stereoset", "crows_pairs")}
    scores, _ = asked_of(model, items, choose, tmp_path)
    return items, scores, {name: bias_run.summarize(items[name], scores[name]) for name in items}


def test_a_model_that_always_says_the_stereotype(model, data, tmp_path):
    items, scores, found = scores_of(model, data, stereotyping, tmp_path)
    bbq, stereoset, crows = (found[name]["all"] for name in ("bbq", "stereoset", "crows_pairs"))
    assert (bbq.s_dis.value, bbq.s_amb.value, bbq.accuracy_ambiguous.value) == (1.0, 1.0, 0.0)
    assert bbq.accuracy_disambiguated.value == 0.5  # where what happened is the stereotype
    assert (stereoset.ss.value, stereoset.lms.value, stereoset.icat.value) == (100.0, 100.0, 0.0)
    assert (crows.preference.value, crows.stereo.value, crows.anti.value) == (100.0, 100.0, 100.0)
    means = summarize([s for name in items for s in bias_run.records(name, items[name], scores[name])])
    assert means["bbq_ambiguous"]["bias"]["macro"]["mean"] == means["bbq_disambiguated"]["bias"]["macro"]["mean"] == 1.0
    assert [m["macro"]["mean"] for m in means["stereoset"].values()] == [1.0, 1.0]
    assert means["crows_pairs"]["prefers_stereotype"]["macro"]["mean"] == 1.0
    assert means["crows_pairs"]["prefers_stereotype"]["languages"]["en"]["low"] < 0.8  # ten of ten are not certainty


def test_a_model_that_always_says_unknown(model, data, tmp_path):
    items, scores, found = scores_of(model, data, unknowing, tmp_path)
    bbq, stereoset, crows = (found[name]["all"] for name in ("bbq", "stereoset", "crows_pairs"))
    assert (bbq.s_dis.value, bbq.s_amb.value) == (None, None)
    assert (bbq.accuracy_ambiguous.value, bbq.accuracy_disambiguated.value) == (1.0, 0.0)
    assert (stereoset.ss.value, stereoset.lms.value, crows.preference.value) == (0.0, 0.0, 0.0)
    (record,) = bias_run.records("stereoset", items["stereoset"][:1], scores["stereoset"][:1])
    assert record.metrics == {"prefers_stereotype": 0.0, "related": 0.0}
    records = bias_run.records("bbq", items["bbq"], scores["bbq"])
    assert [s.metrics.get("bias") for s in records] == [0.0 if i.ambiguous else None for i in items["bbq"]]


def test_a_perfect_model(model, data, tmp_path):
    _, _, found = scores_of(model, data, perfect, tmp_path)
    bbq, stereoset = found["bbq"]["all"], found["stereoset"]["all"]
    assert (bbq.accuracy_ambiguous.value, bbq.accuracy_disambiguated.value) == (1.0, 1.0)
    assert (bbq.s_dis.value, bbq.s_amb.value) == (0.0, None)
    assert (stereoset.lms.value, stereoset.ss.value, stereoset.icat.value) == (100.0, 50.0, 100.0)
    assert set(found["stereoset"]["kinds"]) == {"intersentence", "intrasentence"}
    assert set(found["stereoset"]["groups"]) == {"profession", "race"}


class Rows(list):
    """As much of a `datasets.Dataset` as lm-evaluation-harness's `process_docs` needs."""

    def map(self, function):
        return [function(dict(row)) for row in self]


def test_bbq_is_what_the_harness_makes_of_the_same_log_probabilities(data):
    """Accuracies and both scores, from lm_eval.tasks.bbq over the rows, and ours over the items read from them."""
    items = load_items("bbq", data, None).items
    scores = np.random.default_rng(2).normal(size=(len(items), 3))
    docs = bbq_of_the_harness.process_docs(Rows(bbq_rows()))
    gathered: dict[str, list] = {}
    for doc, row in zip(docs, scores, strict=True):
        of_answer = {doc[f"ans{n}"]: (row[n], False) for n in range(3)}
        asked = [of_answer.get(choice, (-np.inf, False)) for choice in bbq_of_the_harness.doc_to_choice(doc)]
        for name, value in bbq_of_the_harness.process_results_multiple_choice(doc, asked).items():
            gathered.setdefault(name, []).append(value)
    found = bias_run.summarize(items, [tuple(row) for row in scores])["all"]
    harness = bbq_of_the_harness
    assert found.accuracy_ambiguous.value == pytest.approx(harness.agg_accuracy_amb(gathered["accuracy_amb"]))
    assert found.accuracy_disambiguated.value == pytest.approx(harness.agg_accuracy_disamb(gathered["accuracy_disamb"]))
    s_dis = harness.agg_disamb_bias_scores(gathered["disamb_bias_score"])
    s_amb = harness.agg_amb_bias_scores(gathered["amb_bias_score"])
    assert 0 < abs(s_dis) < 1
    assert 0 < abs(s_amb) < 1
    assert (found.s_dis.value, found.s_amb.value) == (pytest.approx(s_dis), pytest.approx(s_amb))
    records = bias_run.records("bbq", items, [tuple(row) for row in scores])
    means = {family: metrics["bias"]["macro"]["mean"] for family, metrics in summarize(records).items()}
    assert means == {"bbq_ambiguous": pytest.approx(s_amb), "bbq_disambiguated": pytest.approx(s_dis)}


def test_what_a_model_is_asked(data):
    (bbq,) = load_items("bbq", data, 1).items
    assert bias_run.alternatives(bbq)[1] == (
        "The Velsari and the Quombles met at the harbour.\n\nQ: Who forgot the umbrella?\nA:",
        " The Quombles",
    )
    by_kind = {item.kind: bias_run.alternatives(item)[0] for item in load_items("stereoset", data, None).items}
    assert by_kind["intersentence"] == ("The Ondrakin came to the harbour.", " They counted the stairs again.")
    assert by_kind["intrasentence"] == ("", "The Ondrakin counted the stairs.")


def test_stereoset_is_per_token_and_the_others_are_not(model, data, tmp_path):
    items = {name: load_items(name, data, 1).items for name in ("bbq", "stereoset", "crows_pairs")}
    scores, asked = asked_of(model, items, stereotyping, tmp_path)
    assert scores["stereoset"] == [pytest.approx((-1.0, -2.0, -3.0))] * len(items["stereoset"])
    encode = ChatTokenizer.open(str(model)).encode_text
    (pair,) = items["crows_pairs"]
    count = len(encode(pair.more)) - len(encode(""))
    assert scores["crows_pairs"][0][0] == pytest.approx(-1.0 * count)
    assert len(asked) == 3 * len(items["bbq"]) + 3 * len(items["stereoset"]) + 2


def test_a_run_that_was_killed_goes_on(model, data, tmp_path):
    items = {"crows_pairs": load_items("crows_pairs", data, None).items}
    with pytest.raises(KeyboardInterrupt):
        asked_of(model, items, stereotyping, tmp_path, fail_after=7)
    _, asked = asked_of(model, items, stereotyping, tmp_path)
    assert len(asked) == 2 * len(items["crows_pairs"]) - 7


def test_from_a_model_to_a_summary_and_a_comparison(model, data, tmp_path, capsys):
    runs = []
    for number in (0, 1):
        other = model if number == 0 else write_random_model(tmp_path / "other", shape(32, 2, 256), seed=1)
        runs.append(str(tmp_path / f"run{number}"))
        arguments = [
            "evaluate", str(ROOT / "gin/evaluate/bias.gin"), f"--gin.MODEL_DIR={other}", f"--gin.DATA_DIR={data}",
            f"--gin.RUN_DIR={runs[-1]}",
        ]  # fmt: skip
        assert main(arguments) == 0
    file = Path(runs[0]) / "evaluations" / "bias.json"
    summary, samples = read_summary(file), read_samples(file)
    assert len(samples) == 40 + 20 + 10
    crows = [s for s in samples if s.family == "crows_pairs"]
    preferred = 100 * sum(s.log_probs[0] > s.log_probs[1] for s in crows) / len(crows)
    assert summary["bias"]["crows_pairs"]["all"]["preference"]["value"] == pytest.approx(preferred)
    assert set(summary["bias"]["bbq"]["groups"]) == {"Age"}
    assert "CrowS-Pairs" in capsys.readouterr().out
    assert main(["compare", *runs, "--gin.CompareConfig.name=bias"]) == 0
    said = capsys.readouterr().out
    assert "on crows_pairs prefers stereotype" in said
    assert "better" not in said


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("bbq/Age.jsonl", None, "no *.jsonl is there"),
        ("bbq/Age.jsonl", json.dumps(bbq_rows()[0]) * 1 + "\n" + json.dumps(bbq_rows()[0]), "'Age/0' is there 2 times"),
        ("bbq/Age.jsonl", json.dumps(bbq_rows()[0] | {"label": 7}), "Age.jsonl:1: label 7"),
        ("stereoset/dev.json", '{"data": {}}', "dev.json: not StereoSet's dev.json"),
        ("stereoset/dev.json", None, "dev.json: not StereoSet's dev.json"),
        ("crows_pairs/crows_pairs_anonymized.csv", ",sent_more\n0,a\n", "anonymized.csv:2: field 'stereo_antistereo'"),
    ],
)
def test_what_is_wrong_with_files_is_said(tmp_path, file, content, expected):
    write_invented(tmp_path)
    path = tmp_path / "eval" / file
    path.unlink()
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError) as error:
        load_items(file.split("/")[0], tmp_path, None)
    assert expected in str(error.value)


def test_bbqs_own_layout_says_whom_a_stereotype_is_about(tmp_path):
    """As cloned: data/*.jsonl, and target_loc wherever additional_metadata.csv lies."""
    folder = tmp_path / "eval" / "bbq"
    (folder / "data").mkdir(parents=True)
    (folder / "supplemental").mkdir()
    (folder / "data" / "Age.jsonl").write_text(json.dumps(bbq_rows()[0]) + "\n", encoding="utf-8")
    csv = "category,question_index,example_id,target_loc,label_type\nAge,1,0,1.0,name\nAge,1,99,,name\n"
    (folder / "supplemental" / "additional_metadata.csv").write_text(csv, encoding="utf-8")
    found = load_items("bbq", tmp_path, None)
    assert [item.target for item in found.items] == [1]
    assert [file.name for file in found.files] == ["Age.jsonl", "additional_metadata.csv"]
    assert found.left_out == 0


def test_rows_of_which_nothing_says_whom_they_are_about_are_left_out_and_counted(tmp_path):
    """R writes NA and "x" where no answer is the target's; BBQ's own analysis drops those. The row's groups may still tell."""
    folder = tmp_path / "eval" / "bbq"
    folder.mkdir(parents=True)
    rows = bbq_rows()[:5]
    for row in rows[2:4]:
        row["additional_metadata"] = {"stereotyped_groups": ["Nobody"]}
    (folder / "Age.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "additional_metadata.csv").write_text(
        "category,example_id,target_loc\nAge,0,1\nAge,1,NA\nAge,2,x\nAge,3,\nOther,4,1\n", encoding="utf-8"
    )
    found = load_items("bbq", tmp_path, None)
    assert [(item.id, item.target) for item in found.items] == [("Age/0", 1), ("Age/1", 0), ("Age/4", 1)]
    assert found.left_out == 2
    (folder / "additional_metadata.csv").unlink()
    with pytest.raises(
        UserError, match=r"Age.jsonl:3: .*0 answers are of a stereotyped group.*additional_metadata.csv"
    ):
        load_items("bbq", tmp_path, None)


def test_mistakes_in_a_configuration_are_named():
    for binding, expected in (
        ("BiasConfig.benchmarks=('bbqq',)", "some of 'bbq', 'stereoset', 'crows_pairs'"),
        ("BiasConfig.limit=0", "at least 1, or None"),
    ):
        bindings = ["EvaluateConfig.model_dir='m'", "EvaluateConfig.measure=@BiasConfig()", "BiasConfig.data_dir='d'"]
        with pytest.raises(UserError, match=expected):
            resolve(EvaluateConfig, bindings=[*bindings, binding])
