"""The scratch folder of an untrusted program, as its parent measures it and clears it away.

The names in it are a stranger's: thousands of levels deep, folders that nobody may read, links to anywhere. Nothing
here follows a link or recurses, and no path grows with the depth.
"""

from __future__ import annotations

import contextlib
import os
import secrets


def within(folder: str, most_bytes: int, most_files: int) -> bool:
    """Whether a folder holds no more than so many bytes on the disk, in so many files and folders.

    What cannot be looked at counts as too much: a path beyond the system's length, say.
    """
    pending, size, count = [folder], 0, 0
    while pending:
        try:
            for entry in _entries(pending.pop()):
                count += 1
                size += entry.stat(follow_symlinks=False).st_blocks * 512
                if size > most_bytes or count > most_files:
                    return False
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
        except OSError:
            return False
    return True


def remove_tree(folder: str) -> None:
    """Deletes a folder in which no process writes any more; one that is not there is no error.

    Where a folder lies in a folder, its entries are moved up to the top, under new names, until none is left.
    """
    with contextlib.suppress(FileNotFoundError):
        while entries := _entries(folder):
            for entry in entries:
                if not entry.is_dir(follow_symlinks=False):
                    os.unlink(entry.path)
                    continue
                for child in _entries(entry.path):
                    if child.is_dir(follow_symlinks=False):
                        os.chmod(child.path, 0o700)  # its ".." is about to change
                    os.rename(child.path, os.path.join(folder, secrets.token_hex(16)))
                os.rmdir(entry.path)
        os.rmdir(folder)


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except PermissionError:
        os.chmod(folder, 0o700)  # made with a mode that shuts its owner out
        with os.scandir(folder) as entries:
            return list(entries)
