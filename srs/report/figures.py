"""Figures of the paper, drawn from results."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float32, Int64
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from srs.evaluation.evaluate import Results
from srs.evaluation.losses import losses
from srs.evaluation.rules import Answers
from srs.modes import OVERLAPPING, title
from srs.report.svg import COLOURS, SERIES, pixels, style
from srs.text import visible

RADIUS = "l2 radius (pixels in [0, 1])"


def curves(results: Results) -> Figure:
    """Draw certified accuracy against radius: the run, the same without regions, each constant sigma."""
    constants = [name for name in results.rules if name.startswith("sigma=")]
    shades = colormaps["viridis"](np.linspace(0.4, 0.9, len(constants)))
    others = [name for name in ("sigma-lp",) if name in results.rules and name != results.main.name]
    drawn = {results.main.name: {"color": COLOURS["main"], "lw": 2.4, "zorder": 5}}
    drawn |= {name: {"color": COLOURS["second"], "lw": 1.8, "ls": SERIES[2][1], "zorder": 4} for name in others}
    drawn[OVERLAPPING] = {"color": COLOURS["ink"], "lw": 1.4, "ls": (0, (4, 2)), "zorder": 4}
    drawn |= {name: {"color": shade, "lw": 1.1} for name, shade in zip(constants, shades, strict=True)}
    return _steps({title(name): results.rules[name] for name in drawn}, list(drawn.values()))


def comparison(rules: Mapping[str, Answers]) -> Figure:
    """Draw certified accuracy against radius for runs and baselines by name (Fig. 2-5)."""
    styles = [
        {"color": SERIES[k % 7][0], "ls": SERIES[(k + k // 7) % 7][1], "lw": 2.0 if k == 0 else 1.6}
        for k in range(len(rules))
    ]
    return _steps(rules, styles)


def radius_against_sigma(results: Results, j: int) -> Figure:
    """Draw one image's certified radius at every noise level (Fig. 1), small enough to stand beside its picture."""
    with style():
        figure = Figure(figsize=(2.7, 1.9))
        _sigma_axes(figure.add_subplot(), results, j)
    return figure


def radii_against_sigma(results: Results, images: Float32[np.ndarray, "n c h w"], chosen: Sequence[int]) -> Figure:
    """Draw several images above their certified radii at every noise level (Fig. 1)."""
    with style():
        figure = Figure(figsize=(2.2 * len(chosen), 3.4))
        above, below = figure.subplots(2, len(chosen), squeeze=False, height_ratios=[1, 1.3])
        for column, j in enumerate(chosen):
            above[column].imshow(pixels(images[j]), cmap="gray", vmin=0, vmax=255)
            above[column].set_axis_off()
            _sigma_axes(below[column], results, j)
    return figure


def degrees(degree: Int64[np.ndarray, " n"]) -> Figure:
    """Draw how many images overlap how many others (Fig. 6)."""
    with style():
        figure = Figure(figsize=(5.2, 2.8))
        axes = figure.add_subplot()
        most = int(degree.max(initial=0))
        bins = np.arange(-0.5, most + 1.5) if most <= 40 else np.linspace(-0.5, most + 0.5, 41)
        axes.hist(degree, bins=bins.tolist(), color=COLOURS["second"], rwidth=0.9)
        axes.set(xlabel="degree: images whose balls of radius R overlap this one's", ylabel="images")
        axes.grid(axis="x", visible=False)
    return figure


def lost_radius(results: Results) -> Figure:
    """Draw which share of the images loses more than a radius, for every way to size the regions."""
    with style():
        figure = Figure(figsize=(5.2, 2.8))
        axes = figure.add_subplot()
        names = sorted(results.allocations, key=lambda name: name != results.main.name)
        n = len(results.record.idx)
        for (colour, dashes), name in zip(SERIES, names, strict=False):
            lost = losses(results.rules[name].R, results.rules[name].r, results.allocations[name]).lost
            some = np.sort(lost[lost > 0])
            x = np.concatenate([[0.0], some])
            y = np.concatenate([np.arange(len(some), -1, -1)]) * 100 / n
            axes.step(x, y, where="post", color=colour, ls=dashes, lw=1.6, label=title(name))
        axes.set(xlabel="radius lost, R - r", ylabel="images that lose more (%)", xlim=(0, None), ylim=(0, None))
        axes.legend()
    return figure


def vote_shares(results: Results) -> Figure:
    """Draw at each level how many images get at most a share of the votes for the class that is certified there."""
    record = results.record
    levels = np.flatnonzero(record.certified.any(axis=0)).tolist()
    shades = colormaps["viridis"](np.linspace(0.1, 0.9, len(levels)))
    with style():
        figure = Figure(figsize=(5.2, 3.2))
        axes = figure.add_subplot()
        for shade, k in zip(shades, levels, strict=True):
            some = record.certified[:, k]
            share = np.sort(record.counts.last[some, k] / record.counts.drawn[some, k])
            x = np.concatenate([[0.0], share, [1.0]])
            y = np.concatenate([np.arange(len(share) + 1), [len(share)]]) * 100 / len(share)
            axes.step(x, y, where="post", color=shade, lw=1.4, label=f"sigma = {record.sigmas[k]:g}")
        axes.set(xlabel="share of the votes, p", ylabel="images with at most p (%)", xlim=(0, 1), ylim=(0, 102))
        axes.legend(fontsize="small")
    return figure


def _sigma_axes(axes: Axes, results: Results, j: int) -> None:
    record = results.record
    axes.plot(record.sigmas, results.radii_of(j), "o-", color=COLOURS["second"], ms=3, lw=1.4)
    axes.plot(results.sigma[j], results.answers.r[j], "D", color=COLOURS["main"], ms=6, label="r")
    axes.margins(y=0.12)
    axes.set(xlabel="sigma", ylabel="radius", ylim=(0, None), xlim=(0, None))


def _steps(rules: Mapping[str, Answers], styles: Sequence[Mapping[str, object]]) -> Figure:
    right = max(float(rule.radius.max(initial=0)) for rule in rules.values())
    with style():
        figure = Figure(figsize=(5.2, 4.4))
        axes = figure.add_subplot()
        for (name, rule), how in zip(rules.items(), styles, strict=True):
            radius = np.sort(rule.radius[(rule.correct == 1) & (rule.radius > 0)])
            left = 100 * np.arange(len(radius), -1, -1) / len(rule.radius)
            x, y = np.concatenate([[0.0], radius, [right]]), np.concatenate([left, left[-1:]])
            axes.step(x, y, where="post", label=_label(name), **how)  # type: ignore[arg-type]
        axes.set(xlim=(0, right * 1.02 or 1), ylim=(0, 102), xlabel=RADIUS, ylabel="certified accuracy (%)")
        figure.legend(loc="outside lower center", ncols=2)
    return figure


def _label(name: str) -> str:
    """Return a name for a legend, where $ would begin a formula and a leading _ would leave the curve out."""
    text = visible(name).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text
