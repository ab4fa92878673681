import unicodedata
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from aya_jax.config.errors import UserError
from aya_jax.evaluation.analyses.resampling import Bootstrap
from aya_jax.evaluation.include.languages import LANGUAGES, relation, script
from aya_jax.evaluation.include.prompts import ENGLISH, STYLES, WORDINGS, prompt, read_questions
from aya_jax.evaluation.include.scores import (
    parse_answer,
    score,
    score_choices,
    splits,
    summarize,
)

ROW = {
    "language": "Turkish",
    "country": "Turkey",
    "domain": "Humanities",
    "subject": "History",
    "regional_feature": "culture",
    "level": "High school",
    "question": "Cumhuriyet hangi yıl ilan edildi?",
    "answer": 2,
}
CHOICES = ["1919", "1920", "1923", "1938"]
AS_LIST = ROW | {"choices": CHOICES}
AS_OPTIONS = ROW | {f"option_{letter}": choice for letter, choice in zip("abcd", CHOICES, strict=True)}
FEW = Bootstrap(20)


@pytest.mark.parametrize("style", STYLES)
def test_both_schemas_give_the_same_prompt(style):
    [a], [b] = read_questions([AS_LIST]), read_questions([AS_OPTIONS | {"answer": "C"}])
    assert a == b
    assert prompt(a, style, [b]) == prompt(b, style, [a])


def test_prompts_word_for_word():
    [question] = read_questions([AS_LIST])
    block = "Cumhuriyet hangi yıl ilan edildi?\nA. 1919\nB. 1920\nC. 1923\nD. 1938\n"
    turkish = WORDINGS["tr"]
    assert prompt(question, "Eng") == f"{ENGLISH.instruction}\n\n{block}Answer:"
    assert prompt(question, "IL") == f"{turkish.instruction}\n\n{block}Yanıt:"
    assert prompt(question, "Reg+Eng").startswith(
        "The following question is from an exam in this country: Turkey. Answer"
    )
    assert prompt(question, "Reg+IL").startswith(
        "Aşağıdaki soru şu ülkedeki bir sınavdan alınmıştır: Turkey. Aşağıdaki"
    )
    asked = turkish.reasoning.replace("{cue}", "Yanıt")
    choices = block.rstrip("\n")
    assert prompt(question, "IL", [question][:0], reasoning=True) == f"{asked}\n\n{choices}\n"
    assert prompt(question, "IL", [question]) == f"{turkish.instruction}\n\n{block}Yanıt: C\n\n{block}Yanıt:"


def test_every_language_has_its_own_words():
    assert len(WORDINGS) == 20
    for field in ("name", "instruction", "region", "reasoning"):
        assert len({getattr(wording, field) for wording in WORDINGS.values()}) == 20
    for wording in (*WORDINGS.values(), ENGLISH):
        assert [letter for letter in wording.instruction if letter in "ABCD"].count("D") >= 1
        assert wording.region.count("{country}") == 1
        assert parse_answer(f"{wording.cue}: B") == 1
        # an instruction names all letters: it must not be read as an answer
        asked = wording.reasoning.format(cue=wording.cue)
        assert parse_answer(wording.instruction) is parse_answer(asked) is None
        # what it asks for is read, though reasoning that names other letters comes first
        assert wording.cue in asked
        assert parse_answer(f"A: no. B: no.\n{wording.cue}: D") == 3


def test_words_are_in_the_languages_they_are_said_to_be():
    langid = pytest.importorskip("py3langid.langid")
    identifier = langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE)
    identifier.set_languages([*WORDINGS, "en", "cs", "ro"])
    for language, wording in WORDINGS.items():
        for text in (wording.instruction, wording.region.format(country=""), wording.reasoning.format(cue=wording.cue)):
            assert identifier.classify(text)[0] == language


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("B", 1),
        (" (C). ", 2),
        ("**D**", 3),
        ("Ｂ", 1),
        ("Ⓐ", 0),
        ("A. Ankara", 0),
        ("b", None),
        ("B) since Paris is in France", 1),
        ("C\nThe reason is long.", 2),
        ("D - the last", 3),
        ("**B**: because", 1),
        ("A good question.", None),
        ("A", 0),
        ("The answer is (D).", 3),
        ("The correct option is **B**.", 1),
        ("Answer: A, no wait. Answer: C", 2),
        ("A. 1919\nB. 1920\nC. 1923\nD. 1938", None),
        ("A. 1919\nB. 1920\nC. 1923\nD. 1938\nAnswer: C", 2),
        ("Either B or C", None),
        ("Option B is right, option A is wrong", None),
        ("I choose option B", 1),
        ("The correct option is B, because option C is wrong", 1),
        ("so we get \\boxed{B}", 1),
        ("It follows that (B) holds, hence (B)", 1),
        ("Both (B) and (C) hold", None),
        ("Der Buchstabe ist schwer zu sagen", None),
        ("Antwort: D", 3),
        ("Die richtige Antwort ist B.", 1),
        ("La réponse est C.", 2),
        ("La respuesta correcta es A", 0),
        ("Правильный ответ: B", 1),
        ("Ответ: В", None),  # Cyrillic
        ("答案是B。", 1),
        ("答案:C", 2),
        ("正解はDです", 3),
        ("정답은 A입니다", 0),
        ("정답: A", 0),
        ("الإجابة: C", 2),
        ("پاسخ: B", 1),
        ("תשובה: D", 3),
        ("उत्तर: A", 0),
        ("Đáp án: B", 1),
        ("Answer: Berlin", None),
        ("answer a question", None),
        ("", None),
        ("E", None),
        ("I do not know.", None),
    ],
)
def test_parse_answer(text, expected):
    assert parse_answer(text) == expected


def questions(count, seed=0):
    rng = np.random.default_rng(seed)
    rows = [
        AS_LIST
        | {
            "id": n,
            "answer": int(rng.integers(4)),
            "language": str(rng.choice(["Turkish", "German"])),
            "domain": str(rng.choice(["Law", "STEM", "Humanities"])),
            "regional_feature": str(rng.choice(["agnostic", "culture", "region explicit", "region implicit"])),
        }
        for n in range(count)
    ]
    return read_questions(rows)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.sampled_from(["A", "B", "C", "D", "?"]), max_size=30))
def test_total_is_answer_accuracy_times_well_formed(outputs):
    found = summarize(score(questions(len(outputs)), outputs), FEW)
    expected = [
        output != "?" and "ABCD".index(output) == q.answer for output, q in zip(outputs, questions(30), strict=False)
    ]
    assert (found.count, found.right) == (len(outputs), sum(expected))
    assert found.parsed == sum(output != "?" for output in outputs)
    if found.parsed:
        total, answer = Fraction(found.right, found.count), Fraction(found.right, found.parsed)
        assert total == answer * (1 - Fraction(found.count - found.parsed, found.count))
        assert (found.total_accuracy.value, found.answer_accuracy.value) == (float(total), float(answer))
        product = found.answer_accuracy.value * (1 - found.format_error.value)
        assert found.total_accuracy.value == pytest.approx(product, abs=1e-15)
    else:
        assert found.answer_accuracy.value is None


def test_groups_add_up_to_the_whole():
    asked = questions(200)
    outputs = np.random.default_rng(1).choice(["A", "B", "C", "D", "no"], size=200).tolist()
    records = score(asked, outputs)
    whole = summarize(records, FEW)
    for name, groups in splits(records, ("de",), FEW).items():
        assert len(groups) > 1 or name in ("level", "country")
        assert sum(s.count for s in groups.values()) == whole.count
        assert sum(s.parsed for s in groups.values()) == whole.parsed
        assert sum(s.right for s in groups.values()) == whole.right
    by_label = splits(records, bootstrap=FEW)
    assert by_label["regional"]["agnostic"] == by_label["regional_feature"]["agnostic"]
    assert "training" not in by_label


def test_relation_to_training_is_by_language_then_by_script():
    assert relation("Turkish", ("tr", "ru")) == "trained"
    assert relation("Ukrainian", ("tr", "ru")) == "script"
    assert relation("Persian", ("ar",)) == relation("Nepali", ("hi",)) == relation("Albanian", ("en",)) == "script"
    assert relation("Japanese", ("zh",)) == relation("Greek", ("ru", "en")) == "neither"
    # the paper's count of scripts and languages
    assert (len(LANGUAGES), len(set(map(script, LANGUAGES.values())))) == (44, 15)


@pytest.mark.parametrize("name", [wording.name for wording in WORDINGS.values()])
def test_scripts_are_those_of_the_instructions(name):
    wording = next(w for w in WORDINGS.values() if w.name == name)
    found = Counter(unicodedata.name(c).split()[0] for c in wording.instruction.replace("A", "") if c.isalpha())
    main = found.most_common(1)[0][0]
    assert script(LANGUAGES[name]) == {"CJK": "Chinese", "HIRAGANA": "Japanese"}.get(main, main.capitalize())


def test_interval_of_total_accuracy_is_scipys():
    asked = questions(150)
    records = score_choices(asked, np.random.default_rng(5).integers(4, size=150).tolist())
    found = summarize(records, Bootstrap(5000))
    right = np.array([float(record.correct) for record in records])
    expected = stats.bootstrap((right,), np.mean, n_resamples=5000, method="percentile", rng=1).confidence_interval
    assert found.total_accuracy[1:] == pytest.approx((expected.low, expected.high), abs=0.015)
    assert found.format_error.value == 0.0
    z = stats.norm.ppf(0.975)  # Wilson 1927: none of n is within 0 and z² / (n + z²)
    assert found.format_error[1:] == pytest.approx((0.0, z**2 / (150 + z**2)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": 4}, r"rows:2: field 'answer' is 4"),
        ({"answer": None}, r"rows:2: field 'answer' is None"),
        ({"choices": ["a", "b"]}, r"rows:2: field 'choices'"),
        ({"choices": None}, r"rows:2: field 'option_a' is None"),
        ({"question": 3}, r"rows:2: field 'question' is 3"),
        ({"regional_feature": None}, r"rows:2: field 'regional_feature'"),
    ],
)
def test_bad_rows_are_named(change, message):
    with pytest.raises(UserError, match=message):
        read_questions([AS_LIST, AS_LIST | change])


def test_prompts_that_cannot_be_made():
    [albanian, nowhere] = read_questions([AS_LIST | {"language": "Albanian"}, AS_LIST | {"country": None}])
    assert prompt(albanian, "Reg+Eng")
    with pytest.raises(UserError, match="no instruction in Albanian"):
        prompt(albanian, "IL")
    with pytest.raises(UserError, match="field 'country' is empty"):
        prompt(nowhere, "Reg+IL")
    with pytest.raises(UserError, match="known are IL, Eng"):
        prompt(albanian, "English")
    with pytest.raises(UserError, match="2 questions and 1 answers"):
        score([albanian, nowhere], ["A"])
