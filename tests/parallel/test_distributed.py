"""What JAX's processes ask of each other, as far as one process shows it; tests/training/test_processes.py has two."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from jax._src import clusters

from aya_jax.config import UserError
from aya_jax.parallel.distributed import agree, check_shared, cloud_tpu_vm, host_of, process_info, whole
from aya_jax.parallel.launch import Launch


def test_one_process_needs_nothing(tmp_path):
    info = process_info()
    assert (info.index, info.count) == (0, 1)
    assert info.devices == info.local_devices == len(jax.devices())
    assert agree("text") == "text"
    assert agree(None) is None
    assert host_of(0) == "this machine"
    check_shared(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert whole(jnp.arange(3)).tolist() == [0, 1, 2]


@pytest.fixture
def metadata(monkeypatch):
    """Cloud TPU's metadata server, as one of a pod's hosts sees it; the test may change what it says."""
    said = {"agent-worker-number": "1", "worker-network-endpoints": "a:b:10.0.0.5,a:b:10.0.0.6", "tpu-env": "X: 'y'\n"}
    module = clusters.cloud_tpu_cluster
    monkeypatch.setattr(module, "running_in_cloud_tpu_vm", True)
    monkeypatch.setattr(module, "get_metadata", lambda key: (said[key], 200))
    for name in ("TPU_SKIP_MDS_QUERY", "MEGASCALE_COORDINATOR_ADDRESS", "MEGASCALE_NUM_SLICES", "MEGASCALE_SLICE_ID"):
        monkeypatch.delenv(name, raising=False)
    return said


def test_a_tpu_vm_is_found_by_its_metadata(metadata):
    assert cloud_tpu_vm() == Launch("TPU VM", "10.0.0.5:8482", 1, 2)


def test_a_single_tpu_vm_is_one_process(metadata):
    metadata |= {"agent-worker-number": "0", "worker-network-endpoints": "a:b:10.0.0.5"}
    assert cloud_tpu_vm() is None


def test_metadata_that_do_not_say_it_are_one_error(metadata):
    del metadata["worker-network-endpoints"]
    with pytest.raises(UserError, match="metadata server does not say which host") as caught:
        cloud_tpu_vm()
    assert "\n" not in str(caught.value)


def test_a_machine_without_tpus_asks_nobody():
    assert cloud_tpu_vm() is None
