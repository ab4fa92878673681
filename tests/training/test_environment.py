import json
import subprocess

import jax
import numpy as np
import pytest

from aya_jax.training import environment


@pytest.mark.parametrize(
    ("kind", "teraflops"),
    [
        ("NVIDIA H200", 989.4),
        ("NVIDIA H100 80GB HBM3", 989.4),
        ("NVIDIA H100 PCIe", 756.5),
        ("NVIDIA H100 NVL", 835.5),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("TPU v4", 275),
        ("TPU v5", 459),
        ("TPU v5p", 459),
        ("TPU v5 lite", 197),
        ("TPU v5e", 197),
        ("TPU v6 lite", 918),
        ("TPU v6e", 918),
    ],
)
def test_published_peaks(kind, teraflops):
    assert environment.peak_flops(kind) == pytest.approx(teraflops * 1e12)


@pytest.mark.parametrize("kind", ["cpu", "Tesla V100-SXM2-16GB", "AMD Instinct MI300X", ""])
def test_no_peak_is_made_up(kind):
    assert environment.peak_flops(kind) is None


def test_description_is_json_and_names_what_results_depend_on():
    described = environment.describe()
    assert json.loads(json.dumps(described)) == described
    assert described["packages"]["jax"] == jax.__version__
    assert described["packages"]["numpy"] == np.__version__
    assert described["devices"] == jax.device_count()


def test_commit_is_that_of_this_code_only(tmp_path, monkeypatch):
    """A copy installed inside another project's checkout is not of that project's commit."""
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "other"], check=True)
    package = tmp_path / "site-packages" / "aya_jax"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    monkeypatch.setattr(environment.aya_jax, "__file__", str(package / "__init__.py"))
    assert environment.describe()["commit"] is None
    subprocess.run([*git, "add", "-A"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "ours"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    assert environment.describe()["commit"] == head
    (package / "__init__.py").write_text("changed = True")
    assert environment.describe()["commit"] == f"{head}+changes"
