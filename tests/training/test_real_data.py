"""All 23 languages and all kinds of code of a real corpus, from text to validation, by the commands that a user types."""

import json
import os
import subprocess
import sys

import pytest

AYA_DATA = os.environ.get("AYA_DATA")
LANGUAGES = [
    "ar",
    "cs",
    "de",
    "el",
    "en",
    "es",
    "fa",
    "fr",
    "he",
    "hi",
    "id",
    "it",
    "ja",
    "ko",
    "nl",
    "pl",
    "pt",
    "ro",
    "ru",
    "tr",
    "uk",
    "vi",
    "zh",
]
DOMAINS = ["text", "web_code", "markup", "quality_code", "code_adjacent"]


def aya(*arguments):
    command = [sys.executable, "-m", "aya_jax", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.real_data
@pytest.mark.slow
def test_bits_per_byte_falls_in_every_language_and_kind(tmp_path):
    stores, run_dir = tmp_path / "stores", tmp_path / "run"
    where = (f"--gin.STORE_DIR={stores}", f"--gin.DATA_DIR={AYA_DATA}", "--gin.VOCABULARY=bytes")
    aya("prepare", "gin/prepare/corpus.gin", *where)
    aya(
        *("train", "gin/train/pretrain.gin", "gin/models/test.gin", "gin/mixtures/text_and_code.gin"),
        *(f"--gin.RUN_DIR={run_dir}", f"--gin.STORE_DIR={stores}", "--gin.TransformerConfig.vocab_size=264"),
        *("--gin.STEPS=120", "--gin.LEARNING_RATE=3e-3", "--gin.ScheduleConfig.warmup_steps=10"),
        *(
            "--gin.ValidationConfig.every=30",
            "--gin.ValidationConfig.max_tokens=4096",
            "--gin.MixtureConfig.temperature=3.0",
        ),
    )
    records = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    first, *_, last = (record for record in records if record["kind"] == "validation")
    names = [f"language/{language}/bits_per_byte" for language in LANGUAGES]
    names += [f"domain/{domain}/bits_per_byte" for domain in DOMAINS]
    assert {name for name in last if name.startswith(("language/", "domain/"))} == set(names)
    assert not [name for name in names if not last[name] < first[name] < 8.0]
