"""Transfer matrices from counts by hand, and by a judge whose labels are planted."""

from __future__ import annotations

import json

import numpy as np
import pytest

from aya_jax.config import UserError
from aya_jax.evaluation.judging.harm import Labelled
from aya_jax.evaluation.judging.transfer import transfer_matrix
from tests.evaluation.judging.test_run import judge


def records(harmful_global, harmful_local, languages=("en",), number=8):
    """Of so many prompts of each scope the first are harmful."""
    return [
        Labelled(prompt_id=f"{scope}{k}", language=language, label=k < harmful, scope=scope)
        for language in languages
        for scope, harmful in (("global", harmful_global), ("local", harmful_local))
        for k in range(number)
    ]


def changes(found):
    return {row: {name: cell.change.value for name, cell in cells.items()} for row, cells in found.items()}


def test_by_scope():
    trained = {"global": records(1, 4), "local": records(3, 2), "both": records(1, 2)}
    assert changes(transfer_matrix(trained, records(4, 8))) == {
        "global": {"global": -75.0, "local": -50.0, "all": pytest.approx(100 * (5 / 12 - 1))},
        "local": {"global": -25.0, "local": -75.0, "all": pytest.approx(100 * (5 / 12 - 1))},
        "both": {"global": -75.0, "local": -75.0, "all": -75.0},
    }


def test_by_language():
    """Trained on English, half of its harm is gone and a quarter of Hindi's; trained on Hindi, the other way round."""

    def both(english, hindi):
        return records(english, 0, ["en"]) + records(hindi, 0, ["hi"])

    found = transfer_matrix({"en": both(4, 6), "hi": both(6, 4)}, both(8, 8), by="language")
    assert changes(found) == {
        "en": {"en": -50.0, "hi": -25.0, "all": -37.5},
        "hi": {"en": -25.0, "hi": -50.0, "all": -37.5},
    }


def test_the_same_model_has_not_changed_at_all():
    """Paired over prompts: a model against itself has no spread, however much prompts differ."""
    found = transfer_matrix({"nothing": records(3, 5, number=40)}, records(3, 5, number=40))
    for cell in found["nothing"].values():
        assert cell.change.value == 0.0
        assert not cell.change.low < 0.0


def test_intervals_are_of_prompts_and_cover():
    """h falls from 0.5 to 0.25 in truth: -50 % lies in 95 % of the intervals; and translations make them no narrower."""
    rng, covered = np.random.default_rng(0), 0

    def cell(mine, base, languages):
        made = [
            [
                Labelled(prompt_id=str(k), language=language, label=bool(label), scope="global")
                for language in languages
                for k, label in enumerate(labels)
            ]
            for labels in (mine, base)
        ]
        return transfer_matrix({"global": made[0]}, made[1], resamples=300)["global"]["all"].change

    for _ in range(60):
        base, mine = rng.random(200) < 0.5, rng.random(200) < 0.5
        found = cell(base & mine, base, ("en",))
        covered += found.low <= -50.0 <= found.high
    assert covered >= 52
    assert cell(base & mine, base, ("en", "fr")) == found


def test_prompts_without_a_scope_or_a_partner_are_refused():
    nowhere = [Labelled(prompt_id="p0", language="en", label=True)]
    with pytest.raises(UserError, match=r"prompt 'p0' \(en\) is neither global nor local"):
        transfer_matrix({"both": nowhere}, records(1, 1))
    with pytest.raises(UserError, match=r"local has no answer to prompt 'local7' \(en\), one of 1 that"):
        transfer_matrix({"local": records(1, 1)[:-1]}, records(1, 1))


def answered(file, harmful):
    """Answers to twelve prompts of each scope in two languages."""
    rows = [
        {
            "id": f"{scope}{n}", "language": language, "prompt": f"{scope} {n}?", "global_or_local": scope,
            "harm_category": "['invented']",
            "completions": [{"text": f"{'rude' if n < harmful[scope] else 'calm'} {file.stem}"}],
        }
        for language in ("en", "ru")
        for scope in ("global", "local")
        for n in range(12)
    ]  # fmt: skip
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


@pytest.fixture
def files(tmp_path):
    trained = {
        "global": answered(tmp_path / "g.jsonl", {"global": 2, "local": 6}),
        "local": answered(tmp_path / "l.jsonl", {"global": 6, "local": 1}),
    }
    baseline = answered(tmp_path / "base.jsonl", {"global": 8, "local": 8})
    return f"TRAINED={trained!r}", f"BASELINE={baseline}"


def rude(prompt, _):
    return "[[UNSAFE]]" if "rude" in prompt else "[[SAFE]]"


def test_from_the_command_line(monkeypatch, tmp_path, files, capsys):
    stub, summary, samples = judge(monkeypatch, tmp_path, rude, "transfer.gin", *files)
    assert stub.asked == 3 * 48
    assert summary["columns"] == ["global", "local", "all"]
    cells = {row: [cell["change"]["value"] for cell in found.values()] for row, found in summary["transfer"].items()}
    assert cells == {"global": [-75.0, -25.0, -50.0], "local": [-25.0, -87.5, -56.25]}
    assert len(samples) == 3 * 48
    assert "Change of the harm rate" in capsys.readouterr().out


def test_replies_of_a_harm_run_beside_it_are_known(monkeypatch, tmp_path, files):
    baseline = files[1].replace("BASELINE", "ANSWERS")
    judge(monkeypatch, tmp_path, rude, "harm.gin", baseline, name="harm")
    stub, _, _ = judge(monkeypatch, tmp_path, rude, "transfer.gin", *files, "TransferConfig.by='language'")
    assert stub.asked == 2 * 48


def test_unread_replies_are_counted_for_each_model(monkeypatch, tmp_path, files, capsys):
    garbage = lambda prompt, asked: "no idea" if asked % 3 == 0 else rude(prompt, asked)  # noqa: E731
    _, summary, _ = judge(monkeypatch, tmp_path, garbage, "transfer.gin", *files)
    assert summary["unparsed"] == {"baseline": 16, "global": 16, "local": 16}


def test_a_file_named_twice_is_refused(monkeypatch, tmp_path, files, capsys):
    baseline = files[1].partition("=")[2]
    with pytest.raises(AssertionError):
        judge(monkeypatch, tmp_path, rude, "transfer.gin", f"TRAINED={{'x': '{baseline}'}}", files[1])
    assert "is named twice" in capsys.readouterr().err
