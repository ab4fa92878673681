"""Words, sentences and syllables in the project's 23 languages, by rules that need no model and no dictionary.

Words follow the word boundaries of Unicode (UAX #29): letters and digits with their combining marks; apostrophes, full stops
and middle dots between letters, and separators between digits, are inside. It differs in three places, each for a reason:

- a run of hiragana is one word, where UAX #29 cuts every character; a Han character is one, as there;
- Thai, Lao, Khmer and Burmese, where words need a dictionary, are cut into a base character with its marks and, before it, a
  vowel that is written first;
- "_" and ":" join nothing: in model answers they are markdown.

So in Chinese, Japanese and Thai a "word" is a unit of writing. Numbers of words compare models within a language; they do not
compare languages. The names of these units stay "words", as in the toolkit (LLM See, LLM Do, 2407.01490).

Sentences end at the terminators of all scripts and at line ends, as in UAX #29, but not after known abbreviations, initials,
list numbers, or before a lower-case letter.
"""

from __future__ import annotations

import functools
import re
import unicodedata

_HAN = "\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
_HIRAGANA = "\u3041-\u3096\u309d-\u309f"
_KATAKANA = "\u30a1-\u30fa\u30fd-\u30ff\u31f0-\u31ff\uff66-\uff9d"
_PROLONGED = "\u30fc\uff70"  # the mark of a long vowel, in runs of either kana
_STACKED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
_WRITTEN_FIRST = "\u0e40-\u0e44\u0ec0-\u0ec4"  # Thai and Lao vowels that stand before their consonant
_EXTENDS = "\u00ad\u200c\u200d"  # soft hyphen; the joiners that are inside Persian and Hindi words

_TERMINATORS = ".!?…‼⁇⁈⁉。！？｡．।॥؟۔՞։\u037e"
_SPACELESS_TERMINATORS = "。！？｡।॥؟۔՞։"  # end a sentence whatever follows; the others only before space
_CLOSERS = "\"'»”’›)]}」』】）〉》*_"
_OPENERS = "\"'«“„‘‹([{「『【（〈《*_¿¡-–—•"

# In lower case, without the last full stop. What is a word in another language stands with its own only.
_ABBREVIATIONS: dict[str, frozenset[str]] = {
    language: frozenset(words.split())
    for language, words in {
        "": "mr mrs ms dr prof st vs etc fig tel",
        "en": "jr sr vol approx dept inc ltd co corp gen col lt sgt rev hon gov sen rep ave blvd jan feb aug sept oct nov dec",
        "de": "bzw ca evtl ggf hr fr nr abb bd usw sog vgl str mio mrd inkl geb jh bspw abs",
        "fr": "m mm mme mlle av env p pp chap éd",
        "es": "sr sra srta dra ud uds núm pág págs av aprox ee uu art",
        "pt": "sr sra dra núm pág av aprox art ex",
        "it": "sig sigg dott ing avv pag pagg ca ecc art es",
        "nl": "bijv ca blz nr mevr dhr enz mln mld evt incl art",
        "pl": "np tj tzn tzw dot godz im inż mgr nr pt ul wg m.in św",
        "cs": "např tj tzv atd apod mj ing mgr čl č ul str resp",
        "ro": "nr art str dl dna ex",
        "ru": "г гг в вв см напр рис стр тыс млн млрд руб ул др им",
        "uk": "р рр ст див напр рис стор тис млн млрд грн вул ін ім",
        "tr": "örn vb vd bkz doç yrd yy s cad sok",
        "vi": "tp ts ths gs pgs",
        "id": "dll dsb hlm no jl tgl",
        "el": "κ κα κος βλ σελ π.χ αρ",
        "hi": "डॉ श्री प्रो",
        "he": "וכו עמ",
        "ar": "د أ",
        "fa": "",
    }.items()
}

_LATIN_VOWELS, _CYRILLIC_VOWELS, _GREEK_VOWELS = "aeiouyæœøıơư", "аеиоуыэюяєіїёѣ", "αεηιουω"
_DIPHTHONGS = re.compile("αι|ει|οι|υι|ου|αυ|ευ|ηυ")


def words(text: str) -> list[str]:
    """The words of a text, in order and as written."""
    return _word_pattern().findall(text)


def sentences(text: str, language: str | None = None) -> list[str]:
    """The sentences of a text that have a word, stripped.

    Args:
      text: to be cut.
      language: whose abbreviations count; None for those that are safe in all. In "el" a semicolon asks a question, and in
        "de" a letter, or a number of two digits at most, before a full stop is an abbreviation or an ordinal.
    """
    found, begin = [], 0
    for match in _boundary_pattern(language == "el").finditer(text):
        if _ends_sentence(text, begin, match, language):
            found.append(text[begin : match.end()].strip())
            begin = match.end()
    found.append(text[begin:].strip())
    return [sentence for sentence in found if _word_pattern().search(sentence)]


@functools.lru_cache(1 << 16)  # words recur
def syllables(word: str, language: str | None = None) -> int | None:
    """How many syllables a word has; at least 1 for one with letters, 0 for a number, None where no rule is known.

    Latin: groups of vowels, a diaeresis on e or i opening another; in "en" and "fr" a silent final e does not count. Vowels
    that meet across syllables ("idea", "poeta") count as one, so the rule errs downward. Cyrillic: vowel letters, exactly.
    Greek: vowels, two-letter ones counting once unless an accent or a diaeresis parts them. Other scripts write vowels in
    part or not at all.

    Args:
      word: one word.
      language: for the silent e.
    """
    letters = [character for character in word if character.isalpha()]
    if not letters:
        return 0
    script = {_script(character) for character in letters}
    if len(script) > 1 or not script <= {"LATIN", "CYRILLIC", "GREEK"}:
        return None
    rule = {"LATIN": _latin_syllables, "CYRILLIC": _cyrillic_syllables, "GREEK": _greek_syllables}[script.pop()]
    spelled = "".join(character for character in word if character.isalpha() or unicodedata.combining(character))
    return max(1, rule(spelled.casefold(), language))


def is_unspaced(word: str) -> bool:
    """Whether a word is a unit of a script that puts no space between words."""
    return re.match(f"[{_HAN}{_HIRAGANA}{_KATAKANA}{_STACKED}]", word) is not None


def letter_count(word: str) -> int:
    """Letters and digits of a word, without combining marks and joiners."""
    return sum(character.isalnum() for character in word)


@functools.cache
def _word_pattern() -> re.Pattern[str]:
    marks = f"[{_marks()}{_EXTENDS}]*"
    unspaced = f"{_HAN}{_HIRAGANA}{_KATAKANA}{_PROLONGED}{_STACKED}"
    unit = rf"[^\W_{unspaced}]{marks}"  # \w is what is a letter or a digit to str.isalnum, and "_"
    # The character before a joint is a letter, a digit or a mark; a mark's base is a letter.
    joints = "|".join(
        [
            r"(?<=[\u0591-\u05c7\u05d0-\u05ea])[\"״](?=[\u05d0-\u05ea])",  # Hebrew abbreviations
            rf"(?<!\d)[.'’‘·‧․﹒＇．](?=[^\W\d_{unspaced}])",
            r"(?<=\d)[.,;'’،٫٬，．](?=\d)",
        ]
    )
    return re.compile(
        rf"[{_HAN}]{marks}"
        rf"|(?:[{_HIRAGANA}]{marks}[{_PROLONGED}]*)+"
        rf"|(?:[{_KATAKANA}{_PROLONGED}]{marks})+"
        rf"|[{_WRITTEN_FIRST}]?(?:(?![{_WRITTEN_FIRST}])[{_STACKED}])(?<=\w){marks}|[{_WRITTEN_FIRST}]"
        rf"|(?:{unit}(?:{joints})?)+(?:(?<=[\u0591-\u05c7\u05d0-\u05ea])['׳])?"  # a geresh ends a Hebrew abbreviation
    )


@functools.cache
def _marks() -> str:
    """All combining marks, as the inside of a character class."""
    points = [p for p in (*range(0x20000), *range(0xE0100, 0xE01F0)) if unicodedata.category(chr(p))[0] == "M"]
    runs: list[list[int]] = []
    for point in points:
        if runs and runs[-1][1] == point - 1:
            runs[-1][1] = point
        else:
            runs.append([point, point])
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in runs)


@functools.cache
def _boundary_pattern(greek: bool) -> re.Pattern[str]:
    terminators = re.escape(_TERMINATORS + (";" if greek else ""))
    return re.compile(rf"[{terminators}]+(?:[{re.escape(_CLOSERS)}]|[ \u00a0\u202f]»(?!\w))*|[\n\r\u2028\u2029]+")


def _ends_sentence(text: str, begin: int, match: re.Match[str], language: str | None) -> bool:
    """Whether a sentence that starts at `begin` ends with a run of terminators (and closing marks), or of line ends."""
    mark = match.group()
    if mark[0] in "\n\r\u2028\u2029" or mark[0] in _SPACELESS_TERMINATORS:
        return True
    after = text[match.end() : match.end() + 1]
    if after and not after.isspace() and not is_unspaced(after) and after not in "「『【（《〈":
        return False  # "3.14", "example.com", "?q="
    following = text[match.end() :].lstrip(" \t\u00a0" + _OPENERS)[:1] if after != "\n" else ""
    closed = mark[-1] in _CLOSERS
    if following.islower() and (mark[0] in ".…．" or closed):
        return False  # "etc. and", "“Why?” he asked"
    return mark[0] != "." or mark.startswith("..") or not _is_abbreviated(text[begin : match.start()], language)


def _is_abbreviated(sentence: str, language: str | None) -> bool:
    """Whether a full stop after this text belongs to its last word."""
    token = re.split(r"[\s(\[{«“„\"'/]", sentence)[-1]
    if not token:
        return False
    if sentence.strip() == token and (token.isdecimal() or len(token) == 1):
        return True  # "1." or "a." before an item of a list
    parts = token.split(".")
    if len(parts) > 1 and all(part.isalpha() and len(part) <= 2 for part in parts):
        return True  # "U.S.", "z.B.", "т.е."
    if len(token) == 1 and token.isupper():
        return True  # "J. Smith"
    if language == "de" and (len(token) == 1 or (token.isdecimal() and len(token) <= 2)):
        return True  # "z. B.", "3. Oktober"
    known = token.casefold()
    return known in _ABBREVIATIONS[""] or known in _ABBREVIATIONS.get(language or "", ())


@functools.cache
def _script(letter: str) -> str:
    """First word of a letter's Unicode name, which is its script's; full-width letters are LATIN."""
    return unicodedata.name(letter, "?").removeprefix("FULLWIDTH ").split()[0]


def _latin_syllables(word: str, language: str | None) -> int:
    decomposed = unicodedata.normalize("NFD", word)
    plain = unicodedata.normalize("NFD", re.sub("[ei]\u0308", "-i", decomposed))
    plain = "".join(character for character in plain if not unicodedata.combining(character))
    plain = re.sub("^y(?=[aeiou])|(?<=[aeiou])y(?=[aeiou])", "-", plain)
    plain = re.sub("(?<=q)u(?=[aeiouy])", "", plain)
    if language == "en":
        # "careful", "precisely"; "made", "makes", "baked"; not "table", "boxes", "wanted"
        plain = re.sub("(?<=[^aeiouy])e(?=(?:ful|less|ment|ness)?(?:ly)?$)(?!$)", "", plain)
        plain = re.sub("(?<=[^aeiouy])(?:(?<!l)e|(?<=[aeiouy]l)e|(?<![cgsxz])(?<!sh)(?<!ch)es|(?<![dt])ed)$", "", plain)
    elif language == "fr":
        plain = re.sub("(?<=[^aeiouy-])es?$", "", plain) if decomposed[-1:] != "\u0301" else plain
    return len(re.findall(f"[{_LATIN_VOWELS}]+", plain))


def _cyrillic_syllables(word: str, language: str | None) -> int:
    del language
    # Composed: decomposed, й is и with a mark. What has no composed form, a vowel with a stress mark, keeps its letter.
    return sum(character in _CYRILLIC_VOWELS for character in unicodedata.normalize("NFC", word))


def _greek_syllables(word: str, language: str | None) -> int:
    del language
    # A mark after the first of two vowels, or a diaeresis on the second, keeps them from being neighbours.
    parted = re.sub("(?<=[αεηου])([ιυ])(\u0301?\u0308)", r"-\1", unicodedata.normalize("NFD", word))
    parted = re.sub("(?<=[αεηου])\u0301", "-", parted)
    plain = "".join(character for character in parted if not unicodedata.combining(character))
    return sum(character in _GREEK_VOWELS for character in _DIPHTHONGS.sub("ο", plain))
