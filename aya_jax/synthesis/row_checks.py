"""What is wrong with one answer to a prompt, as far as its text shows: flags for filtering rows.

Each check is a rule that a person can read. None is certain; what each misses or flags wrongly is said where it stands.
"""

from __future__ import annotations

import functools
import re
import unicodedata

from aya_jax.data.near_duplicates import normalize
from aya_jax.synthesis.config import FLAGS
from aya_jax.synthesis.reward_functions import language_share

_LONG = 200  # columns from which an answer is expected to end with a mark
_LINE = 40  # columns of a last line below which it may be a signature, a title or a verse
_TELLING = 40  # columns of letters that a language can be told from: real text of 40 is mistaken in 2 of 100 cases
_PROMPT = 20  # characters from which a repeated prompt is no coincidence
_REPEATED = 0.9  # of the prompt's shingles
_SHINGLE = 5
_GRAM, _WINDOW = 10, 400  # characters of an n-gram, and of a part of an answer that is looked at for loops
_FEWEST = 50  # n-grams that a share is taken of
_DISTINCT = 0.5
_LATIN_WORDS, _LATIN_SHARE, _ENGLISH_SHARE = 3, 0.5, 0.04  # of the columns of letters

_NOT_LATIN = frozenset(("ar", "el", "fa", "he", "hi", "ja", "ko", "ru", "uk", "zh"))
# Common English words that are no common words of the other languages ("is", "of", "in", "was", "are" are).
# fmt: off
_FUNCTION_WORDS = frozenset((
    "and", "because", "been", "could", "from", "have", "should", "that", "the", "their", "these", "this", "those", "were",
    "what", "which", "with", "would", "your",
))
# fmt: on

_FENCE = re.compile(r"```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)", re.DOTALL)
_INLINE = re.compile(r"`[^`\n]*`|\$\$.+?\$\$|\\\(.+?\\\)|\\\[.+?\\\]|https?://\S+", re.DOTALL)
_WORD = re.compile(r"[^\W\d_]+")
_LATIN_WORD = re.compile(r"[a-zà-ɏḀ-ỿ]{2,}")
_VOWEL_SIGNS = re.compile(r"[\u064b-\u0652]")  # Arabic vowel signs, which few write

_FINAL = frozenset(".!?…。！？．｡؟۔।॥။།։።។\u037e")
_AFTER_FINAL = frozenset(("Cf", "Mn", "Pe", "Pf", "Pi", "Sk", "So", "Zs"))  # closing marks, emoji, spaces
_LIST_OR_TABLE = re.compile(r"\s*(?:[-*•+–#|>]|\(?[\w]{1,3}[.)]\s)")
_UNMARKED = re.compile(r"[\u0e00-\u0eff]")  # Thai and Lao end a sentence with a space

_TOKENS = re.compile(
    r"<[|｜][^<>|｜\n]{1,40}[|｜]>"  # <|im_end|>, <|START_OF_TURN_TOKEN|>
    r"|</?(?:bos|eos|pad|unk|start_of_turn|end_of_turn|think|extra_id_\d+)>"
    r"|^\s*<s>|</s>\s*\Z"  # elsewhere it is HTML
    r"|\[/?INST\]|<</?SYS>>"
    r"|^### *(?:Instruction|Input|Response|Assistant|Human|User|System) *(?::|$)"
    r"|^[*_ ]*(?:User|Assistant|Human|AI Assistant|Chatbot)[*_ ]*:",
    re.MULTILINE,
)
# Not \frac{ab}{cd}, x^{ab} or ${HOME}.
_PLACEHOLDER = re.compile(r"(?<![\\\w}^$])\{\{? ?[A-Za-z_][A-Za-z0-9_ ]{1,30} ?\}?\}")

# How an answer begins that refuses, in normalized text (so no \W or \S, which would lose their case): an apology and soon after
# it what cannot be done, that alone, or "as an AI".
_REFUSALS = {
    "en": (
        r"(?:(?:i'm|i am) (?:(?:very|so|really|truly) )?sorry|sorry|(?:my )?apologies|i apologi[sz]e|unfortunately|regrettably)"
        r".{0,25}\b(?:i|as an) .{0,60}?(?:can't|cannot|can not|won't|unable to|not able to|don't have)",
        r"(?:i|we) (?:can't|cannot|can not|won't|will not) (?:\w+ly )?(?:help|assist|provide|answer|comply|fulfil|create|write|"
        r"generate|do th|support|engage|discuss|offer|share|give|participate|complete|respond|continue|translate|access)",
        r"(?:i'm|i am|we're|we are) (?:unable|not able) to ",
        r"(?:i|we) (?:must|have to|need to) (?:\w+ly )?(?:decline|refuse)|i (?:\w+ly )?(?:decline|refuse) to ",
        r"(?:as |i'm (?:just |only )?|i am (?:just |only )?)an? (?:ai|artificial intelligence|(?:large )?language model)\b",
    ),
    "ar": (r"(?:عذرا|اعتذر|أعتذر|آسف|أنا آسف|للأسف).{0,40}(?:لا أستطيع|لا يمكنني|لا أقدر|غير قادر|لن أتمكن)",
           r"(?:لا أستطيع|لا يمكنني) (?:مساعدتك|المساعدة|تقديم|الإجابة)",
           r"(?:بصفتي|باعتباري|كوني) (?:نموذج|نموذجا|ذكاء اصطناعي)"),
    "cs": (r"(?:omlouvám se|je mi líto|promiňte|bohužel).{0,30}(?:nemohu|nemůžu|nejsem schop)",
           r"jako (?:umělá inteligence|jazykový model)"),
    "de": (r"(?:es tut mir (?:sehr )?leid|tut mir leid|entschuldigung|leider).{0,30}(?:kann ich|ich kann|darf ich).{0,60}nicht",
           r"ich kann (?:dir|ihnen|dabei|diese).{0,40}nicht (?:helfen|beantworten)",
           r"als (?:ki|künstliche intelligenz|sprachmodell)\b"),
    "el": (r"(?:λυπάμαι|συγγνώμη|δυστυχώς|ζητώ συγγνώμη).{0,30}δεν (?:μπορώ|είμαι σε θέση)",
           r"ως (?:τεχνητή νοημοσύνη|γλωσσικό μοντέλο)"),
    "es": (r"(?:lo siento|lamento|lo lamento|disculp\w+|perdón|lamentablemente).{0,30}no (?:puedo|me es posible|podré)",
           r"no puedo (?:ayudar|proporcionar|responder|cumplir)",
           r"como (?:una? )?(?:ia|inteligencia artificial|modelo de lenguaje)\b"),
    "fa": (r"(?:متاسفم|متأسفم|ببخشید|متاسفانه|متأسفانه).{0,60}نمی.?(?:توانم|تونم)", r"به عنوان یک (?:هوش مصنوعی|مدل زبان)"),
    "fr": (r"(?:(?:je suis )?(?:vraiment )?désolée?|malheureusement|je regrette|je m'excuse).{0,30}je ne (?:peux|suis pas)",
           r"je ne peux pas (?:vous |t')?(?:aider|fournir|répondre)", r"en tant qu(?:'ia|'intelligence art|e modèle de lang)"),
    "he": (r"(?:אני מצטער|מצטער|סליחה|לצערי).{0,30}(?:לא יכול|איני יכול|אינני יכול|לא אוכל)", r"כ(?:מודל שפה|בינה מלאכותית)"),
    "hi": (r"(?:मुझे (?:खेद|अफ़सोस|अफसोस)|क्षमा करें|माफ़ करें|माफ कीजिए|मुझे माफ).{0,80}(?:नहीं (?:कर |दे )?सक|असमर्थ)",
           r"एक (?:एआई|ai|भाषा मॉडल).{0,20}(?:के रूप में|होने के नाते)"),
    "id": (r"(?:maaf|mohon maaf|saya minta maaf|sayangnya).{0,30}(?:tidak (?:dapat|bisa))", r"sebagai (?:ai\b|model bahasa)"),
    "it": (r"(?:mi dispiace|scusa|spiacente|purtroppo|sono spiacente).{0,30}non (?:posso|sono in grado)",
           r"non posso (?:aiutar|fornir|risponder)",
           r"(?:come|in quanto) (?:ia|intelligenza artificiale|modello linguistico)\b"),
    "ja": (r"(?:申し訳(?:ありません|ございません)|すみません|ごめんなさい|残念ながら).{0,60}"
           r"(?:できません|できかねます|致しかねます|出来ません)",
           r"(?:私は)?ai(?:アシスタント|言語モデル)?(?:として|なので|ですので)"),
    "ko": (r"(?:죄송하지만|죄송합니다|미안하지만|유감스럽게도).{0,60}(?:수 없|어렵습니다|불가능)",
           r"(?:저는 )?ai(?: 언어 모델)?로서"),
    "nl": (r"(?:het spijt me|sorry|helaas|excuses).{0,30}(?:kan ik|ik kan).{0,60}(?:niet|geen)",
           r"als (?:een )?(?:ai|taalmodel)\b"),
    "pl": (r"(?:przykro mi|przepraszam|niestety).{0,30}nie (?:mogę|jestem w stanie)",
           r"jako (?:ai|sztuczna inteligencja|model językowy)\b"),
    "pt": (r"(?:desculp\w+|sinto muito|lamento|infelizmente|peço desculpas).{0,30}não (?:posso|consigo|sou capaz)",
           r"não posso (?:ajudar|fornecer|responder)", r"como (?:uma? )?(?:ia|inteligência artificial|modelo de linguagem)\b"),
    "ro": (r"(?:îmi pare rău|ne pare rău|scuze|din păcate).{0,30}nu (?:pot|sunt capabil)",
           r"ca (?:ia|model de limbaj|inteligenț)"),
    "ru": (r"(?:извините|простите|к сожалению|мне (?:очень )?жаль|прошу прощения).{0,30}не (?:могу|способ|в состоянии)",
           r"я не могу (?:помочь|предоставить|ответить|выполнить)", r"как (?:ии|искусственный интеллект|языковая модель)\b"),
    "tr": (r"(?:üzgünüm|maalesef|özür dilerim|kusura bakmayın).{0,80}(?:amam|emem|amıyorum|emiyorum)",
           r"bir yapay zeka.{0,20} olarak"),
    "uk": (r"(?:вибачте|пробачте|на жаль|мені (?:дуже )?шкода|перепрошую).{0,30}не (?:можу|здат|в змозі)",
           r"як (?:ші|мовна модель)"),
    "vi": (r"(?:xin lỗi|rất tiếc|tôi xin lỗi|tôi rất tiếc).{0,30}không thể",
           r"là một (?:ai|mô hình ngôn ngữ|trí tuệ nhân tạo)"),
    "zh": (r"(?:很|非常)?(?:抱歉|对不起|對不起|遗憾).{0,20}(?:无法|不能|無法|没办法)",
           r"(?:作为|作為)(?:一个|一個|一名)?(?:ai|人工智能)",
           r"我(?:无法|不能|無法)(?:帮助|提供|回答|满足|協助)"),
}  # fmt: skip


def flags(prompt: str, answer: str, language: str | None, finish_reason: str | None = None) -> tuple[str, ...]:
    """What is wrong with an answer, in the order of `FLAGS`; nothing where no check objects.

    Args:
      prompt: what was asked, as one text.
      answer: what came.
      language: the answer's, one of the project's 23; None: it is not checked.
      finish_reason: as in `inference.protocol`, "stop" or "length"; None where it is not known.

    Raises:
      UserError: py3langid is not installed, or does not know the language.
    """
    if is_empty(answer):
        return ("empty", "truncated") if finish_reason == "length" else ("empty",)
    found = {
        "refusal": is_refusal(answer),
        "truncated": is_truncated(answer, finish_reason),
        "template_leak": leaks_template(prompt, answer),
        "wrong_language": language is not None and is_wrong_language(answer, language),
        "echo": is_echo(prompt, answer),
        "repetition": is_repetitive(answer),
        "translationese": language is not None and has_leftovers(answer, language),
    }
    return tuple(name for name in FLAGS if found.get(name))


def is_empty(answer: str) -> bool:
    """Whether there is nothing but whitespace, punctuation and invisible characters: no letter, digit or symbol."""
    return not any(unicodedata.category(character)[0] in "LNS" for character in answer)


def is_refusal(answer: str) -> bool:
    """Whether the answer begins by refusing, or as "As an AI", in one of the project's languages.

    Every language is looked for in every answer: a teacher often refuses in English. A refusal in words that the table lacks,
    or after an introduction, is missed; "As an AI" may introduce an answer.
    """
    beginning = _VOWEL_SIGNS.sub("", normalize(answer[:400]).replace("’", "'"))
    return _refusals().match(beginning) is not None


@functools.cache
def _refusals() -> re.Pattern[str]:
    return re.compile(r"\W*(?:" + "|".join(normalize(one) for own in _REFUSALS.values() for one in own) + ")")


def is_truncated(answer: str, finish_reason: str | None) -> bool:
    """Whether the answer was cut: at "length", or where no reason is known, by its end.

    By its end: a code fence is open, or an answer of some length stops in a long line without a mark that ends a sentence in
    its script, such as . ? ! … 。 ؟ ।. Quotes, brackets, emphasis and symbols after the mark are passed over. Not judged are
    ends in code, in a list, a table or a heading, in short lines (signatures, verse), and in Thai and Lao, which have no such
    mark. Of real texts cut anywhere 9 in 10 are found so, of whole ones 1 in 20 is taken for cut.
    """
    if finish_reason is not None:
        return finish_reason == "length"
    if answer.count("```") % 2:
        return True
    text = answer.rstrip()
    line = text[text.rfind("\n") + 1 :]
    if columns(text) < _LONG or columns(line) < _LINE or _LIST_OR_TABLE.match(line) or line.startswith("    "):
        return False
    end = len(line)
    while end and (line[end - 1] in "*_~\"'`" or unicodedata.category(line[end - 1]) in _AFTER_FINAL):
        end -= 1
    last = line[end - 1 : end] or line[-1]
    in_code_or_address = line.endswith("`") or "://" in line.rsplit(maxsplit=1)[-1]
    greek_question = last == ";" and re.search("[α-ω]", line) is not None
    return not (last in _FINAL or greek_question or in_code_or_address or _UNMARKED.match(last))


def leaks_template(prompt: str, answer: str) -> bool:
    """Whether marks of a chat template or an unfilled {placeholder} stand in the answer, and not already in the prompt.

    Placeholders are looked for outside code and formulas. A dialogue that was asked for is flagged by its "User:".
    """
    marks = [*_TOKENS.findall(answer), *_PLACEHOLDER.findall(prose(answer))]
    return any(mark.strip() not in prompt for mark in marks)


def is_wrong_language(answer: str, language: str) -> bool:
    """Whether most of the prose is in another language, as py3langid tells it; too few letters are not judged.

    Raises:
      UserError: py3langid is not installed, or does not know the language.
    """
    text = " ".join(prose(answer).split())
    telling = sum(map(columns, _WORD.findall(text))) >= _TELLING
    return telling and language_share(text, language) < 0.5


def is_echo(prompt: str, answer: str) -> bool:
    """Whether the answer is the prompt or begins with it, nearly word by word: 0.9 of its shingles stand in so much of it.

    Below 20 characters only an equal answer is one. A long question that is taken up whole in the first sentence is one too.
    """
    asked, answered = normalize(prompt), normalize(answer)
    if asked == answered:
        return True
    if len(asked) < _PROMPT:
        return False
    own = _shingles(asked)
    return len(own & _shingles(answered[: len(asked) + len(asked) // 4])) / len(own) >= _REPEATED


def is_repetitive(answer: str) -> bool:
    """Whether the answer or a part of it is a loop: fewer than half of its 10-grams of characters are distinct.

    Parts are of 400 characters, so a loop that is longer than 200 is found where it fills half of the answer.
    """
    text = normalize(answer)
    starts = [*range(0, len(text) - _WINDOW, _WINDOW // 2), max(0, len(text) - _WINDOW)]
    return any(_distinct(part) < _DISTINCT for part in (text, *(text[start : start + _WINDOW] for start in starts)))


def has_leftovers(answer: str, language: str) -> bool:
    """Whether words of English stand in prose of another language: what a translation left over.

    That is three function words, not all the same, that make 5 % of the letters, or in a language that is not written in Latin
    letters, three Latin words that make half of them, a Chinese character counting as two. Names and terms alone seldom reach
    either; a long quotation does.
    """
    if language == "en":
        return False
    text = prose(answer).casefold()
    letters = sum(map(columns, _WORD.findall(text)))
    latin = _LATIN_WORD.findall(text)
    english = [word for word in latin if word in _FUNCTION_WORDS]
    if len(english) >= _LATIN_WORDS and len(set(english)) > 1 and sum(map(len, english)) >= _ENGLISH_SHARE * letters:
        return True
    return language in _NOT_LATIN and len(latin) >= _LATIN_WORDS and sum(map(len, latin)) >= _LATIN_SHARE * letters


def prose(text: str) -> str:
    """A text without its code, formulas and addresses."""
    return _INLINE.sub(" ", _FENCE.sub(" ", text))


def columns(text: str) -> int:
    """How wide a text is in a terminal, by which a Chinese character counts as two Latin ones."""
    if text.isascii():
        return len(text)
    return len(text) + sum(unicodedata.east_asian_width(character) in "WF" for character in text)


def _shingles(text: str) -> set[str]:
    return {text[start : start + _SHINGLE] for start in range(max(1, len(text) - _SHINGLE + 1))}


def _distinct(text: str) -> float:
    """The share of distinct n-grams of a text; 1 where there are too few."""
    grams = [text[start : start + _GRAM] for start in range(len(text) - _GRAM + 1)]
    return len(set(grams)) / len(grams) if len(grams) >= _FEWEST else 1.0
