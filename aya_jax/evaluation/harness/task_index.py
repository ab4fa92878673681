"""Finding the harness's tasks by name, without reading its fourteen thousand task files every time.

The names, and which folder each is in, are kept from the first run on, for each release of the harness; after that only the
folders that are wanted are read.
"""

from __future__ import annotations

import contextlib
import fnmatch
import json
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lm_eval.tasks
from lm_eval.tasks import TaskManager

from aya_jax.config import UserError
from aya_jax.config.files import write_atomic

HOME = Path(lm_eval.tasks.__file__).parent
_KEPT = "~/.cache/aya_jax/harness_tasks-{version}.json"


class TaskIndex:
    """The names of all tasks, groups and tags, and what loads them."""

    def __init__(self, folders: Sequence[str] = (), kept: str | None = _KEPT):
        """Reads the index, or makes it.

        Args:
          folders: with more task files.
          kept: where the index is, or is put; None reads everything now.
        """
        self._more = list(folders)
        file = Path(kept.format(version=version("lm_eval"))).expanduser() if kept else None
        self._theirs = (_read(file) if file else None) or _make(file)
        own = TaskManager(include_path=self._more, include_defaults=False) if self._more else None
        self._own = dict.fromkeys(own.all_tasks, "") if own else {}
        self._subtasks = {*self._theirs["tasks"], *(own.all_subtasks if own else ())}
        self.names = sorted({**self._theirs["folders"], **self._own})

    def match(self, pattern: str) -> list[str]:
        """A name as it is; of a pattern all tasks, not groups, that it fits."""
        return [pattern] if pattern in self.names else fnmatch.filter(sorted(self._subtasks), pattern)

    def loader(self, names: Sequence[str]) -> Callable[[str], dict[str, Any]]:
        """What gives the tasks that one of these names means: its own, or those of a group or tag.

        It raises a UserError for a task that runs what a model writes, which the harness would do in this process.
        """
        theirs = [name for name in names if name not in self._own]
        folders = sorted({self._theirs["folders"][name] for name in theirs})
        if "" in folders or set(theirs) & set(self._theirs["far"]):
            manager = TaskManager(include_path=self._more or None)
        else:
            manager = TaskManager(
                include_path=[HOME / folder for folder in folders] + self._more, include_defaults=False
            )

        def load(name: str) -> dict[str, Any]:
            if (manager.task_index[name].cfg or {}).get("unsafe_code"):
                raise UserError(
                    f"task {name} runs what the model writes, and the harness has no sandbox: it is not run"
                )
            return manager.load([name])["tasks"]

        return load


def _read(file: Path) -> dict | None:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and found.keys() == {"folders", "tasks", "far"} else None


def _make(file: Path | None) -> dict:
    """Names with the first folder below the harness's; names of tasks alone; names of groups that refer to other folders."""
    manager = TaskManager()
    folders: dict[str, str] = {}
    for name, entry in manager.task_index.items():
        path = entry.yaml_path
        folders[name] = path.relative_to(HOME).parts[0] if path and path.is_relative_to(HOME) else ""
    for tag in manager.all_tags:  # a tag is where its tasks are
        homes = {folders[task] for task in manager.task_index[tag].tags if task in folders}
        folders[tag] = homes.pop() if len(homes) == 1 else ""
    far = {
        group
        for group in manager.all_groups
        if any(folders.get(child, folders[group]) != folders[group] for child in _children(manager, group))
    }
    found = {"folders": folders, "tasks": manager.all_subtasks, "far": sorted(far)}
    if file is not None:
        with contextlib.suppress(OSError, UserError):  # made again the next time
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(file, json.dumps(found))
    return found


def _children(manager: TaskManager, group: str) -> list[str]:
    """Names in a group's list, whether bare or with settings; what is no name counts as being elsewhere."""
    members = (manager.task_index[group].cfg or {}).get("task") or []
    members = members if isinstance(members, list) else [members]
    return [
        str(member.get("task") or member.get("group")) if isinstance(member, dict) else str(member)
        for member in members
    ]
