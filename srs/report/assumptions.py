"""What each rule assumes, how surely its certificates hold, and what it costs: what a fair comparison has to say."""

from dataclasses import dataclass

import numpy as np

from srs.evaluation.evaluate import Results
from srs.modes import OVERLAPPING, ROUTED, ROUTER, title
from srs.run.run_settings import RunSettings


@dataclass(frozen=True)
class Assumption:
    """What a rule asks for.

    Attributes
    ----------
    title : str
    kind : str
        "inductive": it certifies images that nobody knew before. "transductive": the images, without labels, were known
        when regions were made.
    holds : str
        For what alpha is the failure probability.
    samples : int
        Forward passes that an image needs on average, selection included, if nothing else is computed.
    """

    title: str
    kind: str
    holds: str
    samples: int


def assumptions(results: Results, settings: RunSettings) -> list[Assumption]:
    """Return what each sound rule of a run assumes."""
    return [
        Assumption(title(name), _kind(name), _holds(name), round(_samples(results, settings, name)))
        for name in results.rules
        if name != OVERLAPPING
    ]


def _without_regions(name: str) -> bool:
    return name.startswith("sigma=") or name in (ROUTER, ROUTED.name)


def _kind(name: str) -> str:
    if _without_regions(name):
        return "inductive"
    return "transductive, and inductive outside the regions" if "+" in name else "transductive"


def _holds(name: str) -> str:
    return "all images at once" if name.startswith("class-") else "each image"


def _samples(results: Results, settings: RunSettings, name: str) -> float:
    """Return passes of an image: selection at the levels that are compared, estimation where it is certified."""
    record, rule = results.record, results.rules[name]
    drawn = record.counts.drawn
    own = float(drawn[np.arange(len(rule.level)), rule.level].mean())
    routing = record.routing
    asked = 0.0
    if routing is not None and routing.sigma is not None and (name in (ROUTER, ROUTED.name) or "+" in name):
        asked = float(routing.selected.sum(axis=1).mean() + routing.estimated.sum(axis=1).mean())
    if name.startswith("sigma="):
        return settings.n0 + own
    selecting = float(record.samples.sum(axis=1).mean())
    if name == ROUTER:
        return settings.n0 + own + asked
    everywhere = name == ROUTED.name or "+" in name
    return selecting + (float(drawn.sum(axis=1).mean()) if everywhere else own) + asked
