"""Names of the studies' 23 languages (papers.md 0.1), by the codes that benchmarks call them."""

from __future__ import annotations

_BY_NAME = {
    "Arabic": ("ar", "arb", "ara"),
    "Chinese": ("zh", "zho"),
    "Czech": ("cs", "ces"),
    "Dutch": ("nl", "nld"),
    "English": ("en", "eng"),
    "French": ("fr", "fra"),
    "German": ("de", "deu"),
    "Greek": ("el", "ell"),
    "Hebrew": ("he", "heb"),
    "Hindi": ("hi", "hin"),
    "Indonesian": ("id", "ind"),
    "Italian": ("it", "ita"),
    "Japanese": ("ja", "jpn"),
    "Korean": ("ko", "kor"),
    "Persian": ("fa", "pes", "fas"),
    "Polish": ("pl", "pol"),
    "Portuguese": ("pt", "por"),
    "Romanian": ("ro", "ron"),
    "Russian": ("ru", "rus"),
    "Spanish": ("es", "spa"),
    "Turkish": ("tr", "tur"),
    "Ukrainian": ("uk", "ukr"),
    "Vietnamese": ("vi", "vie"),
}
_NAMES = {code: name for name, codes in _BY_NAME.items() for code in codes}
_CHINESE = {"hans": "Simplified Chinese", "hant": "Traditional Chinese"}


def language_name(code: str) -> str:
    """ "Arabic" for "ar", "arb" and "arb_Arab", "Simplified Chinese" for "zho_Hans"; an unknown code, or a name, as it is."""
    language, _, script = code.casefold().replace("-", "_").partition("_")
    if language in ("zh", "zho") and script in _CHINESE:
        return _CHINESE[script]
    return _NAMES.get(language, code)
