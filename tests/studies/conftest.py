"""Studies made of a fake verb, run as they are in earnest: through gin, the plan and processes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from aya_jax import cli
from aya_jax.config import Resolved, resolve
from aya_jax.studies import study
from aya_jax.studies.config import StudyConfig
from aya_jax.studies.plan import Job
from tests.studies import fake_verb

STUDY = """
StudyConfig.run_dir = %RUN_DIR
StudyConfig.stages = (@first/StageConfig(), @second/StageConfig(), @last/StageConfig())

first/StageConfig:
  name = 'first'
  verb = 'fake'
  output = 'FakeConfig.run_dir'
  bindings = {'FakeConfig.order': '{study}/order'}

second/StageConfig:
  name = 'second'
  verb = 'fake'
  output = 'FakeConfig.run_dir'
  needs = ('first',)
  bindings = {'FakeConfig.order': '{study}/order', 'FakeConfig.source': '{first}'}
  sweep = @grid/Product()
grid/Product.of = (@code/Choices(), @seed/Values())
code/Choices.name = 'code'
code/Choices.choices = {'00': {'FakeConfig.marker': 'none'}, '25': {'FakeConfig.marker': '{study}/marker'}}
seed/Values.name = 'seed'
seed/Values.binding = 'FakeConfig.value'
seed/Values.values = (1, 2)

last/StageConfig:
  name = 'last'
  verb = 'fake'
  output = 'FakeConfig.run_dir'
  needs = ('second',)
  bindings = {'FakeConfig.order': '{study}/order', 'FakeConfig.source': '{second}'}
  sweep = @grid/Product()
"""


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    """`aya fake`: its class in this process, its script in those that a study starts."""
    verb = cli.Verb("tests.studies.fake_verb:FakeConfig", "tests.studies.fake_verb:main", "nothing")
    monkeypatch.setitem(cli.VERBS, "fake", verb)
    script = str(Path(fake_verb.__file__))
    monkeypatch.setattr(Job, "command", property(lambda job: [sys.executable, script, *job.arguments]))


@pytest.fixture
def make(fake: None, tmp_path: Path) -> Callable[..., Resolved]:
    """Resolves the study above, or another text, with further bindings."""

    def resolved(*bindings: str, text: str = STUDY) -> Resolved:
        file = tmp_path / "study.gin"
        file.write_text(text)
        return resolve(StudyConfig, [file], [f"RUN_DIR={tmp_path / 'out'}", *bindings])

    return resolved


@pytest.fixture
def run(make: Callable[..., Resolved], monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs the study; it trains nothing, so its report is left out."""
    monkeypatch.setattr(study, "write_report", lambda config, console: None)
    monkeypatch.setattr(study, "POLL_SECONDS", 0.02)
    return lambda *bindings, text=STUDY: study.run(make(*bindings, text=text))
