"""The study of mixing and merging: its plans at both scales, and a tiny one from rows to table."""

from __future__ import annotations

import contextlib
import dataclasses
import json

import pytest

from aya_jax import cli
from aya_jax.config import ConfigError, resolve
from aya_jax.interop.model_dir import find_model
from aya_jax.studies import study
from aya_jax.studies.config import StudyConfig
from aya_jax.studies.plan import make_plan, resolve_jobs
from tests.training import tuning
from tools.random_model import shape, write_random_model

FOLDER = tuning.ROOT / "gin/studies/mix_or_merge"
PAPER = ("RED_TEAM=red.jsonl", "GENERAL_PROMPTS=dolly.jsonl", "REMOTE_URL=http://judge/v1", "REMOTE_MODEL=judge")
ROWS = {name: f"{name}=('{name.lower()}.jsonl',)" for name in ("GENERAL", "GENERAL_PAIRS", "SAFETY", "SAFETY_HELD_OUT")}
WEIGHTS = {"000": (1.0, 0.0), "030": (0.7, 0.3), "050": (0.5, 0.5), "070": (0.3, 0.7), "100": (0.0, 1.0)}


def plan(*names, bindings=()):
    files = [FOLDER / f"{name}.gin" for name in names]
    return make_plan(resolve(StudyConfig, files, ["RUN_DIR=runs/x", *bindings], tuning.SEARCH_PATHS).config)


@pytest.fixture(scope="module")
def paper():
    jobs = plan("paper", bindings=("BASE=models/base", "STORE_DIR=stores", *PAPER))
    return {job.key: job for job in jobs}, resolve_jobs(jobs)


def test_the_paper_s_merges_at_its_weights(paper):
    """Four methods x five weights of the 0 % and the 100 % model, at either stage (papers.md 5)."""
    jobs, resolved = paper
    for stage, of in (("merge_sft", "sft"), ("merge_dpo", "dpo")):
        merges = {key: resolved[key].config for key in jobs if jobs[key].stage == stage}
        assert len(merges) == 4 * 5
        for key, merge in merges.items():
            share = key[-3:]
            assert merge.models == (f"runs/x/{of}/mix_000", f"runs/x/{of}/mix_100")
            assert merge.method == dict(jobs[key].variant.coordinates)["merge"]
            if merge.method == "slerp":
                assert merge.t == WEIGHTS[share][1]
            else:
                assert merge.weights == WEIGHTS[share]
            assert merge.base == ("models/base" if "ties" in merge.method else None)
        assert jobs["merge_sft/merge_linear-safety_030"].needs == ("sft/mix_000", "sft/mix_100")


def test_the_paper_s_mixtures_orders_and_languages(paper):
    jobs, resolved = paper
    rates = {key: dict(resolved[key].config.data.mixture.rates) for key in jobs if jobs[key].verb == "train"}
    assert rates["sft/mix_015"] == {"general_*": 0.85, "safety_*": 0.15}
    assert rates["dpo/mix_015"] == {"pairs_general_*": 0.85, "pairs_safety_*": 0.15}
    assert [key for key in rates if key.startswith("sft_language")] == [
        f"sft_language/language_{language}" for language in ("en", "hi", "fr", "es", "ar", "ru")
    ]
    assert rates["sft_language/language_hi"] == {"general_hi": 0.85, "safety_*": 0.15}
    assert resolved["dpo/mix_100"].config.initialize_from == "runs/x/sft/mix_100"  # SFT -> DPO -> merge
    assert (
        resolved["dpo_merged"].config.initialize_from == "runs/x/merge_sft/merge_slerp-safety_050"
    )  # SFT -> merge -> DPO
    assert resolved["merge_languages/languages_three"].config.models == tuple(
        f"runs/x/sft_language/language_{language}" for language in ("en", "fr", "es")
    )
    assert len(resolved["merge_languages/languages_six"].config.models) == 6
    assert resolved["sft/mix_015"].config.model.embed_dim == 4096


def test_every_model_is_judged_against_the_base_s_answers(paper):
    jobs, resolved = paper
    models = {job.key for job in jobs.values() if job.stage in ("sft", "dpo", "dpo_merged") or job.verb == "merge"}
    for key in models:
        stage, _, label = key.partition("/")
        judged = {kind: resolved[f"{kind}_{stage}/{label}".rstrip("/")].config.what for kind in ("harm", "win")}
        for kind, prompts in (("harm", "red_team"), ("win", "general")):
            assert judged[kind].baseline == f"runs/x/answer_base/prompts_{prompts}"
            variant = f"{label}-prompts_{prompts}".lstrip("-")
            assert judged[kind].answers == f"runs/x/answer_{stage}/{variant}"


def test_the_miniature_is_the_same_study(paper):
    jobs = plan("miniature", bindings=ROWS.values())
    assert len(resolve_jobs(jobs)) == 42
    five = plan("miniature", "five_weights", bindings=ROWS.values())
    resolve_jobs(five)
    training = {"sft", "dpo", "merge_sft", "merge_dpo", "dpo_merged", "sft_language", "merge_languages"}
    assert {job.key for job in five if job.stage in training} == {
        key for key, job in paper[0].items() if job.stage in training
    }


def test_expanse_merges_its_families_after_every_stage():
    """Tuning, preferences and three online rounds, each from the merge of the stage before (papers.md 1)."""
    jobs = plan(
        "expanse", bindings=("BASE=models/base", "STORE_DIR=stores", "PROMPTS=p.jsonl", "REWARD_MODEL=runs/reward")
    )
    resolved = {key: each.config for key, each in resolve_jobs(jobs).items()}
    merges = ["merge_sft/merge_linear", "merge_dpo", "merge_online_1", "merge_online_2", "merge_online_3"]
    for before, after in zip(["models/base", *(f"runs/x/{merge}" for merge in merges)], merges, strict=False):
        stage = after.removeprefix("merge_").split("/")[0]
        trained = [resolved[job.key] for job in jobs if job.stage == stage]
        starts = {getattr(config, "train", config).initialize_from for config in trained}
        assert (len(trained), starts) == (4, {before})
        made = {getattr(config, "run_dir", None) or config.train.run_dir for config in trained}
        end = "/rounds/01/train" if "online" in stage else ""
        assert set(resolved[after].models) == {f"{folder}{end}" for folder in made}
    families = [dict(resolved[job.key].data.mixture.rates) for job in jobs if job.stage == "sft"]
    shared = set.intersection(*map(set, families))
    assert shared == {"arbitrage_en", "arbitrage_es", "arbitrage_fr"}
    assert len(set.union(*map(set, families))) == 23


def test_expanse_s_miniature_resolves():
    jobs = plan("expanse_miniature", bindings=[ROWS["GENERAL"]])
    assert len(resolve_jobs(jobs)) == 18


def test_an_evaluation_that_is_none_of_the_study_s_is_refused_at_once():
    with pytest.raises(ConfigError, match=r"MixingConfig.base.*'measure_bas' is none; did you mean measure_base"):
        plan("miniature", bindings=[*ROWS.values(), "MixingConfig.base=measure_bas"])


STUDY = """
StudyConfig.run_dir = %RUN_DIR
StudyConfig.stages = (
    @rows/StageConfig(),
    @sft/StageConfig(),
    @merge/StageConfig(),
    @measure_base/StageConfig(),
    @measure_sft/StageConfig(),
    @measure_merge/StageConfig(),
)
AnalysisConfig.mixing = @MixingConfig()
MixingConfig.base = 'measure_base'
MixingConfig.models = {{'SFT': ('measure_sft', 'measure_merge')}}
MixingConfig.against = {{'SFT': 'measure_sft/mix_000'}}
MixingConfig.harmful = ('pairs_safety_*',)
MixingConfig.general = ('general_*',)
rows/StageConfig:
    name = 'rows'
    verb = 'prepare'
    files = ('{root}/gin/studies/mix_or_merge/rows.gin',)
    bindings = {{
        'LANGUAGES': {{'en': 'en', 'fr': 'fr'}},
        'GENERAL': ('{folder}/general.jsonl',),
        'GENERAL_PAIRS': ('{folder}/pairs.jsonl',),
        'SAFETY': ('{folder}/safety.jsonl',),
        'SAFETY_HELD_OUT': ('{folder}/held_out.jsonl',),
        'VOCABULARY': '{folder}/base',
        'PrepareConfig.num_workers': 1,
    }}
    output = 'STORE_DIR'
sft/StageConfig:
    name = 'sft'
    verb = 'train'
    files = ('{folder}/sft.gin',)
    bindings = {{'MODEL_DIR': '{folder}/base', 'STORE_DIR': '{{rows}}'}}
    needs = ('rows',)
    sweep = @mix/Choices()
mix/Choices.name = 'mix'
mix/Choices.choices = {{'000': {{'MIXTURE': {{'general_*': 1.0}}}}, '100': {{'MIXTURE': {{'safety_*': 1.0}}}}}}
merge/StageConfig:
    name = 'merge'
    verb = 'merge'
    bindings = {{'MODELS': ('{{sft:mix=000}}', '{{sft:mix=100}}')}}
    needs = ('sft',)
    sweep = @merge/Choices()
    output = 'TARGET'
merge/Choices.name = 'merge'
merge/Choices.choices = {{
    'slerp': {{'MergeConfig.method': 'slerp'}},
    'ties': {{'MergeConfig.method': 'ties', 'MergeConfig.densities': 0.5, 'BASE': '{folder}/base'}},
}}
MEASURED = {{
    'STORE_DIR': '{{rows}}',
    'HeldOutConfig.tasks': ('general_*', 'pairs_safety_*'),
    'HeldOutConfig.sequence_length': 96,
}}
measure_base/StageConfig:
    name = 'measure_base'
    verb = 'evaluate'
    files = ('{root}/gin/evaluate/held_out.gin',)
    shared = %MEASURED
    bindings = {{'MODEL_DIR': '{folder}/base'}}
    needs = ('rows',)
measure_sft/StageConfig:
    name = 'measure_sft'
    verb = 'evaluate'
    files = ('{root}/gin/evaluate/held_out.gin',)
    shared = %MEASURED
    bindings = {{'MODEL_DIR': '{{sft}}'}}
    each_of = 'sft'
measure_merge/StageConfig:
    name = 'measure_merge'
    verb = 'evaluate'
    files = ('{root}/gin/evaluate/held_out.gin',)
    shared = %MEASURED
    bindings = {{'MODEL_DIR': '{{merge}}'}}
    each_of = 'merge'
"""


@dataclasses.dataclass(frozen=True)
class Ended:
    """A job that has ended."""

    code: int
    identity: int = 0

    def poll(self) -> int:
        return self.code

    def stop(self) -> None:
        """Nothing is left to stop."""


class InThisProcess:
    """Runs jobs as the command line would, one after the other."""

    def __init__(self, inherit=()):
        pass

    def start(self, command, log) -> Ended:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
            return Ended(cli.main(command[3:]))


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """Invented rows, a base of random weights, and a study of two tuned models and two merges of them."""
    write_random_model(tmp_path / "base", shape())
    sums = [
        {"prompt": f"{n} + {n + 1}?", "response": str(2 * n + 1) * (1 + n % 5), "lang": ("en", "fr")[n % 2]}
        for n in range(120)
    ]
    asked = [f"\n\nHuman: May I take {n} of them?\n\nAssistant: " for n in range(60)]
    pairs = [
        {
            "chosen": text + "No, ask first. " * (1 + n % 3) + "!",
            "rejected": text + "Yes, take all. " * (1 + n % 2) + "!",
        }
        for n, text in enumerate(asked)
    ]
    rows = {"general": sums, "pairs": pairs[:20], "safety": pairs[:40], "held_out": pairs[40:]}
    for name, several in rows.items():
        tuning.write_rows(tmp_path / f"{name}.jsonl", several)
    file = tuning.write_run(tmp_path, "sft", mixture={}, vocab_size=shape().vocab_size, steps=4)
    kept = [
        line for line in file.read_text().splitlines() if not line.startswith(("MIXTURE", "STORE_DIR", "Checkpoint"))
    ]
    file.write_text(
        "\n".join([*kept, "TransformerConfig.logit_scale = 0.25", "TransformerConfig.max_sequence_length = 512"])
    )
    (tmp_path / "study.gin").write_text(STUDY.format(root=tuning.ROOT, folder=tmp_path))
    monkeypatch.setattr(study, "LocalExecutor", InThisProcess)
    monkeypatch.setattr(study, "POLL_SECONDS", 0.01)
    return tmp_path


@pytest.mark.slow
def test_from_rows_to_the_table(workplace):
    out = workplace / "out"
    command = ["study", str(workplace / "study.gin"), f"--gin.RUN_DIR={out}", tuning.SEARCH]
    assert cli.main(command) == 0
    text = (out / "report.md").read_text().split("## Mixing and merging")[1]
    lines = [[cell.strip() for cell in line.strip()[1:-1].split("|")] for line in text.splitlines() if line[:1] == "|"]
    rows = [line for line in lines if len(line) == 8][2:6]
    assert [row[1] for row in rows] == ["mix 000", "mix 100", "slerp", "ties"]
    # The table's general answers from the evaluations' own summaries.
    measured = ("sft/mix_000", "sft/mix_100", "merge/merge_slerp", "merge/merge_ties")
    for row, key in zip(rows, measured, strict=True):
        tasks = json.loads((out / f"measure_{key}" / "evaluations/held_out.json").read_text())["tasks"]
        general = (tasks["general_en"]["bits_per_byte"] + tasks["general_fr"]["bits_per_byte"]) / 2
        assert float(row[6].split()[0]) == pytest.approx(general, abs=6e-4)
    assert find_model(str(out / "merge/merge_ties"), lambda text: None).config.embed_dim == 32

    drawn = (out / "report_figures/mixing.svg").read_text()
    assert all(f">{row[1]}<" in drawn for row in rows)

    (out / "report.md").unlink()
    assert cli.main(["report", f"--gin.ReportConfig.run_dir={out}"]) == 0
    assert text.partition("\n## ")[0] in (out / "report.md").read_text()  # of study.json alone: the same table again

    states = {path: path.read_text() for path in sorted((out / "state").glob("*/*.json"))}
    assert len(states) == 10
    assert cli.main(command) == 0
    assert {path: path.read_text() for path in states} == states  # nothing was done again
