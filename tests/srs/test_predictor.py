"""G keeps its promise: inside certified balls it returns the certified class, whoever moves the image there.

The base classifier is a half-space, whose smoothed class and radius are known exactly at every sigma.
"""

import inspect
import math
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import regions
from smoothing import SmoothedClassifier, certified_radius, lower_confidence_bound
from srs.predict.predictor import OUTSIDE, Predictor
from tests.smoothing.oracles import Constant, Halfspace
from training import SmoothAdv, load_checkpoint

W, B = torch.tensor([[[0.6, -0.8], [0.3, 0.5]]]), -0.3
SIGMAS = np.array([0.1, 0.2, 0.25])


def classifier(seed=5, model=None, **options):
    return SmoothedClassifier(model or Halfspace(W, B), 2, batch_size=4096, seed=seed, **options)


def instance(rng, n=40, share=0.7):
    """Images at least 0.15 away from the edge, their exact classes, `share` of their exact radii as R, and levels."""
    images = rng.random((40 * n, 1, 2, 2)).astype(np.float32)
    exact = Halfspace(W, B).radius(torch.from_numpy(images)).numpy()
    kept = np.flatnonzero(exact > 0.15)[:n]
    images = images[kept]
    classes = Halfspace(W, B)(torch.from_numpy(images)).argmax(dim=1).numpy()
    return images, classes, share * exact[kept], rng.choice(SIGMAS, size=n)


def inside(rng, centres, radii, distance):
    """A point of each ball, at so much of its radius; what leaves the pixels' range moves towards the centre."""
    direction = rng.normal(size=centres.shape)
    direction *= (distance * radii / np.linalg.norm(direction.reshape(len(radii), -1), axis=1))[:, None, None, None]
    points = np.clip(centres + direction, 0, 1).astype(np.float32)
    length = np.linalg.norm((points.astype(np.float64) - centres).reshape(len(radii), -1), axis=1)
    assert (length < radii).all()
    return points


GROUPS = {
    "paper": lambda sigma, classes: None,
    "sigma": lambda sigma, classes: sigma,
    "class": lambda sigma, classes: [sigma, classes],
}


@pytest.mark.parametrize("overlap", GROUPS)
def test_the_certified_class_everywhere_in_certified_balls(rng, overlap):
    # The nearest point of a ball to the edge is still 0.3 * 0.15 away: the class has probability Phi(0.045 / 0.25) =
    # 0.571 or more. Of 8000 votes, whose share has a standard deviation of 0.0056, PREDICT at alpha = 1e-6 asks for a
    # share of 0.527: 8 deviations below. So a false alarm has probability below 1e-14 a point; at most 80 points.
    images, classes, R, sigma = instance(rng)
    r = regions.allocate(images, R, groups=GROUPS[overlap](sigma, classes)).radii
    kept = r > 1e-3
    table = regions.RegionMap(images, r, sigma, classes=classes)
    predictor = Predictor(classifier(), table, alpha=1e-6)
    for distance in (0.6, 0.9999):
        points = inside(rng, images[kept], r[kept], distance)
        found = predictor(points, n=8000)
        assert (found.predict == classes[kept]).all()
        assert (found.region >= 0).all()
        assert (found.region <= np.flatnonzero(kept)).all()  # of overlapping regions the first
        assert (found.sigma == sigma[found.region]).all()


@pytest.mark.parametrize("overlap", ["sigma", "class"])
def test_the_certified_class_where_regions_overlap(rng, overlap):
    # Points on the line between two centres, in the middle of the overlap; false alarms as above.
    images, classes, R, sigma = instance(rng, n=150)
    r = regions.allocate(images, R, groups=GROUPS[overlap](sigma, classes)).radii
    graph = regions.overlap_graph(images, r)
    same = sigma[graph.i] == sigma[graph.j]
    pairs = np.flatnonzero(
        (graph.distance < 0.99 * (r[graph.i] + r[graph.j])) & (same if overlap == "sigma" else ~same)
    )
    assert len(pairs) > 20
    pairs = rng.permutation(pairs)[:60]
    i, j, d = graph.i[pairs], graph.j[pairs], graph.distance[pairs]
    low, high = np.maximum(d - r[j], 0), np.minimum(r[i], d)
    share = ((low + high) / 2 / d)[:, None, None, None]
    points = (images[i] + share * (images[j].astype(np.float64) - images[i])).astype(np.float32)
    where = [np.linalg.norm((points - images[k].astype(np.float64)).reshape(len(i), -1), axis=1) < r[k] for k in (i, j)]
    points, i = points[where[0] & where[1]], i[where[0] & where[1]]
    assert len(points) > 20
    table = regions.RegionMap(images, r, sigma, classes=classes)
    found = Predictor(classifier(), table, alpha=1e-6)(points, n=8000)
    assert (found.predict == classes[i]).all()
    assert (found.region <= i).all()


def test_certificates_of_new_images_hold_and_stay_in_their_region(rng):
    # alpha = 1e-6 an image: a false alarm has probability below 80 * 1e-6.
    images, classes, R, sigma = instance(rng)
    r = regions.allocate(images, R).radii
    kept = np.flatnonzero(r > 1e-3)
    points = np.concatenate([inside(rng, images[kept], r[kept], distance) for distance in (0.3, 0.95)])
    region = np.tile(kept, 2)
    found = Predictor(classifier(), regions.RegionMap(images, r, sigma), alpha=1e-6).certify(points, n=3000)
    exact = Halfspace(W, B).radius(torch.from_numpy(points)).numpy()
    assert (found.region == region).all()
    assert (exact >= found.R).all()
    gap = r[region] - np.linalg.norm((points - images[region].astype(np.float64)).reshape(len(points), -1), axis=1)
    assert (found.margin <= gap + 1e-12).all()
    assert found.margin == pytest.approx(gap, abs=1e-9)
    assert (found.radius == np.minimum(found.R, found.margin)).all()
    assert (found.radius > 0).mean() > 0.5
    certified = found.predict >= 0
    assert (found.predict[certified] == classes[region][certified]).all()
    assert ((found.R == 0) == ~certified).all()
    bound = certified_radius(found.sigma, lower_confidence_bound(found.count, 3000, 1e-6))
    assert (bound == found.R).all()


def test_with_discrete_noise_radii_leave_room_for_looking_up_float_images(rng):
    images, _, R, sigma = instance(rng, n=12)
    images = np.rint(images * 255).astype(np.float32) / np.float32(255)
    r = regions.allocate(images, R).radii
    table = regions.RegionMap(images, r, sigma)
    found = Predictor(classifier(sampler="discrete"), table).certify(images[r > 1e-3], n=500)
    some = found.radius > 0
    assert some.any()
    lost = 2.0**-24 * table.centres.shape[1] ** 0.5
    assert (found.radius[some] <= (np.minimum(found.R, found.margin) - lost)[some]).all()
    assert not found.cut.any()  # the lookup costs something, no other region does


# Two regions on a line of images, at 0.2 and 0.8, and a point between them that is nearer to the first centre but
# nearer to the second boundary.
LINE = regions.RegionMap([[0.2, 0.5, 0.5, 0.5], [0.8, 0.5, 0.5, 0.5]], [0.05, 0.25], [0.1, 0.25], classes=[1, 1])
BETWEEN = np.array([0.45, 0.5, 0.5, 0.5], dtype=np.float32).reshape(1, 1, 2, 2)


@pytest.mark.parametrize(
    ("outside", "sigma"),
    [("abstain", math.nan), ("smallest-sigma", 0.1), ("nearest-region", 0.25), ("best-sigma", 0.25)],
)
def test_outside_every_region(outside, sigma):
    predictor = Predictor(classifier(model=Constant(0.0, 1.0)), LINE, outside=outside)
    for found in (predictor(BETWEEN), predictor.certify(BETWEEN)):
        assert found.region.tolist() == [-1]
        assert found.predict.tolist() == [-1 if outside == "abstain" else 1]
        np.testing.assert_array_equal(found.sigma, [sigma])
        assert found.radius.tolist() == found.margin.tolist() == [0]
    assert (found.R[0] > 0) == (outside != "abstain")  # that of a constant sigma, which is not G's


def test_images_inside_and_outside_are_told_apart():
    images = np.concatenate([BETWEEN, BETWEEN + np.float32([[0.3, 0], [0, 0]]), BETWEEN])
    found = Predictor(classifier(model=Constant(0.0, 1.0)), LINE)(images)
    assert found.predict.tolist() == [-1, 1, -1]
    assert found.region.tolist() == [-1, 1, -1]
    assert found.n.tolist() == [0, 1000, 0]


def test_no_two_questions_share_noise_and_a_seed_repeats_all_answers(rng):
    images = np.repeat(BETWEEN + np.float32([[0.3, 0], [0, 0]]), 4, axis=0)
    at_the_edge = Halfspace(W, -float((images[0] * W.numpy()).sum()))  # so that votes show their noise
    first = Predictor(classifier(model=at_the_edge), LINE)
    once, again = first(images), first(images)
    counts = [*once.count.tolist(), *again.count.tolist()]
    assert len(set(counts)) > 4
    other = Predictor(classifier(model=at_the_edge), LINE)
    other_counts = [other(images[:3]).count, other(images[:5]).count, other(images[:1]).count]
    assert np.concatenate(other_counts).tolist() == counts
    assert Predictor(classifier(seed=6, model=at_the_edge), LINE)(images).count.tolist() != counts[:4]


def test_a_radius_ends_where_an_overlapping_region_of_another_sigma_decides(rng):
    """The map's own certificates may be wrong: G is certified by fresh samples, and only where they speak of it."""
    images, classes, R, sigma = instance(rng, n=150)
    r = regions.allocate(images, R, groups=[sigma, classes]).radii
    table = regions.RegionMap(images, r, sigma, classes=classes)
    points = inside(rng, images[r > 1e-3], r[r > 1e-3], 0.5)
    found = Predictor(classifier(model=Constant(0.0, 1.0)), table).certify(points, n=1000)
    flat, centres = points.reshape(len(points), -1).astype(np.float64), table.centres
    cut = 0
    for k in range(len(points)):
        earlier = np.flatnonzero((sigma != found.sigma[k]) & (r > 0) & (np.arange(len(r)) < found.region[k]))
        gaps = np.linalg.norm(centres[earlier] - flat[k], axis=1) - r[earlier]
        free = min(found.R[k], found.margin[k], gaps.min(initial=np.inf))
        assert found.radius[k] <= free + 1e-12
        assert found.radius[k] == pytest.approx(free, abs=1e-9)
        assert found.cut[k] == (free < min(found.R[k], found.margin[k]))
        cut += found.cut[k]
        steps = flat[k] + 0.999 * found.radius[k] * np.stack([d / np.linalg.norm(d) for d in rng.normal(size=(50, 4))])
        assert (table.locate(steps).sigma == found.sigma[k]).all()
    assert cut > 10


def test_no_two_threads_share_noise():
    predictor = Predictor(classifier(model=Constant(0.0, 1.0)), LINE)
    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(lambda _: predictor.numbers(3).tolist(), range(4000)))
    assert sorted(number for three in numbers for number in three) == list(range(12_000))


class OneAtATime(torch.nn.Module):
    """Class 1, and an error where a second thread comes while a first is inside."""

    def __init__(self):
        super().__init__()
        self.inside = threading.Lock()

    def forward(self, x):
        assert self.inside.acquire(blocking=False), "two threads at the same time"
        time.sleep(0.001)
        self.inside.release()
        return torch.tensor([0.0, 1.0]).expand(len(x), 2)


def test_threads_wait_for_each_other():
    # a model whose passes write into it would be no function of the image otherwise
    predictor = Predictor(classifier(model=OneAtATime(), threads=1), LINE, outside="best-sigma")
    images = np.concatenate([BETWEEN, BETWEEN + np.float32([[0.3, 0], [0, 0]])])
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(ask, images, n=100, n0=10) for ask in (predictor, predictor.certify) * 6]
        assert all((one.result().predict == 1).all() for one in asked)


def test_the_counter_is_read_and_raised_in_one():
    # a thread that is stopped at any line of the counter's method does not let another take the same number
    predictor, others = Predictor(classifier(model=Constant(0.0, 1.0)), LINE), []

    def stop(frame, event, argument):
        if frame.f_code.co_name == "take" and event == "line" and len(others) < 20:
            thread = threading.Thread(target=lambda: others.append(predictor.numbers(1)[0]))
            thread.start()
            thread.join(0.02)
        return stop

    sys.settrace(stop)
    try:
        mine = predictor.numbers(1)[0]
    finally:
        sys.settrace(None)
    last = predictor.numbers(1)[0]  # which waits for the others
    taken = [mine, last, *others]
    assert len(others) >= 2
    assert len(set(taken)) == len(taken)


def test_unusable_rules_are_refused():
    with pytest.raises(ValueError, match="outside = 'guess': choose abstain"):
        Predictor(classifier(), LINE, outside="guess")
    empty = regions.RegionMap(np.zeros((1, 4)), [0.0], [np.nan])
    for outside in OUTSIDE[1:]:
        with pytest.raises(ValueError, match="the map has no region"):
            Predictor(classifier(), empty, outside=outside)
    with pytest.raises(ValueError, match="the map has no region; choose another rule"):
        Predictor(classifier(), empty, sigmas=[0.5], outside="nearest-region")(BETWEEN)


def test_an_attack_inside_certified_balls_changes_no_answer(finished):
    # The regions are right but with probability 24 * 0.001 (the seed of the run is fixed); an answer is wrong with
    # probability 1e-6. A vote that is too close abstains, which is no change of class.
    folder, process = finished
    assert process.returncode == 0, process.stderr
    table = regions.RegionMap.load(folder / "run/regions.npz")
    model = load_checkpoint(folder / "model.pt")
    smoothed = SmoothedClassifier(model, 10, seed=77)
    predictor = Predictor(smoothed, table, alpha=1e-6)
    attacked = np.flatnonzero(table.radii > 0.05)
    assert len(attacked) >= 10
    generator = torch.Generator().manual_seed(0)
    moved, clean, adversarial = [], [], []
    for k in attacked:
        image = torch.from_numpy(table.centres[k].astype(np.float32).reshape(1, 1, 8, 8))
        label = torch.from_numpy(table.classes[[k]])
        noise = table.sigma[k] * torch.randn((16, *image.shape), generator=generator)
        attack = SmoothAdv(epsilon=0.999 * float(table.radii[k]), steps=10)
        noise = noise.to(image.dtype)
        target = attack(model, image, label, noise=noise)
        moved.append(target.numpy())
        with torch.inference_mode():
            clean.append(float(model(image + noise[:, 0]).softmax(1)[:, label].mean()))
            adversarial.append(float(model(target + noise[:, 0]).softmax(1)[:, label].mean()))
    assert np.mean(adversarial) < np.mean(clean) - 0.02  # the attack does what attacks do
    found = predictor(np.concatenate(moved), n=2000)
    assert (found.region == attacked).all()
    assert ((found.predict == table.classes[attacked]) | (found.predict == -1)).all()
    assert (found.predict == table.classes[attacked]).mean() > 0.7


@pytest.mark.parametrize("outside", OUTSIDE)
@pytest.mark.parametrize("wrong", [255.0, -0.001, np.nan])
def test_pixels_out_of_range_are_refused_before_they_are_looked_up(rng, outside, wrong):
    images, classes, R, sigma = instance(rng, n=5)
    G = Predictor(classifier(), regions.RegionMap(images, R / 10, sigma, classes=classes), outside=outside)
    far = images[:2].copy()
    far[1, 0, 1, 0] = wrong
    for ask in (G, G.certify):
        with pytest.raises(ValueError, match=r"images\[1, 0, 1, 0\] = .*: pixels must be finite and in \[0, 1\]"):
            ask(far, n=20, n0=10)
    with pytest.raises(ValueError, match=r"divide 8-bit pixels by 255"):
        inspect.unwrap(Predictor._levels)(G, (255 * images).astype(np.uint8), 10)


def test_a_level_outside_is_certified_as_far_as_levels_agree(rng):
    # Two half-spaces, one for each level: their exact radii are known everywhere, and so is what levels agree on.
    experts = {0.1: Halfspace(W, B), 0.25: Halfspace(W + 0.2, B - 0.05)}
    images = rng.random((60, 1, 2, 2)).astype(np.float32)
    points = images.reshape(60, -1).astype(np.float64)
    radii = np.where(np.arange(60) < 12, rng.uniform(0.05, 0.2, 60), 0.0)
    table = regions.RegionMap(images, radii, np.full(60, 0.1))
    smoothed = SmoothedClassifier(experts, 2, batch_size=4096, seed=5)
    found = Predictor(smoothed, table, outside="sigma=0.25", alpha=1e-6).certify(images, n=20_000)
    # by hand: signed distances to both edges, positive on the side of class 1
    pixels = torch.from_numpy(images)
    sides = [(2 * expert(pixels).argmax(dim=1) - 1) * expert.radius(pixels) for expert in experts.values()]
    signed = torch.stack(sides, dim=1).double().numpy()
    gap = np.linalg.norm(points[:, None] - points[None], axis=2) - radii
    filled = radii > 0
    inside = (gap[:, filled] < 0).any(axis=1)
    assert (found.sigma == np.where(inside, 0.1, 0.25)).all()
    own = np.where(inside, 0, 1)
    sign = np.sign(signed[np.arange(60), own])
    agree = np.maximum(sign[:, None] * signed, 0)
    clear = np.stack([np.maximum(gap[:, filled].min(axis=1), 0), np.maximum(-gap[:, filled].min(axis=1), 0)], axis=1)
    other = np.maximum(agree, clear)[np.arange(60), 1 - own]
    exact = np.minimum(agree[np.arange(60), own], other)
    certified = found.predict >= 0
    assert certified.mean() > 0.8
    assert (found.predict == np.where(sign > 0, 1, 0))[certified].all()
    assert (found.radius <= exact + 1e-7).all()  # false alarms: 60 times alpha
    # 20,000 votes lose less than 0.05 sigma-units of most radii; and what levels agree on is not given away
    assert np.median(found.radius[certified] / exact[certified]) > 0.8
    assert (found.radius > np.where(inside, found.margin, clear[:, 0]) + 0.01)[certified].any()
    cut = found.cut & certified
    np.testing.assert_array_equal(found.cut, found.radius < found.R)
    assert cut.any()
    # nothing is certified outside without such a level
    alone = Predictor(smoothed, table, outside="smallest-sigma", alpha=1e-6).certify(images, n=1000)
    assert not alone.radius[~inside].any()


def test_a_level_outside_needs_no_region():
    images = torch.rand(3, 1, 2, 2, generator=torch.Generator().manual_seed(0)).numpy()
    table = regions.RegionMap(images, np.zeros(3), np.full(3, np.nan))
    found = Predictor(classifier(), table, outside="sigma=0.25", alpha=1e-6).certify(images, n=3000)
    alone = classifier().certify(images, np.full(3, 0.25), n0=1000, n=3000, alpha=1e-6, indices=np.arange(3))
    np.testing.assert_array_equal(found.radius, alone.radius)
    np.testing.assert_array_equal(found.predict, alone.predict)
    with pytest.raises(ValueError, match=r"outside = 'sigma=-1': choose abstain, .*or a level as in sigma=0\.25"):
        Predictor(classifier(), table, outside="sigma=-1")
