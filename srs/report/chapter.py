"""The runs of a report, one by one and beside each other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from srs.evaluation.describe import describe_rules
from srs.evaluation.evaluate import Results
from srs.evaluation.rules import Answers
from srs.modes import simultaneous
from srs.report.best import Ranking, rank
from srs.report.finished_run import StoredRun
from srs.report.tables import RuleTable, rule_table

#: What rows with a mark claim, where others claim that each certificate holds by itself, and where all at once.
_AT_ONCE = "there each certificate relies on others, and all hold at once"
_EACH = "there each certificate holds by itself"
_OTHERS = (
    "there alpha, the sampler, the bound, whether the images were known beforehand, or what is claimed differs, or "
    "nothing is known of it, as of logs of other programs"
)


@dataclass(frozen=True, eq=False)
class Chapter:
    """A run as the report shows it.

    Attributes
    ----------
    name : str
        Unlike every other's, and all of it visible.
    folder : str
        Where its files lie, beside the page.
    run : StoredRun
    results : Results
        At the report's alpha.
    warning : str or None
        Where the folder's summary disagrees with its rows.
    day : str or None
        The date that the page gives it.
    """

    name: str
    folder: str
    run: StoredRun
    results: Results
    warning: str | None
    day: str | None

    def ranking(self, epsilon: Sequence[float]) -> Ranking:
        """Return the best of the run's rules."""
        rules, main = self.results.rules, self.results.main
        alike = [name for name in rules if simultaneous(name) == main.simultaneous]
        why = _EACH if main.simultaneous else _AT_ONCE
        return rank(rules, alike, epsilon, why, self.results.one_sided)

    def claims_like(self, other: "Chapter") -> bool:
        """Whether another run claims the same of its certificates, in the same setting and by the same bound."""
        return all(
            (
                self.results.alpha == other.results.alpha,
                self.results.main.simultaneous == other.results.main.simultaneous,
                self.results.main.has_regions == other.results.main.has_regions,
                self.run.record.share.any() == other.run.record.share.any(),
                self.run.settings.sampler == other.run.settings.sampler,
            )
        )


def compared(chapters: Sequence[Chapter], baselines: Mapping[str, Answers]) -> dict[str, Answers]:
    """Return what every run and every baseline certifies, by name."""
    return {chapter.name: chapter.results.answers for chapter in chapters} | dict(baselines)


def overview(chapters: Sequence[Chapter], rules: Mapping[str, Answers]) -> RuleTable:
    """Return the table of all runs and baselines: compared with the first run where all are about the same images."""
    first = chapters[0]
    if len({chapter.run.manifest["data"]["sha256"] for chapter in chapters}) > 1:
        return rule_table(describe_rules(rules), named=str)
    described: dict[str, Any] = describe_rules(rules, first.name)
    alike = [chapter.name for chapter in chapters if chapter.claims_like(first)]
    return rule_table(described, first.name, named=str, ranking=rank(rules, alike, described["epsilon"], _OTHERS))
