"""Which rows each process reads, for meshes that cut a batch in every way."""

import jax
import numpy as np
import pytest

from aya_jax.config import UserError
from aya_jax.parallel.config import LogicalAxes, MeshConfig
from aya_jax.parallel.mesh import make_mesh
from aya_jax.training.placement import divide_rows, in_reading_order, place, row_share


def shares(blocks_by_process):
    """The share of each process, given the block of each of its devices."""
    placed = [(process, block) for process, blocks in enumerate(blocks_by_process) for block in blocks]
    return [divide_rows(placed, process) for process in range(len(blocks_by_process))]


@pytest.mark.parametrize(
    ("blocks", "parts"),
    [
        ([[0, 1, 2, 3]], [(0, 1)]),
        ([[0, 1], [2, 3]], [(0, 2), (1, 2)]),
        ([[0, 0], [1, 1]], [(0, 2), (1, 2)]),  # tensor axis within a process
        ([[0, 0], [0, 0]], [(0, 1), (0, 1)]),  # a model over both: each reads all rows
        ([[0], [0], [1], [1]], [(0, 2), (0, 2), (1, 2), (1, 2)]),
        ([[2, 3], [0, 1]], [(1, 2), (0, 2)]),
        ([[0, 2], [1, 3]], [(0, 2), (1, 2)]),  # a torus
    ],
)
def test_parts(blocks, parts):
    assert [(share.index, share.count) for share in shares(blocks)] == parts


def test_every_row_is_read_once_and_found_again():
    """Reads rows as a loader does, lays them out as the mesh has them, and asks for the order of reading."""
    read = np.arange(8 * 3).reshape(8, 3)
    for blocks in ([[0, 1], [2, 3]], [[0, 2], [1, 3]], [[3, 0], [2, 1]], [[1, 1], [0, 0]]):
        placed = np.full_like(read, -1)
        for share in shares(blocks):
            part = np.split(read, share.count)[share.index]
            rows = len(part) // len(share.blocks)
            for number, block in enumerate(share.blocks):
                placed[block * rows : (block + 1) * rows] = part[number * rows : (number + 1) * rows]
        assert sorted(placed[:, 0]) == sorted(read[:, 0])
        assert np.array_equal(in_reading_order(placed, shares(blocks)[0]), read)


@pytest.mark.parametrize("blocks", [[[0, 1], [1, 2]], [[0, 1, 2], [3]]])
def test_rows_that_processes_share_in_part_are_refused(blocks):
    with pytest.raises(UserError, match="some of another's rows"):
        shares(blocks)


def test_one_process_places_a_batch_as_it_is():
    mesh, rules = make_mesh(MeshConfig()), LogicalAxes()
    share = row_share(mesh, rules)
    assert (share.index, share.count) == (0, 1)
    rows = 2 * jax.device_count()
    batch = {"tokens": np.arange(rows * 6, dtype=np.int32).reshape(rows, 6)}
    placed = place(batch, mesh, rules)["tokens"]
    assert np.array_equal(placed, batch["tokens"])
