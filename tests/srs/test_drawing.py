"""Figures as venues take them."""

import pytest
from matplotlib.figure import Figure

from srs.report import svg as drawing


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
