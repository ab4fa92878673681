"""Atomic writes."""

import errno
import os

import pytest

from aya_jax.config import UserError
from aya_jax.config.files import write_atomic


def test_text_and_bytes_in_new_folders(tmp_path):
    write_atomic(tmp_path / "a" / "b" / "text", "één\n")
    write_atomic(tmp_path / "a" / "bytes", b"\x00\xff")
    assert (tmp_path / "a/b/text").read_bytes() == "één\n".encode()
    assert (tmp_path / "a/bytes").read_bytes() == b"\x00\xff"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "b", "bytes", "text"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failure_at_any_step_leaves_the_old_file_and_nothing_beside_it(tmp_path, monkeypatch, step):
    write_atomic(tmp_path / "file", "old")

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(UserError, match="the disk is full; free some space"):
        write_atomic(tmp_path / "file", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "old"


def test_a_file_where_a_folder_is_needed_and_a_folder_where_the_file_goes(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="a file is in the way of a folder"):
        write_atomic(tmp_path / "file" / "x", "new")
    (tmp_path / "folder" / "x").mkdir(parents=True)
    with pytest.raises(UserError, match="a folder is in the way"):
        write_atomic(tmp_path / "folder", "new")


def test_a_real_limit_of_the_file_system(tmp_path):
    with pytest.raises(UserError, match="the name is too long"):
        write_atomic(tmp_path / ("x" * 300), "new")
