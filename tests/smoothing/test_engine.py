"""The engine: counts do not depend on how the work is cut up, and a model that misbehaves is named."""

import contextvars
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from torch import nn

from smoothing import SmoothedClassifier
from smoothing._voting import engine
from smoothing._voting.noise import BLOCK

from .oracles import Coin, Constant, Halfspace

SHAPE = (1, 3, 3)


@pytest.fixture(scope="module")
def pictures():
    return torch.rand((5, 1, 28, 28), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def votes(close_calls, pictures):
    return SmoothedClassifier(close_calls, 10, threads=1).predict(pictures, 0.7, n=300).votes


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 1},
        {"batch_size": 7},
        {"batch_size": 100, "threads": 2},
        {"batch_size": 2000, "threads": 3},
        {"threads": 8},
        {"channels_last": False},
    ],
)
def test_counts_are_the_same_to_the_last_vote_however_the_work_is_cut(close_calls, pictures, votes, options):
    assert (votes > 10).sum() > 25  # several classes for every image: close calls
    found = SmoothedClassifier(close_calls, 10, **options).predict(pictures, 0.7, n=300).votes
    np.testing.assert_array_equal(found, votes)


def test_counts_are_the_same_in_any_order_and_in_parts(close_calls, pictures, votes):
    smoothed = SmoothedClassifier(close_calls, 10)
    for order in ([4, 0, 2], [3], [1, 4, 3, 2, 0]):
        found = smoothed.predict(pictures[order], 0.7, n=300, indices=order).votes
        np.testing.assert_array_equal(found, votes[order])


def test_samples_can_be_drawn_in_pieces(pictures, close_calls):
    smoothed = SmoothedClassifier(close_calls, 10)
    levels, all_levels = np.array([[0.3, 0.7]] * 5), np.ones((5, 2), bool)
    indices = np.arange(5)

    def count(start, stop, wanted=all_levels):
        return smoothed._engine.count(pictures, indices, levels, wanted, start, stop, "estimate")

    whole = count(0, 2 * BLOCK + 50)
    pieces = count(0, 30) + count(30, BLOCK + 1) + count(BLOCK + 1, 2 * BLOCK + 50)
    np.testing.assert_array_equal(pieces, whole)
    np.testing.assert_array_equal(whole.sum(axis=2), 2 * BLOCK + 50)
    some = np.array([[True, False], [False, False], [True, True], [False, True], [True, False]])
    np.testing.assert_array_equal(count(0, 2 * BLOCK + 50, some), whole * some[..., None])


def test_many_images_pass_in_several_rounds(monkeypatch, pictures, close_calls, votes):
    monkeypatch.setattr("smoothing._voting.engine.MOST_CELLS", 20)
    found = SmoothedClassifier(close_calls, 10).predict(pictures, 0.7, n=300).votes
    np.testing.assert_array_equal(found, votes)


@pytest.mark.parametrize("noise_on", ["cpu", "device"])
def test_many_samples_pass_in_several_rounds(monkeypatch, pictures, close_calls, noise_on):
    """Two levels and up to five blocks of samples an image; a pass holds a block of an image, or so many segments."""
    passes, of = [], engine.Segments.of
    smoothed = SmoothedClassifier(close_calls, 10, noise_on=noise_on, batch_size=64)
    levels, wanted = np.array([[0.3, 0.7]] * 5), np.ones((5, 2), bool)
    wanted[1] = False

    def watched(uses, begin, end):
        passes.append(of(uses, begin, end))
        return passes[-1]

    def count(start):
        passes.clear()
        return smoothed._engine.count(pictures, np.arange(5), levels, wanted, start, 4 * BLOCK + 9, "estimate")

    for start in (0, BLOCK + 30):
        monkeypatch.undo()
        monkeypatch.setattr(engine.Segments, "of", watched)
        whole = count(start)
        assert len(passes) == 1
        np.testing.assert_array_equal(whole.sum(axis=2), wanted * (4 * BLOCK + 9 - start))
        for most in (1, 5, 6, 11):
            monkeypatch.setattr(engine, "MOST_SEGMENTS", most)
            np.testing.assert_array_equal(count(start), whole)
            assert max(len(segments.row) for segments in passes) <= max(2, most)


def test_forward_passes_have_the_size_asked_for_and_the_rest_half_of_it():
    shapes = []

    class Spy(Coin):
        def forward(self, images):
            shapes.append(len(images))
            return super().forward(images)

    images = torch.full((3, *SHAPE), 0.5)
    smoothed = SmoothedClassifier(Spy(), 2, batch_size=50, threads=1)
    smoothed.predict(images, 0.5, n=10)
    shapes.clear()  # those that were to see what the model is
    smoothed.certify(images, 0.5, n0=70, n=333)
    assert shapes == [50, 50, 50, 50, 25] + [50] * 20  # 210 samples, and then 999


def test_at_least_nine_tenths_of_one_images_passes_are_used():
    seen = []

    class Spy(Coin):
        def forward(self, images):
            seen.append(len(images))
            return super().forward(images)

    for batch_size, threads in ((2048, 1), (2048, 8), (128, 8), (100, 2)):
        smoothed = SmoothedClassifier(Spy(), 2, batch_size=batch_size, threads=threads)
        smoothed.predict(torch.zeros((1, *SHAPE)), 0.5, n=10)
        seen.clear()
        smoothed.predict(torch.zeros((1, *SHAPE)), 0.5, n=1000)
        assert 1000 / sum(seen) >= 0.9
        assert len(seen) >= threads  # nobody is left without work


def test_a_model_that_takes_one_size_alone_gets_no_other():
    sizes = []

    class Strict(Coin):
        def forward(self, images):
            if len(images) != 60:
                raise RuntimeError("60 images, please")
            sizes.append(len(images))
            return super().forward(images)

    found = SmoothedClassifier(Strict(), 2, batch_size=60, threads=2).predict(torch.zeros((1, *SHAPE)), 0.5, n=70)
    assert found.votes.sum() == 70


def test_the_base_classifier_of_a_level_is_handed_out():
    low, high, one = nn.Linear(4, 2), nn.Linear(4, 2), nn.Linear(4, 2)
    bank = SmoothedClassifier({0.25: low, 0.5: high}, 2)
    assert bank.base(0.25) is low
    assert bank.base(0.5) is high
    assert SmoothedClassifier(one, 2).base(0.7) is one
    with pytest.raises(ValueError, match=r"sigma = 0.7 has no base classifier of its own: there is one for 0.25, 0.5"):
        bank.base(0.7)


def test_experts_answer_at_their_own_level(pictures):
    bank = {0.25: Constant(1.0, 0.0), 0.5: Constant(0.0, 1.0)}
    smoothed = SmoothedClassifier(bank, 2)
    choice = smoothed.select_sigma(pictures, [0.25, 0.5], n0=50)
    assert choice.classes.tolist() == [[0, 1]] * 5
    found = smoothed.certify(pictures, [0.25, 0.5, 0.5, 0.25, 0.5], n0=50, n=200)
    assert found.predict.tolist() == [0, 1, 1, 0, 1]
    with pytest.raises(ValueError, match=r"sigma = 0.3 has no base classifier of its own: there is one for 0.25, 0.5"):
        smoothed.predict(pictures, 0.3, n=10)


def test_bfloat16_reaches_the_model(pictures):
    seen = []

    class Spy(nn.Module):
        def forward(self, images):
            seen.append((images @ images.transpose(-1, -2)).dtype)
            return torch.zeros((len(images), 2))

    SmoothedClassifier(Spy(), 2, precision="bfloat16").predict(pictures, 0.5, n=10)
    assert set(seen) == {torch.bfloat16}


@pytest.mark.filterwarnings("default")  # what the compiler warns of is not ours
def test_a_compiled_classifier_votes_alike(pictures, close_calls, votes):
    compiled = SmoothedClassifier(close_calls, 10, compile=True)
    assert compiled.identity.compiled
    found = compiled.predict(pictures, 0.7, n=300).votes
    assert np.abs(found - votes).sum() <= 4  # rounding may tip a vote between two classes that tie


@pytest.mark.parametrize(("threads", "each"), [(1, 5), (3, 1)])
def test_workers_side_by_side_have_one_thread_each_and_pytorch_keeps_its_own(pictures, threads, each):
    seen = set()

    class Spy(Coin):
        def forward(self, images):
            seen.add(torch.get_num_threads())
            return super().forward(images)

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(5)
        SmoothedClassifier(Spy(), 2, threads=threads, batch_size=50).predict(pictures, 0.5, n=100)
        assert torch.get_num_threads() == 5
    finally:
        torch.set_num_threads(before)
    assert seen == {each}


class Nan(nn.Module):
    """A diverged model."""

    def forward(self, images):
        return torch.full((len(images), 2), float("nan"))


class View(nn.Module):
    def forward(self, images):
        return images.view(len(images), -1)[:, :2]


class ViewAll(nn.Module):
    def forward(self, images):
        return images.view(len(images), -1)


class Columns(nn.Module):
    def forward(self, rows):
        return rows[:, :2]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Nan(), "model returned NaN"),
        (Constant(1.0, 2.0, 3.0), r"model returned \(128, 3\) for 128 images of 2 classes"),
        (nn.Conv2d(1, 2, 3), r"model refused a batch of shape \(128, 3, 2, 4\): .*channels"),
        (nn.Sequential(), r"model returned \(128, 3, 2, 4\)"),
    ],
)
@pytest.mark.parametrize("threads", [1, 2])
def test_a_broken_model_is_one_clear_error(model, message, threads):
    with pytest.raises(ValueError, match=message) as caught:
        SmoothedClassifier(model, 2, threads=threads).certify(torch.zeros((2, 3, 2, 4)), 0.5, n0=10, n=10)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("channels_last", [True, False])
def test_a_model_that_calls_view_gets_contiguous_memory(channels_last):
    images = torch.rand((2, 3, 2, 4), generator=torch.Generator().manual_seed(0))
    found = SmoothedClassifier(View(), 2, channels_last=channels_last).predict(images, 0.5, n=10)
    plain = SmoothedClassifier(nn.Sequential(nn.Flatten(), Columns()), 2).predict(images, 0.5, n=10)
    np.testing.assert_array_equal(found.votes, plain.votes)


def test_weights_in_channels_last_memory_do_not_break_a_view_behind_a_convolution():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 2), ViewAll(), nn.Linear(4 * 1 * 3, 5))
    found = SmoothedClassifier(model, 5).predict(torch.zeros((2, 3, 2, 4)), 0.5, n=10)
    assert found.votes.sum() == 20


@pytest.mark.parametrize("fails", [0, 1])
def test_where_one_worker_fails_the_others_stop(fails):
    """Also where the caller waits for another one first."""
    calls, workers = [], []

    class Fails(Coin):
        def forward(self, images):
            calls.append(threading.get_ident())
            if len(calls) > 40:  # the first look at a model takes about twenty
                if calls[-1] not in workers:
                    workers.append(calls[-1])
                if len(workers) == 2 and calls[-1] == workers[fails]:
                    return torch.full((len(images), 2), float("nan"))
            time.sleep(0.01)
            return super().forward(images)

    with pytest.raises(ValueError, match="NaN"):
        SmoothedClassifier(Fails(), 2, threads=2, batch_size=128).predict(torch.zeros((1, *SHAPE)), 0.5, n=128 * 500)
    assert len(calls) < 250


def test_where_the_caller_is_interrupted_the_workers_stop():
    calls = []

    class Interrupts(Coin):
        def forward(self, images):
            calls.append(threading.get_ident())
            if len(calls) == 60:
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            time.sleep(0.01)
            return super().forward(images)

    smoothed = SmoothedClassifier(Interrupts(), 2, threads=2, batch_size=128)
    with pytest.raises(KeyboardInterrupt):
        smoothed.predict(torch.zeros((1, *SHAPE)), 0.5, n=128 * 500)
    assert len(calls) < 250


@pytest.mark.parametrize("threads", [1, 2])
def test_an_interrupt_ends_the_work_at_once(threads):
    program = (
        "import torch\nfrom torch import nn\nfrom smoothing import SmoothedClassifier\n"
        f"smoothed = SmoothedClassifier(nn.Flatten(), 9, threads={threads})\n"
        "print('begun', flush=True)\nsmoothed.predict(torch.zeros((1, 1, 3, 3)), 0.5, 10**9)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "begun\n"
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)  # the work would take an hour
    assert "KeyboardInterrupt" in err


def test_halfspace_in_channels_last_memory_sees_the_right_pixels():
    w = torch.arange(24.0).reshape(3, 2, 4) - 11
    images = torch.rand((4, 3, 2, 4), generator=torch.Generator().manual_seed(1))
    model = Halfspace(w, 0.3)
    found = SmoothedClassifier(model, 2).predict(images, 1e-4, n=50)
    np.testing.assert_array_equal(found.predict, model(images).argmax(dim=1).numpy())


class Inverts(nn.Module):
    """Inverts pixels, in place or not, before a halfspace; keeps every batch that it was given."""

    def __init__(self, in_place):
        super().__init__()
        self.in_place, self.kept = in_place, []

    def forward(self, images):
        self.kept.append(images)
        inverted = images.neg_().add_(1) if self.in_place else 1 - images
        score = (inverted * torch.linspace(-1, 1, 9).reshape(SHAPE)).flatten(1).sum(1) - 0.1
        return torch.stack([-score, score], dim=1)


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("kind", [np.asarray, torch.clone])
def test_a_model_may_write_into_its_batch_and_keep_it(kind, channels_last):
    images = kind(torch.rand((4, *SHAPE), generator=torch.Generator().manual_seed(0)))
    before = np.asarray(images).copy()
    options = {"batch_size": 50, "threads": 1, "channels_last": channels_last}
    honest, writes = (SmoothedClassifier(Inverts(flag), 2, **options) for flag in (False, True))
    for method in (
        lambda s: s.certify(images, 0.5, n0=70, n=333).counts,
        lambda s: s.predict(images, 0.5, n=333).votes,
    ):
        np.testing.assert_array_equal(method(writes), method(honest))
    np.testing.assert_array_equal(writes.base_predict(images, [0.5]), honest.base_predict(images, [0.5]))
    np.testing.assert_array_equal(np.asarray(images), before)
    (model,) = writes._bank.values()
    assert len({batch.data_ptr() for batch in model.kept}) == len(model.kept)


@pytest.mark.parametrize(
    "error",
    [AssertionError("224 expected\nnot 28"), KeyError("weights"), NotImplementedError(), IndexError("x"), SystemExit(3),
     ZeroDivisionError("zero"), AttributeError("a"), RecursionError("deep"), type("Own", (Exception,), {})()],
)  # fmt: skip
def test_whatever_a_model_raises_is_one_line_with_its_type(error):
    class Raises(nn.Module):
        def forward(self, images):
            raise error

    with pytest.raises(ValueError, match=rf"refused a batch of shape .*: {type(error).__name__}") as caught:
        SmoothedClassifier(Raises(), 2).predict(torch.zeros((1, *SHAPE)), 0.5, n=10)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
def test_interrupts_and_a_lack_of_memory_stay_what_they_are(error):
    class Raises(nn.Module):
        def forward(self, images):
            raise error

    with pytest.raises(error):
        SmoothedClassifier(Raises(), 2).predict(torch.zeros((1, *SHAPE)), 0.5, n=10)


def test_moving_and_evaluating_may_fail_in_one_line():
    class Stays(Coin):
        def to(self, *arguments, **options):
            raise NotImplementedError

    class Trains(Coin):
        def eval(self):
            raise KeyError("mode")

    for model, message in ((Stays(), "cannot be moved to cpu: NotImplementedError"), (Trains(), "KeyError: 'mode'")):
        with pytest.raises(ValueError, match=message):
            SmoothedClassifier(model, 2)


@pytest.mark.parametrize("output", [lambda x: (x,), lambda x: [x], lambda x: None, lambda x: x + 1j])
def test_what_holds_no_logits_is_refused(output):
    class Returns(nn.Module):
        def forward(self, images):
            return output(images.flatten(1)[:, :2])

    with pytest.raises(ValueError, match=r"the model returned (tuple|list|NoneType|numbers of type)"):
        SmoothedClassifier(Returns(), 2).predict(torch.zeros((1, *SHAPE)), 0.5, n=10)


TEMPERATURE = contextvars.ContextVar("temperature", default=-1.0)


class Tempered(nn.Module):
    """Another function of the image for every context."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, images):
        self.seen.append(TEMPERATURE.get())
        return TEMPERATURE.get() * images.flatten(1)


def test_workers_vote_in_the_context_of_the_caller():
    images = torch.rand((2, 1, 2, 2), generator=torch.Generator().manual_seed(0))
    token, models = TEMPERATURE.set(1.0), (Tempered(), Tempered())
    try:
        one, three = (
            SmoothedClassifier(model, 4, threads=threads).predict(images, 0.3, n=500)
            for model, threads in zip(models, (1, 3), strict=True)
        )
    finally:
        TEMPERATURE.reset(token)
    assert {temperature for model in models for temperature in model.seen} == {1.0}  # the first look at it, too
    np.testing.assert_array_equal(three.votes, one.votes)
    assert (SmoothedClassifier(Tempered(), 4, threads=3).predict(images, 0.3, n=500).votes != one.votes).any()


def test_a_model_is_seen_in_a_thread_like_those_that_vote():
    caller, here = threading.get_ident(), []

    class Spy(Coin):
        def forward(self, images):
            here.append(threading.get_ident() == caller)
            return super().forward(images)

    SmoothedClassifier(Spy(), 2, threads=2, batch_size=50).predict(torch.zeros((1, *SHAPE)), 0.5, n=10)
    assert not any(here)


def test_a_default_type_of_tensors_does_not_reach_the_model(close_calls, pictures, votes):
    seen = set()
    handle = close_calls.register_forward_pre_hook(lambda module, inputs: seen.add(inputs[0].dtype))
    try:
        torch.set_default_dtype(torch.float64)
        found = SmoothedClassifier(close_calls, 10).predict(pictures, 0.7, n=300).votes
    finally:
        torch.set_default_dtype(torch.float32)
        handle.remove()
    assert seen == {torch.float32}
    np.testing.assert_array_equal(found, votes)


def test_more_votes_than_bounds_were_checked_for_are_refused_before_the_work():
    with pytest.raises(ValueError, match="1,000,000,001 samples of an image: bounds were checked for at most"):
        SmoothedClassifier(Coin(), 2).predict(torch.zeros((1, *SHAPE)), 0.5, n=10**9 + 1)
