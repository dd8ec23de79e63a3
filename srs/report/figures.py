"""Figures of the paper, drawn from results: on a page, or in a file as wide as a column of a paper."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from srs.evaluation.evaluate import Results
from srs.evaluation.losses import losses
from srs.evaluation.rules import Answers
from srs.modes import OVERLAPPING, ROUTED, ROUTER
from srs.report.numbers import floored, percent
from srs.report.steps import SIGMA, UNIT, Line, Look, against_radius, lined, lines_beyond, tell, tell_heights
from srs.report.svg import INK, SERIES, Drawing, level_styles, pixels, style
from training import ByteImages

#: Most levels that a legend names, or that are named where one points.
_NAMED = 12


def curves(results: Results, look: Look) -> Drawing:
    """Draw certified accuracy against radius: the run, what it is compared with first, each constant sigma."""
    constants = [name for name in results.rules if name.startswith("sigma=")]
    beside = {"sigma-lp": SERIES[1][0], ROUTED.name: SERIES[3][0], ROUTER: SERIES[4][0]}
    others = [name for name in beside if name in results.rules and name != results.main.name]
    drawn: dict[str, Mapping[str, Any]] = {results.main.name: {"color": INK["main"], "lw": 2.2, "zorder": 5}}
    dashes = (SERIES[k][1] for k in (2, 4, 5))
    drawn |= {
        name: {"color": beside[name], "lw": 1.6, "ls": ls, "zorder": 4}
        for name, ls in zip(others, dashes, strict=False)
    }
    drawn[OVERLAPPING] = {"color": INK["ink"], "lw": 1.2, "ls": (0, (4, 2)), "zorder": 4}
    drawn |= {name: {**how, "lw": 1.2} for name, how in zip(constants, level_styles(len(constants)), strict=True)}
    named = [name for name in drawn if name not in constants or name in _spread(constants)]
    lines = [
        replace(line, name=look.named(line.name), style=drawn[line.name], in_legend=line.name in named)
        for line in lines_beyond({name: results.rules[name].correct_radius for name in drawn})
    ]
    return against_radius(lines, look, "Certified accuracy against radius: the run and every constant noise level")


def comparison(rules: Mapping[str, Answers], look: Look) -> Drawing:
    """Draw certified accuracy against radius for runs and baselines by name (Fig. 2-5)."""
    lines = lines_beyond({name: rule.correct_radius for name, rule in rules.items()})
    return against_radius(lines, look, "Certified accuracy against radius: all runs and logs")


def radius_against_sigma(results: Results, j: int) -> Drawing:
    """Draw one image's certified radius at every noise level (Fig. 1), small enough to stand beside its picture."""
    with style():
        drawing = Drawing(Figure(figsize=(2.7, 1.9)), f"Radius against noise level, image {results.record.idx[j]}")
        axes = drawing.figure.add_subplot()
        _sigma_axes(axes, results, j)
        axes.set(xlabel=f"{SIGMA} ({UNIT})", ylabel=f"radius ({UNIT})")
        sigmas, R = results.record.sigmas, results.radii_of(j)
        shown = [k for k in range(len(sigmas)) if np.isfinite(R[k])]
        share = results.named_of(j)
        named = ["" if share is None else f", router {percent(value)}%" for value in (R if share is None else share)]
        lines = [f"{SIGMA} = {sigmas[k]:g}: R = {floored(R[k], 3)}{named[k]}" for k in _spread(shown)]
        chosen = f"chosen: {SIGMA} = {results.sigma[j]:g}, r = {floored(results.answers.r[j], 3)}"
        tell(drawing, axes, *axes.get_xlim(), "\n".join([*lines, chosen]))
    return drawing


def radii_against_sigma(
    results: Results, images: Float32[np.ndarray, "n c h w"] | ByteImages, chosen: Sequence[int], look: Look
) -> Drawing:
    """Draw several images above their certified radii at every noise level (Fig. 1)."""
    columns = max(1, min(len(chosen), int(look.width // 1.05)))
    rows = math.ceil(len(chosen) / columns)
    with style(look.size):
        figure = Figure(figsize=(look.width, 0.4 + rows * (0.35 + 1.25 * look.width / columns)))
        grid = figure.subplots(2 * rows, columns, squeeze=False, height_ratios=[1, 1.4] * rows)
        for axes in grid.flat:
            axes.set_axis_off()
        for place, j in enumerate(chosen):
            row, column = 2 * (place // columns), place % columns
            grid[row, column].imshow(pixels(images[np.array([j])][0]), cmap="gray", vmin=0, vmax=255)
            grid[row + 1, column].set_axis_on()
            _sigma_axes(grid[row + 1, column], results, j)
        figure.supxlabel(f"noise level {SIGMA} ({UNIT})", fontsize=look.size)
        figure.supylabel(f"ℓ₂ radius ({UNIT})", fontsize=look.size)
    return Drawing(figure, "Certified radius against noise level")


def degrees(degree: Int64[np.ndarray, " n"], look: Look) -> Drawing:
    """Draw how many images overlap how many others (Fig. 6)."""
    most = int(degree.max(initial=0))
    edges = np.arange(-0.5, most + 1.5) if most <= 40 else np.linspace(-0.5, most + 0.5, 41)
    with style(look.size):
        drawing = Drawing(Figure(figsize=(look.width, 0.54 * look.width)), "Degrees of the overlap graph")
        axes = drawing.figure.add_subplot()
        counts, _, bars = axes.hist(degree, bins=edges.tolist(), color=INK["second"], rwidth=0.9)
        axes.set(xlabel="degree: images whose balls of radius R overlap", ylabel="number of images")
        axes.grid(axis="x", visible=False)
        for bar, count, low, high in zip(bars, counts, edges[:-1], edges[1:], strict=True):  # type: ignore[arg-type]
            first, last = math.ceil(low), math.ceil(high) - 1
            which = f"degree {first}" if first >= last else f"degrees {first} to {last}"
            drawing.say(bar, f"{which}: {int(count):,} images")
    return drawing


def lost_radius(results: Results, look: Look) -> Drawing:
    """Draw which share of the images loses more than a radius, for every way to size the regions."""
    names = sorted(results.allocations, key=lambda name: name != results.main.name)
    n, lines = len(results.record.idx), []
    for (colour, dashes), name in zip(SERIES, names, strict=False):
        lost = losses(results.rules[name].R, results.rules[name].r, results.allocations[name]).lost
        some = np.sort(lost[lost > 0])
        x, y = np.concatenate([[0.0], some]), np.arange(len(some), -1, -1) * 100 / n
        lines.append(Line(look.named(name), x, y, {"color": colour, "ls": dashes, "lw": 1.5}))
    most = max(float(line.x[-1]) for line in lines)
    with style(look.size):
        drawing, axes = lined(lines, look, "Images that lose more than a radius, for every way to size the regions")
        axes.set(xlabel=f"ℓ₂ radius lost, R - r ({UNIT})", ylabel="images that lose more (%)")
        axes.set(xlim=(0, None), ylim=(0, None))
        tell_heights(drawing, axes, lines, np.linspace(0, most, 9), "loses more than {:.2f}")
    return drawing


def vote_shares(results: Results, look: Look) -> Drawing:
    """Draw at each level how many images get at most a share of the votes for the class that is certified there."""
    record = results.record
    levels = np.flatnonzero(record.certified.any(axis=0)).tolist()
    lines, named = [], _spread(levels)
    for how, k in zip(level_styles(len(levels)), levels, strict=True):
        some = record.certified[:, k]
        share = np.sort(record.counts.last[some, k] / record.counts.drawn[some, k])
        x = np.concatenate([[0.0], share, [1.0]])
        y = np.concatenate([np.arange(len(share) + 1), [len(share)]]) * 100 / len(share)
        lines.append(Line(f"{SIGMA} = {record.sigmas[k]:g}", x, y, {**how, "lw": 1.4}, k in named))
    with style(look.size):
        drawing, axes = lined(lines, look, "Shares of the votes at each noise level")
        axes.set(xlabel="share p of the votes (0 to 1)", ylabel="images with at most p (%)", xlim=(0, 1), ylim=(0, 102))
        tell_heights(drawing, axes, lines, np.linspace(0, 1, 11), "at most {:.1f} of the votes")
    return drawing


def _sigma_axes(axes: Axes, results: Results, j: int) -> None:
    record = results.record
    R = results.radii_of(j)
    share = results.named_of(j)
    if share is not None:  # behind the radii, with the height of the axes for all of the samples
        top, width = 1.12 * max(np.nanmax(R), results.answers.r[j]), 0.5 * np.diff(record.sigmas).min()
        axes.bar(record.sigmas, top * share, width=width, color=INK["ink"], alpha=0.15, lw=0)
    axes.plot(record.sigmas, R, "o-", color=INK["second"], ms=3, lw=1.4)
    axes.plot(results.sigma[j], results.answers.r[j], "D", color=INK["main"], ms=5)
    axes.set(xlim=(0, 1.08 * record.sigmas[-1]), ylim=(0, 1.12 * max(np.nanmax(R), results.answers.r[j])))


def _spread(things: Sequence[Any]) -> list[Any]:
    """Return at most so many of some things as a legend has room for, evenly spread, the first and last among them."""
    if len(things) <= _NAMED:
        return list(things)
    return [things[round(at)] for at in np.linspace(0, len(things) - 1, _NAMED)]
