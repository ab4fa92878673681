"""Looking up under a mesh: the rows of the table, and in the gradient each token's row added up, by NumPy."""

import json
import os
import subprocess
import sys

CASES = [
    {"mesh": {"fsdp": 8}, "rules": {}},
    {"mesh": {"fsdp": 4, "tensor": 2}, "rules": {}},
    {"mesh": {"slice": 2, "fsdp": 2, "data": 2}, "rules": {}},
    {"mesh": {"fsdp": 4, "context": 2}, "rules": {"embed": ["fsdp", "context"]}},
    {"mesh": {"fsdp": 2, "context": 2, "tensor": 2}, "rules": {"embed": ["context", "fsdp"]}},
    {"mesh": {"fsdp": 4, "data": 2}, "rules": {"batch": ["data"]}},
    {"mesh": {"data": 8, "fsdp": 1}, "rules": {"embed": None}},
]


def test_rows_and_gradient_under_meshes():
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "tests.kernels.emulated_embedding", json.dumps(CASES)]
    done = subprocess.run(command, env=os.environ | flags, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(results) == len(CASES)
    for case, result in zip(CASES, results, strict=True):
        assert result["rows"] == 0, (case, result)
        assert result["gradient"] < 1e-5, (case, result)
    # FSDP: tokens are gathered and rows exchanged; no device ever holds the whole table.
    assert {"all-gather", "all-to-all"} <= set(results[0]["collectives"])
    assert not results[0]["whole table"]
