"""The code-in-pretraining study at paper scale: token ledgers of the resolved runs against the paper's table."""

from __future__ import annotations

import pytest

from aya_jax.config import ConfigError, resolve
from aya_jax.studies.config import StudyConfig
from aya_jax.studies.ledger import shares, total_tokens
from aya_jax.studies.plan import make_plan, resolve_jobs
from aya_jax.studies.runs import CODE_KINDS, tags_of

STEP = 512 * 8192  # tokens of one step: sequences of a batch x tokens of a sequence
BILLION = 1e9

# "To Code, or Not To Code?" (arXiv 2408.10914): (text, code) in billions of tokens for each stage of each path.
PRETRAIN = {"text": (400, 0), "balanced": (200, 200), "balanced_text": (100, 100), "code_text": (0, 200)}
CONTINUE = {"balanced_text": (180, 20), "code_text": (180, 20)}
COOLDOWN = {"code": (32, 8), "text": (40, 0)}
PROPORTIONS = {"000": 0, "025": 25, "050": 50, "075": 75, "090": 90, "100": 100}  # percent of 200B


def plan(name: str, *files: str, bindings: tuple[str, ...] = ()):
    resolved = resolve(
        StudyConfig,
        [f"gin/studies/to_code/{name}.gin", *(f"gin/studies/to_code/{file}.gin" for file in files)],
        ["RUN_DIR=runs/x", *bindings],
    )
    return make_plan(resolved.config)


def tokens(resolved) -> tuple[float, float]:
    """(text, code) tokens of a resolved training configuration."""
    total = total_tokens(resolved.snapshot)
    split = shares(resolved.config.data.mixture.rates, 1.0, {})
    code = sum(share for task, share in split.items() if tags_of(task)[1] in CODE_KINDS)
    return total * (1 - code), total * code


def expected(job) -> tuple[float, float]:
    coordinates = dict(job.variant.coordinates)
    if "code" in coordinates:
        code = PROPORTIONS[coordinates["code"]]
        return 2.0 * (100 - code), 2.0 * code
    if "cooldown" in coordinates:
        return COOLDOWN[coordinates["cooldown"]]
    return {"pretrain": PRETRAIN, "continue": CONTINUE}[job.stage][coordinates["path"]]


@pytest.mark.parametrize("scale", [(), ("2_8b",)], ids=["470m", "2_8b"])
@pytest.mark.parametrize(("study", "runs"), [("variants", 14), ("proportions", 6)])
def test_token_ledgers_are_the_papers_within_one_step(study, runs, scale):
    jobs = [job for job in plan(study, *scale, bindings=("STORE_DIR=stores",)) if job.verb == "train"]
    assert len(jobs) == runs
    for key, resolved in resolve_jobs(jobs).items():
        job = next(job for job in jobs if job.key == key)
        assert resolved.config.data.global_batch * resolved.config.data.sequence_length == STEP
        for got, billions in zip(tokens(resolved), expected(job), strict=True):
            assert abs(got - billions * BILLION) <= STEP, key


def test_schedules_end_where_the_paper_says():
    jobs = [job for job in plan("variants", bindings=("STORE_DIR=stores",)) if job.verb == "train"]
    for key, resolved in resolve_jobs(jobs).items():
        schedule = resolved.config.optimizer.schedule
        if key.startswith("cooldown"):
            assert (schedule.kind, schedule.final_learning_rate, schedule.warmup_steps) == ("linear", 1e-6, 0)
            assert resolved.config.optimizer.learning_rate == 8e-6  # cosine's end: the rate goes on without a jump
        else:
            assert (schedule.kind, schedule.final_learning_rate, schedule.warmup_steps) == ("cosine", 8e-6, 1325)


def test_each_stage_starts_from_the_model_of_the_one_before():
    jobs = {job.key: job for job in plan("variants", bindings=("STORE_DIR=stores",))}
    starts = {
        "continue/path_code_text-seed_1": "runs/x/pretrain/path_code_text-seed_1",
        "cooldown/path_text-cooldown_code-seed_1": "runs/x/pretrain/path_text-seed_1",
        "cooldown_continued/path_code_text-seed_1-cooldown_text": "runs/x/continue/path_code_text-seed_1",
    }
    for key, start in starts.items():
        assert jobs[key].bindings["MODEL_DIR"] == start
    assert "MODEL_DIR" not in jobs["pretrain/path_text-seed_1"].bindings


@pytest.mark.parametrize(("study", "jobs"), [("quickstart", 20), ("miniature", 30)])
def test_every_job_of_the_miniatures_is_a_whole_configuration(study, jobs):
    planned = plan(study)
    assert len(planned) == jobs
    assert len(resolve_jobs(planned)) == jobs


def test_miniature_keeps_the_proportions_of_the_ledger():
    jobs = [job for job in plan("miniature") if job.verb == "train"]
    steps = {key: resolved.config.steps for key, resolved in resolve_jobs(jobs).items()}
    longest = max(steps.values())
    for job in jobs:
        assert steps[job.key] == pytest.approx(longest * sum(expected(job)) / 400)


def test_a_scale_that_is_none_is_reported():
    with pytest.raises(ConfigError, match="no file"):
        plan("variants", "7b", bindings=("STORE_DIR=stores",))
