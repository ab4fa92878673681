"""INCLUDE (2411.19799): its rows, and the prompts of its four styles.

The four styles are an instruction in the question's language (IL) or in English (Eng), with or without a prefix that names the
region whose exam the question is from (papers.md section 3). The wording is this project's: scores compare between styles
and models here, not with the paper's tables to the decimal. Questions and choices are never translated.

The first cards of the dataset have `choices`, a list; later ones `option_a` to `option_d`. Both give the same `Question`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from aya_jax.config.errors import UserError, did_you_mean, near_names
from aya_jax.evaluation.analyses.records import choice_number, text_field

Style = Literal["IL", "Eng", "Reg+IL", "Reg+Eng"]
STYLES: tuple[Style, ...] = ("IL", "Eng", "Reg+IL", "Reg+Eng")
LETTERS = "ABCD"
_OPTIONS = ("option_a", "option_b", "option_c", "option_d")


class Wording(NamedTuple):
    """One language's words.

    Attributes:
      name: the language's name in INCLUDE, in English.
      instruction: what is asked.
      cue: the word for "answer" that the model's letter follows.
      region: the prefix; `{country}` is the row's, as the dataset spells it.
      reasoning: what is asked where the model is to reason first; it names the line with the cue that has to come last.
    """

    name: str
    instruction: str
    cue: str
    region: str
    reasoning: str


ENGLISH = Wording(
    "English",
    "Answer the following multiple-choice question. Reply only with the letter of the correct option: A, B, C or D.",
    "Answer",
    "The following question is from an exam in this country: {country}.",
    'Answer the following multiple-choice question. Think step by step, and end with the line "{cue}: X", where X is the '
    "letter of the correct option: A, B, C or D.",
)

WORDINGS: Mapping[str, Wording] = {
    "ar": Wording(
        "Arabic",
        "أجب عن سؤال الاختيار من متعدد التالي. اكتب حرف الخيار الصحيح فقط: A أو B أو C أو D.",
        "الإجابة",
        "السؤال التالي من امتحان في هذا البلد: {country}.",
        "أجب عن سؤال الاختيار من متعدد التالي. فكّر خطوة بخطوة، ثم اختم بسطر «{cue}: X»، حيث X هو حرف الخيار الصحيح: "
        "A أو B أو C أو D.",
    ),
    "de": Wording(
        "German",
        "Beantworte die folgende Multiple-Choice-Frage. "
        "Antworte nur mit dem Buchstaben der richtigen Option: A, B, C oder D.",
        "Antwort",
        "Die folgende Frage stammt aus einer Prüfung in diesem Land: {country}.",
        "Beantworte die folgende Multiple-Choice-Frage. Denke Schritt für Schritt nach und schließe mit der Zeile "
        "„{cue}: X“, wobei X der Buchstabe der richtigen Option ist: A, B, C oder D.",
    ),
    "el": Wording(
        "Greek",
        "Απάντησε στην ακόλουθη ερώτηση πολλαπλής επιλογής. Γράψε μόνο το γράμμα της σωστής επιλογής: A, B, C ή D.",
        "Απάντηση",
        "Η ακόλουθη ερώτηση προέρχεται από εξετάσεις σε αυτή τη χώρα: {country}.",
        "Απάντησε στην ακόλουθη ερώτηση πολλαπλής επιλογής. Σκέψου βήμα προς βήμα και τελείωσε με τη γραμμή «{cue}: X», "
        "όπου X είναι το γράμμα της σωστής επιλογής: A, B, C ή D.",
    ),
    "es": Wording(
        "Spanish",
        "Responde a la siguiente pregunta de opción múltiple. "
        "Escribe solo la letra de la opción correcta: A, B, C o D.",
        "Respuesta",
        "La siguiente pregunta procede de un examen de este país: {country}.",
        "Responde a la siguiente pregunta de opción múltiple. Piensa paso a paso y termina con la línea «{cue}: X», "
        "donde X es la letra de la opción correcta: A, B, C o D.",
    ),
    "fa": Wording(
        "Persian",
        "به پرسش چندگزینه‌ای زیر پاسخ دهید. فقط حرف گزینهٔ درست را بنویسید: A، B، C یا D.",
        "پاسخ",
        "پرسش زیر از آزمونی در این کشور است: {country}.",
        "به پرسش چندگزینه‌ای زیر پاسخ دهید. گام‌به‌گام فکر کنید و در پایان سطر «{cue}: X» را بنویسید که در آن X حرف "
        "گزینهٔ درست است: A، B، C یا D.",
    ),
    "fr": Wording(
        "French",
        "Réponds à la question à choix multiples suivante. "
        "Écris uniquement la lettre de la bonne option : A, B, C ou D.",
        "Réponse",
        "La question suivante provient d'un examen de ce pays : {country}.",
        "Réponds à la question à choix multiples suivante. Réfléchis étape par étape et termine par la ligne "
        "« {cue} : X », où X est la lettre de la bonne option : A, B, C ou D.",
    ),
    "he": Wording(
        "Hebrew",
        "ענו על השאלה הרב-ברירתית הבאה. כתבו רק את האות של האפשרות הנכונה: A,‏ B,‏ C או D.",
        "תשובה",
        "השאלה הבאה לקוחה ממבחן במדינה זו: {country}.",
        "ענו על השאלה הרב-ברירתית הבאה. חשבו צעד אחר צעד וסיימו בשורה „{cue}: X”, כאשר X היא האות של האפשרות הנכונה: "
        "A,‏ B,‏ C או D.",
    ),
    "hi": Wording(
        "Hindi",
        "निम्नलिखित बहुविकल्पीय प्रश्न का उत्तर दीजिए। केवल सही विकल्प का अक्षर लिखिए: A, B, C या D।",
        "उत्तर",
        "निम्नलिखित प्रश्न इस देश की एक परीक्षा से है: {country}।",
        "निम्नलिखित बहुविकल्पीय प्रश्न का उत्तर दीजिए। चरण-दर-चरण सोचिए और अंत में पंक्ति “{cue}: X” लिखिए, जहाँ X सही विकल्प का "
        "अक्षर है: A, B, C या D।",
    ),
    "id": Wording(
        "Indonesian",
        "Jawablah soal pilihan ganda berikut. Tulis hanya huruf pilihan yang benar: A, B, C, atau D.",
        "Jawaban",
        "Soal berikut berasal dari ujian di negara ini: {country}.",
        "Jawablah soal pilihan ganda berikut. Pikirkan langkah demi langkah, lalu akhiri dengan baris “{cue}: X”; X adalah "
        "huruf pilihan yang benar: A, B, C, atau D.",
    ),
    "it": Wording(
        "Italian",
        "Rispondi alla seguente domanda a scelta multipla. Scrivi solo la lettera dell'opzione corretta: A, B, C o D.",
        "Risposta",
        "La domanda seguente proviene da un esame di questo paese: {country}.",
        "Rispondi alla seguente domanda a scelta multipla. Ragiona passo dopo passo e termina con la riga «{cue}: X», "
        "dove X è la lettera dell'opzione corretta: A, B, C o D.",
    ),
    "ja": Wording(
        "Japanese",
        "次の選択式の問題に答えてください。正しい選択肢の文字（A、B、C、D のいずれか）だけを書いてください。",
        "答え",
        "次の問題は、この国の試験からの出題です：{country}。",
        "次の選択式の問題に答えてください。段階を追って考え、最後の行に「{cue}：X」と書いてください。"
        "X は正しい選択肢の文字（A、B、C、D のいずれか）です。",
    ),
    "ko": Wording(
        "Korean",
        "다음 객관식 문제에 답하세요. 올바른 선택지의 글자(A, B, C, D 중 하나)만 쓰세요.",
        "답",
        "다음 문제는 이 나라의 시험에서 나온 것입니다: {country}.",
        "다음 객관식 문제에 답하세요. 단계별로 생각한 뒤 마지막 줄에 “{cue}: X”라고 쓰세요. "
        "X는 올바른 선택지의 글자(A, B, C, D 중 하나)입니다.",
    ),
    "nl": Wording(
        "Dutch",
        "Beantwoord de volgende meerkeuzevraag. Antwoord alleen met de letter van de juiste optie: A, B, C of D.",
        "Antwoord",
        "De volgende vraag komt uit een examen in dit land: {country}.",
        "Beantwoord de volgende meerkeuzevraag. Denk stap voor stap na en eindig met de regel “{cue}: X”, waarbij X de "
        "letter van de juiste optie is: A, B, C of D.",
    ),
    "pl": Wording(
        "Polish",
        "Odpowiedz na poniższe pytanie wielokrotnego wyboru. Podaj tylko literę poprawnej opcji: A, B, C lub D.",
        "Odpowiedź",
        "Poniższe pytanie pochodzi z egzaminu w tym kraju: {country}.",
        "Odpowiedz na poniższe pytanie wielokrotnego wyboru. Pomyśl krok po kroku i zakończ wierszem „{cue}: X”, "
        "gdzie X to litera poprawnej opcji: A, B, C lub D.",
    ),
    "pt": Wording(
        "Portuguese",
        "Responda à seguinte pergunta de escolha múltipla. Escreva apenas a letra da opção correta: A, B, C ou D.",
        "Resposta",
        "A pergunta seguinte vem de um exame deste país: {country}.",
        "Responda à seguinte pergunta de escolha múltipla. Pense passo a passo e termine com a linha “{cue}: X”, "
        "em que X é a letra da opção correta: A, B, C ou D.",
    ),
    "ru": Wording(
        "Russian",
        "Ответьте на следующий вопрос с вариантами ответа. Напишите только букву правильного варианта: A, B, C или D.",
        "Ответ",
        "Следующий вопрос взят из экзамена в этой стране: {country}.",
        "Ответьте на следующий вопрос с вариантами ответа. Рассуждайте шаг за шагом и закончите строкой «{cue}: X», "
        "где X — буква правильного варианта: A, B, C или D.",
    ),
    "tr": Wording(
        "Turkish",
        "Aşağıdaki çoktan seçmeli soruyu yanıtlayın. Yalnızca doğru seçeneğin harfini yazın: A, B, C veya D.",
        "Yanıt",
        "Aşağıdaki soru şu ülkedeki bir sınavdan alınmıştır: {country}.",
        "Aşağıdaki çoktan seçmeli soruyu yanıtlayın. Adım adım düşünün ve sonunda “{cue}: X” satırını yazın; "
        "X doğru seçeneğin harfidir: A, B, C veya D.",
    ),
    "uk": Wording(
        "Ukrainian",
        "Дайте відповідь на наступне запитання з варіантами відповіді. "
        "Напишіть лише літеру правильного варіанта: A, B, C або D.",
        "Відповідь",
        "Наступне запитання взято з іспиту в цій країні: {country}.",
        "Дайте відповідь на наступне запитання з варіантами відповіді. Міркуйте крок за кроком і завершіть рядком "
        "«{cue}: X», де X — літера правильного варіанта: A, B, C або D.",
    ),
    "vi": Wording(
        "Vietnamese",
        "Hãy trả lời câu hỏi trắc nghiệm sau. Chỉ viết chữ cái của phương án đúng: A, B, C hoặc D.",
        "Đáp án",
        "Câu hỏi sau đây được lấy từ một kỳ thi ở quốc gia này: {country}.",
        "Hãy trả lời câu hỏi trắc nghiệm sau. Hãy suy nghĩ từng bước và kết thúc bằng dòng “{cue}: X”, trong đó X là chữ "
        "cái của phương án đúng: A, B, C hoặc D.",
    ),
    "zh": Wording(
        "Chinese",
        "请回答下面的选择题。只写出正确选项的字母：A、B、C 或 D。",
        "答案",
        "下面的题目来自这个国家的考试：{country}。",
        "请回答下面的选择题。请一步一步地思考，最后一行写“{cue}：X”，其中 X 是正确选项的字母：A、B、C 或 D。",
    ),
}
_BY_NAME = {wording.name: wording for wording in WORDINGS.values()}


@dataclass(frozen=True)
class Question:
    """One row of INCLUDE.

    Attributes:
      id: "<language>/<number of its row>", or the row's own.
      language: its English name.
      country, domain, subject, level: as published; empty where a revision lacks them.
      regional_feature: "agnostic", "region explicit", "region implicit" or "culture".
      question: in its own language.
      choices: four.
      answer: number of the right one.
    """

    id: str
    language: str
    country: str
    domain: str
    subject: str
    level: str
    regional_feature: str
    question: str
    choices: tuple[str, ...]
    answer: int


def read_questions(rows: Iterable[Mapping[str, Any]], file: Path | str = "rows") -> list[Question]:
    """Rows of either published schema.

    Raises:
      UserError: a row lacks a field or has an unusable one; names file, line and field.
    """
    return [_question(row, number, f"{file}:{number}") for number, row in enumerate(rows, 1)]


def has_words(language: str) -> bool:
    """Whether the styles IL and Reg+IL have instructions in a language, which goes by INCLUDE's name."""
    return language in _BY_NAME


def prompt(question: Question, style: Style, shots: Sequence[Question] = (), *, reasoning: bool = False) -> str:
    """What the model reads; it ends with the cue, after which a letter is due, or where reasoning begins.

    Args:
      question: what is asked.
      style: one of `STYLES`; IL is for the 20 languages of INCLUDE that are among the project's 23.
      shots: answered questions that stand before it; they have no reasoning in them.
      reasoning: ask for a chain of thought that ends in a letter (Wei et al. 2022; zero-shot as in Kojima et al. 2022).

    Raises:
      UserError: the style is not known, there are no words for the question's language, or a regional prefix has no country.
    """
    if style not in STYLES:
        raise UserError(f"style {style!r}: known are {', '.join(STYLES)}{did_you_mean(near_names(style, STYLES))}")
    wording = _wording(question) if style.endswith("IL") else ENGLISH
    head = wording.reasoning.format(cue=wording.cue) if reasoning else wording.instruction
    if style.startswith("Reg"):
        if not question.country:
            raise UserError(f"{question.id}: field 'country' is empty; the style {style} names it")
        head = f"{wording.region.format(country=question.country)} {head}"
    blocks = [f"{_block(shot, wording)} {LETTERS[shot.answer]}" for shot in shots]
    asked = f"{_asked(question)}\n" if reasoning else _block(question, wording)
    return "\n\n".join([head, *blocks, asked])


def _block(question: Question, wording: Wording) -> str:
    return f"{_asked(question)}\n{wording.cue}:"


def _asked(question: Question) -> str:
    options = (f"{letter}. {choice}" for letter, choice in zip(LETTERS, question.choices, strict=True))
    return "\n".join([question.question, *options])


def _wording(question: Question) -> Wording:
    try:
        return _BY_NAME[question.language]
    except KeyError:
        raise UserError(
            f"{question.id}: no instruction in {question.language}{did_you_mean(near_names(question.language, _BY_NAME))}; "
            f"there are ones in {', '.join(_BY_NAME)}. The styles Eng and Reg+Eng are for every language"
        ) from None


def _question(row: Mapping[str, Any], number: int, where: str) -> Question:
    language = text_field(row, "language", where)
    answer = choice_number(row.get("answer"), where, "answer")
    if answer >= len(LETTERS):
        raise UserError(f"{where}: field 'answer' is {row['answer']!r}; it has to be a choice from 0 to 3, or A to D")
    optional = {name: str(row.get(name) or "").strip() for name in ("country", "domain", "subject", "level")}
    return Question(
        id=str(row.get("id") or f"{language}/{number}"),
        language=language,
        regional_feature=text_field(row, "regional_feature", where),
        question=text_field(row, "question", where).strip(),
        choices=_choices(row, where),
        answer=answer,
        **optional,
    )


def _choices(row: Mapping[str, Any], where: str) -> tuple[str, ...]:
    if row.get("choices") is None:
        return tuple(text_field(row, name, where).strip() for name in _OPTIONS)
    choices = row["choices"]
    if isinstance(choices, str) or len(choices) != len(LETTERS) or not all(isinstance(c, str) for c in choices):
        raise UserError(f"{where}: field 'choices' is {choices!r}; it has to be four strings")
    return tuple(choice.strip() for choice in choices)
