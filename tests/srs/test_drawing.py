"""Figures as venues take them, and as a page shows them to everybody."""

import re
from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from srs.evaluation.metrics import certified_accuracy
from srs.evaluation.rules import Answers
from srs.limits import COLUMN
from srs.report import svg as drawing
from srs.report.figures import (
    comparison,
    curves,
    degrees,
    lost_radius,
    radii_against_sigma,
    radius_against_sigma,
    vote_shares,
)
from srs.report.finished_run import load_run
from srs.report.steps import ON_PAGE, Look, line_beyond

HOSTILE = ('</text><script>alert(1)</script>"', "$x$ & \\$y", 'url(#a) id="b" #d55e00', "_hidden")


@pytest.fixture(scope="module")
def run(finished):
    return load_run(finished[0] / "run")


@pytest.fixture(scope="module")
def results(run):
    return run.evaluate()


def drawn(run, results, look):
    """All figures of a run."""
    degree = np.arange(60) % 7
    return {
        "curves": curves(results, look),
        "degrees": degrees(degree, look),
        "lost": lost_radius(results, look),
        "votes": vote_shares(results, look),
        "sigma": radii_against_sigma(results, run.images, [0, 1, 2, 3, 4, 5], look),
    }


def logs(names, rng):
    """Answers of so many methods."""
    label = np.zeros(50, dtype=np.int64)
    return {
        name: Answers(label=label, predict=(rng.random(50) < 0.2).astype(np.int64), radius=rng.uniform(0, 1.3, 50))
        for name in names
    }


@pytest.mark.parametrize("suffix", ["pdf", "ps", "eps"])
def test_files_for_papers_embed_truetype_fonts_only(tmp_path, suffix):
    with drawing.style():
        figure = Figure()
        axes = figure.subplots()
        axes.set(title="certified accuracy", xlabel=r"radius $\sigma\,\Phi^{-1}(p)$")
        axes.plot([0.0, 1.0], [1.0, 0.0], label="r")
        axes.legend()
    drawing.save(figure, tmp_path / f"figure.{suffix}")
    written = (tmp_path / f"figure.{suffix}").read_bytes()
    assert b"/Type3" not in written
    assert b"/FontType 3" not in written
    assert b"/FontFile2" in written or b"/FontType 42" in written  # TrueType, in PDF and in PostScript


@pytest.mark.parametrize("width", [COLUMN, 6.75])
def test_files_are_as_wide_as_a_column_and_can_be_read_there(run, results, width, tmp_path):
    for name, found in drawn(run, results, Look.of_file(width)).items():
        drawing.save(found.figure, tmp_path / f"{name}.pdf")
        written = (tmp_path / f"{name}.pdf").read_bytes()
        box = re.search(rb"/MediaBox \[ 0 0 ([\d.]+) ([\d.]+) \]", written)
        assert float(box[1]) == pytest.approx(72 * width, abs=0.5)
        assert b"/Type3" not in written
        assert b"/FontFile2" in written
        canvas = FigureCanvasAgg(found.figure)
        canvas.draw()
        renderer = canvas.get_renderer()
        whole = found.figure.bbox.padded(2)
        texts = [text for text in found.figure.findobj(Text) if text.get_text()]
        assert min(text.get_fontsize() for text in texts) >= 7
        names = [name for axes in found.figure.axes for name in (axes.xaxis.label, axes.yaxis.label)]
        for part in [*found.figure.legends, *found.figure.texts, *names]:  # also what stands at all axes at once
            box = part.get_window_extent(renderer)
            assert whole.x0 <= box.x0 <= box.x1 <= whole.x1
            assert whole.y0 <= box.y0 <= box.y1 <= whole.y1


def test_every_axis_names_its_unit(run, results):
    for name, found in drawn(run, results, ON_PAGE).items():
        labels = [text for axes in found.figure.axes for text in (axes.get_xlabel(), axes.get_ylabel()) if axes.axison]
        if name == "sigma":
            labels = [found.figure.get_supxlabel(), found.figure.get_supylabel()]
        for label in labels:
            assert re.search(r"\(pixels in \[0, 1\]\)|\(%\)|\(0 to 1\)|number of|degree: images", label), label
    for found in (radius_against_sigma(results, 3),):
        [axes] = found.figure.axes
        assert axes.get_xlabel().endswith("(pixels in [0, 1])")
        assert axes.get_ylabel().endswith("(pixels in [0, 1])")


@pytest.mark.parametrize("levels", [1, 2, 6, 8, 12, 40])
def test_neighbouring_levels_differ_in_colour_or_in_dashes(levels):
    styles = drawing.level_styles(levels)
    assert len(styles) == levels
    for low, high in pairwise(styles):
        assert low["ls"] != high["ls"]
    if 1 < levels <= 8:
        assert len({style["color"] for style in styles}) == levels
    kinds = [(style["color"], str(style["ls"])) for style in styles]
    assert levels > 24 or len(set(kinds)) == levels


def test_a_legend_names_every_curve_by_what_it_looks_like(results, rng):
    for found, most in ((curves(results, ON_PAGE), 5), (comparison(logs("abcdefghij", rng), ON_PAGE), 10)):
        [legend] = found.figure.legends
        looks = {(to_hex(line.get_color()), str(line._unscaled_dash_pattern)) for line in legend.get_lines()}
        assert len(looks) == len(legend.get_lines()) == most
        [axes] = found.figure.axes
        assert len(axes.get_lines()) == most


def luminance(colour):
    """Of WCAG 2."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    parts = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return float(np.dot(parts, [0.2126, 0.7152, 0.0722]))


@pytest.mark.parametrize("dark", [0, 1])
def test_lines_and_words_stand_out_in_the_light_and_in_the_dark(dark):
    """WCAG 2 asks for a contrast of 3 in figures, which stand on cards, and of 4.5 for words, which stand anywhere."""
    assert len({light for light, _ in drawing.COLOURS.values()}) == len(drawing.COLOURS)

    def contrast(name, ground):
        low, high = sorted(luminance(pair[dark]) for pair in (drawing.COLOURS[name], drawing.PAPER[ground]))
        return (high + 0.05) / (low + 0.05)

    for name in drawing.COLOURS.keys() - {"grid"}:
        assert contrast(name, "card") >= 3, name
    for name in ("ink", "muted", "second"):  # second: links
        for ground in drawing.PAPER:
            assert contrast(name, ground) >= 4.5


def test_a_page_tells_the_values_where_one_points(rng):
    rules = logs(["ours", "theirs"], rng)
    root = ElementTree.fromstring(drawing.inline_svg(comparison(rules, ON_PAGE), "c"))
    assert root.get("role") == "img"
    title = root.find("title")
    assert title.get("id") == root.get("aria-labelledby") == "c-title"
    assert title.text == "Certified accuracy against radius: all runs and logs"
    told = [part.find("title").text for part in root.iter("g") if part.get("pointer-events") == "all"]
    epsilon = np.arange(6) * 0.25
    assert len(told) == len(epsilon)
    for value, text in zip(epsilon, told, strict=True):
        lines = [f"radius larger than {value:.2f}"]
        for name, rule in rules.items():
            [accuracy] = certified_accuracy(rule.radius, rule.correct, np.array([value]))
            lines.append(f"{name}: {accuracy * 100:.1f}%")  # 50 images: the decimal is exact
        assert text.splitlines() == lines


def test_names_are_words_in_a_figure_whatever_they_hold(rng, results):
    text = drawing.inline_svg(comparison(logs(HOSTILE, rng), ON_PAGE), "c")
    root = ElementTree.fromstring(text)
    known = {"svg", "g", "path", "defs", "style", "use", "clipPath", "rect", "text", "title"}
    assert {element.tag for element in root.iter()} <= known
    shown = [element.text.strip() for element in root.iter("text") if element.text]
    for name in HOSTILE:
        assert name in shown
    assert "<script" not in text
    identifiers = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(identifiers) == len(set(identifiers))
    assert all(name.startswith("c-") for name in identifiers)
    for reference in re.findall(r'(?:href="#|url\(#)([^")]+)', re.sub(r">[^<]*<", "><", text)):
        assert reference in identifiers
    assert not re.search(r"#[0-9a-f]{6}", re.sub(r">[^<]*<", "><", text))


def test_letters_that_the_font_lacks_are_told_and_drawn_as_boxes(rng, tmp_path):
    assert drawing.undrawn("\u4e2d and \u2082\U0001f642\u4e2d") == "\u4e2d\U0001f642"
    found = comparison(logs(["\u4e2d\u6587", "b"], rng), ON_PAGE)
    drawing.save(found.figure, tmp_path / "figure.pdf")  # warnings are errors here
    assert "\u4e2d\u6587" in drawing.inline_svg(found, "c")


def test_a_figure_is_drawn_the_same_twice(results):
    first, second = (drawing.inline_svg(curves(results, ON_PAGE), "c") for _ in range(2))
    assert first == second


@pytest.mark.parametrize("levels", [0, 1, 2, 30])
def test_each_level_has_a_style(levels):  # a run of --chosen-only has no level that stands for all images
    assert len(drawing.level_styles(levels)) == levels


def test_shares_of_images_that_count_nowhere_and_everywhere():
    line = line_beyond("a", np.array([0.0, 1.0, np.inf, 1.0, 2.0]), 1.5, {})
    assert [line.at(x) for x in (0.0, 0.99, 1.0, 1.99, 2.0, 9.0)] == [80.0, 80.0, 40.0, 40.0, 20.0, 20.0]
    assert line.x[-1] == 2.0
    assert line_beyond("b", np.array([0.0, np.inf]), 1.5, {}).x.tolist() == [0.0, 1.5]
