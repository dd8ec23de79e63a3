"""What a verification found: what holds, what does not, and what could not be checked."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

#: Reasons that are named of one check.
_SHOWN = 3


@dataclass(frozen=True)
class Finding:
    """The outcome of one check.

    Attributes
    ----------
    topic : str
        What was looked at, in a word or two.
    holds : bool or None
        None: it could not be checked.
    text : str
        What holds, what does not, or why it could not be checked.
    """

    topic: str
    holds: bool | None
    text: str


@dataclass
class Findings:
    """All outcomes, in the order of the checks."""

    found: list[Finding] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        """Whether something does not hold."""
        return any(one.holds is False for one in self.found)

    def check(self, topic: str, claim: str, problems: Sequence[str]) -> bool:
        """Record that a claim holds, or what speaks against it; return whether it holds."""
        shown = "; ".join(problems[:_SHOWN])
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        self.found.append(Finding(topic, not problems, shown + more if problems else claim))
        return not problems

    def unknown(self, topic: str, reason: str) -> None:
        """Record what could not be checked, and why."""
        self.found.append(Finding(topic, None, reason))

    def count(self, holds: bool | None) -> int:
        """Return how many checks ended like this."""
        return sum(one.holds is holds for one in self.found)


def one_line(error: Exception, folder: Path) -> str:
    """Return what an error says of a file in a folder, in one line."""
    return " ".join(str(error).split()).replace(f"{folder}/", "")
