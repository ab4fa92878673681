"""Names of languages, by the codes that benchmarks call them."""

from __future__ import annotations

from collections.abc import Mapping

# fmt: off
ENGLISH_NAMES: Mapping[str, str] = {
    "ar": "Arabic", "cs": "Czech", "de": "German", "el": "Greek", "en": "English", "es": "Spanish", "fa": "Persian",
    "fr": "French", "he": "Hebrew", "hi": "Hindi", "id": "Indonesian", "it": "Italian", "ja": "Japanese", "ko": "Korean",
    "nl": "Dutch", "pl": "Polish", "pt": "Portuguese", "ro": "Romanian", "ru": "Russian", "tr": "Turkish",
    "uk": "Ukrainian", "vi": "Vietnamese", "zh": "Chinese",
}
# ISO 639-3 codes, as FLORES-200 and Belebele write them, and names of languages in tasks, by ISO 639-1 code.
THREE_LETTERS = {
    "arb": "ar", "ara": "ar", "ces": "cs", "deu": "de", "ell": "el", "eng": "en", "spa": "es", "pes": "fa", "fra": "fr",
    "heb": "he", "hin": "hi", "ind": "id", "ita": "it", "jpn": "ja", "kor": "ko", "nld": "nl", "pol": "pl", "por": "pt",
    "ron": "ro", "rus": "ru", "tur": "tr", "ukr": "uk", "vie": "vi", "zho": "zh",
    "amh": "am", "ben": "bn", "fil": "fil", "tgl": "fil", "hau": "ha", "ibo": "ig", "kir": "ky", "lit": "lt", "mlg": "mg",
    "msa": "ms", "zsm": "ms", "nep": "ne", "npi": "ne", "nya": "ny", "sin": "si", "sna": "sn", "som": "so", "srp": "sr",
    "swe": "sv", "swa": "sw", "swh": "sw", "tel": "te", "yor": "yo", "est": "et", "hat": "ht", "que": "qu", "tam": "ta",
    "tha": "th", "mya": "my", "eus": "eu", "fas": "fa",
}
# FLORES-200's codes of the languages above; FLORES+ has the individual language's for Chinese, cmn_Hans.
FLORES: Mapping[str, str] = {
    "ar": "arb_Arab", "cs": "ces_Latn", "de": "deu_Latn", "el": "ell_Grek", "en": "eng_Latn", "es": "spa_Latn",
    "fa": "pes_Arab", "fr": "fra_Latn", "he": "heb_Hebr", "hi": "hin_Deva", "id": "ind_Latn", "it": "ita_Latn",
    "ja": "jpn_Jpan", "ko": "kor_Hang", "nl": "nld_Latn", "pl": "pol_Latn", "pt": "por_Latn", "ro": "ron_Latn",
    "ru": "rus_Cyrl", "tr": "tur_Latn", "uk": "ukr_Cyrl", "vi": "vie_Latn", "zh": "zho_Hans",
}
# XL-Sum's names of those of the languages above that it has.
XLSUM: Mapping[str, str] = {
    "ar": "arabic", "en": "english", "es": "spanish", "fa": "persian", "fr": "french", "hi": "hindi", "id": "indonesian",
    "ja": "japanese", "ko": "korean", "pt": "portuguese", "ru": "russian", "tr": "turkish", "uk": "ukrainian",
    "vi": "vietnamese", "zh": "chinese_simplified",
}
_MORE_NAMES = {
    "am": "Amharic", "bn": "Bengali", "fil": "Filipino", "ha": "Hausa", "ig": "Igbo", "ky": "Kyrgyz", "lt": "Lithuanian",
    "mg": "Malagasy", "ms": "Malay", "ne": "Nepali", "ny": "Chichewa", "si": "Sinhala", "sn": "Shona", "so": "Somali",
    "sr": "Serbian", "sv": "Swedish", "sw": "Swahili", "te": "Telugu", "yo": "Yoruba", "et": "Estonian",
    "ht": "Haitian", "qu": "Quechua", "ta": "Tamil", "th": "Thai", "my": "Burmese", "eu": "Basque", "sq": "Albanian",
    "hy": "Armenian", "az": "Azerbaijani", "be": "Belarusian", "bg": "Bulgarian", "hr": "Croatian", "fi": "Finnish",
    "ka": "Georgian", "hu": "Hungarian", "kk": "Kazakh", "ml": "Malayalam", "mk": "Macedonian", "tl": "Tagalog",
    "ur": "Urdu", "uz": "Uzbek",
}
# fmt: on
NAMES: Mapping[str, str] = {**ENGLISH_NAMES, **_MORE_NAMES}
"""English names by ISO 639-1 code."""

_CHINESE = {"hans": "Simplified Chinese", "hant": "Traditional Chinese"}


def short_code(code: str) -> str:
    """ISO 639-1 where a language has such a code: "ar" for "ar", "arb" and "arb_Arab"."""
    language = code.casefold().replace("-", "_").partition("_")[0]
    return THREE_LETTERS.get(language, language)


def language_name(code: str) -> str:
    """ "Arabic" for "ar", "arb" and "arb_Arab", "Simplified Chinese" for "zho_Hans"; an unknown code, or a name, as it is."""
    language, _, script = code.casefold().replace("-", "_").partition("_")
    if language in ("zh", "zho") and script in _CHINESE:
        return _CHINESE[script]
    return NAMES.get(short_code(code), code)
