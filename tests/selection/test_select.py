"""`aya select` as a user types it, on rows whose clusters and qualities are known."""

from __future__ import annotations

import json

import numpy as np
import pytest

from aya_jax import cli

BLOBS, EACH = 4, 30
LEFT_OUT = ""  # a binding that a test does without


def blobs(tmp_path, quality=lambda blob, number: 1.0 + number, **more):
    """Rows in four blobs far from each other, and their embeddings."""
    rng = np.random.default_rng(0)
    rows, vectors = [], []
    for blob in range(BLOBS):
        for number in range(EACH * (blob + 1)):
            rows.append(
                {
                    "prompt": f"question {number} of {blob}",
                    "response": f"answer {number}",
                    "id": f"{blob}-{number}",
                    "blob": blob,
                    "lang": "en" if blob % 2 else "fr",
                    "quality": quality(blob, number),
                    **more,
                }
            )
            vectors.append(np.eye(8)[blob] * 10 + 0.1 * rng.standard_normal(8))
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    np.save(tmp_path / "vectors.npy", np.array(vectors, np.float32))
    return rows


def select(tmp_path, name="run", budget=40, files=("gin/select/kmq.gin",), **bindings):
    given = {
        "RUN_DIR": f"'{tmp_path / name}'",
        "ROWS": f"('{tmp_path / 'rows.jsonl'}',)",
        "BUDGET": budget,
        "RowsConfig.id_field": "'id'",
        "SelectConfig.embedding": "@GivenEmbeddingsConfig()",
        "GivenEmbeddingsConfig.file": f"'{tmp_path / 'vectors.npy'}'",
        "SelectConfig.clusters": BLOBS,
        "SelectConfig.quality": "@ColumnConfig()",
        "ColumnConfig.field": "'quality'",
    } | bindings
    code = cli.main(["select", *files, *(f"--gin.{key}={value}" for key, value in given.items() if value != LEFT_OUT)])
    folder = tmp_path / name
    if code:
        return code, None, None
    summary = json.loads((folder / "selection.json").read_text(encoding="utf-8"))
    return code, [json.loads(line) for line in (folder / "selected.jsonl").read_text().splitlines()], summary


@pytest.mark.parametrize("method", ["random", "kmeans_random", "kmeans_closest", "k_center", "quality", "kmq"])
def test_every_method_takes_the_budget_and_no_row_twice(tmp_path, method):
    rows = blobs(tmp_path)
    _, chosen, summary = select(tmp_path, **{"SelectConfig.method": f"'{method}'"})
    assert len(chosen) == 40 == summary["taken"]
    assert len({row["id"] for row in chosen}) == 40
    assert [row for row in rows if row in chosen] == chosen  # as they were, in their order
    per_blob = np.bincount([row["blob"] for row in chosen], minlength=BLOBS)
    if method in ("kmeans_random", "kmeans_closest", "kmq"):
        assert per_blob.tolist() == [4, 8, 12, 16]  # in proportion to 30, 60, 90, 120
    if method == "quality":
        best = sorted(rows, key=lambda row: -row["quality"])[:40]
        assert {row["quality"] for row in chosen} <= {row["quality"] for row in best}
    if method == "k_center":
        assert np.all(per_blob > 0)
    if method == "kmeans_closest":
        vectors = np.load(tmp_path / "vectors.npy").astype(np.float64)
        of_blob = np.array([row["blob"] for row in rows])
        for blob in range(BLOBS):
            own = np.flatnonzero(of_blob == blob)
            distances = np.sum((vectors[own] - vectors[own].mean(0)) ** 2, axis=1)
            expected = {rows[own[at]]["id"] for at in np.argsort(distances)[: per_blob[blob]]}
            assert {row["id"] for row in chosen if row["blob"] == blob} == expected


def test_a_directory_of_another_selection_is_refused_and_what_is_kept_serves_both(tmp_path, capsys, monkeypatch):
    blobs(tmp_path)
    kept = {"SelectConfig.kept_dir": f"'{tmp_path / 'kept'}'"}
    first = select(tmp_path, **kept)[1]
    assert select(tmp_path, **kept)[1] == first
    assert select(tmp_path, budget=41, **kept)[0] == 1
    assert "budget" in capsys.readouterr().err
    monkeypatch.setattr("aya_jax.selection.clusters.kmeans", None)  # would fail
    assert len(select(tmp_path, "other", budget=41, **kept)[1]) == 41


def test_the_same_seed_takes_the_same_rows_and_another_others(tmp_path):
    blobs(tmp_path)
    first, again, other = (
        select(tmp_path, name, **{"SelectConfig.seed": seed})[1] for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert first == again != other


def test_rows_may_be_drawn_again(tmp_path):
    blobs(tmp_path, quality=lambda blob, number: float(number == 0))  # one row of each has all the chance
    _, chosen, summary = select(tmp_path, **{"SelectConfig.again": True})
    assert len(chosen) == 40
    assert summary["different"] == 4
    records = [json.loads(line) for line in (tmp_path / "run" / "selection.jsonl").read_text().splitlines()]
    assert [record["weight"] for record in records] == [4, 8, 12, 16]


def test_the_silhouette_finds_the_number_of_blobs(tmp_path):
    blobs(tmp_path)
    _, _, summary = select(tmp_path, **{"SelectConfig.clusters": "(2, 3, 4, 6, 9)"})
    assert len(summary["clusters"]) == BLOBS
    assert max(summary["silhouettes"], key=summary["silhouettes"].get) == "4"
    assert "How many clusters" in (tmp_path / "run" / "selection.html").read_text(encoding="utf-8")


def test_hashed_ngrams_tell_languages_apart(tmp_path):
    texts = {
        "en": "the cat sat on the {} mat and the dog",
        "ja": "猫は{}マットの上に座っていました。犬も",
        "ar": "جلست القطة على {} السجادة والكلب",
    }
    rows = [
        {"prompt": text.format(n), "response": text.format(n + 7), "lang": lang, "id": f"{lang}{n}", "quality": 1}
        for lang, text in texts.items()
        for n in range(20)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    _, _chosen, summary = select(
        tmp_path,
        budget=30,
        **{
            "SelectConfig.embedding": "@HashedNgramsConfig()",
            "GivenEmbeddingsConfig.file": LEFT_OUT,
            "SelectConfig.clusters": 3,
        },
    )
    assert {name: one["taken"] for name, one in summary["languages"].items()} == {"ar": 10, "en": 10, "ja": 10}


def gold(messages, answer, fields, *, bad):
    """Rows of the bad blob say what the model says too; others are better than it by a little more in each blob."""
    if answer.startswith("model"):
        return 0.0
    return 0.0 if fields["blob"] == bad else 1.0 + fields["blob"]


def test_rounds_of_refinement_leave_a_planted_bad_cluster(tmp_path):
    blobs(tmp_path)
    scored = {
        "SelectConfig.quality": "@RewardFunctionConfig()",
        "ColumnConfig.field": LEFT_OUT,
        "RewardFunctionConfig.function": "'tests.selection.test_select:gold'",
        "RewardFunctionConfig.options": "{'bad': 1}",
        "SelectConfig.sizes": "'equal'",
        "SelectConfig.weighing": "'softmax'",
    }
    select(tmp_path, "round_1", budget=20, **scored)
    shares, taken = [], []
    for number in (1, 2):
        before = tmp_path / f"round_{number}"
        prompts = [json.loads(line) for line in (before / "prompts.jsonl").read_text().splitlines()]
        answers = [prompt | {"completions": [{"text": "model says"}]} for prompt in prompts]
        (tmp_path / "answers.jsonl").write_text("".join(json.dumps(one) + "\n" for one in answers))
        code, chosen, summary = select(
            tmp_path,
            f"round_{number + 1}",
            budget=20,
            files=("gin/select/kmq.gin", "gin/select/refine.gin"),
            PREVIOUS=f"'{before}'",
            ANSWERS=f"'{tmp_path / 'answers.jsonl'}'",
            **scored,
            **{"RefineConfig.update": "'exponential'"},
        )
        assert code == 0
        assert summary["round"] == number + 1
        assert len(chosen) == 20 * (number + 1) == len({row["id"] for row in chosen})
        of_blob = {row["blob"]: number for number, row in enumerate(chosen)}
        records = {
            json.loads(line)["id"]: json.loads(line)
            for line in (tmp_path / f"round_{number + 1}" / "selection.jsonl").read_text().splitlines()
        }
        cluster = {blob: records[chosen[at]["id"]]["cluster"] for blob, at in of_blob.items()}
        shares.append(summary["weights"][cluster[1]])
        taken.append(sum(row["blob"] == 1 for row in chosen))
        # By hand: every blob began at 1/4, and each round multiplies by exp(its gain): 1, 0 (the bad one), 3 and 4.
        powers = np.exp(number * np.array([1.0, 0.0, 3.0, 4.0]))
        np.testing.assert_allclose(
            [summary["weights"][cluster[blob]] for blob in range(4)], powers / powers.sum(), rtol=1e-6
        )
    assert 0.25 > shares[0] > shares[1]
    assert taken == [5, 5]  # those of the first round


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ({"SelectConfig.method": "'random'"}, {}),
        ({}, {"SelectConfig.clusters": 5}),
        ({}, {"ROWS": "of another name"}),
    ],
    ids=["no clusters", "other clusters", "other rows"],
)
def test_a_round_after_another_kind_of_selection_is_refused(tmp_path, capsys, first, then):
    rows = blobs(tmp_path)
    scored = {
        "SelectConfig.quality": "@RewardFunctionConfig()",
        "ColumnConfig.field": LEFT_OUT,
        "RewardFunctionConfig.function": "'tests.selection.test_select:gold'",
        "RewardFunctionConfig.options": "{'bad': 1}",
    }
    assert select(tmp_path, "round_1", **(scored | {"SelectConfig.weighing": "'softmax'"} | first))[0] == 0
    if "ROWS" in then:
        others = [row | {"id": f"new {row['id']}"} for row in rows]
        (tmp_path / "others.jsonl").write_text("".join(json.dumps(row) + "\n" for row in others), encoding="utf-8")
        then = {"ROWS": f"('{tmp_path / 'others.jsonl'}',)"}
    (tmp_path / "answers.jsonl").write_text("")
    files = ("gin/select/kmq.gin", "gin/select/refine.gin")
    bound = {"PREVIOUS": f"'{tmp_path / 'round_1'}'", "ANSWERS": f"'{tmp_path / 'answers.jsonl'}'"}
    assert select(tmp_path, "round_2", files=files, **(scored | bound | then))[0] == 1
    assert "a further round needs the rows, the embedding" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("bindings", "code", "message"),
    [
        ({"BUDGET": 301}, 1, "SelectConfig.budget = 301: there are 300 rows to take"),
        ({"SelectConfig.clusters": 400}, 1, "clusters"),
        (
            {"ColumnConfig.field": "'goodness'"},
            1,
            "row 0-0: field 'goodness' is None; ColumnConfig.field needs a number",
        ),
        ({"RowsConfig.id_field": "'blob'"}, 1, "the id '0' is that of"),
        ({"SelectConfig.quality": None, "ColumnConfig.field": LEFT_OUT}, 2, "'kmq' needs one"),
        ({"BUDGET": 0}, 2, "at least 1 row"),
        ({"GivenEmbeddingsConfig.file": "'missing.npy'"}, 1, "missing.npy"),
    ],
    ids=["budget", "clusters", "field", "ids", "no quality", "none", "file"],
)
def test_what_cannot_be_is_refused_with_what_to_do(tmp_path, capsys, bindings, code, message):
    blobs(tmp_path)
    assert select(tmp_path, **bindings)[0] == code
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run" / "selected.jsonl").exists()


def test_embeddings_of_another_size_or_not_finite_are_refused(tmp_path, capsys):
    blobs(tmp_path)
    vectors = np.load(tmp_path / "vectors.npy")
    np.save(tmp_path / "vectors.npy", vectors[:-1])
    assert select(tmp_path)[0] == 1
    assert "there are 300 rows: numbers [300, D] are needed" in capsys.readouterr().err
    vectors[7, 3] = np.nan
    np.save(tmp_path / "vectors.npy", vectors)
    assert select(tmp_path)[0] == 1
    assert "the embedding of row 0-7 is not finite" in capsys.readouterr().err


def test_rows_without_quality_are_counted_and_left_out(tmp_path, capsys):
    blobs(tmp_path, quality=lambda blob, number: float("nan") if number == 0 else 1.0)
    _, chosen, summary = select(tmp_path, budget=296)
    assert summary["quality"]["missing"] == 4
    assert not any(row["id"].endswith("-0") for row in chosen)
    assert "4 rows have no quality" in capsys.readouterr().out
    assert select(tmp_path, "more", budget=297)[0] == 1
    assert "296 rows to take (300 in all, 0 taken before, 4 without a quality)" in capsys.readouterr().err


def test_what_is_left_out_is_counted_by_cause_and_language(tmp_path, capsys):
    said = "Water boils at a hundred degrees Celsius at sea level, and at fewer the higher one climbs."
    rows = [
        ("en", "When does water boil?", said),
        ("en", "When does water boil??", said),
        ("de", "Wann kocht Wasser?", "Bei hundert Grad auf Höhe des Meeres, und bei weniger auf einem Berg."),
        ("en", "Write a poem.", "I'm sorry, but I can't help with that request."),
        ("de", "Was ist das?", "<|im_start|>assistant\nDas ist ein Haus."),
        ("de", "Sag etwas.", ""),
    ]
    written = [
        {"prompt": prompt, "response": answer, "lang": lang, "id": str(number), "quality": 1}
        for number, (lang, prompt, answer) in enumerate(rows)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in written), encoding="utf-8")
    np.save(tmp_path / "vectors.npy", np.eye(6, dtype=np.float32))
    checked = {"SelectConfig.checks": "@ChecksConfig()", "SelectConfig.clusters": 2}
    code, chosen, summary = select(tmp_path, budget=2, **checked)
    assert code == 0
    assert [row["id"] for row in chosen] == ["0", "2"]
    assert summary["causes"] == {
        "empty": {"de": 1},
        "near_duplicate": {"en": 1},
        "refusal": {"en": 1},
        "template_leak": {"de": 1},
    }
    left_out = [json.loads(line) for line in (tmp_path / "run" / "left_out.jsonl").read_text().splitlines()]
    assert {one["id"]: one.get("of") for one in left_out} == {"1": "0", "3": None, "4": None, "5": None}
    assert "By cause and language" in (tmp_path / "run" / "selection.html").read_text(encoding="utf-8")
    capsys.readouterr()
    assert select(tmp_path, "more", budget=3, **checked)[0] == 1
    assert "there are 2 rows to take" in capsys.readouterr().err
    assert select(tmp_path, **checked, **{"ChecksConfig.flags": "('rude',)"})[0] == 2
    assert "'rude' is none of these" in capsys.readouterr().err
