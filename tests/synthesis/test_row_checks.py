"""Each check on sentences written for it, in several scripts: what it must flag, and what is near but well."""

from __future__ import annotations

import gzip
import json
import os
import sys
from pathlib import Path

import pytest

from aya_jax.config import UserError
from aya_jax.data.tasks import LANGUAGES
from aya_jax.synthesis.config import FLAGS
from aya_jax.synthesis.row_checks import (
    columns,
    flags,
    has_leftovers,
    is_echo,
    is_empty,
    is_refusal,
    is_repetitive,
    is_truncated,
    is_wrong_language,
    leaks_template,
)

QUESTION = "Why do the swallows leave our village in autumn?"
# About the same in each language, and long enough to be judged by its end.
WHOLE = {
    "en": "Swallows live on insects that they catch in flight. When the evenings turn cold, there are fewer and fewer, "
    "so the birds fly south before they starve. They come back in April, often to the very same nest.",
    "de": "Schwalben leben von Insekten, die sie im Flug fangen. Wenn die Abende kalt werden, gibt es davon immer weniger, und "
    "deshalb ziehen die Vögel nach Süden, bevor sie hungern. Im April kehren sie zurück, oft in dasselbe Nest.",
    "ar": "تعيش طيور السنونو على الحشرات التي تصطادها في أثناء الطيران. وعندما تبرد الأمسيات يقل عدد هذه الحشرات شيئا فشيئا، "
    "لذلك تطير الطيور نحو الجنوب قبل أن تجوع. وهي تعود في شهر أبريل، وغالبا ما ترجع إلى العش نفسه، فهل رأيتها هذا العام؟",
    "fa": "پرستوها از حشراتی تغذیه می‌کنند که در حال پرواز شکار می‌کنند. وقتی شب‌ها سرد می‌شود، شمار این حشرات کمتر و کمتر می‌شود، "
    "بنابراین پرندگان پیش از آن که گرسنه بمانند به جنوب می‌روند. آنها در فروردین برمی‌گردند، و بیشتر به همان لانه می‌آیند.",
    "hi": "अबाबील उन कीड़ों पर जीती हैं जिन्हें वे उड़ते हुए पकड़ती हैं। जब शामें ठंडी होने लगती हैं तो ये कीड़े कम होते जाते हैं, इसलिए भूख से "
    "मरने से पहले ही पक्षी दक्षिण की ओर उड़ जाते हैं। वे अप्रैल में लौट आती हैं, और अक्सर अपने उसी पुराने घोंसले में रहने लगती हैं।",
    "ja": "ツバメは飛びながら捕まえる虫を食べて生きています。夕方が寒くなると虫はだんだん少なくなるので、"
    "飢える前に南へ飛んでいきます。四月になると戻ってきて、前の年と同じ巣に入ることもよくあります。"
    "巣は泥と枯れ草で作られ、毎年少しずつ直されます。",
    "zh": "燕子靠在飞行中捕捉的昆虫为生。傍晚天气变冷以后，昆虫越来越少，所以鸟儿在挨饿之前就向南飞去。"
    "到了四月它们又会回来，而且常常回到原来的那个巢里。它们用泥和干草把巢补好，然后在那里养育小鸟，直到秋天再次来临。",
    "ko": "제비는 날면서 잡는 벌레를 먹고 산다. 저녁이 추워지면 벌레가 점점 줄어들기 때문에 새들은 굶주리기 전에 "
    "남쪽으로 날아간다. 그리고 사월이 되면 다시 돌아오는데, 지난해에 살던 바로 그 둥지로 들어가는 일도 많다. "
    "둥지는 진흙과 마른 풀로 짓고 해마다 고친다.",
    "ru": "Ласточки питаются насекомыми, которых ловят на лету. Когда вечера становятся холодными, насекомых "
    "делается всё меньше, поэтому птицы улетают на юг, пока не начался голод. "
    "В апреле они возвращаются, и часто в то же самое гнездо!",
    "el": "Τα χελιδόνια τρέφονται με έντομα που πιάνουν πετώντας. Όταν τα βράδια κρυώνουν, τα έντομα λιγοστεύουν, γι' αυτό "
    "τα πουλιά φεύγουν για τον νότο πριν πεινάσουν. Γυρίζουν τον Απρίλιο, συχνά στην ίδια φωλιά. "
    "Τα είδατε και φέτος στο χωριό;",
    "th": "นกนางแอ่นกินแมลงที่จับได้ขณะบิน เมื่อตอนเย็นอากาศเริ่มหนาว แมลงก็น้อยลงเรื่อย ๆ นกจึงบินลงใต้ก่อนที่จะอดอยาก "
    "พวกมันกลับมาอีกครั้งในเดือนเมษายน และมักจะกลับมาที่รังเดิม รังทำจากดินเหนียวกับหญ้าแห้ง และได้รับการซ่อมแซมทุกปีก่อนที่ลูกนกจะเกิด "
    "ชาวบ้านจึงรักนกเหล่านี้มาก",
}
JUDGED = [language for language in WHOLE if language in LANGUAGES]


@pytest.mark.parametrize("language", WHOLE)
def test_a_whole_answer_has_no_flags(language):
    known = language if language in LANGUAGES else None
    assert flags(QUESTION, WHOLE[language], known) == ()
    assert flags(QUESTION, WHOLE[language], known, "stop") == ()


@pytest.mark.parametrize("answer", ["", " \n\t", "\u200b\ufeff", "...", "—", "***", "。"])
def test_empty(answer):
    assert is_empty(answer)
    assert flags(QUESTION, answer, "en", "stop") == ("empty",)
    assert flags(QUESTION, answer, "en", "length") == ("empty", "truncated")


@pytest.mark.parametrize("answer", ["7", "я", "はい", "👍", "=", "ไม่"])
def test_little_is_not_empty(answer):
    assert not is_empty(answer)


REFUSALS = {
    "en": [
        "I'm sorry, but I can't help with that.",
        "Unfortunately, as a language model I am not able to see your screen.",
        "As an AI language model, I do not have feelings.",
        "I cannot provide it.",
        "I’m unable to open links.",
        "I must respectfully decline.",
        "I refuse to say so.",
    ],
    "ar": ["عذرًا، لا أستطيع مساعدتك في هذا الطلب.", "لا يمكنني الإجابة عن هذا.", "بصفتي نموذج لغة، ليس لدي رأي."],
    "cs": ["Omlouvám se, ale s tímto vám nemohu pomoci.", "Jako jazykový model nemám názory."],
    "de": [
        "Es tut mir leid, aber das kann ich nicht.",
        "Ich kann dir dabei nicht helfen.",
        "Als KI habe ich keine Meinung.",
    ],
    "el": ["Λυπάμαι, αλλά δεν μπορώ να βοηθήσω με αυτό.", "Ως γλωσσικό μοντέλο, δεν έχω άποψη."],
    "es": [
        "Lo siento, pero no puedo hacerlo.",
        "No puedo ayudarte con eso.",
        "Como modelo de lenguaje, no tengo opiniones.",
    ],
    "fa": ["متأسفم، اما من در این مورد نمی‌توانم کمک کنم.", "به عنوان یک مدل زبانی، نظری ندارم."],
    "fr": ["Désolé, mais je ne peux pas le faire.", "Je ne peux pas vous aider.", "En tant qu’IA, je n’ai pas d’avis."],
    "he": ["אני מצטער, אבל אני לא יכול לעזור בזה.", "כמודל שפה, אין לי דעה."],
    "hi": ["मुझे खेद है, लेकिन मैं इस काम में आपकी मदद नहीं कर सकता।", "एक एआई मॉडल के रूप में, मेरी कोई राय नहीं है।"],
    "id": ["Maaf, saya tidak dapat membantu permintaan itu.", "Sebagai model bahasa, saya tidak punya pendapat."],
    "it": ["Mi dispiace, ma non posso farlo.", "Non posso aiutarti.", "Come modello linguistico, non ho opinioni."],
    "ja": ["申し訳ありませんが、そのご質問にはお答えできません。", "AIとして、私は意見を持ちません。"],
    "ko": ["죄송하지만 그 요청은 도와드릴 수 없습니다.", "저는 AI로서 의견이 없습니다."],
    "nl": ["Het spijt me, maar daar kan ik je niet mee helpen.", "Als taalmodel heb ik geen mening."],
    "pl": ["Przykro mi, ale nie mogę w tym pomóc.", "Jako model językowy nie mam opinii."],
    "pt": ["Desculpe, mas não posso fazer isso.", "Não posso ajudar.", "Como modelo de linguagem, não tenho opiniões."],
    "ro": ["Îmi pare rău, dar nu pot să te ajut.", "Ca model de limbaj, nu am opinii."],
    "ru": ["К сожалению, я этого не могу.", "Я не могу помочь с этим.", "Как языковая модель, я не имею мнения."],
    "tr": ["Üzgünüm, ama bu konuda size yardımcı olamam.", "Bir yapay zeka modeli olarak görüşüm yok."],
    "uk": ["Вибачте, але я не можу з цим допомогти.", "Як мовна модель, я не маю думки."],
    "vi": ["Xin lỗi, nhưng tôi không thể giúp bạn việc đó.", "Là một mô hình ngôn ngữ, tôi không có ý kiến."],
    "zh": ["很抱歉，我无法完成这个请求。", "作为一个人工智能，我没有个人观点。", "我不能提供这样的内容。"],
}


def test_every_language_has_refusals():
    assert set(REFUSALS) == set(LANGUAGES)


@pytest.mark.parametrize(
    "answer",
    [
        "Como inteligencia artificial, no tengo cuerpo.",
        "Come intelligenza artificiale, non ho un corpo.",
        "Como uma inteligência artificial, não tenho corpo.",
        "En tant qu'intelligence artificielle, je n'ai pas de corps.",
        "Als Künstliche Intelligenz habe ich keinen Körper.",
        "Jako sztuczna inteligencja nie mam ciała.",
        "Как искусственный интеллект, я не имею тела.",
        "Ως τεχνητή νοημοσύνη, δεν έχω σώμα.",
        "باعتباري ذكاء اصطناعيا، ليس لدي جسد.",
    ],
)
def test_that_it_is_no_human_is_a_refusal(answer):
    assert is_refusal(answer)


@pytest.mark.parametrize("answer", [answer for own in REFUSALS.values() for answer in own])
def test_refusals(answer):
    assert is_refusal(answer)
    assert is_refusal(f"**{answer.upper()}**")
    assert not is_refusal(f"The clerk looked up from his desk and said to the two of them: {answer}")


@pytest.mark.parametrize(
    "answer",
    [
        "I'm sorry to hear that your cat is ill. Let her rest, and give her water.",
        "I cannot wait for spring! Here are three poems about it.",
        "Unfortunately, the bridge was closed in 1951. Today a ferry runs there.",
        "Sorry is an English word of Germanic origin.",
        "As an airline grows, it needs more mechanics.",
        "Leider regnete es den ganzen Tag, und die Wanderer kehrten um.",
        "К сожалению, дождь шёл весь день.",
        "申し訳ありませんは、日本語の謝罪の言葉です。",
        "Lo siento mucho por tu pérdida.",
        "抱歉是一个常用的词。",
        "Bir yapay zeka nedir? Kısaca anlatayım.",
        "Jako umělá hmota se používá často.",
    ],
)
def test_no_refusals(answer):
    assert not is_refusal(answer)


@pytest.mark.parametrize("language", [language for language in WHOLE if language != "th"])
def test_an_end_without_a_mark_is_a_cut(language):
    cut = f"{WHOLE[language]} {WHOLE[language][:-3]}"
    assert is_truncated(cut, None)
    assert is_truncated(cut[:40], "length")
    assert not is_truncated(cut, "stop")
    assert not is_truncated(cut[:40], None)
    assert flags(QUESTION, cut[:40], None, "length") == ("truncated",)


@pytest.mark.parametrize(
    "end",
    [
        ".",
        "!",
        "?",
        "…",
        "...",
        '."',
        ".”",
        ".\xa0»",
        ".)",
        ".**",
        "。」",
        "！",
        "？",
        "؟",
        "۔",
        "।",
        ". 🙂",
        ". ❤️",
        ".\n\n",
    ],
)
def test_marks_that_end_a_sentence_in_any_script(end):
    body = WHOLE["en"][:-1]
    assert is_truncated(body, None)
    assert not is_truncated(body + end, None)


@pytest.mark.parametrize("end", [",", ":", " and", " (the", ";", " “", "、", "،"])
def test_marks_that_do_not(end):
    assert is_truncated(WHOLE["en"][:-1] + end, None)


@pytest.mark.parametrize(
    "end",
    [
        "\n\n- a first point with some words that make a long line\n- a second one with some words that make a long line",
        "\n\n1. a first point with some words that make a long line\n2. a second one with some words that make a long line",
        "\n\n| bird | month |\n|---|---|\n| the swallow with its long tail | the first half of April |",
        "\n\nYours truly,\nAnna",
        "\n\nMore of it stands on these pages: https://example.org/birds/swallow",
        "\n\n```python\nprint('a line of code that is long enough to count as one, and has no mark')\n```",
        " To see them all, run the program that lists them: `swallows --all`",
        "\n\n    for bird in every_bird_of_the_village_that_has_a_nest(now): print(bird)",
    ],
)
def test_ends_that_are_not_judged(end):
    assert not is_truncated(WHOLE["en"] + end, None)


def test_length_is_counted_in_columns():
    assert (columns("swallow"), columns("ツバメ"), columns("제비"), columns("é अबाबील")) == (7, 6, 4, 8)
    assert is_truncated("燕子靠在飞行中捕捉的昆虫为生而且" * 8, None)
    assert not is_truncated("ласточки живут в" * 8, None)


def test_thai_is_not_judged_by_its_end_and_an_open_fence_is_a_cut():
    assert not is_truncated(WHOLE["th"][:-3], None)
    assert is_truncated("So:\n```python\nprint(1)\n", None)
    assert not is_truncated("So:\n```python\nprint(1)\n```", None)


@pytest.mark.parametrize(
    "answer",
    [
        "It is so.<|im_end|>",
        "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>Да.",
        "نعم <｜end▁of▁sentence｜>",
        "<bos>はい。",
        "हाँ।</s>",
        "<s> Ναι.",
        "[INST] and now? [/INST]",
        "### Instruction:\nSay it again.",
        "First line.\nUser: and now?",
        "**Assistant:** Yes.",
        "Dear {name}, welcome!",
        "मेरा नाम {{ user_name }} है।",
    ],
)
def test_template_leaks(answer):
    assert leaks_template(QUESTION, answer)
    assert not leaks_template(f"What does this mean?\n{answer}", answer)
    assert "template_leak" in flags(QUESTION, answer, None)


@pytest.mark.parametrize(
    "answer",
    [
        "If a < b and c > d, then a|b is <b>not</b> it.",
        "The fraction \\frac{ab}{cd} is x^{ab}.",
        "Write `{name}` in braces, or\n```python\nf'{name}'\n```\nas it is.",
        "The set {1, 2} and {x}.",
        "The user: who is that? An assistant: who is that?",
        "### Input of a factory\nIron. <s>Old</s> new.",
        "The price is ${PRICE}.",
    ],
)
def test_no_template_leaks(answer):
    assert not leaks_template(QUESTION, answer)


@pytest.mark.parametrize("language", JUDGED)
def test_wrong_language(language):
    others = [other for other in JUDGED if other != language]
    assert not is_wrong_language(WHOLE[language], language)
    assert all(is_wrong_language(WHOLE[other], language) for other in others)
    assert "wrong_language" in flags(QUESTION, WHOLE[others[0]], language)
    assert "wrong_language" not in flags(QUESTION, WHOLE[others[0]], None)


def test_short_answers_and_code_have_no_language():
    assert not any(is_wrong_language("Da ist er, in Paris", language) for language in LANGUAGES)
    code = "```python\nfor the_bird in birds_of_the_village:\n    print('this is a swallow', the_bird)\n```"
    assert not is_wrong_language(f"Вот так:\n{code}", "ru")
    assert is_wrong_language(code.replace("`", ""), "ru")


def test_a_language_that_is_not_known_is_refused():
    with pytest.raises(UserError, match="language 'sw': known are"):
        flags(QUESTION, WHOLE["en"], "sw")


def test_without_the_identifier_only_languages_cannot_be_checked(monkeypatch):
    from aya_jax.synthesis import reward_functions

    reward_functions._identifier.cache_clear()
    monkeypatch.setitem(sys.modules, "py3langid", None)
    monkeypatch.setitem(sys.modules, "py3langid.langid", None)
    assert flags(QUESTION, WHOLE["en"], None) == ()
    with pytest.raises(UserError, match="py3langid"):
        flags(QUESTION, WHOLE["en"], "en")


@pytest.mark.parametrize("text", WHOLE.values(), ids=list(WHOLE))
def test_echo(text):
    prompt = text[:60]
    assert is_echo(prompt, prompt)
    assert is_echo(prompt, f" {prompt.upper()}\n")
    assert is_echo(prompt, f"„{prompt}“ {text[60:]}")
    assert not is_echo(prompt, text[60:])
    assert not is_echo(prompt, f"{text[60:]} {text[60:]} {prompt}")
    assert "echo" in flags(prompt, prompt, None)


def test_near_echoes():
    assert is_echo("Tea?", "tea?")
    assert not is_echo("What is tea?", "What is tea? A drink.")
    assert is_echo(WHOLE["ru"], WHOLE["ru"].replace("вечера", "ночи"))
    assert not is_echo("Correct this sentence: He go to school by feet.", "He goes to school on foot.")
    assert not is_echo("Explain photosynthesis in plants", "Photosynthesis in plants turns light into sugar.")


@pytest.mark.parametrize(
    "answer",
    [
        WHOLE["en"] + " and so on" * 30,
        WHOLE["ja"] + "そしてまた" * 60,
        WHOLE["hi"] + " और फिर" * 60,
        "ha " * 40,
        "哈" * 80,
        (WHOLE["ru"] + "\n") * 3,
        WHOLE["de"] * 4 + WHOLE["en"],
        " ".join(WHOLE.values()) + "la la " * 120 + " ".join(WHOLE.values())[::-1],
        " ".join(WHOLE.values()) + "la la " * 55,
    ],
)
def test_repetition(answer):
    assert is_repetitive(answer)
    assert "repetition" in flags(QUESTION, answer, None)


@pytest.mark.parametrize(
    "answer",
    [
        *WHOLE.values(),
        " ".join(WHOLE.values()),
        "no, no, no",
        "\n".join(f"{number} times {number} is {number * number}" for number in range(1, 21)),
        "Row, row, row your boat, gently down the stream. Merrily, merrily, merrily, merrily, life is but a dream.",
    ],
)
def test_no_repetition(answer):
    assert not is_repetitive(answer)


@pytest.mark.parametrize("language", [language for language in JUDGED if language != "en"])
def test_leftovers_of_english(language):
    text = WHOLE[language]
    assert not has_leftovers(text, language)
    assert has_leftovers(f"{text} {WHOLE['en']}", language)
    assert has_leftovers(f"{text[:80]} BECAUSE the birds of This village HAVE been there", language)
    assert not has_leftovers(f"{text} (The Rolling Stones, JAX)", language)
    assert not has_leftovers(f"{text}\n```\nif this and that: the_same = these.with(those)\n```", language)


def test_latin_words_in_other_scripts():
    assert has_leftovers("इस tutorial में हम path parameters declare करते हैं", "hi")
    assert has_leftovers("Этот deployment делает rolling update для cluster", "ru")
    assert not has_leftovers("JAXとFlaxは、機械学習の研究でよく使われる道具です。", "ja")
    assert not has_leftovers("Dieser Cluster macht ein Rolling Update", "de")
    assert not has_leftovers("das Theater, the the the", "de")
    assert not has_leftovers("Python", "ru")
    assert not has_leftovers(WHOLE["en"], "en")


def test_flags_come_in_their_order():
    answer = "I'm sorry, but I can't help with that <|im_end|> " * 8
    assert flags(QUESTION, answer, "ar", "length") == (
        *("refusal", "truncated", "template_leak", "wrong_language", "repetition", "translationese"),
    )
    assert set(FLAGS) >= set(flags(answer, answer, "ar", "length"))


@pytest.mark.real_data
@pytest.mark.parametrize("language", LANGUAGES)
def test_real_text_is_seldom_flagged(language):
    """At most 1 in 20 has a flag (Hindi's are of software, half in English terms), and of cut ones half or more are found."""
    with gzip.open(Path(os.environ["AYA_DATA"]) / "corpus" / f"{language}.jsonl.gz") as lines:
        texts = [json.loads(line)["text"][:1500] for line, _ in zip(lines, range(80), strict=False)]
    found = [flags(QUESTION, text, language, "stop") for text in texts]
    assert sum(map(bool, found)) <= len(texts) * (0.15 if language == "hi" else 0.05)
    cut = [text[:-7] for text in texts if len(text) == 1500]
    assert not cut or sum(is_truncated(text, None) for text in cut) >= 0.5 * len(cut)
