"""Parts that are computed once, whatever stops the run."""

from __future__ import annotations

import numpy as np
import pytest

from aya_jax.config import UserError
from aya_jax.selection.kept import kept_parts


def squares(some):
    return np.arange(some.start, some.stop, dtype=np.float32)[:, None] ** 2


def test_what_was_there_is_not_computed_again(tmp_path):
    asked, told = [], []

    def stops(some):
        if some.start == 6:
            raise KeyboardInterrupt
        asked.append(some.start)
        return squares(some)

    with pytest.raises(KeyboardInterrupt):
        kept_parts(tmp_path / "parts", 10, 3, stops, told.append)

    def goes_on(some):
        asked.append(some.start)
        return squares(some)

    found = kept_parts(tmp_path / "parts", 10, 3, goes_on, told.append)
    assert asked == [0, 3, 6, 9]
    assert told == [3, 3, 3, 3, 3, 1]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[:, 0], np.arange(10) ** 2)


def test_damaged_parts_and_those_of_other_rows_are_named(tmp_path):
    kept_parts(tmp_path, 4, 3, squares, lambda count: None)
    (tmp_path / "000000.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(UserError, match=r"000000.npy: damaged .* remove it"):
        kept_parts(tmp_path, 4, 3, squares, lambda count: None)
    np.save(tmp_path / "000000.npy", np.zeros((2, 1), np.float32))
    with pytest.raises(UserError, match=r"000000.npy: \(2, 1\) values, which are not those of 3 rows"):
        kept_parts(tmp_path, 4, 3, squares, lambda count: None)
    np.save(tmp_path / "000000.npy", np.zeros((3, 2), np.float32))
    with pytest.raises(UserError, match=r"000001.npy"):
        kept_parts(tmp_path, 4, 3, squares, lambda count: None)
