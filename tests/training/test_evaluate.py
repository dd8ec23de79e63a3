"""What a base classifier does without noise; the model may do with its images what it likes."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from smoothing import SmoothedClassifier
from training import Engine, SmoothAdv, Stage, accuracy, check_fit, digits, fit
from training.models import network


@pytest.fixture(scope="module")
def data():
    return digits()


class Linear(nn.Module):
    def __init__(self, forward):
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.how, self.calls = nn.Linear(64, 10), forward, 0

    def forward(self, images):
        self.calls += 1
        return self.how(self, images)


def plain(model, images):
    return model.linear(((images - 0.5) / 0.5).flatten(1))


def in_place(model, images):
    return model.linear(images.sub_(0.5).div_(0.5).flatten(1))


def test_a_model_that_writes_into_its_images_changes_none_of_ours(data):
    images = data.test_images.copy()
    expected = accuracy(Linear(plain), images, data.test_labels)
    model = Linear(in_place)
    for _ in range(2):
        check_fit(model, data, "the model")
        assert accuracy(model, images, data.test_labels) == expected
    np.testing.assert_array_equal(images, data.test_images)


def test_logits_may_come_in_an_object(data):
    model = Linear(lambda m, x: SimpleNamespace(logits=plain(m, x)))
    check_fit(model, data, "the model")
    assert accuracy(model, data.test_images, data.test_labels) == accuracy(
        Linear(plain), data.test_images, data.test_labels
    )
    stage = Stage(epochs=1, sigma=(0.1, 0.2), lr=0.01, attack=SmoothAdv(0.1, 1))
    assert (
        len(fit(model, data.train_images[:32], data.train_labels[:32], stage=stage, engine=Engine(device="cpu"))) == 1
    )


def test_looking_at_a_model_does_not_make_another_of_it(data):
    model, fresh = (Linear(plain) for _ in range(2))
    check_fit(model, data, "the model")
    accuracy(model, data.test_images, data.test_labels)
    assert model.calls > 0
    assert SmoothedClassifier(model, 10).identity == SmoothedClassifier(fresh, 10).identity


@pytest.mark.parametrize(
    "error", [AssertionError("224\nnot 8"), KeyError("w"), NotImplementedError(), RecursionError()]
)
def test_whatever_a_model_raises_is_one_line(data, error):
    def raises(model, images):
        raise error

    stage = Stage(epochs=1, sigma=(0.1, 0.2), lr=0.01)
    for work in (
        lambda: check_fit(Linear(raises), data, "the model"),
        lambda: accuracy(Linear(raises), data.test_images, data.test_labels),
        lambda: fit(
            Linear(raises), data.train_images[:32], data.train_labels[:32], stage=stage, engine=Engine(device="cpu")
        ),
    ):
        with pytest.raises(ValueError, match=type(error).__name__) as caught:
            work()
        assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_a_lazy_model_is_refused_before_it_draws_its_weights(data):
    model = nn.Sequential(nn.Flatten(), nn.LazyLinear(10))
    with pytest.raises(ValueError, match=r"1\.weight has no values yet"):
        check_fit(model, data, "the model")
    assert torch.nn.parameter.is_lazy(model[1].weight)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("raise AssertionError('no GPU')", "AssertionError: no GPU"),
        ("raise NotImplementedError", "NotImplementedError"),
        ("return {}['weights']", "KeyError: 'weights'"),
        ("return 1 / 0", "ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("return open('nofile.pt')", "FileNotFoundError: "),
        ("return make(k)", "RecursionError: "),
    ],
)
def test_whatever_a_factory_raises_is_one_line_with_its_type(tmp_path, monkeypatch, body, reason):
    (tmp_path / "their_model.py").write_text(f"def make(k):\n    {body}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "their_model", raising=False)
    with pytest.raises(ValueError, match=rf"arch = 'their_model:make': make\(10\) failed: {reason}") as caught:
        network("their_model:make", 10)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "line", ["def make(:", "1 / 0", "raise SystemExit", "import argparse; nothing", "raise KeyError"]
)
def test_a_module_that_breaks_when_it_is_imported_is_one_line(tmp_path, monkeypatch, line):
    (tmp_path / "their_module.py").write_text(line + "\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"arch = 'their_module:make': importing their_module failed: \w+") as caught:
        network("their_module:make", 10)
    assert "\n" not in str(caught.value)
