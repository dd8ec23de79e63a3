"""What a step may not do: wait for the device, compute gradients of weights in the attack, disturb other devices."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from training import Consistency, Engine, Macer, SmoothAdv, SmoothMix, Stage, batches, fit, loop
from training.loop import Learner, _Meter
from training.stage import OPTIMIZERS

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (64, 1, 8, 8), dtype=np.uint8) / np.float32(255)
LABELS = RNG.integers(0, 10, 64)
ADVERSARIAL = Stage(epochs=1, sigma=(0.1, 0.5), lr=0.01, m=2, attack=SmoothAdv(0.5, 2), batch_size=32)


def network():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.1), nn.Linear(144, 10)
    )


class Learning:
    """All that a step needs, on a device without values, where whatever reads one raises."""

    def __init__(self, stage, engine):
        self.meta = torch.device("meta")
        self.stage = stage
        model = network()
        self.learner = Learner(model, stage, engine, Accelerator(cpu=True), self.meta)
        self.optimizer = OPTIMIZERS[stage.optimizer](model.parameters(), stage.lr, stage.weight_decay)
        self.meter = _Meter(self.meta, "", 64, progress=False)

    def step(self):
        x, y = torch.empty((32, 1, 8, 8), device="meta"), torch.empty(32, dtype=torch.int64, device="meta")
        level = torch.empty(32, device="meta")
        # no generator is of this device; one of the CPU draws there
        loss, right = self.learner.backward(
            x,
            y,
            level,
            attack=self.stage.attack,
            mix=self.stage.mix,
            generator=torch.Generator(),
            share=1 / 32,
            last=True,
        )
        self.meter.add(loss, right)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.meter.advance(32)


@pytest.mark.parametrize(
    "stage",
    [
        ADVERSARIAL,
        replace(ADVERSARIAL, attack=SmoothAdv(0.5, 2, method="ddn"), augment="crop-flip", optimizer="adam"),
        replace(ADVERSARIAL, attack=None, loss=Macer()),
        replace(ADVERSARIAL, loss=Consistency()),
        replace(ADVERSARIAL, attack=None, mix=SmoothMix(steps=2)),
    ],
)
@pytest.mark.parametrize("channels_last", [True, False])
def test_a_step_reads_no_value_from_the_device(stage, channels_last):
    learning = Learning(stage, Engine(channels_last=channels_last))
    learning.learner.train()
    for _ in range(2):
        learning.step()


@pytest.mark.parametrize(
    "read",
    [
        lambda loss: loss * (1 if loss.sum() > 0 else 2),
        lambda loss: loss * loss.sum().item(),
        lambda loss: loss.cpu().to(loss.device),
        lambda loss: loss[loss > 0],
    ],
)
def test_a_loss_that_reads_a_value_would_be_found_so(read):
    def reading(logits, labels, sigma):
        return read(logits.sum(dim=(0, 2)))

    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        Learning(replace(ADVERSARIAL, loss=reading), Engine()).step()


#: Operations whose result the host needs before it can go on.
WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "_unique2"}

#: Methods that bring values to the host, or take them from it.
MOVING = ("tolist", "numpy", "cpu", "to")


class Waits(TorchDispatchMode):
    """Counts what would make the host wait for an accelerator, on a CPU that plays one."""

    def __init__(self, monkeypatch):
        super().__init__()
        self.count = 0
        for name in MOVING:
            monkeypatch.setattr(torch.Tensor, name, self._counted(getattr(torch.Tensor, name)))

    def _counted(self, method):
        def call(tensor, *arguments, **options):
            self.count += 1
            return method(tensor, *arguments, **options)

        return call

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.overloadpacket.__name__ in WAITING
        return func(*args, **(kwargs or {}))


def waits(monkeypatch, looks, stage=ADVERSARIAL):
    """What an epoch of so many looks, each after three steps, waits for."""
    steps = 3 * looks
    images, labels = np.resize(IMAGES, (4 * steps, 1, 8, 8)), np.resize(LABELS, 4 * steps)
    with monkeypatch.context() as patched, Waits(patched) as counted:
        patched.setattr(loop, "LOOK", 3)
        fit(network(), images, labels, stage=replace(stage, batch_size=4), engine=Engine(device="cpu"))
    return counted.count


@pytest.mark.parametrize("augment", ["none", "crop-flip"])
def test_an_epoch_waits_for_the_device_at_its_looks_only(monkeypatch, augment):
    monkeypatch.setattr(batches, "_is_host", lambda device: False)
    monkeypatch.setattr(batches, "free_memory", lambda device: 10**9)
    stage = replace(ADVERSARIAL, augment=augment)
    few, many = (waits(monkeypatch, looks, stage) for looks in (1, 3))
    assert few > 0
    assert many - few == 2  # a look each


def test_images_that_do_not_fit_are_copied_once_a_step(monkeypatch):
    monkeypatch.setattr(batches, "_is_host", lambda device: False)
    monkeypatch.setattr(batches, "free_memory", lambda device: 0)
    few, many = (waits(monkeypatch, looks) for looks in (1, 2))
    assert many - few == 1 + 3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, which says itself where it waits")
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")  # PyTorch's own, as the mode is set
@pytest.mark.parametrize("free", [10**9, 0])
def test_cuda_itself_finds_no_step_that_waits(monkeypatch, free):
    monkeypatch.setattr(batches, "free_memory", lambda device: free)
    step = Learner.backward

    def strict(*arguments, **options):
        try:
            torch.cuda.set_sync_debug_mode("error")
            return step(*arguments, **options)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(Learner, "backward", strict)
    fit(network(), IMAGES, LABELS, stage=replace(ADVERSARIAL, batch_size=8), engine=Engine(device="cuda"))


def weight_gradients(model, engine):
    """How often a product was computed whose rows are the 10 outputs: the gradient of the last layer's weights."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True) as profile:
        fit(model, IMAGES, LABELS, stage=ADVERSARIAL, engine=engine)
    products = [event for event in profile.events() if event.name == "aten::mm"]
    assert products
    return sum(event.input_shapes[0][0] == 10 for event in products)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # PyTorch's own, while it compiles
@pytest.mark.parametrize("compiled", [False, True])
def test_the_attack_computes_no_gradient_of_weights(compiled):
    engine = Engine(device="cpu", compile=compiled)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
    if compiled:
        fit(model, IMAGES, LABELS, stage=ADVERSARIAL, engine=engine)  # compiling computes what it compiles
    assert weight_gradients(model, engine) == 2  # one a step


def test_training_on_the_cpu_leaves_other_devices_random_state_alone(monkeypatch):
    def seeded(seed):
        raise AssertionError("the random state of CUDA devices was set")

    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded)
    fit(network(), IMAGES, LABELS, stage=replace(ADVERSARIAL, attack=None), engine=Engine(device="cpu"))
