"""The engine compiled for TPUs with libtpu, which has to be installed beside JAX (the extra `tpu`)."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed (the extra `tpu`)"),
]


@pytest.mark.parametrize("topology", ["v5e:2x2", "v5p:2x2x1"])
def test_no_program_lays_weights_or_cache_out_anew(topology):
    """A program that did would need as much memory again as what it copies."""
    command = [sys.executable, "tools/bench/engine_tpu.py", "gin/models/2_8b.gin", "--topology", topology]
    flags = {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1", "TPU_WORKER_HOSTNAMES": "localhost"}
    done = subprocess.run(command, cwd=ROOT, env=os.environ | flags, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    rows = re.findall(r"^\| (.+?) \| ([\d,]+) MiB \| ([\d,]+) MiB \| ([\d,]+) MiB \|$", done.stdout, re.MULTILINE)
    assert len(rows) == 5
    for name, *sizes in rows:
        given, beside, in_place = (int(size.replace(",", "")) for size in sizes)
        assert beside < 0.1 * given, name
        assert in_place > 0.5 * given, name
