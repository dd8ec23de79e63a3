"""Images per second of a Smooth-Adv epoch: our loop against the plain one, same model, same batches, same machine.

SRS_DATA=... python benchmarks/bench_train.py
python benchmarks/bench_train.py --step cuda    # one step, no data needed

The plain loop is what a page of code gives: float32, PyTorch's own memory format, and one noise sample per forward
pass, in the attack and in the step. It makes as many passes as the method asks for, and so does ours: both counts are
checked. Contenders take turns, each in its own process.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from functools import reduce
from typing import Literal

import numpy as np
import torch
from _common import (
    Describe,
    Row,
    Run,
    certified_bounds,
    cifar10_test,
    contest,
    data_folder,
    markdown_table,
    mnist_test,
    ratio,
    spread,
    write_markdown,
    write_rows,
)
from torch import nn
from torch.nn import functional

from smoothing.machine import usable_device
from training import ByteImages, Engine, SmoothAdv, Stage, build, fit

PLAIN = "plain loop"

#: How our loop is configured, by contender.
OURS: Mapping[str, Engine] = {
    "float32": Engine(),
    "float32, compile": Engine(compile=True),
    "bfloat16": Engine(precision="bfloat16"),
    "bfloat16, compile": Engine(precision="bfloat16", compile=True),
}

SIGMA, EPSILON, M, STEPS, BATCH, LR = 0.5, 1.0, 2, 4, 256, 0.01

#: Images of an epoch, by architecture.
SIZES: Mapping[str, int] = {"lenet": 4096, "cifar_resnet20": 512}

#: Where an operation belongs when time is accounted for, by parts of its name; the first that fits counts.
PARTS: Mapping[str, tuple[str, ...]] = {
    "convolutions": ("conv",),
    "linear layers": ("mm",),
    "pooling": ("pool",),
    "noise": ("normal", "randn"),
}


class Counting(nn.Module):
    """Counts the images that go forward."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.passes = net, 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the network's logits."""
        self.passes += len(images)
        logits: torch.Tensor = self.net(images)
        return logits


def load(arch: str, images: int) -> tuple[np.ndarray, np.ndarray]:
    """Images of the data set that the architecture is for, and classes, which cost nothing and so are drawn."""
    if arch == "lenet":
        pixels = np.resize(mnist_test(), (images, 784)).reshape(-1, 1, 28, 28)
    else:
        pixels = cifar10_test(certified_bounds("cifar10", "cohen").label[:images])
        pixels = pixels.reshape(-1, 32, 32, 3).transpose(0, 3, 1, 2)
    return np.ascontiguousarray(pixels, dtype=np.float32), np.random.default_rng(0).integers(0, 10, images)


def plain_epoch(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> None:
    """One epoch of Smooth-Adv (Eq. 3), a noise sample per forward pass."""
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=0.9, weight_decay=1e-4)
    for batch in torch.split(torch.randperm(len(images)), BATCH):
        x, y = images[batch], labels[batch]
        noise = [SIGMA * torch.randn_like(x) for _ in range(M)]
        model.eval()
        hard = x.clone()
        for _ in range(STEPS):
            hard.requires_grad_()
            p = reduce(torch.add, (functional.softmax(model(hard + eta), dim=1) for eta in noise)) / M
            loss = functional.nll_loss(torch.log(p), y, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, hard)
            with torch.no_grad():
                step = gradient / gradient.flatten(1).norm(dim=1).clamp(min=1e-12).reshape(-1, 1, 1, 1)
                delta = hard + 2 * EPSILON / STEPS * step - x
                hard = (x + delta.renorm(2, 0, EPSILON)).clamp(0, 1)
        model.train()
        loss = reduce(torch.add, (functional.cross_entropy(model(hard + eta), y) for eta in noise)) / M
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()


def prepare(arch: str, contender: str, images: int) -> tuple[Run, Describe]:
    """Return what is timed, an epoch, and how many passes it made in all epochs so far."""
    pixels, labels = load(arch, images)
    model = Counting(build(arch, 10, seed=0))
    if contender == PLAIN:
        x, y = torch.from_numpy(pixels), torch.from_numpy(labels)
        return lambda: plain_epoch(model, x, y), lambda _: {"passes": model.passes}
    stage = Stage(
        epochs=1, sigma=(SIGMA, SIGMA), lr=LR, m=M, attack=SmoothAdv(EPSILON, STEPS), batch_size=BATCH, warmup=1
    )
    engine = OURS[contender]
    counted = model.net if engine.compile else model  # what is compiled does not count
    return lambda: fit(counted, pixels, labels, stage=stage, engine=engine), lambda _: {"passes": model.passes}


def where_the_time_goes(arch: str, precision: Literal["float32", "bfloat16"], images: int) -> Row:
    """Shares of an epoch's CPU time by kind of operation, on one thread."""
    pixels, labels = load(arch, images)
    model = build(arch, 10, seed=0)
    stage = Stage(epochs=1, sigma=(SIGMA, SIGMA), lr=LR, m=M, attack=SmoothAdv(EPSILON, STEPS), batch_size=BATCH)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        fit(model, pixels, labels, stage=stage, engine=Engine(precision=precision))
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            fit(model, pixels, labels, stage=stage, engine=Engine(precision=precision))
    finally:
        torch.set_num_threads(threads)
    times = dict.fromkeys([*PARTS, "all else"], 0.0)
    for event in profile.key_averages():
        name = event.key.lower()
        part = next((part for part, words in PARTS.items() if any(word in name for word in words)), "all else")
        times[part] += event.self_cpu_time_total
    total = sum(times.values())
    return {part: value / total for part, value in times.items()}


def smooth_adv_step(arch: str, engine: Engine, *, batch: int = BATCH, steps: int = 20) -> Row:
    """Time of a Smooth-Adv step of our loop: the mean over an epoch, after an epoch that warms up and compiles.

    Images are drawn, in 8 bits, so that no data are needed. The device is waited for at the end of the epoch.
    """
    shape = {"lenet": (1, 28, 28), "resnet50": (3, 224, 224)}.get(arch, (3, 32, 32))
    rng = np.random.default_rng(0)
    images = ByteImages(rng.integers(0, 256, (steps * batch, *shape), dtype=np.uint8))
    device = usable_device(engine.device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    stage = Stage(epochs=2, sigma=(SIGMA, SIGMA), lr=LR, m=M, attack=SmoothAdv(EPSILON, STEPS), batch_size=batch)
    _, timed = fit(build(arch, 10, seed=0), images, rng.integers(0, 10, len(images)), stage=stage, engine=engine)
    return {
        "arch": arch,
        "device": str(device),
        "precision": engine.precision,
        "compile": engine.compile,
        "m": M,
        "k": STEPS,
        "batch": batch,
        "ms_per_step": 1000 * timed.seconds / steps,
        "images_per_second": timed.images_per_second,
        "peak_device_memory_mb": torch.cuda.max_memory_allocated(device) / 1e6 if device.type == "cuda" else None,
    }


def measure(arch: str, images: int, repeat: int) -> Row:
    """Let all contenders train on the same images, and relate them to the plain loop."""
    names = [PLAIN, *OURS]
    result = contest({name: (prepare, (arch, name, images)) for name in names}, repeat)
    wanted = images * M * (STEPS + 1) * (repeat + 1)
    rows = {}
    for name in names:
        passes = result[name]["answer"]["passes"]
        if "compile" not in name and passes != wanted:
            raise SystemExit(f"{name} made {passes} passes; the method has {wanted}")
        seconds = spread(result[name]["seconds"])
        rows[name] = {
            "images_per_second": {"min": images / seconds["max"], "median": images / seconds["median"]},
            "times_the_plain_loop": ratio(result[PLAIN], result[name]),
            "first_call_seconds": result[name]["first_call_seconds"],
            "peak_memory_mb": result[name]["peak_memory_mb"],
            "seconds": result[name]["seconds"],
        }
    return {
        "arch": arch,
        "images": images,
        "m": M,
        "k": STEPS,
        "batch": BATCH,
        "passes_per_image": M * (STEPS + 1),
        "contenders": rows,
        "shares": {name: where_the_time_goes(arch, name, min(images, 1024)) for name in ("float32", "bfloat16")},
    }


def table(row: Row) -> str:
    """One line for every contender, and where the time goes."""
    lines = [
        [
            name,
            f"{entry['images_per_second']['median']:,.0f}",
            f"{entry['times_the_plain_loop']['of_medians']:.2f}",
            f"{entry['times_the_plain_loop']['min']:.2f} to {entry['times_the_plain_loop']['max']:.2f}",
            f"{entry['first_call_seconds']:.1f}",
            f"{entry['peak_memory_mb']:,.0f}",
        ]
        for name, entry in row["contenders"].items()
    ]
    header = ["", "images/s", "x plain", "rounds", "first call, s", "peak MB"]
    parts = list(row["shares"]["float32"])
    shares = [[name, *(f"{100 * shares[part]:.0f}%" for part in parts)] for name, shares in row["shares"].items()]
    return (
        f"## {row['arch']}: an epoch of {row['images']:,} images, m = {row['m']}, k = {row['k']}, batches of "
        f"{row['batch']}\n\n"
        f"{row['passes_per_image']} passes forward and backward an image, counted.\n\n"
        + markdown_table(header, lines)
        + "\nWhere the time of our loop goes, on one thread (forward and backward together):\n\n"
        + markdown_table(["", *parts], shares)
    )


NOTE = """Medians over the rounds; "rounds" are the smallest and largest ratio of one round. The first call includes
compiling. Passes of compiled models are not counted: they run the same loop.
"""


def main() -> None:
    """Measure both architectures and write the rows and the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=5, help="timed rounds")
    parser.add_argument("--scale", type=float, default=1.0, help="factor for the number of images")
    parser.add_argument("--step", metavar="DEVICE", help="time a step on this device, and print that only")
    options = parser.parse_args()
    if options.step:
        for arch in SIZES:
            print(smooth_adv_step(arch, Engine(device=options.step), steps=max(2, int(20 * options.scale))))
        return
    data_folder()  # complain before any work
    rows = [measure(arch, max(BATCH, int(n * options.scale)), options.repeat) for arch, n in SIZES.items()]
    write_rows("train", rows)
    write_markdown("train", "Training: images per second of a Smooth-Adv epoch", [*map(table, rows), NOTE])


if __name__ == "__main__":
    main()
