"""`aya report`: one HTML file and one Markdown file that say what a study, or a single run, has shown."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
from rich.console import Console

from aya_jax.config import Resolved
from aya_jax.config.files import write_atomic
from aya_jax.studies import figures, findings, judged, judged_mixing, mixing, mixing_figure, palette, runs, tables
from aya_jax.studies.comparison import Comparison, compare
from aya_jax.studies.config import AnalysisConfig, ReportConfig
from aya_jax.studies.curves import families
from aya_jax.studies.progress import LOG_LINES, duration, last_lines

FIGURES_DIR = "report_figures"


@dataclass(frozen=True)
class Paths:
    """Where a report was written."""

    html: Path
    markdown: Path


@dataclass(frozen=True)
class Section:
    """One heading of the report with what stands under it, in order."""

    name: str
    title: str
    parts: tuple[figures.Figure | tables.Table, ...]


@dataclass(frozen=True)
class Failure:
    """A job that failed: its log's end and the command that tries it again."""

    job: str
    exit_code: int | None
    log_lines: tuple[str, ...]
    command: str


def run(resolved: Resolved) -> None:
    """Writes the report of `ReportConfig.run_dir`.

    Raises:
      UserError: the directory holds neither a study nor a run, or nothing has been trained in it.
    """
    config: ReportConfig = resolved.config
    paths = write(Path(config.run_dir), config.analysis, Path(config.output_dir) if config.output_dir else None)
    Console().print(f"Wrote {paths.html} and {paths.markdown}", highlight=False, markup=False, soft_wrap=True)


def write(directory: Path, analysis: AnalysisConfig, output_dir: Path | None = None) -> Paths:
    """Reads a study's or a run's directory; writes `report.html`, `report.md` and the figures that the latter shows."""
    output = output_dir or directory
    record = runs.read(directory)
    if analysis.mixing is None:
        analysis = dataclasses.replace(analysis, mixing=mixing.of_plan(record.plan))
    mixed = mixing.find(record, analysis)
    comparison = None if analysis.mixing else compare(record.models, analysis)
    sections = _sections(record, comparison)
    if mixed:
        drawn = mixing_figure.trade_figure(mixed)
        parts = (mixing.table(mixed), *([drawn] if drawn else []))
        sections.insert(0, Section("mixed", "Mixing and merging", parts))
    if seen := judged_mixing.find(record, analysis):
        shown = judged_mixing.table(*seen, analysis.confidence)
        sections.insert(0, Section("judged_mixing", "Mixing and merging, judged", (shown,)))
    page = {
        "title": analysis.title or record.plan.get("title") or directory.name,
        "facts": _facts(record, comparison),
        "findings": _findings(comparison, mixed) or judged.find(record),
        "sections": sections,
        "failures": _failures(record),
        "blocked": [key for key, state in record.states.items() if state.status == "blocked"],
        "command": _command(record),
        "jobs": record.plan.get("jobs", []),
        "figures_dir": FIGURES_DIR,
        "light": palette.css_variables(dark=False),
        "dark": palette.css_variables(dark=True),
    }
    for figure in (part for section in sections for part in section.parts if isinstance(part, figures.Figure)):
        write_atomic(output / FIGURES_DIR / f"{figure.name}.svg", figure.standalone)
    paths = Paths(output / "report.html", output / "report.md")
    write_atomic(paths.html, environment(autoescape=True).get_template("report.html.j2").render(page))
    write_atomic(paths.markdown, environment(autoescape=False).get_template("report.md.j2").render(page))
    return paths


def environment(autoescape: bool) -> jinja2.Environment:
    """The templates of this package."""
    found = jinja2.Environment(
        loader=jinja2.PackageLoader("aya_jax.studies", "templates"),
        autoescape=autoescape,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    found.tests["figure"] = lambda part: isinstance(part, figures.Figure)
    return found


def findings_page(
    title: str,
    sentences: Sequence[str],
    facts: Sequence[tuple[str, str]],
    sections: Sequence[Section],
    listing: str = "",
    listing_title: str = "",
) -> str:
    """One page of HTML: what was found in words, a few numbers by name, tables and figures, and a recipe where there is one."""
    return environment(autoescape=True).get_template("findings.html.j2").render(
        title=title,
        sentences=sentences,
        facts=facts,
        sections=sections,
        listing=listing,
        listing_title=listing_title,
        light=palette.css_variables(dark=False),
        dark=palette.css_variables(dark=True),
    )  # fmt: skip


def _findings(comparison: Comparison | None, mixed: mixing.Mixing | None) -> findings.Findings | None:
    """What is said first; None where nothing has been evaluated."""
    if mixed:
        return mixing.findings(mixed)
    return findings.find(comparison) if comparison and comparison.overall else None


def _sections(record: runs.StudyRecord, comparison: Comparison | None) -> list[Section]:
    sections = []
    if comparison:
        sections += _comparison_sections(comparison)
    sections.append(
        Section(
            "training", "Training", (figures.curves_figure(families(record, comparison), _curves_caption(comparison)),)
        )
    )
    study_tables = [
        Section(
            "every-variant",
            "Every variant" if len(record.models) > 1 else "The run",
            (tables.variants_table(record, comparison),),
        ),
        _section_of("pairs", "Held-out pairs", judged.pairs_table(record.runs)),
        _section_of("rounds", "Online rounds", judged.rounds_table(record)),
        _section_of("tokens", "Token ledger", tables.ledger_table(record.runs)),
        _section_of("configurations", "Differences in configuration", tables.differences_in_configuration(record.runs)),
        _section_of("profile", "Where the time went", tables.profile_table(record.runs)),
        _section_of("surroundings", "Environment", tables.environment_table(record.runs)),
    ]
    return sections + [section for section in study_tables if section]


def _section_of(name: str, title: str, table: tables.Table | None) -> Section | None:
    return Section(name, title, (table,)) if table else None


def _comparison_sections(comparison: Comparison) -> list[Section]:
    """The sections that compare: by share of code, by named variant, or of one model alone."""
    if len(comparison.groups) == 1:
        caption = "Dots are bits per byte on the held-out documents, bars their intervals. Left is better."
        return [Section("levels", "Languages and kinds of code", (figures.levels_figure(comparison, caption),))]
    if comparison.by_share:
        first = figures.share_figure(comparison, _share_caption(comparison))
    else:
        names = [findings.group_title(comparison, group) for group in comparison.groups]
        caption = "Each row is a variant: its dot the mean bits per byte, its bar the interval. The two scales differ."
        first = figures.variants_figure(comparison, names, caption)
    sections = [Section("overall", "Text and code", (first,))]
    base = findings.group_title(comparison, comparison.baseline)
    told = (
        f"Bits per byte with {base}, then the difference of every other variant; green ground is better, red is worse, "
        "± is half the interval. A grey number is one that its interval does not tell from zero."
    )
    for measures, name, title, columns in (
        (comparison.languages, "languages", "Languages", 6),
        (comparison.kinds, "kinds", "Kinds of code", 4),
    ):
        if not measures:
            continue
        parts: list[figures.Figure | tables.Table] = []
        if comparison.by_share:
            caption = (
                f"Difference in bits per byte to {base}, on one scale; the shaded bands are intervals. "
                "Above the line is worse."
            )
            parts.append(
                figures.small_multiples(
                    comparison, measures, name, f"{title} against the share of code", caption, columns
                )
            )
        parts.append(tables.differences_table(comparison, measures, f"{name}-table", f"{title}: bits per byte", told))
        sections.append(Section(name, title, tuple(parts)))
    return sections


def _share_caption(comparison: Comparison) -> str:
    base = findings.group_title(comparison, comparison.baseline)
    return (
        "Each point is the mean over languages, or over kinds of code, of the difference in bits per byte to the "
        f"variant with {base}; below the line is better. The shaded bands are intervals. The two scales differ."
    )


def _curves_caption(comparison: Comparison | None) -> str:
    if comparison is None or len(comparison.groups) == 1:
        return (
            "The training loss is in nats per token of the mixture (of preferences and rewards, per pair); validation is over "
            "held-out documents."
        )
    several = any(len(group.models) > 1 for group in comparison.groups)
    lines = "Each line is one seed, each colour one variant. " if several else "Each colour is one variant. "
    return (
        lines
        + "The training loss is in nats per token of the variant's own mixture, so variants with different mixtures "
        "are to be compared by the validation curves, which are over the same held-out documents."
    )


def _facts(record: runs.StudyRecord, comparison: Comparison | None) -> list[tuple[str, str]]:
    """(name, value) of the few numbers under the title."""
    seeds = {len(group.models) for group in comparison.groups} if comparison else set()
    facts = [
        ("variants", str(len(comparison.groups)) if comparison and len(comparison.groups) > 1 else ""),
        (
            "seeds each",
            " to ".join(map(str, sorted({min(seeds), max(seeds)}))) if seeds and len(record.models) > 1 else "",
        ),
        ("languages", str(len(comparison.languages)) if comparison and comparison.languages else ""),
        ("tokens trained", tables.count(sum(run.tokens for run in record.runs))),
        ("training time", duration(sum(run.seconds for run in record.runs))),
        ("finished", _finished(record)),
    ]
    return [(name, value) for name, value in facts if value]


def _finished(record: runs.StudyRecord) -> str:
    times = [line["wall_time"] for run in record.runs for line in run.train[-1:]]
    return datetime.datetime.fromtimestamp(max(times), datetime.UTC).strftime("%-d %B %Y") if times else ""


def _failures(record: runs.StudyRecord) -> list[Failure]:
    return [
        Failure(key, state.exit_code, tuple(last_lines(record.directory / state.log, LOG_LINES)), state.command)
        for key, state in record.states.items()
        if state.status == "failed"
    ]


def _command(record: runs.StudyRecord) -> str:
    """What repeats all of it, from the configuration that lies in the directory."""
    verb = "study" if record.plan else "train"
    return f"aya {verb} {record.directory}/config.gin --gin.RUN_DIR=ANOTHER_DIRECTORY"
