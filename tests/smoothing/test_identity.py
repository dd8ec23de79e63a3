"""The identity covers what decides a model's function, and is not moved by running the model."""

import copy
import functools
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from smoothing import SmoothedClassifier, certify_to_file
from smoothing.fingerprint import classifier_difference

SHAPE = (1, 4, 4)


@pytest.fixture
def images():
    return torch.rand((3, *SHAPE), generator=torch.Generator().manual_seed(1))


class Norm(nn.Module):
    """A normaliser that keeps what it was given in some way."""

    def __init__(self, **attributes):
        super().__init__()
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, images):
        return images


class Steps:
    """What users keep in a plain object."""

    def __init__(self, mean):
        self.mean = mean


class Slotted:
    __slots__ = ("mean",)

    def __init__(self, mean):
        self.mean = mean


def scaled(factor):
    return lambda images: images * factor


def model(**attributes):
    torch.manual_seed(0)
    return nn.Sequential(Norm(**attributes), nn.Flatten(), nn.Linear(16, 5))


def identity(base):
    return SmoothedClassifier(base, 5).identity


@pytest.mark.parametrize(
    "make",
    [
        lambda v: torch.tensor([v]),
        lambda v: np.array([v]),
        lambda v: np.array([Steps(v)], dtype=object),
        lambda v: np.float32(v),
        lambda v: v,
        lambda v: int(8 * v),
        lambda v: v > 0.4,
        lambda v: str(v),
        lambda v: complex(v),
        lambda v: (1, [v]),
        lambda v: {"mean": {"red": v}},
        lambda v: {v},
        lambda v: Steps(v),
        lambda v: Slotted(v),
        lambda v: SimpleNamespace(mean=v),
        lambda v: functools.partial(torch.add, v),
        lambda v: scaled(v),
        lambda v: torch.relu if v > 0.4 else torch.tanh,
        lambda v: [nn.Linear(1, 1).requires_grad_(v > 0.4), nn.Dropout(v)],
        lambda v: torch.tensor([[0.0, v]]).to_sparse(),
    ],
)
def test_whatever_a_normaliser_is_kept_as_is_part_of_it(make):
    torch.manual_seed(1)
    first, second = identity(model(kept=make(0.5))), identity(model(kept=make(0.25)))
    assert first != second
    torch.manual_seed(1)
    assert identity(model(kept=make(0.5))) == first


def changes():
    """Yield (name, function that changes a model) of what is no plain attribute."""
    yield "eps", lambda m: setattr(m[3], "eps", 1e-2)
    yield "stride", lambda m: setattr(m[0], "stride", (2, 2))
    yield "class", lambda m: m.__setitem__(4, nn.Tanh())
    yield "child", lambda m: m.append(nn.ReLU())
    yield "buffer", lambda m: m[1].register_buffer("shift", torch.ones(1), persistent=False)
    yield "pre-hook", lambda m: m.register_forward_pre_hook(lambda module, inputs: inputs[0] * 2)
    yield "hook", lambda m: m.register_forward_hook(lambda module, inputs, output: -output)
    yield "bound forward", lambda m: setattr(m, "forward", functools.partial(m.forward))
    yield "parameter of half precision", lambda m: m[6].half()


@pytest.mark.parametrize("change", [change for _, change in changes()], ids=[name for name, _ in changes()])
def test_everything_that_decides_the_function_is_part_of_it(change):
    torch.manual_seed(0)
    base = nn.Sequential(
        nn.Conv2d(1, 2, 3), Norm(), nn.Identity(), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 5)
    )
    other = copy.deepcopy(base)
    assert identity(base) == identity(other)
    change(other)
    assert identity(base) != identity(other)


class Extra(nn.Linear):
    """A layer with extra state, which the state dict holds as no tensor."""

    extra = 0

    def get_extra_state(self):
        return {"extra": self.extra}


def test_extra_state_is_part_of_it():
    base = nn.Sequential(nn.Flatten(), Extra(16, 5))
    first = identity(base)
    base[1].extra = 2
    assert identity(base) != first


class Caches(nn.Module):
    """A model that writes into itself as honest ones do: counts calls, keeps a table, a mask and a buffer."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 5))
        self.calls, self.mask, self.tables = 0, None, {}
        self.register_buffer("passes", torch.zeros(1))

    def forward(self, images):
        self.calls += 1
        self.passes += 1
        if self.mask is None:
            self.mask = torch.ones(images.shape[1:])
        self.tables[len(images)] = torch.arange(len(images))
        self.newest = images.mean()
        return self.features(images * self.mask)


def test_running_a_model_that_torch_compile_wrapped_does_not_make_another_of_it(images):
    def base():
        return torch.compile(Caches(), backend="eager")

    one = base()
    fresh = identity(one)
    assert SmoothedClassifier(one, 5).predict(images, 0.25, n=10).votes.sum() == 30
    assert identity(one) == fresh == identity(base())


@pytest.mark.parametrize("threads", [1, 2])
def test_running_a_model_does_not_make_another_of_it(images, threads):
    base = Caches()
    fresh = identity(base)
    smoothed = SmoothedClassifier(base, 5, threads=threads)
    result = smoothed.certify(images, 0.25, n0=20, n=200)
    assert result.identity == smoothed.identity == fresh
    assert identity(base) == fresh == identity(Caches())
    SmoothedClassifier(base, 5, batch_size=7).base_predict(images, [0.5])
    assert identity(base) == fresh
    base.mask = 0.5 * base.mask  # but somebody else's change does
    assert identity(base) != fresh


def test_a_cache_made_while_voting_is_fit_for_training(images):
    base = Caches()
    SmoothedClassifier(base, 5).predict(images, 0.25, n=10)
    base.train()(images.requires_grad_()).sum().backward()
    assert base.features[3].weight.grad is not None


@pytest.mark.parametrize(
    "wrap",
    [
        nn.utils.parametrizations.weight_norm,
        nn.utils.parametrizations.spectral_norm,
        pytest.param(nn.utils.weight_norm, marks=pytest.mark.filterwarnings("ignore::FutureWarning")),
        pytest.param(nn.utils.spectral_norm, marks=pytest.mark.filterwarnings("ignore::FutureWarning")),
    ],
)
def test_weights_that_are_computed_from_others(images, wrap):
    def base(seed):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), wrap(nn.Linear(16, 5)))

    one = base(0)
    fresh = identity(one)
    SmoothedClassifier(one, 5).predict(images, 0.25, n=10)
    assert identity(one) == fresh == identity(base(0)) != identity(base(1))


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize(
    "wrap",
    [
        lambda m: torch.jit.trace(m.eval(), torch.rand(2, *SHAPE)),
        lambda m: torch.jit.freeze(torch.jit.trace(m.eval(), torch.rand(2, *SHAPE))),
        lambda m: torch.export.export(
            m.eval(), (torch.rand(2, *SHAPE),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)
        ).module(),
    ],
)
def test_scripts_and_exported_programs_vote_and_are_told_apart(images, wrap):
    class Scaled(nn.Module):
        def __init__(self, factor):
            super().__init__()
            torch.manual_seed(0)
            self.linear, self.factor = nn.Linear(16, 5), factor

        def forward(self, batch):
            return self.linear(batch.flatten(1) * self.factor)

    one = wrap(Scaled(0.5))
    fresh = identity(one)
    assert SmoothedClassifier(one, 5).predict(images, 0.25, n=10).votes.sum() == 30
    assert fresh == identity(one) == identity(wrap(Scaled(0.5))) != identity(wrap(Scaled(0.25)))


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
def test_quantised_weights_are_told_apart_and_a_scale_of_the_whole_batch_is_refused(images):
    def base(seed):
        torch.manual_seed(seed)
        plain = nn.Sequential(nn.Flatten(), nn.Linear(16, 5))
        return torch.ao.quantization.quantize_dynamic(plain.eval(), {nn.Linear}, torch.qint8)

    assert identity(base(0)) == identity(base(0)) != identity(base(1))
    with pytest.raises(ValueError, match="depends on the rest of its batch"):
        SmoothedClassifier(base(0), 5).predict(images, 0.25, n=10)


@pytest.mark.parametrize(
    ("base", "message"),
    [
        (nn.Sequential(nn.Flatten(), nn.LazyLinear(5)), r"1\.weight has no values yet \(a lazy module\)"),
        (nn.Linear(16, 5, device="meta"), "meta"),
    ],
)
@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_a_model_without_values_is_one_line(images, base, message):
    with pytest.raises(ValueError, match=message) as caught:
        SmoothedClassifier(base, 5).predict(images, 0.25, n=10)
    assert "\n" not in str(caught.value)


FACTOR = 1.0


class Escapes(nn.Linear):
    """A model with a part that no hash of its module sees."""

    def forward(self, images):
        return super().forward(images.flatten(1)) * FACTOR


def test_logits_of_fixed_images_tell_what_the_hash_cannot(tmp_path, images, monkeypatch):
    torch.manual_seed(0)
    base = Escapes(16, 5)
    path = tmp_path / "c.tsv"
    first = certify_to_file(path, SmoothedClassifier(base, 5), images, sigma=0.25, n0=20, n=50)
    monkeypatch.setattr(f"{__name__}.FACTOR", 1 + 1e-5)  # as rounding on another machine may
    again = certify_to_file(path, SmoothedClassifier(base, 5), images, sigma=0.25, n0=20, n=50)
    np.testing.assert_array_equal(again.predict, first.predict)
    monkeypatch.setattr(f"{__name__}.FACTOR", -1.0)
    with pytest.raises(ValueError, match=r"another model \(its logits for fixed images are others.*name another file"):
        certify_to_file(path, SmoothedClassifier(base, 5), images, sigma=0.25, n0=20, n=50)


def test_an_earlier_versions_record_is_one_clear_line(images):
    smoothed = SmoothedClassifier(model(), 5)
    ours = {"classifier": asdict(smoothed.identity), "check": smoothed.check_logits(SHAPE)}
    assert classifier_difference(ours, copy.deepcopy(ours)) is None
    earlier = {"classifier": {key: value for key, value in ours["classifier"].items() if key != "scheme"}}
    assert "an earlier version's" in classifier_difference(ours, earlier)
    for damaged in ({}, {"classifier": None}, {"classifier": 3}, {"classifier": ours["classifier"], "check": 3}):
        assert classifier_difference(ours, damaged) is not None


def test_a_model_that_is_changed_between_calls_is_another_classifier():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.by = nn.Linear(9, 2), 1.0

        def forward(self, images):
            return self.linear(images.flatten(1)) * self.by

    model, images = Scaled(), torch.rand((1, 1, 3, 3))
    smoothed = SmoothedClassifier(model, 2, threads=1)
    first = smoothed.predict(images, 0.5, n=10)
    assert first.identity == smoothed.identity == smoothed.predict(images, 0.5, n=10).identity
    model.by = -1.0
    second = smoothed.predict(images, 0.5, n=10)
    assert second.identity != first.identity
    with torch.no_grad():
        model.linear.weight.data.mul_(2.0)
    assert smoothed.identity not in (first.identity, second.identity)


def test_what_accelerate_leaves_on_a_module_is_no_part_of_it():
    model = nn.Sequential(nn.Flatten(), nn.Linear(9, 2))
    before = SmoothedClassifier(model, 2, threads=1).identity
    model._is_accelerate_prepared = True
    assert SmoothedClassifier(model, 2, threads=1).identity == before
