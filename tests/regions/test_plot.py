"""Balls in the plane, as Matplotlib gets to draw them."""

import os
import subprocess
import sys

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import regions

POINTS = np.array([[0.0, 0.0], [3.0, 4.0], [9.0, 0.0]])
RADII = [2.0, 3.0, 0.0]
R = [2.0, 5.0, 1.0]


@pytest.fixture
def axes():
    return Figure().add_subplot()


def circles(collection):
    return collection.get_offsets().tolist(), collection.get_widths().tolist(), collection.get_heights().tolist()


def test_circles_dots_and_crosses_are_where_the_balls_are(axes):
    assert regions.plot(POINTS, RADII, R, ax=axes) is axes
    bounds, discs, edges = axes.collections
    assert circles(bounds) == (POINTS.tolist(), [4, 10, 2], [4, 10, 2])
    assert circles(discs) == circles(edges) == (POINTS.tolist(), [4, 6, 0], [4, 6, 0])
    dots, crosses = axes.lines
    assert dots.get_xydata().tolist() == POINTS[:2].tolist()
    assert crosses.get_xydata().tolist() == POINTS[2:].tolist()
    assert axes.get_aspect() == 1
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    assert left < -2
    assert right > 10
    assert low < -2
    assert high > 9


def test_a_disc_in_pixels_is_as_wide_as_its_ball(axes):
    regions.plot([[5.0, 1.0]], [2.0], ax=axes)
    axes.set_axis_off()
    canvas = FigureCanvasAgg(axes.figure)
    canvas.draw()
    drawn = (np.asarray(canvas.buffer_rgba())[:, :, :3] < 255).any(axis=2)
    scale = np.diff(axes.transData.transform([[0.0, 0.0], [1.0, 1.0]]), axis=0)[0]
    for axis in (0, 1):
        places = np.flatnonzero(drawn.any(axis=axis))
        assert places[-1] - places[0] == pytest.approx(4 * scale[axis], abs=4)


def test_labels_are_colours(axes):
    regions.plot(POINTS, RADII, R, groups=["b", "a", "b"], ax=axes)
    bounds, discs, edges = axes.collections
    for colours in (bounds.get_edgecolors(), discs.get_facecolors(), edges.get_edgecolors()):
        first, second, third = colours[:, :3].tolist()
        assert first == third != second


def test_from_the_eighth_label_on_colours_are_used_again(axes):
    regions.plot(np.arange(16.0).reshape(8, 2), np.ones(8), groups=np.arange(8), ax=axes)
    colours = axes.collections[-1].get_edgecolors().tolist()
    assert len({tuple(colour) for colour in colours[:7]}) == 7
    assert colours[7] == colours[0]


def test_no_points_and_axes_of_its_own():
    mpl.use("Agg")
    from matplotlib import pyplot

    for none in (np.empty((0, 2)), []):
        axes = regions.plot(none, [])
        assert axes.figure is pyplot.gcf()
        pyplot.close(axes.figure)


BAD = {
    "3-D": (([[0.0, 0.0, 0.0]], [1.0]), {}, r"points has shape \(1, 3\): regions.plot draws the plane"),
    "radii": ((POINTS, [1.0]), {}, r"radii has shape \(1,\): expected \(3,\)"),
    "negative": ((POINTS, [1.0, 1.0, -1.0]), {}, r"radii\[2\] = -1.0"),
    "bounds": ((POINTS, RADII, [1.0]), {}, r"R has shape \(1,\)"),
    "two colours": ((POINTS, RADII), {"groups": [[1, 2, 3], [1, 1, 1]]}, "groups holds 2 arrays of labels"),
}


@pytest.mark.parametrize(("arguments", "options", "message"), BAD.values(), ids=BAD)
def test_bad_input_names_the_value(axes, arguments, options, message):
    with pytest.raises(ValueError, match=message):
        regions.plot(*arguments, **options, ax=axes)


def test_without_matplotlib_it_says_how_to_get_it(monkeypatch):
    from importlib import metadata

    def distribution(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", lambda name: ['matplotlib>=3.8; extra == "plot"'])
    monkeypatch.setattr(metadata, "distribution", distribution)
    with pytest.raises(
        ImportError, match=r"regions.plot needs matplotlib, which is not installed: .*srs-certify\[plot\]"
    ):
        regions.plot(POINTS, RADII)


COMPILE = """
import logging
logging.basicConfig(level=logging.INFO, format="%(name)s %(levelname)s %(message)s")
from regions._arithmetic import loops
print(loops.exceeds(1.0, 2.0, 2.5), loops.subtract_down(3.0, 1.0))
"""


def test_who_listens_hears_once_that_loops_are_compiled(tmp_path):
    def run(program):
        environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout.strip(), done.stderr

    assert run(COMPILE.replace("logging.basicConfig", "dict")) == ("True 2.0", "")  # nobody listens: no noise
    quiet = run(COMPILE)
    assert quiet == ("True 2.0", "")  # from the cache
    for file in tmp_path.rglob("*.nb?"):
        file.unlink()
    answer, said = run(COMPILE)
    assert answer == "True 2.0"
    assert said.count("\n") == 1
    assert said.startswith("regions INFO compiling loops")
