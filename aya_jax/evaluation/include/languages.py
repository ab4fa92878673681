"""INCLUDE's 44 languages: codes, scripts, and their relation to what a model was trained on (2411.19799, section 5)."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from aya_jax.evaluation.languages import NAMES

# fmt: off
LANGUAGES: Mapping[str, str] = {
    "Albanian": "sq", "Arabic": "ar", "Armenian": "hy", "Azerbaijani": "az", "Basque": "eu", "Belarusian": "be",
    "Bengali": "bn", "Bulgarian": "bg", "Chinese": "zh", "Croatian": "hr", "Dutch": "nl", "Estonian": "et", "Finnish": "fi",
    "French": "fr", "Georgian": "ka", "German": "de", "Greek": "el", "Hebrew": "he", "Hindi": "hi", "Hungarian": "hu",
    "Indonesian": "id", "Italian": "it", "Japanese": "ja", "Kazakh": "kk", "Korean": "ko", "Lithuanian": "lt", "Malay": "ms",
    "Malayalam": "ml", "Nepali": "ne", "North Macedonian": "mk", "Persian": "fa", "Polish": "pl", "Portuguese": "pt",
    "Russian": "ru", "Serbian": "sr", "Spanish": "es", "Tagalog": "tl", "Tamil": "ta", "Telugu": "te", "Turkish": "tr",
    "Ukrainian": "uk", "Urdu": "ur", "Uzbek": "uz", "Vietnamese": "vi",
}
"""Code by the name of the dataset's configuration."""

# Scripts of INCLUDE's exams and, so that training may name any of them, of the other languages of `NAMES`. The rest is Latin.
_SCRIPTS: Mapping[str, tuple[str, ...]] = {
    "Arabic": ("ar", "fa", "ur"), "Cyrillic": ("be", "bg", "kk", "ky", "mk", "ru", "sr", "uk"), "Devanagari": ("hi", "ne"),
    "Armenian": ("hy",), "Bengali": ("bn",), "Burmese": ("my",), "Chinese": ("zh",), "Ethiopic": ("am",),
    "Georgian": ("ka",), "Greek": ("el",), "Hangul": ("ko",), "Hebrew": ("he",), "Japanese": ("ja",), "Malayalam": ("ml",),
    "Sinhala": ("si",), "Tamil": ("ta",), "Telugu": ("te",), "Thai": ("th",),
}
# fmt: on
_SCRIPT_OF = {code: script for script, codes in _SCRIPTS.items() for code in codes}


def script(code: str) -> str:
    """The script of a language of `NAMES`, by its code."""
    return _SCRIPT_OF.get(code, "Latin")


def relation(language: str, trained: Collection[str]) -> str:
    """What a model saw of a language of INCLUDE: it was "trained" on it, on its "script" in another language, or "neither".

    Args:
      language: INCLUDE's name of it.
      trained: codes.
    """
    code = LANGUAGES[language]
    if code in trained:
        return "trained"
    return "script" if script(code) in map(script, trained) else "neither"


def unknown(codes: Collection[str]) -> list[str]:
    """Codes that are no language's."""
    return [code for code in codes if code not in NAMES]
