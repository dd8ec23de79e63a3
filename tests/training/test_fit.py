import numpy as np
import pytest
import torch

from training import Normalize, accuracy, build, digits, train

RANGE = {"sigma_min": 0.1, "sigma_max": 0.6}


@pytest.fixture(scope="module")
def data():
    return digits()


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_training_reaches_its_accuracy_with_and_without_noise(data):
    model = build("digits_cnn", 10, seed=0)
    log = train(model, data.train_images, data.train_labels, **RANGE, epochs=30)
    assert accuracy(model, data.test_images, data.test_labels) >= 0.95
    noise = 0.4 * np.random.default_rng(0).standard_normal(data.test_images.shape, dtype=np.float32)
    assert accuracy(model, data.test_images + noise, data.test_labels) >= 0.80
    assert log.losses[-1] < log.losses[0] / 2
    assert not model.training


def test_the_seed_decides_the_weights(data):
    def weights(seed):
        model = build("digits_cnn", 10, seed=seed)
        train(model, data.train_images[:100], data.train_labels[:100], **RANGE, epochs=2, seed=seed)
        return torch.nn.utils.parameters_to_vector(model.parameters())

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


def test_global_random_state_and_images_are_left_alone(data):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    images = data.train_images[:64].copy()
    train(build("digits_cnn", 10, seed=0), images, data.train_labels[:64], **RANGE, epochs=1)
    assert torch.equal(torch.rand(3), expected)
    np.testing.assert_array_equal(images, data.train_images[:64])


def test_every_image_gets_a_level_of_its_own_within_the_range(data):
    seen = []

    class Spy(torch.nn.Linear):
        def forward(self, images):
            seen.append(images.detach())
            return super().forward(images.flatten(1))

    train(Spy(64, 10), np.full((1000, 1, 8, 8), 0.5, np.float32), np.zeros(1000, np.int64), **RANGE, epochs=1)
    sd = (torch.cat(seen) - 0.5).flatten(1).std(dim=1)
    # An estimate from 64 pixels is off by 9% (one sd): uniform levels spread over the range, one level would not.
    assert sd.min() < 0.16
    assert sd.max() > 0.5
    assert sd.max() < 0.6 * 1.5
    assert abs(float(sd.mean()) - 0.35) < 0.03


def test_a_diverging_loss_stops_with_a_message(data):
    images = np.full((8, 1, 8, 8), np.nan, np.float32)
    with pytest.raises(FloatingPointError, match="loss = nan in epoch 0: training diverged"):
        train(build("digits_cnn", 10, seed=0), images, data.train_labels[:8], **RANGE, epochs=3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sigma_min": 0.7}, r"sigma range \[0.7, 0.6\]"),
        ({"sigma_min": -0.1}, r"sigma range \[-0.1, 0.6\]"),
        ({"epochs": 0}, "epochs = 0"),
        ({"batch_size": 0}, "batch_size = 0"),
    ],
)
def test_senseless_settings_are_refused(data, change, message):
    with pytest.raises(ValueError, match=message):
        train(build("digits_cnn", 10, seed=0), data.train_images, data.train_labels, **(RANGE | change))


def test_images_and_labels_must_match(data):
    with pytest.raises(ValueError, match="1437 images and 10 labels"):
        train(build("digits_cnn", 10, seed=0), data.train_images, data.train_labels[:10], **RANGE)


def test_normalisation_is_inside_the_model():
    normalize = Normalize((0.5, 0.25), (0.5, 0.1))
    images = torch.rand(3, 2, 4, 4)
    expected = torch.stack([(images[:, 0] - 0.5) / 0.5, (images[:, 1] - 0.25) / 0.1], dim=1)
    torch.testing.assert_close(normalize(images), expected)
    assert any(isinstance(layer, Normalize) for layer in build("digits_cnn", 10, seed=0).modules())
