"""`aya online` on a tiny model: what it learns, what an interruption changes, and which weights answer."""

from __future__ import annotations

import json
import shutil
import signal
from xml.etree import ElementTree

import numpy as np
import pytest

from aya_jax.cli import main
from aya_jax.config import ConfigError, resolve
from aya_jax.data.chat import Message
from aya_jax.interop.model_dir import find_model
from aya_jax.models.config import PrecisionConfig
from aya_jax.parallel.config import LogicalAxes, MeshConfig
from aya_jax.parallel.mesh import make_mesh
from aya_jax.synthesis.config import OnlineConfig, RewardModelConfig
from aya_jax.synthesis.reward_scorer import LogProbScorer, RewardScorer
from aya_jax.synthesis.scorers import Answer
from tests.training import process_pair, small_run, tuning

ROUNDS = 2
# Sums over two replicas do not depend on their order, so that two processes and one agree to the bit.
REPLICAS = ("--gin.MeshConfig.data=2", "--gin.MeshConfig.fsdp=1")
WORDS = ("no", "yes", "maybe")
# Half of what the model learns to say are digits, half are words.
SPOKEN = [
    {"question": f"{n} and {n % 7}?", "answer": str(n) * 2 if n % 2 else f"{WORDS[n % 3]} {n % 4} {WORDS[n % 2]}"}
    for n in range(160)
]
PROMPTS = [{"prompt": f"{n} and {n % 5}?", "lang": ("en", "de")[n % 2]} for n in range(60)]
PROMPTS[13]["prompt"] = "and " * 80  # too long for the engine
PAIRS = [{"prompt": f"{n}?", "chosen": str(n) * (1 + n % 3), "rejected": WORDS[n % 3] * (1 + n % 2)} for n in range(90)]
ONLINE = """
OnlineConfig.scorer = @RewardFunctionConfig()
RewardFunctionConfig.function = 'tests.synthesis.rewards:digits'
INPUT = '{folder}/prompts.jsonl'
OnlineConfig.rounds = {rounds}
OnlineConfig.samples = 4
PromptsConfig.held_out = 20
PromptsConfig.per_round = 24
SamplingConfig.max_tokens = 12
EngineConfig.slots = 8
EngineConfig.max_length = 64
EngineConfig.prefill_chunk = 32
GLOBAL_BATCH = 4
"""


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A model that says digits and words alike, prompts, and the run's file."""
    folder = tmp_path_factory.mktemp("online")
    tuning.write_tokenizer(folder / "tokenizer")
    tasks = [tuning.task(folder, "spoken", "chat", SPOKEN), tuning.task(folder, "pairs", "preference", PAIRS)]
    (train, *_) = tuning.prepare_tasks(folder, *tasks)
    size = train.vocabulary.size
    tuning.write_rows(folder / "prompts.jsonl", PROMPTS)
    tuning.write_run(folder, "pretrain", mixture={"spoken": 1.0}, vocab_size=size, steps=30)
    options = ["--gin.DataConfig.packing='documents'", "--gin.SEQUENCE_LENGTH=48", "--gin.CheckpointConfig.every=30"]
    small_run.run("train", folder / "pretrain.gin", f"--gin.RUN_DIR={folder / 'base'}", tuning.SEARCH, *options)
    file = tuning.write_run(folder, "online", mixture={"online_*": 1.0}, vocab_size=size, steps=12)
    file.write_text(
        file.read_text().replace(f"STORE_DIR = '{folder}/stores'\n", "") + ONLINE.format(folder=folder, rounds=ROUNDS)
    )
    tuning.write_run(folder, "reward", mixture={"pairs": 1.0}, vocab_size=size, steps=10)
    return folder


def command(workplace, name, *more):
    return (
        *("online", workplace / "online.gin", tuning.SEARCH, f"--gin.RUN_DIR={workplace / name}"),
        *(f"--gin.MODEL_DIR={workplace / 'base'}", *more),
    )


@pytest.fixture(scope="module")
def whole(workplace):
    """(run directory, output) of an uninterrupted run."""
    return workplace / "whole", small_run.run(*command(workplace, "whole"))


@pytest.fixture(scope="module")
def one_mesh(workplace):
    """The directory of a run of one process with two devices, replicas of each other."""
    small_run.run(*command(workplace, "one-mesh", *REPLICAS), devices=2)
    return workplace / "one-mesh"


def summaries(run_dir):
    return json.loads((run_dir / "rounds.json").read_text())


def records(run_dir, number, name):
    return [json.loads(line) for line in (run_dir / "rounds" / f"{number:02d}" / name).open()]


def test_held_out_rewards_rise_against_the_model_as_it_came(whole):
    run_dir, output = whole
    found = summaries(run_dir)
    assert [each["round"] for each in found] == [0, 1, 2]
    assert found[2]["change"]["low"] > 0
    ends = [
        [record["answers"][0]["reward"] for record in records(run_dir, number, "held_out.jsonl")] for number in (0, 2)
    ]
    differences = [new - old for old, new in zip(*ends, strict=True) if None not in (old, new)]
    assert len(differences) == found[2]["change"]["prompts"] > 10
    assert found[2]["change"]["mean"] == pytest.approx(np.mean(differences))
    for language in ("en", "de"):
        assert found[2]["held_out"][f"reward/language/{language}"] > found[0]["held_out"][f"reward/language/{language}"]
    assert found[2]["held_out"]["kl"] > found[1]["held_out"]["kl"] > 0
    assert "Rewards of held-out prompts" in output
    assert ElementTree.parse(run_dir / "rounds.svg").getroot().tag.endswith("svg")
    assert "prompt 14 is longer than EngineConfig.max_length allows, and is left out" in output
    assert found[1]["left_out"]["too few answers that can be judged"] >= 1
    trained = {record["row"] for number in (1, 2) for record in records(run_dir, number, "scored.jsonl")}
    assert trained.isdisjoint(record["row"] for record in records(run_dir, 0, "held_out.jsonl"))


@pytest.mark.slow
def test_a_policy_gradient_raises_held_out_rewards_too(workplace):
    """All answers with their advantages, which add up to nothing for each prompt but for what the divergence takes."""
    run_dir = workplace / "gradient"
    file = tuning.ROOT / "gin" / "train" / "policy_gradient.gin"
    small_run.run(*command(workplace, "gradient", file, "--gin.OnlineConfig.rounds=1", "--gin.LEARNING_RATE=0.003"))
    found = summaries(run_dir)[1]
    assert found["change"]["low"] > 0
    rows = records(run_dir, 1, "trained.jsonl") + records(run_dir, 1, "validation.jsonl")
    assert len(rows) == found["rows"]
    by_prompt = {}
    for row in rows:
        by_prompt.setdefault(row["row"], []).append(row)
    for of_prompt in by_prompt.values():
        assert 2 <= len(of_prompt) <= 4
        assert abs(sum(row["value"] for row in of_prompt)) < 1e-9
        # At round 1 the model is the reference: rewards alone decide.
        rewards = [
            sum(map(str.isdigit, row["answer"][0]["content"])) / len(row["answer"][0]["content"]) for row in of_prompt
        ]
        expected = [r - (sum(rewards) - r) / (len(rewards) - 1) for r in rewards]
        np.testing.assert_allclose([row["value"] for row in of_prompt], expected, atol=1e-3)
    trained = [json.loads(line) for line in (run_dir / "rounds" / "01" / "train" / "metrics.jsonl").open()]
    assert {"advantage", "clip_ratio", "kl/language/de"} <= trained[0].keys()
    assert trained[0]["kl"] == pytest.approx(0, abs=1e-5)


def test_pairs_are_the_best_and_the_worst_answers(whole):
    run_dir, _ = whole
    by_row = {record["row"]: record["answers"] for record in records(run_dir, 1, "scored.jsonl")}
    pairs = records(run_dir, 1, "trained.jsonl") + records(run_dir, 1, "validation.jsonl")
    assert len(pairs) == summaries(run_dir)[1]["rows"] > 5
    for pair in pairs:
        judged = [answer for answer in by_row[pair["row"]] if answer["reward"] is not None]
        rewards = {answer["text"]: answer["reward"] for answer in judged}
        assert rewards[pair["chosen"][0]["content"]] == max(rewards.values())
        assert rewards[pair["rejected"][0]["content"]] == min(rewards.values())
        text = pair["chosen"][0]["content"]
        assert max(rewards.values()) == sum(map(str.isdigit, text)) / len(text)


def test_each_round_answers_with_the_weights_of_the_one_before(workplace, whole):
    """Every answer's log-probability, as the engine gave it, is that of the model that the round before has left on disk."""
    run_dir, _ = whole
    mesh = make_mesh(MeshConfig())
    sources = {(1, "scored.jsonl"): workplace / "base", (2, "scored.jsonl"): run_dir / "rounds" / "01" / "train"}
    sources[2, "held_out.jsonl"] = run_dir / "rounds" / "02" / "train"
    for (number, name), path in sources.items():
        said = [(r["prompt"], a["tokens"], a["log_prob"]) for r in records(run_dir, number, name) for a in r["answers"]]
        scorer = LogProbScorer(find_model(path, pytest.fail), PrecisionConfig(), mesh, LogicalAxes())
        found = scorer.score([prompt for prompt, _, _ in said], [tokens for _, tokens, _ in said])
        np.testing.assert_allclose(found, [log_prob for _, _, log_prob in said], atol=2e-3)
        if number == 2 and name == "scored.jsonl":
            other = LogProbScorer(find_model(workplace / "base", pytest.fail), PrecisionConfig(), mesh, LogicalAxes())
            assert np.abs(np.subtract(other.score(*zip(*[(p, t) for p, t, _ in said], strict=True)), found)).max() > 0.1


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["answers.jsonl.partial", "train/checkpoints/4"])
def test_killed_and_resumed_is_the_same_run(workplace, whole, moment):
    name = f"killed-{moment.split('/')[0]}"
    process = small_run.start(*command(workplace, name))
    small_run.wait_for(lambda: (workplace / name / "rounds" / "02" / moment).exists(), process)
    small_run.stop(process, signal.SIGKILL)
    assert not (workplace / name / "rounds.json").exists()
    small_run.run(*command(workplace, name))
    assert summaries(workplace / name) == summaries(whole[0])
    found, expected = (
        small_run.parameters(folder / "rounds" / "02" / "train", 12) for folder in (workplace / name, whole[0])
    )
    for key, value in expected.items():
        assert found[key].tobytes() == value.tobytes(), key


@pytest.mark.slow
def test_done_rounds_are_not_done_again_and_more_can_be_added(workplace, whole):
    copy = workplace / "more"
    shutil.copytree(whole[0], copy)
    # A run's directory says where it is; the copy is another run's.
    for file in copy.rglob("*.gin"):
        file.write_text(file.read_text().replace(str(whole[0]), str(copy)))
    output = small_run.run(*command(workplace, "more", "--gin.OnlineConfig.rounds=3"))
    assert "Round 3 of 3" in output
    assert "Round 2 of" not in output
    assert summaries(copy)[:3] == summaries(whole[0])
    assert len(summaries(copy)) == 4


@pytest.mark.slow
def test_eight_devices_answer_and_learn_as_one(workplace, whole):
    """Answers are drawn by other sums, so that a near tie may fall otherwise; most are the same, and so is what is learnt."""
    axes = [f"--gin.MeshConfig.{axis}=2" for axis in ("data", "fsdp", "tensor")]
    small_run.run(*command(workplace, "eight", "--gin.OnlineConfig.rounds=1", *axes), devices=8)
    for name in ("answers.jsonl", "held_out.jsonl"):
        texts = [
            [answer["text"] for record in records(run_dir, 1, name) for answer in record["answers"]]
            for run_dir in (workplace / "eight", whole[0])
        ]
        if name == "answers.jsonl":
            same = sum(one == other for one, other in zip(*texts, strict=True))
            assert same > 0.9 * len(texts[0])
    ours, theirs = (summaries(run_dir)[1] for run_dir in (workplace / "eight", whole[0]))
    assert ours["change"]["low"] > 0
    assert ours["held_out"]["reward"] == pytest.approx(theirs["held_out"]["reward"], abs=0.2)


@pytest.mark.slow
@pytest.mark.multiprocess
@pytest.mark.parametrize("moment", [None, "answers.jsonl.partial", "train/checkpoints/4"])
def test_two_processes_are_the_same_run(workplace, one_mesh, moment):
    """Also where one was killed while it sampled or trained, which ends the other: the same command goes on."""
    name = f"two-{str(moment).split('/')[0]}"
    with process_pair.alone():
        if moment is not None:
            with process_pair.Processes(*command(workplace, name, *REPLICAS), devices=1) as processes:
                second = processes.all[1]
                small_run.wait_for(lambda: (workplace / name / "rounds" / "02" / moment).exists(), second)
                second.kill()
                assert processes.finish()[0][0] not in (0, None)
            assert not (workplace / name / "rounds.json").exists()
        first, other = process_pair.run(*command(workplace, name, *REPLICAS), devices=1)
    assert "Rewards of held-out prompts" in first
    assert other == ""
    assert summaries(workplace / name) == summaries(one_mesh)
    found, expected = (
        small_run.parameters(folder / "rounds" / "02" / "train", 12) for folder in (workplace / name, one_mesh)
    )
    for key, value in expected.items():
        assert found[key].tobytes() == value.tobytes(), key


@pytest.mark.slow
@pytest.mark.multiprocess
def test_two_processes_are_judged_by_a_reward_model_as_one_is(workplace, reward_run, one_mesh):
    """The model judges over the mesh, and the answers to be judged are the same."""
    options = ["--gin.OnlineConfig.scorer=@RewardModelConfig()", f"--gin.RewardModelConfig.model_dir={reward_run}"]
    with process_pair.alone():
        process_pair.run(*command(workplace, "judged", *REPLICAS, "--gin.OnlineConfig.rounds=1", *options), devices=1)
    judged, by_rule = (records(run_dir, 1, "scored.jsonl") for run_dir in (workplace / "judged", one_mesh))
    scorer = RewardScorer(RewardModelConfig(model_dir=str(reward_run)), make_mesh(MeshConfig()), LogicalAxes(), print)
    for record, other in zip(judged, by_rule, strict=True):
        assert [answer["tokens"] for answer in record["answers"]] == [answer["tokens"] for answer in other["answers"]]
        messages = (Message("user", PROMPTS[record["row"]]["prompt"]),)
        expected = scorer.score([Answer(messages, answer["text"], {}) for answer in record["answers"]])
        for answer, reward in zip(record["answers"], expected, strict=True):
            assert np.isnan(reward) if answer["reward"] is None else answer["reward"] == pytest.approx(reward, abs=1e-4)


@pytest.fixture(scope="module")
def reward_run(workplace):
    """The directory of a run that has trained a reward model."""
    run_dir = workplace / "reward-run"
    start = f"--gin.MODEL_DIR={workplace / 'base'}"
    small_run.run("train", workplace / "reward.gin", tuning.SEARCH, f"--gin.RUN_DIR={run_dir}", start)
    return run_dir


def test_a_reward_model_scores_as_it_was_measured(workplace, reward_run):
    """How many held-out pairs it tells apart, from their texts: what its training's validation says."""
    said = small_run.records(reward_run)[-1]
    mesh = make_mesh(MeshConfig())
    scorer = RewardScorer(RewardModelConfig(model_dir=str(reward_run), rows=8), mesh, LogicalAxes(), print)
    answers = [
        Answer((Message("user", pair["prompt"]),), pair[side], {}) for pair in PAIRS for side in ("chosen", "rejected")
    ]
    rewards = np.array(scorer.score(answers)).reshape(-1, 2)
    difference = rewards[:, 0] - rewards[:, 1]
    assert (difference > 0).mean() > 0.9
    trained = [record for record in small_run.records(reward_run) if record["kind"] == "train"]
    assert trained[-1]["accuracy"] > 0.9
    # Held-out pairs are among these; their mean margin is that of a subset of this size or the validation's own.
    held_out = [k for k in range(len(PAIRS)) if _is_held_out(workplace, PAIRS[k])]
    assert len(held_out) == said["pairs"]
    assert difference[held_out].mean() == pytest.approx(said["margin"], abs=1e-4)
    unjudged = scorer.score(
        [answers[0], Answer((Message("user", "?"),), " ", {}), Answer((Message("user", "x " * 3000),), "a", {})]
    )
    assert unjudged[0] == pytest.approx(rewards[0, 0], abs=1e-5)
    assert np.isnan(unjudged[1:]).all()


def test_a_reward_model_judges_pairs_and_answers(workplace, reward_run, tmp_path, capsys):
    """`aya judge` with the reward model: it agrees with the labels that it was trained on, and has no favourite place."""
    rows = [
        {"input": pair["prompt"], "output_1": pair[first], "output_2": pair[second], "label": 1 + (first == "rejected")}
        for n, pair in enumerate(PAIRS)
        for first, second in [("chosen", "rejected") if n % 2 else ("rejected", "chosen")]
    ]
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    judge = ["gin/judge/agreement.gin", "gin/judge/reward.gin"]
    bindings = [f"--gin.JUDGE_DIR={reward_run}", f"--gin.PAIRS=('{file}',)", f"--gin.RUN_DIR={tmp_path}"]
    assert main(["judge", *(str(tuning.ROOT / name) for name in judge), *bindings]) == 0
    summary = json.loads((tmp_path / "evaluations" / "judged.json").read_text())
    assert summary["agreement"]["all"]["accuracy"]["value"] > 90
    assert summary["audit"]["all"]["flip_rate"] == 0
    assert "answers to be scored" in capsys.readouterr().out


def _is_held_out(workplace, pair):
    from aya_jax.data import store
    from aya_jax.data.chat import ChatTokenizer

    opened = store.TokenStore.open(store.store_path(str(workplace / "stores"), "pairs", "validation"))
    begins, ends = opened.document_ranges(np.arange(opened.num_documents))
    documents = {tuple(ids.tolist()) for ids in opened.read_ranges("tokens", begins, ends)}
    chat = ChatTokenizer.open(str(workplace / "tokenizer"))
    said = [Message("user", pair["prompt"]), Message("assistant", pair["chosen"])]
    return tuple(chat.encode_chat(said, add_generation_prompt=False)) in documents


def test_a_model_of_tokens_is_no_scorer(workplace):
    options = [
        "--gin.OnlineConfig.scorer=@RewardModelConfig()",
        f"--gin.RewardModelConfig.model_dir={workplace / 'base'}",
    ]
    code, output = small_run.finish(small_run.start(*command(workplace, "no-scorer", *options)))
    assert code == 1
    assert "a model of tokens and not of rewards" in " ".join(output.split())


@pytest.mark.parametrize(
    ("bindings", "problem"),
    [
        (["OnlineConfig.samples=1"], "OnlineConfig.samples"),
        (["OnlineConfig.rounds=0"], "OnlineConfig.rounds"),
        (["SamplingConfig.temperature=0.0"], "OnlineConfig.sampling.temperature|SamplingConfig.temperature"),
        (["TrainConfig.objective=None"], "OnlineConfig.train.objective|TrainConfig.objective"),
        (["OnlineConfig.validation_permille=0"], "OnlineConfig.validation_permille"),
    ],
)
def test_contradictions_are_refused_by_name(workplace, bindings, problem):
    with pytest.raises(ConfigError, match=problem.replace(".", r"\.")):
        resolve(
            OnlineConfig,
            files=[str(workplace / "online.gin")],
            bindings=[f"RUN_DIR={workplace / 'other'}", f"MODEL_DIR={workplace / 'base'}", *bindings],
            search_paths=tuning.SEARCH_PATHS,
        )
