"""A verb that costs nothing: as a module its configuration class, as a script what `aya fake` would do.

As a script it imports nothing of the package. It appends a line to `RUN_DIR/attempts` and `STUDY/order`, fails while
the file `marker` exists, and sleeps for `seconds`, ended by SIGTERM.
"""

from __future__ import annotations

import ast
import sys
import time
from pathlib import Path


def main(arguments: list[str]) -> int:
    values = {}
    for argument in arguments[1:]:
        name, _, text = argument.removeprefix("--gin.FakeConfig.").partition("=")
        try:
            values[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            values[name] = text
    directory = Path(values["run_dir"])
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "attempts").open("a") as file:
        file.write("attempt\n")
    with Path(values["order"]).open("a") as file:
        file.write(f"{directory.parent.name}/{directory.name}\n")
    if values.get("source") and not (Path(values["source"]) / "attempts").is_file():
        print("the input is not there")
        return 3
    if values.get("marker") and Path(values["marker"]).exists():
        print("starting\n\nboom: the marker is there")
        return 7
    print("sleeping", flush=True)
    time.sleep(values.get("seconds", 0.0))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

from collections.abc import Iterator  # noqa: E402  (the script above needs none of this)
from dataclasses import dataclass  # noqa: E402

from aya_jax.config import Problem, configurable  # noqa: E402


@configurable
@dataclass(frozen=True, kw_only=True)
class FakeConfig:
    """The fake verb's configuration."""

    NOT_IN_FINGERPRINT = ("run_dir",)

    run_dir: str
    order: str
    value: int = 0
    source: str = ""
    marker: str = ""
    seconds: float = 0.0

    def validate(self) -> Iterator[Problem]:
        if self.value < 0:
            yield Problem("value", "at least 0")
