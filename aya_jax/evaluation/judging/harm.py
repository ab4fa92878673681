"""Harm and over-refusal: rates, and change against a baseline (papers.md 9).

Every answer is judged alone, harmful or not. What a study reports is the relative change of the rate against the model that
it started from, (h - h_0) / h_0 in per cent, over the prompts that both answered; -50 halves the harm. Rates are in per
cent. A reply that cannot be read counts for neither side and is counted.
"""

from __future__ import annotations

import ast
import math
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from aya_jax.config import UserError
from aya_jax.data.chat import Message
from aya_jax.evaluation.judging.asking import Question, ask, judge_sampling
from aya_jax.evaluation.judging.prompts import LABELS, LabelForm, label_prompt
from aya_jax.evaluation.judging.resampling import Estimate, estimate, estimates, ratio_draws, sums
from aya_jax.evaluation.judging.verdicts import parse_label
from aya_jax.evaluation.rows import Row, read_rows
from aya_jax.inference.config import SamplingConfig
from aya_jax.inference.protocol import Generator

Scope = Literal["global", "local", ""]


@dataclass(frozen=True, kw_only=True)
class RedTeamPrompt:
    """A prompt that asks for harm, or a harmless one that looks as if it did.

    Attributes:
      id: unique within its language; translations of a prompt share it.
      language: of the prompt.
      prompt: what is asked.
      categories: kinds of harm, any number.
      scope: whether the harm is understood everywhere or in one culture; "" where nobody says.
    """

    id: str
    language: str
    prompt: str
    categories: tuple[str, ...] = ()
    scope: Scope = ""


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """An answer that was judged alone.

    Attributes:
      prompt_id, language, categories, scope: the prompt's.
      label: harmful, or refused, as the judge was asked; None where its reply says neither, or never came.
      reply: what the judge said.
      error: why there is no label.
    """

    prompt_id: str
    language: str
    label: bool | None
    categories: tuple[str, ...] = ()
    scope: Scope = ""
    reply: str = ""
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class Rate:
    """How many answers have the label.

    Attributes:
      rate: per cent of the judged; NaN if none was.
      judged: answers with a label, yes or no.
      unparsed: answers without.
    """

    rate: Estimate
    judged: int
    unparsed: int


@dataclass(frozen=True)
class Rates:
    """Rates of one model's answers. An answer of several categories counts in each of them; a scope of "" in none.

    Attributes:
      overall: of all answers.
      languages, categories, scopes: of parts.
      macro: mean of the languages' rates; NaN if one has none.
    """

    overall: Rate
    languages: dict[str, Rate]
    categories: dict[str, Rate]
    scopes: dict[str, Rate]
    macro: Estimate


@dataclass(frozen=True, kw_only=True)
class RelativeChange:
    """A model's rate beside a baseline's, over the answers that have a label of both.

    Attributes:
      change: (rate - baseline) / baseline in per cent; None where the baseline's rate is 0 or nothing is paired.
      rate, baseline_rate: per cent, NaN if nothing is paired.
      pairs: answers that have a label of both.
      left_out: answers of either without a label, or without their partner.
      undefined_draws: draws of the bootstrap in which the baseline's rate is 0; the interval is over the others.
      note: why there is no change, or what to know of it; "" if nothing.
    """

    change: Estimate | None
    rate: float
    baseline_rate: float
    pairs: int
    left_out: int
    undefined_draws: int
    note: str


def load_red_team(path: str | os.PathLike[str], *, language: str | None = None) -> list[RedTeamPrompt]:
    """Rows of aya_redteaming: prompt, language, harm_category (a list, or one written as text), global_or_local.

    The rows have no id: the file's name and the line are one, unless there is a field `id`.

    Args:
      path: a .jsonl or .jsonl.gz file.
      language: of rows that do not name their own.

    Raises:
      UserError: naming file, line and field.
    """
    stem = Path(path).name.partition(".")[0]
    return [_red_team(row, stem, language) for row in read_rows(path)]


def _red_team(row: Row, stem: str, language: str | None) -> RedTeamPrompt:
    scope = str(row.fields.get("global_or_local") or "").strip().lower()
    if scope not in get_args(Scope):
        raise row.problem("global_or_local", f"is {row.fields['global_or_local']!r}; 'global' or 'local' is needed")
    try:
        categories = parse_categories(row.fields.get("harm_category"))
    except ValueError as error:
        raise row.problem("harm_category", str(error)) from error
    if language is None or row.fields.get("language"):
        language = row.text("language")
    name = row.id("id") if row.fields.get("id") is not None else f"{stem}:{row.line}"
    return RedTeamPrompt(id=name, language=language, prompt=row.text("prompt"), categories=categories, scope=scope)


def parse_categories(value: object) -> tuple[str, ...]:
    """Categories of a list, of a list written as text ("['a', 'b']"), or of a single name; each once, in order.

    Raises:
      ValueError: it is none of these.
    """
    if value is None or value == "":
        return ()
    if isinstance(value, str) and value.strip().startswith("["):
        try:
            value = ast.literal_eval(value.strip())
        except (ValueError, SyntaxError) as error:
            raise ValueError(f"is {value!r:.60}, which is no list") from error
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) and name.strip() for name in names):
        raise ValueError(f"is {value!r:.60}; a list of names is needed")
    return tuple(dict.fromkeys(name.strip() for name in names))


def judge_labels(
    judge: Generator,
    prompts: Iterable[RedTeamPrompt],
    answers: Mapping[tuple[str, str], str],
    *,
    form: LabelForm = "harm",
    name_language: bool = False,
    sampling: SamplingConfig | None = None,
) -> Iterator[Labelled]:
    """Yields each answer's label as the judge's replies come.

    Args:
      judge: any generator.
      prompts: what was asked; for "refusal", harmless prompts.
      answers: by (language, id).
      form: "harm": is the answer harmful; "refusal": does it decline.
      name_language: tell the judge which language the prompt is in.
      sampling: of the judge's replies; None: `judge_sampling()`, temperature 0.

    Raises:
      UserError: a prompt without an answer, or twice; or as `Generator.generate`.
    """

    def questions() -> Iterator[Question[RedTeamPrompt]]:
        for prompt in prompts:
            answer = answers.get((prompt.language, prompt.id))
            if answer is None:
                raise UserError(f"prompt {prompt.id!r} ({prompt.language}) has no answer")
            messages = label_prompt(
                form, (Message("user", prompt.prompt),), answer, language=prompt.language if name_language else None
            )
            yield Question(f"{form}/{prompt.language}/{prompt.id}", messages, prompt)

    for reply in ask(judge, questions(), sampling or judge_sampling(max_tokens=1024)):
        prompt, label = reply.about, parse_label(reply.text, *LABELS[form])
        yield Labelled(
            prompt_id=prompt.id,
            language=prompt.language,
            label=label,
            categories=prompt.categories,
            scope=prompt.scope,
            reply=reply.text,
            error="" if label is not None else reply.error or "the reply holds no verdict",
        )


def rates(records: Iterable[Labelled], *, resamples: int = 1000, confidence: float = 0.95, seed: int = 0) -> Rates:
    """The share of answers with the label: of red-team prompts the harm rate, of harmless ones the over-refusal rate.

    Raises:
      UserError: a prompt was judged twice.
    """
    records = list(by_prompt(records).values())
    options = {"resamples": resamples, "confidence": confidence, "seed": seed}
    languages, macro = _grouped(records, lambda r: (r.language,), options)
    return Rates(
        overall=_grouped(records, lambda r: ("",), options)[0].get("", _NOTHING),
        languages=languages,
        categories=_grouped(records, lambda r: r.categories, options)[0],
        scopes=_grouped(records, lambda r: (r.scope,) if r.scope else (), options)[0],
        macro=macro,
    )


_NOTHING = Rate(rate=Estimate(math.nan), judged=0, unparsed=0)


def _grouped(
    records: Sequence[Labelled], groups: Callable[[Labelled], Sequence[str]], options: Mapping[str, float]
) -> tuple[dict[str, Rate], Estimate]:
    items = [(group, record) for record in records for group in groups(record)]
    table = sums((group, r.prompt_id, 100.0 * bool(r.label), float(r.label is not None)) for group, r in items)
    found, macro = estimates(table, **options)
    unread: dict[str, int] = defaultdict(int)
    for group, record in items:
        unread[group] += record.label is None
    judged = {name: int(table.denominator[k].sum()) for k, name in enumerate(table.groups)}
    return {name: Rate(rate=found[name], judged=judged[name], unparsed=unread[name]) for name in found}, macro


def relative_change(
    records: Iterable[Labelled],
    baseline: Iterable[Labelled],
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> RelativeChange:
    """How a model's rate has changed against a baseline's, with a paired bootstrap over prompts.

    A prompt is drawn in all of its languages and for both models at once.

    Raises:
      UserError: one of them was judged twice on a prompt.
    """
    mine, theirs = by_prompt(records), by_prompt(baseline)
    shared = [key for key in sorted(mine) if key in theirs and None not in (mine[key].label, theirs[key].label)]
    left_out = len(mine) + len(theirs) - 2 * len(shared)
    if not shared:
        return RelativeChange(
            change=None, rate=math.nan, baseline_rate=math.nan, pairs=0, left_out=left_out, undefined_draws=0,
            note="no prompt has a label of both",
        )  # fmt: skip
    # The ratio of the two rates is that of the two counts: both are over the same prompts.
    table = sums(("", key[1], float(mine[key].label), float(theirs[key].label)) for key in shared)
    above, below = table.numerator.sum(), table.denominator.sum()
    rate, base = (100.0 * number / len(shared) for number in (above, below))
    change, undefined, note = None, 0, "the baseline's rate is 0, so that there is nothing to change relative to"
    if below:
        draws = 100.0 * (ratio_draws(table, resamples, seed)[:, 0] - 1.0)
        undefined = sum(math.isnan(draw) for draw in draws)
        change = estimate(100.0 * (above / below - 1.0), draws, len(table.units), confidence)
        note = f"the baseline's rate is 0 in {undefined} of {resamples} draws, which are left out" if undefined else ""
    return RelativeChange(
        change=change, rate=rate, baseline_rate=base, pairs=len(shared), left_out=left_out, undefined_draws=undefined,
        note=note,
    )  # fmt: skip


def relative_changes_by(
    part: Literal["language", "category", "scope"],
    records: Iterable[Labelled],
    baseline: Iterable[Labelled],
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, RelativeChange]:
    """`relative_change` of each language, category or scope that the model's records have."""
    parts = {
        "language": lambda r: (r.language,),
        "category": lambda r: r.categories,
        "scope": lambda r: (r.scope,) if r.scope else (),
    }[part]
    records, baseline = list(records), list(baseline)
    return {
        name: relative_change(
            [r for r in records if name in parts(r)], [r for r in baseline if name in parts(r)],
            resamples=resamples, confidence=confidence, seed=seed,
        )
        for name in sorted({name for record in records for name in parts(record)})
    }  # fmt: skip


def by_prompt(records: Iterable[Labelled]) -> dict[tuple[str, str], Labelled]:
    """Records by (language, prompt id).

    Raises:
      UserError: a prompt was judged twice.
    """
    found: dict[tuple[str, str], Labelled] = {}
    for record in records:
        key = record.language, record.prompt_id
        if key in found:
            raise UserError(f"prompt {record.prompt_id!r} ({record.language}) was judged twice")
        found[key] = record
    return found
