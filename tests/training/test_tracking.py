import json
import sys
import types

import pytest

from aya_jax.config import UserError
from aya_jax.training import tracking
from aya_jax.training.config import TrackingConfig
from aya_jax.training.tracking import METRICS, Trackers, finite

JSONL_ONLY = TrackingConfig(tensorboard=False)


def record(step, kind="train", **numbers):
    return {"step": step, "tokens": 8 * step, "wall_time": 1.5, "kind": kind, **numbers}


def lines(run_dir):
    return [json.loads(line) for line in (run_dir / METRICS).read_text(encoding="utf-8").splitlines()]


def test_records_can_be_read_while_the_run_goes(tmp_path):
    with Trackers(JSONL_ONLY, tmp_path, 0, {}) as trackers:
        trackers.write(record(1, loss=0.1 + 0.2))
        assert lines(tmp_path) == [record(1, loss=0.30000000000000004)]


def test_resuming_drops_what_came_after_and_a_line_cut_short(tmp_path):
    with Trackers(JSONL_ONLY, tmp_path, 0, {}) as trackers:
        for step in (2, 4, 6):
            trackers.write(record(step))
        trackers.write(record(4, "validation"))
        trackers.write(record(5, "event", event="skipped"))
    with open(tmp_path / METRICS, "a", encoding="utf-8") as file:
        file.write('{"step": 3, "tok')
    with Trackers(JSONL_ONLY, tmp_path, 4, {}) as trackers:
        assert trackers.kinds_at_start == {"train", "validation"}
        trackers.write(record(8))
    assert [(r["step"], r["kind"]) for r in lines(tmp_path)] == [
        (2, "train"),
        (4, "train"),
        (4, "validation"),
        (8, "train"),
    ]


@pytest.mark.parametrize("line", [b"\xff\xfe\n", b"{}\n", b"[1]\n", b"\n"])
def test_a_line_that_is_no_record_is_named(tmp_path, line):
    (tmp_path / METRICS).write_bytes(
        json.dumps(record(1)).encode() + b"\n" + line + json.dumps(record(2)).encode() + b"\n"
    )
    with pytest.raises(UserError, match=r"metrics\.jsonl:2: not a record"):
        Trackers(JSONL_ONLY, tmp_path, 5, {})


def test_what_json_cannot_say_becomes_null(tmp_path):
    with Trackers(JSONL_ONLY, tmp_path, 0, {}) as trackers:
        trackers.write(record(1, loss=float("nan"), perplexity=float("inf"), mfu=None))
    assert lines(tmp_path)[0] == record(1, loss=None, perplexity=None, mfu=None)
    assert finite({"a": float("-inf"), "b": 1}) == {"a": None, "b": 1}


def test_a_further_process_writes_nothing_and_sees_the_same(tmp_path):
    with Trackers(JSONL_ONLY, tmp_path, 0, {}) as trackers:
        trackers.write(record(3, "validation"))
        trackers.write(record(5))
    before = (tmp_path / METRICS).read_bytes()
    with Trackers(TrackingConfig(), tmp_path, 3, {}, writer=False) as trackers:
        assert trackers.kinds_at_start == {"validation"}
        trackers.write(record(4))
    assert (tmp_path / METRICS).read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [METRICS]


def test_tensorboard_has_the_same_numbers(tmp_path):
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event

    with Trackers(TrackingConfig(), tmp_path, 0, {}) as trackers:
        trackers.write(record(7, loss=2.5, mfu=None, event="no number"))
    (file,) = (tmp_path / "tensorboard").iterdir()
    data, found, at = file.read_bytes(), {}, 0
    while at < len(data):  # TFRecord: length (8), its crc (4), the message, its crc (4)
        length = int.from_bytes(data[at : at + 8], "little")
        event = Event.FromString(data[at + 12 : at + 12 + length])
        found |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
        at += 16 + length
    assert found == {("train/tokens", 7): 56.0, ("train/loss", 7): 2.5}


def test_wandb_runs_of_one_name_in_two_places_are_two(tmp_path, monkeypatch):
    calls = []

    class Run:
        def log(self, numbers, step):
            calls.append((step, numbers))

        def finish(self):
            calls.append("finished")

    fake = types.ModuleType("wandb")
    fake.init = lambda **arguments: calls.append(arguments) or Run()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    config = TrackingConfig(tensorboard=False, wandb_project="aya")
    for place in ("a", "b", "a"):
        (tmp_path / place / "seed_0").mkdir(parents=True, exist_ok=True)
        with Trackers(config, tmp_path / place / "seed_0", 0, {"steps": 3}) as trackers:
            trackers.write(record(1, loss=2.0))
    starts = [call for call in calls if isinstance(call, dict)]
    assert [call["name"] for call in starts] == ["seed_0"] * 3
    assert starts[0]["id"] == starts[2]["id"] != starts[1]["id"]
    assert starts[0]["project"] == "aya"
    assert starts[0]["config"] == {"steps": 3}
    assert calls[1:3] == [(1, {"train/tokens": 8, "train/loss": 2.0}), "finished"]


def test_a_tracker_that_cannot_close_is_heard_and_the_others_close(tmp_path, monkeypatch):
    closed = []

    def fail(self):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tracking.JsonlTracker, "close", fail)
    monkeypatch.setattr(tracking.TensorBoardTracker, "close", lambda self: closed.append(1))
    with pytest.raises(UserError, match=r"last records could not be written.*No space left"):
        close_at_once(tmp_path)
    assert closed == [1]


def close_at_once(run_dir):
    with Trackers(TrackingConfig(), run_dir, 0, {}):
        pass


def test_without_wandb_the_user_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match="pip install wandb"):
        Trackers(TrackingConfig(tensorboard=False, wandb_project="aya"), tmp_path, 0, {})
