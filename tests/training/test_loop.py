import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from training import Consistency, Engine, SmoothAdv, SmoothMix, Stage, WeightedLevels, accuracy, build, digits, fit
from training.loop import _Meter

QUICK = Stage(epochs=2, sigma=(0.1, 0.6), lr=3e-3, optimizer="adam", weight_decay=0.0, schedule="cosine", batch_size=64)
CPU = Engine(device="cpu")


@pytest.fixture(scope="module")
def data():
    return digits()


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def changed(stage=QUICK, **change):
    return dataclasses.replace(stage, **change)


def weights(model):
    return nn.utils.parameters_to_vector(model.parameters()).detach()


class Spy(nn.Module):
    """A linear model that remembers the batches it was given, and how many images came back through it."""

    def __init__(self, pixels=64, dropout=0.0):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Dropout(dropout), nn.Linear(pixels, 10))
        self.seen, self.trained, self.backward = [], 0, 0

    def forward(self, images):
        self.seen.append(images.detach().clone())
        self.trained += len(images) if self.training else 0
        logits = self.layers(images)
        logits.register_hook(self._count)
        return logits

    def _count(self, gradient):
        self.backward += len(gradient)


def test_training_reaches_its_accuracy_with_and_without_noise(data):
    model = build("digits_cnn", 10, seed=0)
    rows = fit(model, data.train_images, data.train_labels, stage=changed(epochs=30, batch_size=128), engine=CPU)
    assert accuracy(model, data.test_images, data.test_labels) >= 0.95
    noise = 0.4 * np.random.default_rng(0).standard_normal(data.test_images.shape, dtype=np.float32)
    assert accuracy(model, data.test_images + noise, data.test_labels) >= 0.80
    assert rows[-1].loss < rows[0].loss / 2
    assert rows[-1].accuracy > rows[0].accuracy
    assert [row.epoch for row in rows] == list(range(30))
    assert not model.training


def test_the_seed_decides_the_weights(data):
    def trained(seed):
        model = build("digits_cnn", 10, seed=seed)
        fit(model, data.train_images[:100], data.train_labels[:100], stage=QUICK, engine=CPU, seed=seed)
        return weights(model)

    assert torch.equal(trained(0), trained(0))
    assert not torch.equal(trained(0), trained(1))


def test_global_random_state_and_images_are_left_alone(data):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    images = data.train_images[:64].copy()
    stage = changed(epochs=1, attack=SmoothAdv(0.3, 1), augment="crop-flip")
    fit(build("digits_cnn", 10, seed=0), images, data.train_labels[:64], stage=stage, engine=CPU)
    assert torch.equal(torch.rand(3), expected)
    np.testing.assert_array_equal(images, data.train_images[:64])


def test_every_image_gets_a_level_of_its_own_within_the_range():
    model = Spy()
    fit(model, np.full((1000, 1, 8, 8), 0.5, np.float32), np.zeros(1000, np.int64), stage=changed(epochs=1), engine=CPU)
    sd = (torch.cat(model.seen) - 0.5).flatten(1).std(dim=1)
    # An estimate from 64 pixels is off by 9% (one sd): uniform levels spread over the range, one level would not.
    assert sd.min() < 0.16
    assert sd.max() > 0.5
    assert sd.max() < 0.6 * 1.5
    assert abs(float(sd.mean()) - 0.35) < 0.03


def test_chosen_levels_stay_with_their_images():
    images = np.arange(40, dtype=np.float32).reshape(-1, 1, 1, 1) * np.ones((1, 1, 40, 40), np.float32)
    levels = np.linspace(0.1, 1.0, 40).astype(np.float32)
    model = Spy(1600)
    fit(model, images, np.zeros(40, np.int64), stage=changed(epochs=1, sigma=levels, m=2), engine=CPU)
    copies = torch.cat(model.seen).flatten(1)
    owner = copies.mean(dim=1).round().long()  # the mean of 1600 pixels is off by 0.025 (one sd) at most
    assert torch.equal(owner.bincount(), torch.full((40,), 2))
    np.testing.assert_allclose(copies.std(dim=1), levels[owner], rtol=0.1)  # off by 1.8% (one sd)


def test_listed_levels_are_drawn_in_proportion_to_their_weights():
    levels = WeightedLevels((0.25, 0.5, 1.0), (1.0, 0.5, 2.5))
    drawn = levels.draw(40_000, torch.Generator().manual_seed(0))
    for sigma, share in ((0.25, 0.25), (0.5, 0.125), (1.0, 0.625)):
        # five standard deviations of a share among 40,000
        assert abs(float((drawn == sigma).double().mean()) - share) < 5 * math.sqrt(share * (1 - share) / 40_000)
    assert drawn.dtype == torch.float32


def test_weights_whose_sum_overflows_are_weights_like_others():
    drawn, same = (
        WeightedLevels((0.1, 0.2), weights).draw(100, torch.Generator().manual_seed(0))
        for weights in ((1.5e308, 1.5e308), (1.0, 1.0))
    )
    assert torch.equal(drawn, same)


def test_images_get_listed_levels_anew_in_every_epoch():
    model = Spy(1600)
    images = np.arange(40, dtype=np.float32).reshape(-1, 1, 1, 1) * np.ones((1, 1, 40, 40), np.float32)
    stage = changed(sigma=WeightedLevels((0.1, 0.2, 0.4), (1.0, 1.0, 2.0)), m=2, batch_size=40)
    fit(model, images, np.zeros(40, np.int64), stage=stage, engine=CPU)
    epochs = []
    for batch in model.seen:
        copies = batch.flatten(1)
        owner, level = copies.mean(dim=1).round().long(), copies.std(dim=1)  # off by 1.8% (one sd)
        nearest = (level[:, None] / torch.tensor([0.1, 0.2, 0.4]) - 1).abs()
        assert (nearest.min(dim=1).values < 0.1).all()
        first, second = nearest.argmin(dim=1).reshape(2, 40)
        assert torch.equal(first, second)  # copies of an image share its level
        assert set(first.tolist()) == {0, 1, 2}
        epochs.append(first[owner[:40].argsort()])
    assert not torch.equal(*epochs)


def test_an_epoch_takes_every_image_once_in_batches_that_differ_by_one():
    model = Spy(1)
    images = np.arange(103, dtype=np.float32).reshape(-1, 1, 1, 1)
    fit(model, images, np.zeros(103, np.int64), stage=changed(sigma=(0.0, 0.0), batch_size=20), engine=CPU)
    for epoch in (model.seen[:6], model.seen[6:]):
        assert {len(batch) for batch in epoch} == {17, 18}
        assert sorted(torch.cat(epoch).flatten().tolist()) == list(range(103))
    assert not torch.equal(model.seen[0], model.seen[6])  # the order is drawn anew


@pytest.mark.parametrize(("m", "steps"), [(1, 0), (2, 0), (1, 1), (2, 3)])
def test_no_pass_is_wasted(data, m, steps):
    model = Spy()
    stage = changed(epochs=1, m=m, attack=SmoothAdv(0.3, steps) if steps else None)
    fit(model, data.train_images[:70], data.train_labels[:70], stage=stage, engine=CPU)
    assert stage.passes == m * (steps + 1)
    assert sum(map(len, model.seen)) == model.backward == 70 * stage.passes
    assert model.trained == 70 * m  # the attack runs in evaluation mode


@pytest.mark.parametrize(("m", "steps"), [(1, 1), (2, 3)])
def test_mixed_images_cost_their_path_and_a_pass_of_their_own(data, m, steps):
    model = Spy()
    stage = changed(epochs=1, m=m, mix=SmoothMix(steps=steps))
    fit(model, data.train_images[:70], data.train_labels[:70], stage=stage, engine=CPU)
    assert stage.passes == m * (steps + 2)
    assert sum(map(len, model.seen)) == model.backward == 70 * stage.passes
    assert model.trained == 70 * 2 * m  # the path is walked in evaluation mode


def test_images_are_mixed_by_up_to_a_half_under_the_same_noise():
    model, images = Spy(), np.full((256, 1, 8, 8), 0.5, np.float32)
    stage = changed(epochs=1, m=3, mix=SmoothMix(steps=2), sigma=(0.05, 0.05), batch_size=256)
    fit(model, images, np.arange(256) % 10, stage=stage, engine=CPU)
    own, mixed = model.seen[-1].reshape(2, 3, 256, 64)
    moved = mixed - own
    torch.testing.assert_close(moved[0], moved[1], atol=1e-6, rtol=0)
    torch.testing.assert_close(moved[0], moved[2], atol=1e-6, rtol=0)
    path = (model.seen[1].reshape(3, 256, 64) - model.seen[0].reshape(3, 256, 64))[0]  # the first of two equal steps
    torch.testing.assert_close(path.norm(dim=1), torch.full((256,), 8 * 0.05 / 2), rtol=1e-3, atol=0)
    share = moved[0].norm(dim=1) / (8 * 0.05)
    # 256 numbers of U(0, 1/2): both ends are missed by 0.02 with probability 2 * 0.96 ** 256 < 1e-4
    assert share.max() <= 0.5 * (1 + 1e-3)
    assert share.max() > 0.48 * 0.9  # steps that turn end nearer than the path is long
    assert share.min() < 0.02


def test_the_part_of_mixed_images_is_added_and_its_weight_grows_over_the_first_epochs(data):
    def loss(eta, **change):
        """The loss of the first step, in which the weights are still those of the seed."""
        stage = changed(epochs=1, mix=SmoothMix(eta=eta, steps=1), batch_size=2000, m=2, **change)
        model = build("digits_cnn", 10, seed=0)
        fit(model, data.train_images, data.train_labels, stage=changed(epochs=2), engine=CPU)  # some are right
        (row,) = fit(model, data.train_images, data.train_labels, stage=stage, engine=CPU)
        return row.loss

    plain, once = loss(0.0), loss(1.0)
    assert once > plain + 0.01
    assert loss(3.0) - plain == pytest.approx(3 * (once - plain), rel=1e-4)
    assert loss(4.0, warmup=4) == pytest.approx(once, rel=1e-6)


def test_the_loss_is_taken_on_the_very_noise_of_the_attack(data):
    model = Spy()
    fit(
        model,
        data.train_images[:32],
        data.train_labels[:32],
        stage=changed(epochs=1, attack=SmoothAdv(0.2, 1), m=3),
        engine=CPU,
    )
    clean, hard = model.seen
    moved = (hard - clean).unflatten(0, (3, 32))
    torch.testing.assert_close(moved[0], moved[1], atol=1e-6, rtol=0)
    torch.testing.assert_close(moved[0], moved[2], atol=1e-6, rtol=0)
    assert moved[0].flatten(1).norm(dim=1).max() <= 0.2 + 1e-6
    assert moved[0].flatten(1).norm(dim=1).max() > 0.05


def test_the_attack_grows_over_the_first_epochs(data):
    model = Spy()
    stage = changed(epochs=4, warmup=3, attack=SmoothAdv(0.3, 1), sigma=(0.0, 0.0))
    fit(model, np.full((64, 1, 8, 8), 0.5, np.float32), data.train_labels[:64], stage=stage, engine=CPU)
    reach = [float((model.seen[2 * e + 1] - 0.5).flatten(1).norm(dim=1).max()) for e in range(4)]
    np.testing.assert_allclose(reach, [0.1, 0.2, 0.3, 0.3], rtol=1e-4)  # one step of twice epsilon, projected


def test_the_step_schedule_is_that_of_appendix_a(data):
    stage = changed(epochs=6, lr=0.1, schedule="step", drop_every=2, optimizer="sgd")
    rates = rates_of(data, stage)
    np.testing.assert_allclose(rates, [0.1] * 4 + [0.01] * 4 + [0.001] * 4)


def test_the_cosine_schedule_falls_to_zero_step_by_step(data):
    rates = rates_of(data, changed(epochs=3, lr=0.2))
    np.testing.assert_allclose(rates, [0.2 * (1 + math.cos(math.pi * step / 6)) / 2 for step in range(6)])


def rates_of(data, stage):
    """The learning rate of every step, two an epoch, seen from inside the optimizer."""
    rates = []
    hook = register_optimizer_step_pre_hook(lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"]))
    try:
        fit(
            build("digits_cnn", 10),
            data.train_images[:80],
            data.train_labels[:80],
            stage=changed(stage, batch_size=40),
            engine=CPU,
        )
    finally:
        hook.remove()
    return rates


@pytest.mark.parametrize(
    "change",
    [
        {"optimizer": "sgd", "attack": SmoothAdv(0.3, 2)},
        {"optimizer": "adam", "attack": SmoothAdv(0.3, 2)},
        {"loss": Consistency(), "sigma": WeightedLevels((0.1, 0.4), (1.0, 2.0))},
        {"mix": SmoothMix(steps=2), "sigma": WeightedLevels((0.1, 0.4), (1.0, 2.0))},
    ],
)
def test_going_on_from_any_epoch_gives_the_same_weights(data, change):
    images, labels = data.train_images[:100], data.train_labels[:100]
    stage = changed(epochs=4, lr=0.01, m=2, warmup=2, augment="crop-flip", batch_size=30, **change)
    states, snapshots = [], []
    whole = Spy(dropout=0.5)
    start = {key: value.clone() for key, value in whole.state_dict().items()}

    def keep(state):
        states.append(torch.load(_through_a_file(state), weights_only=True))
        snapshots.append({key: value.clone() for key, value in whole.state_dict().items()})

    rows = fit(whole, images, labels, stage=stage, engine=CPU, after_epoch=keep)
    assert not torch.equal(weights(whole), nn.utils.parameters_to_vector(start.values()))
    for epoch in range(4):
        model = Spy(dropout=0.5)
        model.load_state_dict(snapshots[epoch])
        again = fit(model, images, labels, stage=stage, engine=CPU, state=states[epoch])
        assert torch.equal(weights(model), weights(whole))
        assert [(row.loss, row.accuracy, row.lr) for row in again] == [(row.loss, row.accuracy, row.lr) for row in rows]


def _through_a_file(state):
    import io

    stream = io.BytesIO()
    torch.save(state, stream)
    stream.seek(0)
    return stream


@pytest.mark.parametrize("change", [{}, {"loss": Consistency(), "m": 2}])
def test_a_batch_in_parts_is_the_same_step(data, change):
    images, labels = data.train_images[:90].astype(np.float32), data.train_labels[:90]
    stage = changed(epochs=1, sigma=(0.0, 0.0), optimizer="sgd", lr=0.05, **change)
    results = []
    for accumulate in (1, 3):
        model = build("digits_cnn", 10, seed=0)
        fit(model, images, labels, stage=stage, engine=Engine(device="cpu", accumulate=accumulate))
        results.append(weights(model))
    assert not torch.equal(results[0], weights(build("digits_cnn", 10, seed=0)))
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-6)  # sums in another order


@pytest.mark.parametrize("engine", [Engine(device="cpu", precision="bfloat16"), Engine(channels_last=False)])
def test_engines_change_rounding_and_nothing_else(data, engine):
    results = []
    for choice in (CPU, engine):
        model = build("digits_cnn", 10, seed=0)
        rows = fit(model, data.train_images, data.train_labels, stage=changed(epochs=3), engine=choice)
        results.append(rows[-1].loss)
        assert {p.dtype for p in model.parameters()} == {torch.float32}
        assert model(torch.zeros(1, 1, 8, 8)).dtype == torch.float32  # no autocast stays behind
    assert results[0] == pytest.approx(results[1], rel=0.05)


def test_a_diverging_loss_stops_with_a_message_and_hands_on_nothing(data):
    images = np.full((8, 1, 8, 8), np.nan, np.float32)
    seen = []
    with pytest.raises(
        FloatingPointError, match=r"loss = nan in epoch 0: training diverged; lower the learning rate, 0\.003"
    ):
        fit(
            build("digits_cnn", 10, seed=0),
            images,
            data.train_labels[:8],
            stage=QUICK,
            engine=CPU,
            after_epoch=seen.append,
        )
    assert seen == []


def test_divergence_is_noticed_within_a_long_epoch(data):
    stage = changed(epochs=1, lr=1e30, optimizer="sgd", batch_size=1)
    with pytest.raises(FloatingPointError, match=r"train 1/1: loss = (nan|inf): training diverged"):
        fit(build("digits_cnn", 10, seed=0), data.train_images, data.train_labels, stage=stage, engine=CPU)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sigma": (0.7, 0.6)}, r"sigma range \[0.7, 0.6\]"),
        ({"sigma": (-0.1, 0.6)}, r"sigma range \[-0.1, 0.6\]"),
        ({"sigma": (0.1, math.inf)}, r"sigma range \[0.1, inf\]"),
        ({"sigma": np.array([0.1, -0.1], np.float32)}, "every image's level must be finite and >= 0"),
        ({"mix": SmoothMix(), "sigma": (0.0, 0.6)}, r"sigma = 0\.0: SmoothMix walks lengths in units of sigma"),
        ({"mix": SmoothMix(), "sigma": WeightedLevels((0.0, 0.6), (1.0, 1.0))}, r"sigma = 0\.0: SmoothMix"),
        ({"mix": SmoothMix(), "sigma": np.array([0.1, 0.0], np.float32)}, r"sigma = 0\.0: SmoothMix"),
        ({"mix": SmoothMix(), "attack": SmoothAdv(0.3, 1)}, "mix: makes adversarial images of its own"),
        ({"epochs": 0}, "epochs = 0"),
        ({"m": 0}, "m = 0"),
        ({"batch_size": 0}, "batch_size = 0"),
        ({"lr": 0.0}, "lr = 0.0"),
        ({"lr": math.nan}, "lr = nan"),
        ({"weight_decay": -1.0}, "weight_decay = -1.0"),
        ({"augment": "blur"}, "augment = 'blur': choose none, crop-flip"),
    ],
)
def test_senseless_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        changed(**change)


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        (((0.1,), (1.0, 2.0)), "1 levels and 2 weights: need as many of each"),
        (((), ()), "at least one"),
        (((0.1, -0.5), (1.0, 1.0)), r"sigmas hold -0\.5: must be finite and >= 0"),
        (((0.1, math.inf), (1.0, 1.0)), "sigmas hold inf"),
        (((0.1, 0.5), (1.0, 0.0)), r"weights hold 0\.0: must be finite and > 0"),
        (((0.1, 0.5), (1.0, math.nan)), "weights hold nan"),
    ],
)
def test_senseless_levels_are_refused(levels, message):
    with pytest.raises(ValueError, match=message):
        WeightedLevels(*levels)


def test_images_labels_and_levels_must_match(data):
    model = build("digits_cnn", 10, seed=0)
    with pytest.raises(ValueError, match="1437 images and 10 labels"):
        fit(model, data.train_images, data.train_labels[:10], stage=QUICK, engine=CPU)
    with pytest.raises(ValueError, match="3 noise levels for 1437 images"):
        fit(model, data.train_images, data.train_labels, stage=changed(sigma=np.ones(3, np.float32)), engine=CPU)
    with pytest.raises(ValueError, match="batch_size = 4: too small to be divided among 3 parts"):
        fit(model, data.train_images, data.train_labels, stage=changed(batch_size=4), engine=Engine(accumulate=3))
    with pytest.raises(ValueError, match="accumulate = 0"):
        Engine(accumulate=0)


class Dropping(nn.Module):
    """A linear model that draws numbers of its own, as dropout does, and keeps them beside what it was given."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(64, 10)
        self.seen = []

    def forward(self, images):
        self.seen.append((images.detach().clone(), torch.randn(images.shape)))
        return self.linear(images.flatten(1))


def test_dropout_does_not_follow_the_noise():
    model = Dropping()
    black = np.zeros((64, 1, 8, 8), dtype=np.float32)
    fit(model, black, np.arange(64) % 10, stage=changed(epochs=1, sigma=(0.5, 0.5)), engine=CPU)
    noise, own = model.seen[0]  # black images show the bare noise
    assert abs(torch.corrcoef(torch.stack([noise.flatten(), own.flatten()]))[0, 1]) < 5 / 64  # five standard deviations


def test_the_meter_takes_the_widest_floats_a_device_has(monkeypatch):
    monkeypatch.setattr("training.loop.widest_float", lambda device: torch.float32)  # as on MPS
    meter = _Meter(torch.device("cpu"), "title", 4, progress=False)
    meter.add(torch.ones(4), torch.ones((2, 4), dtype=torch.bool))
    assert meter.sums.dtype == torch.float32
    assert meter.sums.tolist() == [4.0, 4.0]


def test_images_and_labels_of_any_byte_order_and_layout_train_the_same(data):
    images, labels = data.train_images[:64], data.train_labels[:64]
    backwards, swapped = images[::-1].copy()[::-1], images.astype(">f4")
    trained = []
    for x, y in ((images, labels), (backwards, labels.astype(">i8")), (swapped, labels[::-1].copy()[::-1])):
        model = build("digits_cnn", 10, seed=0)
        fit(model, x, y, stage=changed(epochs=1), engine=CPU)
        trained.append(weights(model))
        assert accuracy(model, x, y) == accuracy(model, images, labels)
    assert torch.equal(trained[0], trained[1])
    assert torch.equal(trained[0], trained[2])


def test_masked_images_and_labels_are_not_trained_on():
    with pytest.raises(ValueError, match="sigma: a masked array"):
        changed(sigma=np.ma.masked_array(np.ones(4, dtype=np.float32), mask=[1, 0, 0, 0]))
    images, labels = np.zeros((4, 1, 8, 8), dtype=np.float32), np.arange(4)
    for x, y, name in (
        (np.ma.masked_array(images), labels, "images"),
        (images, np.ma.masked_array(labels, mask=[1, 0, 0, 0]), "labels"),
    ):
        with pytest.raises(ValueError, match=f"{name}: a masked array"):
            fit(Spy(), x, y, stage=QUICK, engine=CPU)
        with pytest.raises(ValueError, match=f"{name}: a masked array"):
            accuracy(Spy(), x, y)
