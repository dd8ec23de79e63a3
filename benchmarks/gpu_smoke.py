"""The first run on an accelerator: whether bits and votes are those of the CPU, and what bounds the speed.

python benchmarks/gpu_smoke.py --device cuda

Under five minutes on any device ("cpu" too, in less). Needs no data: weights are random and images are made up, which
changes no rate. Prints one table, and writes the rows with the device's name after each part, so that a run that is cut
off leaves what it has. A line that says FAILED matters.
"""

from __future__ import annotations

import argparse
import contextlib
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from _common import Row, write_rows
from bench_train import smooth_adv_step

from smoothing import SmoothedClassifier
from smoothing._voting.device_check import trouble
from smoothing._voting.device_noise import WAYS, DeviceNoise, ways
from smoothing._voting.noise import BLOCK
from smoothing._voting.samplers import make_noise
from smoothing.arithmetic import arithmetic
from smoothing.machine import usable_device
from training import Engine, build

SIGMA = 0.5


@dataclass(frozen=True)
class Network:
    """A network, its images, and which share of the rate of the model alone the whole engine is to reach."""

    arch: str
    shape: tuple[int, int, int]
    classes: int
    target: float
    batch: int  # noisy images of a pass on an accelerator
    batch_on_cpu: int


NETWORKS = (
    Network("lenet", (1, 28, 28), 10, 0.90, 2048, 256),
    Network("cifar_resnet110", (3, 32, 32), 10, 0.95, 2048, 64),
    Network("resnet50", (3, 224, 224), 1000, 0.95, 256, 4),
)


@dataclass
class Report:
    """The rows so far, printed as they come."""

    device: torch.device
    name: str
    rows: list[Row] = field(default_factory=list)

    def add(self, what: str, value: Any, unit: str = "", *, passed: bool | None = None, **more: Any) -> None:
        """Note one number, and whether it is what it has to be."""
        self.rows.append({"what": what, "value": value, "unit": unit, "passed": passed, **more})
        text = f"{value:,.0f}" if isinstance(value, float) and abs(value) >= 100 else f"{value}"
        text = f"{value:.3g}" if isinstance(value, float) and abs(value) < 100 else text
        verdict = {None: "", True: "ok", False: "FAILED"}[passed]
        print(f"{what:<58} {text + ' ' + unit:>16} {verdict}".rstrip(), flush=True)

    @contextlib.contextmanager
    def part(self, what: str) -> Iterator[None]:
        """Turn what goes wrong in a part into a row, and go on; what there is so far is written whatever comes."""
        try:
            yield
        except Exception as error:
            lines = str(error).strip().splitlines()
            self.add(what, f"{type(error).__name__}: {lines[0][:70] if lines else ''}", passed=False)
        finally:
            write_rows(f"gpu_smoke_{self.device.type}", [{"device": self.name, "rows": self.rows}])


def synchronize(device: torch.device) -> None:
    """Wait until a device has done its work."""
    if device.type != "cpu":
        getattr(torch, device.type).synchronize()


def rate(run: Callable[[], object], count: int, device: torch.device, seconds: float) -> float:
    """Return how many of `count` things at a time are done in a second."""
    run()
    synchronize(device)
    calls, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        run()
        calls += 1
        if calls % 8 == 0:
            synchronize(device)
    synchronize(device)
    return calls * count / (time.perf_counter() - began)


def pictures(count: int, shape: tuple[int, int, int]) -> torch.Tensor:
    """Images of 8-bit pixels."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, *shape), generator=generator).float() / 255


def undecided_lenet() -> torch.nn.Module:
    """A LeNet whose classes are close calls, so that the last bits of its logits matter."""
    model = build("lenet", 10, seed=3)
    last = model.get_parameter("fc2.bias")
    noisy = torch.randn((500, 1, 28, 28), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        last.sub_(model(0.5 + 0.7 * noisy).mean(dim=0))
    return model.eval()


def same_bits(report: Report) -> None:
    """Noise of every sampler, made in every way, against the CPU's."""
    for sampler in ("gaussian", "discrete"):
        for way in WAYS:
            if way == "triton" and "triton" not in ways(report.device):
                continue
            wrong = trouble(sampler, report.device, way)
            report.add(f"{sampler} noise, {way}: the CPU's bits", wrong or "yes", passed=wrong is None)


def same_votes(report: Report) -> None:
    """Votes on the device: again, in other batches, against the CPU, in TF32."""
    device, n, images = report.device, 2000, pictures(4, (1, 28, 28))

    def votes(where: str | torch.device, batch: int = 512, noise_on: str = "device", **more: Any) -> np.ndarray:
        smoothed = SmoothedClassifier(undecided_lenet(), 10, device=where, batch_size=batch, noise_on=noise_on, **more)
        return np.asarray(smoothed.predict(images, SIGMA, n=n).votes)

    for sampler in ("gaussian", "discrete"):
        here, there = votes("cpu", noise_on="cpu", sampler=sampler), votes(device, sampler=sampler)
        report.add(f"{sampler}: votes again", "equal", passed=np.array_equal(there, votes(device, sampler=sampler)))
        moved = int(np.abs(here - there).sum() // 2)
        report.add(f"{sampler}: votes moved against the CPU", moved, f"of {here.sum():,}", passed=_few(moved, here))
    base = votes(device)
    for batch in (64, 100, 256):
        moved = int(np.abs(base - votes(device, batch)).sum() // 2)
        report.add(f"votes moved by batches of {batch}", moved, f"of {base.sum():,}", passed=_few(moved, base))
    if device.type == "cuda":
        moved = int(np.abs(base - votes(device, precision="tf32")).sum() // 2)
        report.add("votes moved by TF32", moved, f"of {base.sum():,}")


def _few(moved: int, votes: np.ndarray) -> bool:
    """Whether no more votes moved than rounding explains, in a network made of close calls."""
    return moved <= max(2, int(votes.sum()) // 1000)


@torch.no_grad()
def plain_loop(model: torch.nn.Module, image: torch.Tensor, n: int, batch: int, device: torch.device) -> None:
    """Count votes as implementations of the original algorithm do."""
    counts = np.zeros(1000, dtype=int)
    image = image.to(device)
    for _ in range(-(-n // batch)):
        noisy = image.repeat((batch, 1, 1, 1))
        noisy = noisy + torch.randn_like(noisy) * SIGMA
        for prediction in model(noisy).argmax(1).cpu().numpy():
            counts[prediction] += 1


@torch.no_grad()
def model_alone(model: torch.nn.Module, image: torch.Tensor, n: int, batch: int, device: torch.device) -> None:
    """What is left of the plain loop where votes cost nothing: the model, on noise from torch.randn."""
    image = image.to(device).to(memory_format=torch.channels_last)
    for _ in range(-(-n // batch)):
        noisy = image + SIGMA * torch.randn((batch, *image.shape[1:]), device=device).to(
            memory_format=torch.channels_last
        )
        model(noisy).argmax(1)


def rates(report: Report, network: Network, seconds: float) -> None:
    """Noise, copy, model and engine of one network, and which of them bounds the whole."""
    device, on_cpu = report.device, report.device.type == "cpu"
    batch = network.batch_on_cpu if on_cpu else network.batch
    n = batch * (4 if on_cpu else 40)
    arch, image = network.arch, pictures(1, network.shape)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    model = build(arch, network.classes, seed=0).to(memory_format=torch.channels_last).to(device).eval()
    fixed = torch.rand((batch, *network.shape), device=device).to(memory_format=torch.channels_last)
    stages = {}

    def forward() -> None:
        with torch.no_grad():
            model(fixed).argmax(1)

    with arithmetic("float32"):
        stages["model"] = rate(forward, batch, device, seconds)
        for sampler in ("gaussian", "discrete"):
            noise = DeviceNoise(
                make_noise(sampler, "philox4x32", 0), image, np.zeros(1, np.int64), np.array([SIGMA]), "select", device
            )
            place = torch.arange(batch, device=device)
            nothing = torch.zeros_like(place)
            made = rate(partial(noise.fill, nothing, place, nothing), batch, device, seconds)
            report.add(f"{arch}: {sampler} noise, {ways(device)[0]}", made, "/s")
            stages.setdefault("noise", made)
        host = torch.rand((batch, *network.shape))
        host = host.pin_memory() if device.type == "cuda" else host
        copied = rate(lambda: host.to(device, non_blocking=True, copy=True), batch, device, seconds)
        report.add(f"{arch}: copy of noisy images, not needed any more", copied, "/s")
        report.add(f"{arch}: model on one fixed batch of {batch}", stages["model"], "/s")
        alone = rate(lambda: model_alone(model, image, n, batch, device), n, device, seconds)
        report.add(f"{arch}: model and torch.randn", alone, "/s")
        plain = rate(lambda: plain_loop(model, image, n, batch, device), n, device, seconds)
        report.add(f"{arch}: plain loop", plain, "/s")
    slowest = min(stages, key=lambda name: stages[name])
    for precision in ("float32", "bfloat16", *(["tf32"] if device.type == "cuda" else [])):
        smoothed = SmoothedClassifier(
            model, network.classes, device=device, batch_size=None if on_cpu else batch, precision=precision
        )
        smoothed.predict(image, SIGMA, n=BLOCK)
        found = rate(partial(smoothed.predict, image, SIGMA, n=n), n, device, seconds)
        share = found / alone
        passed = share >= network.target if precision == "float32" and not on_cpu else None
        report.add(
            f"{arch}: engine, {precision}, {share:.2f} of model and torch.randn", found, "/s", passed=passed,
            of_model_and_randn=share, of_plain_loop=found / plain,
        )  # fmt: skip
        if precision == "float32":
            report.add(f"{arch}: share of the slowest stage, {slowest}", found / stages[slowest], "")
    if device.type == "cuda":
        report.add(f"{arch}: most memory", torch.cuda.max_memory_allocated(device) / 2**30, "GiB")


def training(report: Report) -> None:
    """Steps of Smooth-Adv."""
    for arch in ("lenet", "cifar_resnet20"):
        on_cpu = report.device.type == "cpu"
        step = smooth_adv_step(arch, Engine(device=str(report.device)), batch=64 if on_cpu else 256, steps=3)
        report.add(f"Smooth-Adv, {arch}, m = {step['m']}, k = {step['k']}: images", step["images_per_second"], "/s")


def main() -> None:
    """Ask for everything, print it, write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", help="cuda, cuda:1, xpu, mps, cpu; default: CUDA if there is any")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each rate")
    options = parser.parse_args()
    device = usable_device(options.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device} ({platform.processor()})"
    report, began = Report(device, name), time.perf_counter()
    print(f"{name}, PyTorch {torch.__version__}")
    with report.part("bits"):
        same_bits(report)
    with report.part("votes"):
        same_votes(report)
    for network in NETWORKS:
        with report.part(network.arch):
            rates(report, network, options.seconds)
    with report.part("training"):
        training(report)
    failed = [row["what"] for row in report.rows if row["passed"] is False]
    verdict = f"FAILED: {'; '.join(failed)}" if failed else "all checks passed"
    print(f"{time.perf_counter() - began:.0f} s; {verdict}")
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
