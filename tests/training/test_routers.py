import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given
from torch import nn

from training import MonotoneRouter, router_network


def monotone(steps):
    """A monotone router whose score is the image's one pixel."""
    router = MonotoneRouter(nn.Flatten(), len(steps) + 1).double()
    with torch.no_grad():
        router.steps.copy_(torch.tensor(steps, dtype=torch.float64))
    return router


def named(router, scores):
    with torch.no_grad():
        return router(torch.tensor(scores, dtype=torch.float64).reshape(-1, 1, 1, 1))


STEPS = st.lists(st.floats(-3, 3), min_size=1, max_size=8)
SCORES = st.lists(st.floats(-50, 50), min_size=1, max_size=8)


@given(STEPS, SCORES)
def test_a_monotone_router_names_as_many_levels_as_thresholds_lie_below(steps, scores):
    router = monotone(steps)
    # the thresholds by hand: the first, and steps of exp(.)
    thresholds = steps[0] + np.concatenate([[0.0], np.cumsum(np.exp(steps[1:]))])
    np.testing.assert_allclose(router.thresholds.detach().numpy(), thresholds, atol=1e-9)
    assert (np.diff(thresholds) > 0).all()
    scores = [score for score in sorted(scores) if np.abs(score - thresholds).min() > 1e-6]  # no ties
    if not scores:
        return
    logits = named(router, scores).numpy()
    level = logits.argmax(axis=1)
    np.testing.assert_array_equal(level, (np.array(scores)[:, None] > thresholds).sum(axis=1))
    assert (np.diff(level) >= 0).all()


@given(STEPS, st.floats(-50, 50))
def test_only_neighbours_compete_in_a_monotone_router(steps, score):
    router = monotone(steps)
    logits = named(router, [score]).numpy()[0]
    level = int(logits.argmax())
    slack = 1e-9
    assert (np.diff(logits[level:]) <= slack).all()  # the further a level is, the less likely
    assert (np.diff(logits[: level + 1]) >= -slack).all()
    for k, threshold in enumerate(router.thresholds.tolist()):  # where the level changes, exactly two neighbours tie
        tied = named(router, [threshold]).numpy()[0]
        assert tied[k] == pytest.approx(tied[k + 1], abs=1e-9)
        assert (np.delete(tied, [k, k + 1]) < tied[k]).all()


def test_a_monotone_router_is_even_at_first_and_learns_its_thresholds():
    router = MonotoneRouter(nn.Flatten(), 4)
    assert router.thresholds.tolist() == pytest.approx([-4.0, 0.0, 4.0])
    assert named(router.double(), [0.0]).softmax(dim=1)[0, 1:3].sum() > 0.95
    router(torch.ones(1, 1, 1, 1, dtype=torch.float64)).softmax(dim=1)[0, 0].backward()
    assert (router.steps.grad != 0).all()


@pytest.mark.parametrize("kind", ["free", "monotone"])
@pytest.mark.parametrize("levels", [2, 5])
def test_a_router_is_a_base_classifier_s_architecture_with_a_logit_for_each_level(kind, levels):
    router = router_network("digits_cnn", levels, kind=kind)
    assert router(torch.zeros(3, 1, 8, 8)).shape == (3, levels)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "round"}, "kind = 'round': choose free, monotone"),
        ({"levels": 1}, "levels = 1: a router chooses among two or more; one level needs none"),
        ({"arch": "alexnet"}, "arch = 'alexnet': choose lenet"),
    ],
)
def test_what_is_no_router_is_named(change, message):
    settings = {"arch": "digits_cnn", "levels": 3, "kind": "free", **change}
    with pytest.raises(ValueError, match=message):
        router_network(settings.pop("arch"), settings.pop("levels"), **settings)
