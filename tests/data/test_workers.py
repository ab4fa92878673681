"""Workers of the pool that are lost."""

import pytest

from aya_jax.config import UserError
from aya_jax.data import workers
from aya_jax.data.shards import ShardJob, TaskSpec


@pytest.mark.slow
def test_a_killed_worker_is_reported_in_words(tmp_path, monkeypatch):
    (tmp_path / "killer.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    spec = TaskSpec("text_de", "sample", 80, modules=("killer",))
    jobs = [ShardJob(spec, {"train": str(tmp_path / "store")}, shard, 2, "bytes") for shard in range(2)]
    with pytest.raises(UserError, match=r"a worker was killed.*finished shards are kept"):
        list(workers.run(jobs, 2, lambda *counts: None))
