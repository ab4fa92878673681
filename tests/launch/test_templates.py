"""The launch templates parse, stay small, and start commands that resolve."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from aya_jax import cli
from aya_jax.config import resolve
from aya_jax.parallel.launch import LaunchFlags, detect

ROOT = Path(__file__).parents[2]
TEMPLATES = sorted((ROOT / "launch").iterdir())
PLACES = {"process_index": "1", "process_count": "2"}


def commands(file):
    """The `aya` command lines of a template, as words; what the shell puts in stays as it is written."""
    text = re.sub(r"(?m)^\s*#.*$", "", file.read_text(encoding="utf-8"))
    if file.suffix == ".yaml":
        yaml = pytest.importorskip("yaml")
        texts = [value for value in strings(yaml.safe_load(text)) if "aya train" in value]
    else:
        texts = [text]
    joined = "\n".join(texts).replace("\\\n", " ")
    found = re.findall(r"(?:^|[\s/])aya ((?:train|evaluate) .*?)(?: &)?\n", joined + "\n")
    return [shlex.split(line[:-1] if line.count('"') % 2 else line) for line in found]  # ssh --command="... aya ..."


def strings(value):
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [text for part in value for text in strings(part)]
    return [value] if isinstance(value, str) else []


def test_there_is_one_for_each_scheduler():
    names = {"local.sh", "slurm.sbatch", "gke_jobset.yaml", "tpu_queued_resource.sh", "skypilot.yaml"}
    assert {file.name for file in TEMPLATES} == names


@pytest.mark.parametrize("file", TEMPLATES, ids=lambda file: file.name)
def test_it_parses_and_says_what_to_fill_in(file):
    lines = file.read_text(encoding="utf-8").splitlines()
    assert len(lines) < 40
    head = " ".join(line.lstrip("# ") for line in lines[: next(i for i, line in enumerate(lines) if line[:1] != "#")])
    assert "Fill in: " in head
    if file.suffix != ".yaml":
        subprocess.run(["bash", "-n", file], check=True)


@pytest.mark.parametrize("file", TEMPLATES, ids=lambda file: file.name)
def test_its_commands_resolve(file, monkeypatch):
    monkeypatch.chdir(ROOT)
    found = commands(file)
    assert len(found) == 1
    (words,) = found
    words = [f"--{name}={PLACES[name]}" if (name := word[2:].partition("=")[0]) in PLACES else word for word in words]
    arguments = cli.parse_arguments([word for word in words if word != "$@"])
    verb = cli.VERBS[arguments.words[0]]
    steps = () if any("STEPS=" in binding for binding in arguments.bindings) else ("--gin.STEPS=1000",)
    resolved = resolve(cli.load(verb.root), files=list(arguments.words[1:]), bindings=[*arguments.bindings, *steps])
    assert resolved.config.run_dir
    assert set(arguments.processes) in (set(), {"coordinator_address", *PLACES})


def test_the_job_set_s_variables_are_understood():
    yaml = pytest.importorskip("yaml")
    job_set = yaml.safe_load((ROOT / "launch" / "gke_jobset.yaml").read_text(encoding="utf-8"))
    (job,) = job_set["spec"]["replicatedJobs"]
    pods = job["template"]["spec"]
    (container,) = pods["template"]["spec"]["containers"]
    environ = {variable["name"]: variable["value"] for variable in container["env"]}
    launch = detect(environ | {"JOB_COMPLETION_INDEX": "1"}, LaunchFlags())  # Kubernetes adds the index
    assert (launch.index, launch.count) == (1, pods["parallelism"])
    # JobSet's name for the first pod: <set>-<job>-<job's number>-<pod's number>.<set>
    name = job_set["metadata"]["name"]
    assert launch.coordinator == f"{name}-{job['name']}-0-0.{name}:1234"
