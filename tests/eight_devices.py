"""Python with eight emulated devices, in a process of its own: their number is fixed when JAX starts."""

import os
import subprocess
import sys

FLAGS = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}


def run(*arguments: object, timeout: float = 600) -> str:
    """What `python ARGUMENTS` prints; it is to succeed."""
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, env=os.environ | FLAGS, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout
