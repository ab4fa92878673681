"""Memory of tensors in files, by what the kernel counts."""

import re
from pathlib import Path

import numpy as np
import pytest

from aya_jax.merging.pages import FileBlocks, release
from aya_jax.merging.scan import first_not_finite
from aya_jax.merging.tensor import HostBlocks

SIZE = 192 << 20


def resident() -> int:
    """Bytes of files' pages that are in this process's memory."""
    return int(re.search(r"RssFile:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) << 10


@pytest.fixture
def pages(tmp_path):
    """A table of float32 in a file, as readers give it: a plain array over a file's pages."""
    file = tmp_path / "table"
    np.arange(SIZE // 4, dtype=np.float32).tofile(file)
    return np.asarray(np.memmap(file, np.uint8, "r", 0, (SIZE,))).view(np.float32).reshape(-1, 4096)


def highest(blocks, before):
    most = 0
    for number in range(blocks.count):
        blocks.block(number).sum().block_until_ready()  # a block may be the file's own pages until it is used
        most = max(most, resident() - before)
    return most


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="counts pages by Linux's /proc")
def test_a_tensor_is_never_in_memory_whole(pages):
    FileBlocks(pages).block(0).sum().block_until_ready()
    assert first_not_finite(pages) is None
    release(pages)
    before = resident()
    assert highest(FileBlocks(pages), before) < 0.5 * SIZE
    assert first_not_finite(pages) is None
    assert resident() - before < 0.8 * SIZE
    release(pages)
    assert resident() - before < 0.1 * SIZE
    assert highest(HostBlocks(pages), before) > 0.8 * SIZE  # so that the bounds above say something


def test_pages_that_were_let_go_of_are_read_again(pages):
    blocks = FileBlocks(pages)
    first = np.asarray(blocks.block(0))
    release(pages)
    np.testing.assert_array_equal(np.asarray(blocks.block(0)), first)
    assert pages[-1, -1] == np.float32(SIZE // 4 - 1)
    release(np.zeros(3))  # no pages of a file
