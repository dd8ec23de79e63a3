"""The model card of a run: what it is, what came out, what is guaranteed, and how to load and verify it."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from srs.modes import ROUTED, title
from srs.report.numbers import floored, percent, raised
from srs.report.promise import Promise
from srs.run.settings import EARLIER

BEGIN, END = "<!-- srs-certify: from here -->", "<!-- srs-certify: to here -->"
"""Between these lines stands what follows from the run; the rest is for whoever publishes it."""

_FRONT = """---
library_name: srs-certify
pipeline_tag: image-classification
tags:
- randomized-smoothing
- certified-robustness
- adversarial-robustness
---
"""


def card(summary: Mapping[str, Any], shape: Sequence[int]) -> str:
    """Return the card of a run in Markdown, with a front matter that model hubs read.

    Parameters
    ----------
    summary : mapping
        What `summary.json` holds: nothing else is in the card but the shape of an image.
    shape : sequence (C, H, W)
    """
    return f"{_FRONT}\n{checked_part(summary, shape)}\n"


def checked_part(summary: Mapping[str, Any], shape: Sequence[int]) -> str:
    """Return what stands between the marks, with them."""
    data, guarantee, made_by = summary["data"], summary["guarantee"], summary["versions"].get("srs-certify", "0.1")
    parts = [
        f"# Certified classifier of {_code(data['name'])}",
        f"An image classifier by randomized smoothing with a noise level for each {_where(summary)} "
        f"(sample-wise randomized smoothing), made by srs-certify {_code(made_by)}.",
        _table(_facts(summary, shape)),
        "## Result",
        _result(summary),
        "## What is guaranteed",
        f"{guarantee[:1].upper()}{guarantee[1:]}, over the noise that was drawn: within the certified l2 radius, in "
        f"units of pixels in [0, 1], {_promise(summary)}",
        "## Use",
        _use(_settings(summary)),
        "## Verify",
        "```sh\nsrs-verify FOLDER --redraw 20\n```",
        "computes every number above again from the counted votes, and draws the votes of 20 images again. In the "
        "run's folder it also checks what stands between the two marks of this file, and nothing around them.",
    ]
    return "\n\n".join([BEGIN, *parts, END])


def _where(summary: Mapping[str, Any]) -> str:
    return "input, named by a router" if summary["main"] == ROUTED.name else "region of its input space"


def _promise(summary: Mapping[str, Any]) -> str:
    """Return what the classifier does, and what is not claimed of it."""
    promise = Promise.of(summary["main"], summary.get("outside"))
    return (
        f"{promise.classifier} returns the certified class. {promise.images} Nothing is claimed of the base classifier "
        f"alone{promise.unclaimed}."
    )


def _facts(summary: Mapping[str, Any], shape: Sequence[int]) -> list[tuple[str, str]]:
    data, classifier, settings = summary["data"], summary["classifier"], _settings(summary)
    if settings["expert"]:
        sigmas = _code(", ".join(one.partition("=")[0] for one in settings["expert"]))
    elif settings["sigmas"]:
        sigmas = ", ".join(f"{sigma:g}" for sigma in settings["sigmas"])
    else:
        sigmas = f"{settings['sigma_min']:g} to {settings['sigma_max']:g}, step {settings['sigma_step']:g}"
    return [
        ("data", f"{_code(data['name'])}, {data['images']} images of {' x '.join(map(str, shape))}"),
        ("images, SHA-256", _code(data["sha256"])),
        ("base classifier, SHA-256", _code(classifier["weights"])),
        *_denoiser_facts(summary.get("denoiser")),
        *_router_facts(summary.get("router")),
        ("computed in", f"{_code(classifier['precision'])}, {classifier['num_classes']} classes"),
        (
            "noise",
            f"{_code(classifier['sampler'])}, stream {_code(settings['stream'])}, seed {summary['seed']}",
        ),
        ("sigma", sigmas),
        ("rule, overlap", f"{_code(settings['rule'])}, {_code(title(summary['main']))}"),
        ("samples", f"{settings['n0']} to choose, {settings['n']} to certify, for an image and level at most"),
        ("alpha", f"{summary['alpha']:g}"),
        ("regions, SHA-256", _code(summary["regions"])),
    ]


def _settings(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return the run's settings, with those that earlier versions left out."""
    return {**EARLIER, **summary["settings"]}


def _result(summary: Mapping[str, Any]) -> str:
    main = summary["rules"][summary["main"]]
    low, high = main["average_certified_radius_interval"]
    interval = "" if low is None else f" (95% interval {floored(low, 3)} to {raised(high, 3)} over images)"
    facts = [
        ("average certified radius", f"{floored(main['average_certified_radius'], 3)}{interval}"),
        ("abstentions", f"{main['abstentions']} of {summary['data']['images']}"),
        ("accuracy of the base classifier without noise", f"{percent(summary['clean_accuracy_base'])}%"),
    ]
    shown = [(e, a) for e, a in zip(summary["epsilon"], main["certified_accuracy"], strict=True) if a or not e]
    head, cells = [f"{e:.2f}" for e, _ in shown], [f"{percent(a)}%" for _, a in shown]
    curve = "\n".join(
        "| " + " | ".join(line) + " |"
        for line in (["l2 radius", *head], ["---", *["---:"] * len(head)], ["certified accuracy", *cells])
    )
    return f"{_table(facts)}\n\n{curve}"


def _use(settings: Mapping[str, Any]) -> str:
    own = settings["model"] or settings["arch"]
    if settings["model"] is not None:
        how = f"srs.load_run(FOLDER, {_plain(settings['model'])!r})"
    elif settings["checkpoint"] is not None or settings["expert"]:
        how = f"srs.load_run(FOLDER, checkpoint={'{SIGMA: FILE}' if settings['expert'] else 'FILE'})"
    else:
        how = "srs.load_run(FOLDER)"
    if settings["denoiser"] is not None:
        how = f"{how[:-1]}, denoiser=FILE)"
    if settings["router"] is not None:
        how = f"{how[:-1]}, router=FILE)"
    where = (
        "The weights are in this folder."
        if how.endswith("(FOLDER)")
        else "The weights are not in this folder; another classifier than the one with the hash above is refused."
    )
    if own and ":" in own:
        where += f" Its network is code of somebody's own, {_code(own)}: name it only if you trust that module."
    return f"```python\nimport srs\n\nG = {how}\nprint(G.certify(images).radius)\n```\n\n{where}"


def _denoiser_facts(denoiser: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    return [] if denoiser is None else [("denoiser before it, SHA-256", _code(denoiser["weights"]))]


def _router_facts(router: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    if router is None:
        return []
    if router["level"] is not None:
        return [("router", f"names sigma = {router['level']:g} for every input")]
    return [("router, SHA-256", _code(router["weights"])), ("router's own noise", f"sigma = {router['sigma']:g}")]


def _table(rows: Sequence[tuple[str, str]]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])


def _plain(text: str) -> str:
    """Return a text from elsewhere without what Markdown or HTML could take for their own."""
    return re.sub(r"[^\w .,:;=+/()\[\]-]", "?", str(text), flags=re.ASCII)[:200]


def _code(text: str) -> str:
    return f"`{_plain(text)}`"
