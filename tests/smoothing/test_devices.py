"""Devices that are not at hand: what is asked of PyTorch, with PyTorch's answers made up."""

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

from smoothing import SmoothedClassifier, machine
from smoothing._voting import sizing
from smoothing.machine import processes


@pytest.fixture
def two_gpus(monkeypatch):
    """PyTorch as on a machine with two CUDA devices, the second of which is current in the main thread."""
    real, now = torch.empty, threading.local()
    now.index = 1

    class Current:
        def __init__(self, device):
            self.index = torch.device(device).index

        def __enter__(self):
            self.before = getattr(now, "index", 0)
            now.index = self.index

        def __exit__(self, *exception):
            now.index = self.before

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: getattr(now, "index", 0))
    monkeypatch.setattr(torch.cuda, "device", Current)
    monkeypatch.setattr(torch, "empty", lambda *shape, device=None: real(*shape))
    return now


def test_cuda_means_the_device_that_is_current_where_it_is_asked_for(two_gpus):
    assert machine.usable_device("cuda") == torch.device("cuda", 1)
    assert machine.usable_device("cuda:0") == torch.device("cuda", 0)
    assert machine.usable_device("auto") == machine.default_device() == torch.device("cuda", 1)


def test_worker_threads_make_the_device_theirs(two_gpus):
    seen = []

    def work():
        seen.append(torch.cuda.current_device())
        with machine.current(torch.device("cuda", 1)):
            seen.append(torch.cuda.current_device())
        seen.append(torch.cuda.current_device())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [0, 1, 0]


def test_the_workers_of_a_vote_enter_their_device(monkeypatch):
    entered = []

    def current(device):
        entered.append((device, threading.current_thread() is threading.main_thread()))
        return machine.current(device)

    monkeypatch.setattr("smoothing._voting.engine.current", current)
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    SmoothedClassifier(model, 2, threads=2).predict(torch.rand(1, 1, 2, 2), 0.25, n=300)
    assert entered[-2:] == [(torch.device("cpu"), False)] * 2


def test_without_cuda_auto_is_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert machine.default_device() == torch.device("cpu")
    assert SmoothedClassifier(nn.Linear(1, 2), 2, device="auto").device == torch.device("cpu")


def test_a_device_that_is_not_there_is_one_line():
    with pytest.raises(ValueError, match=r"device = 'warp' cannot be used .*; try 'cpu'") as caught:
        machine.usable_device("warp")
    assert "\n" not in str(caught.value)


def test_mps_has_no_float64():
    assert machine.widest_float(torch.device("mps")) == torch.float32
    assert machine.widest_float(torch.device("cuda", 0)) == machine.widest_float(torch.device("cpu")) == torch.float64


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("MPS backend out of memory")]
)
def test_batches_are_halved_until_they_fit(error):
    tried = []

    def forward(size):
        tried.append(size)
        if size > 100:
            raise error

    assert sizing.fitting(forward, torch.device("cpu"), 2, 2048) == 64
    assert tried == [2048, 1024, 512, 256, 128, 64]


def test_all_workers_batches_must_fit_at_once(monkeypatch):
    monkeypatch.setattr(sizing, "free_memory", lambda device: 1200)
    monkeypatch.setattr(sizing, "peak_memory", lambda run, device: run())
    device = torch.device("cpu")
    assert sizing.fitting(lambda size: size, device, 1, 1024) == 512  # within 960, four fifths
    assert sizing.fitting(lambda size: size, device, 8, 1024) == 64


def test_not_even_one_image_is_one_line():
    def forward(size):
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB")

    with pytest.raises(ValueError, match=r"device = 'cpu': out of memory for a single image; try 'cpu'"):
        sizing.fitting(forward, torch.device("cpu"), 1, 8)


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    def forward(size):
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        sizing.fitting(forward, torch.device("cpu"), 1, 8)


class Hungry(nn.Module):
    """A classifier that has memory for 40 images at a time."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 2)
        self.sizes = []
        self.strides = set()
        self.room = 40

    def forward(self, images):
        self.sizes.append(len(images))
        self.strides.add(images.stride())
        if len(images) > self.room:
            raise torch.OutOfMemoryError("out of memory")
        return self.linear(images.flatten(1))


def on_accelerator(model, **options):
    """Return a classifier that sizes its batches as on an accelerator; what runs is on the CPU."""
    smoothed = SmoothedClassifier(model, 2, threads=1, **options)
    smoothed._engine.size.device = torch.device("meta")
    return smoothed


def test_a_batch_size_that_was_not_given_is_found_once():
    model = Hungry()
    smoothed = on_accelerator(model)
    assert smoothed.batch_size == sizing.MOST_BATCH
    found = smoothed.predict(torch.rand(2, 1, 2, 2), 0.25, n=100)
    assert smoothed.batch_size == 32
    assert found.votes.sum() == 200
    sizes = len(model.sizes)
    smoothed.predict(torch.rand(2, 1, 2, 2), 0.25, n=100)
    assert set(model.sizes[sizes:]) == {32}


def test_a_batch_size_that_was_given_is_kept():
    model = Hungry()
    found = on_accelerator(model, batch_size=16).predict(torch.full((2, 1, 2, 2), 0.5), 0.25, n=32)
    assert set(found.votes.sum(axis=1)) == {32}
    assert model.sizes[-1] == 16
    with pytest.raises(ValueError, match="batch_size = 64: out of memory; take smaller batches") as caught:
        on_accelerator(model, batch_size=64).predict(torch.full((2, 1, 2, 2), 0.5), 0.25, n=64)
    assert "\n" not in str(caught.value)


def test_batches_are_halved_when_memory_runs_out_later(monkeypatch):
    model = Hungry()
    smoothed = on_accelerator(model)
    images = torch.rand((2, 1, 2, 2), generator=torch.Generator().manual_seed(0))
    expected = smoothed.predict(images, 0.25, n=300).votes
    model.room = 10  # somebody else took memory
    np.testing.assert_array_equal(smoothed.predict(images, 0.25, n=300).votes, expected)
    assert smoothed.batch_size == 8
    assert model.strides == {(4, 1, 2, 1)}  # a lack of memory says nothing about channels-last memory
    model.room = 0
    with pytest.raises(ValueError, match="batch_size = 1: out of memory; try device 'cpu'"):
        smoothed.predict(images, 0.25, n=300)


ROOM = [40]  # a global is not a part of a model's identity, so the model is not looked at again for it


class Draws(nn.Module):
    """Draws random numbers, and may use them one day, in batches of 16."""

    def forward(self, images):
        if len(images) > ROOM[0]:
            raise torch.OutOfMemoryError("out of memory")
        if len(images) == 16:
            torch.rand(())
        return images.flatten(1)[:, :2]


def test_a_model_is_seen_again_in_batches_of_another_size(monkeypatch):
    smoothed = on_accelerator(Draws())
    smoothed.predict(torch.rand(2, 1, 2, 2), 0.25, n=320)
    assert smoothed.batch_size == 32
    monkeypatch.setattr(f"{__name__}.ROOM", [20])  # somebody else took memory
    with pytest.raises(ValueError, match="the model draws random numbers"):
        smoothed.predict(torch.rand(2, 1, 2, 2), 0.25, n=320)


def test_the_fastest_of_some_sizes_is_taken(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(sizing.time, "perf_counter", lambda: clock[0])

    def run(size):  # two thousandths a pass, and more for an image of a batch that no cache holds
        clock[0] += 0.002 + size * (1e-5 if size <= 512 else 2e-5)

    assert sizing.fastest(run, iter([128, 256, 512, 1024, 2048])) == 512

    def slow(size):
        clock[0] += size

    tried = []
    assert sizing.fastest(lambda size: tried.append(size) or slow(size), iter([16, 32])) == 16
    assert set(tried) == {16}  # a long pass gains nothing from being longer


@pytest.mark.parametrize(("gain", "size"), [(1.0, 64), (0.98, 64), (0.96, 256)])
def test_a_larger_batch_must_be_worth_it(monkeypatch, gain, size):
    """Images that take 1e-5 seconds in small batches, and `gain` of that in batches of 256."""
    clock = [0.0]
    monkeypatch.setattr(sizing.time, "perf_counter", lambda: clock[0])

    def run(images):
        clock[0] += images * 1e-5 * (gain if images == 256 else 1.0)

    assert sizing.fastest(run, iter([64, 128, 256])) == size


@pytest.mark.parametrize(
    ("shape", "sizes"),
    [((1, 8, 8), (128, 2048)), ((1, 28, 28), (64, 1024)), ((3, 32, 32), (16, 256)), ((3, 224, 224), (16, 32))],
)
def test_sizes_to_try_fit_the_images(shape, sizes):
    tried = list(sizing.candidates(shape))
    assert (tried[0], tried[-1]) == sizes
    assert all(later == 2 * earlier for earlier, later in itertools.pairwise(tried))


@pytest.mark.parametrize(
    ("shape", "size"), [((1, 8, 8), 1024), ((1, 28, 28), 256), ((3, 32, 32), 128), ((3, 224, 224), 128)]
)
def test_models_that_are_compiled_for_one_size_get_a_guess(shape, size):
    """The power of two below 2**18 numbers in a batch, from 128 to 1024: no pass is made, which would compile."""
    passes = []
    assert sizing.BatchSize(None, torch.device("cpu"), 1, timed=False).of(shape, passes.append) == size
    assert passes == []


def test_each_shape_has_its_size():
    room = {(1, 4, 4): 100, (1, 8, 8): 25}
    sizes = sizing.BatchSize(None, torch.device("meta"), 1, timed=True)

    def found(shape):
        def run(size):
            if size > room[shape]:
                raise torch.OutOfMemoryError("out of memory")

        return sizes.of(shape, run)

    assert [found((1, 4, 4)), found((1, 8, 8)), found((1, 4, 4))] == [64, 16, 64]
    assert sizes.halve((1, 8, 8))
    assert [found((1, 4, 4)), found((1, 8, 8))] == [64, 8]


@pytest.mark.parametrize(("device", "size"), [("cpu", 128), ("meta", 2048)])
def test_what_is_wrong_with_a_model_is_left_to_its_first_votes(device, size):
    def run(size):
        raise ValueError("the model returned (128, 3) for 128 images of 2 classes")

    sizes = sizing.BatchSize(None, torch.device(device), 1, timed=True)
    assert sizes.of((1, 8, 8), run) == size


def test_accelerators_have_few_workers(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    assert machine.default_workers(torch.device("cuda", 0)) == 2
    assert machine.default_workers(torch.device("cpu")) == 8


class Caller:
    """A thread that does one thing after the other, as it is told."""

    def __init__(self):
        self.pool = ThreadPoolExecutor(1)
        self.limits = []

    def enter(self, count):
        limit = machine.threads_each(count)
        self.limits.append(limit)
        self.pool.submit(limit.__enter__).result()

    def leave(self):
        self.pool.submit(self.limits.pop().__exit__, None, None, None).result()

    def threads(self):
        return self.pool.submit(torch.get_num_threads).result()


def new_threads():
    """How many threads PyTorch uses in a thread that has not computed before."""
    return Caller().threads()


@pytest.fixture
def five_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(5)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("five_threads")
@pytest.mark.parametrize("first_out", [0, 1])
def test_the_last_of_several_callers_restores_the_number_of_threads(first_out):
    callers = [Caller(), Caller()]
    for caller in callers:
        caller.enter(1)
    assert [caller.threads() for caller in callers] == [1, 1]
    leaving, staying = callers[first_out], callers[1 - first_out]
    leaving.leave()
    assert (leaving.threads(), staying.threads(), new_threads()) == (5, 1, 1)
    staying.leave()
    assert (leaving.threads(), staying.threads(), new_threads()) == (5, 5, 5)
    assert torch.get_num_threads() == 5


@pytest.mark.usefixtures("five_threads")
def test_limits_within_limits_are_put_back_one_by_one():
    caller = Caller()
    seen = []
    for count in (3, 1):
        caller.enter(count)
        seen.append((caller.threads(), new_threads()))
    for _ in range(2):
        caller.leave()
        seen.append((caller.threads(), new_threads()))
    assert seen == [(3, 3), (1, 1), (3, 3), (5, 5)]


@pytest.mark.parametrize(
    ("device", "launched", "cuda", "on_cpu"),
    [
        ("auto", False, False, True),  # Accelerate alone would take MPS where there is one
        ("auto", False, True, False),
        ("auto", True, False, True),
        ("cpu", False, True, True),
        ("mps", False, False, False),
        ("cuda", True, True, False),
    ],
)
def test_processes_and_devices_mean_the_same_by_auto(monkeypatch, device, launched, cuda, on_cpu):
    asked = []
    monkeypatch.setattr("accelerate.PartialState", lambda cpu: asked.append(cpu))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setenv("WORLD_SIZE", "2" if launched else "1")
    monkeypatch.setattr("smoothing.machine.atexit.register", lambda function: None)
    processes(device)
    assert asked == [on_cpu]
