"""Noisy samples per second: our engine against the plain loop of the original algorithm, same models, same machine.

SRS_DATA=... python benchmarks/bench_certify.py

The plain loop certifies one image at a time in batches of 1,000, adds torch.randn_like noise, and counts votes in NumPy
as Cohen et al. (2019) describe it and as implementations of it do. Contenders take turns, each in its own process.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

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

from smoothing import SmoothedClassifier
from training import build

SIGMA, ALPHA = 0.5, 0.001

#: How the engine is configured, by contender.
OURS: dict[str, dict[str, Any]] = {
    "float32": {},
    "float32, compile": {"compile": True},
    "bfloat16": {"precision": "bfloat16"},
    "bfloat16, compile": {"precision": "bfloat16", "compile": True},
    "float32, discrete": {"sampler": "discrete"},
    "float32, as before": {"stream": "sfc64", "batch_size": 128},
    "bfloat16, as before": {"precision": "bfloat16", "stream": "sfc64", "batch_size": 128},
}
PLAIN = "plain loop"


@torch.no_grad()
def plain_loop(model: torch.nn.Module, images: torch.Tensor, n: int, classes: int, device: str) -> np.ndarray:
    """Count votes one image after the other."""
    counts = np.zeros((len(images), classes), dtype=int)
    for row, image in enumerate(images):
        image = image.to(device)
        left = n
        while left > 0:
            size = min(1000, left)
            left -= size
            batch = image.repeat((size, 1, 1, 1))
            noise = torch.randn_like(batch, device=device) * SIGMA
            for prediction in model(batch + noise).argmax(1).cpu().numpy():
                counts[row, prediction] += 1
    return counts


def load(arch: str, images: int) -> torch.Tensor:
    """Test images of the data set that the architecture is for."""
    if arch == "lenet":
        pixels = mnist_test()[:images].reshape(-1, 1, 28, 28)
    else:
        pixels = cifar10_test(certified_bounds("cifar10", "cohen").label[:images])
        pixels = pixels.reshape(-1, 32, 32, 3).transpose(0, 3, 1, 2)
    return torch.from_numpy(np.ascontiguousarray(pixels, dtype=np.float32))


def prepare(arch: str, contender: str, images: int, n: int, device: str) -> tuple[Run, Describe]:
    """Return what is timed, votes of `images` images with n samples each, and what it found."""
    model, pixels = build(arch, 10, seed=0).to(device).eval(), load(arch, images)
    if contender == PLAIN:
        return lambda: plain_loop(model, pixels, n, 10, device), lambda counts: {"votes": int(counts.sum())}
    smoothed = SmoothedClassifier(model, 10, device=device, **OURS[contender])
    classes = np.zeros(images, int)
    return (
        lambda: smoothed.certify_classes(pixels, SIGMA, classes, n=n, alpha=ALPHA),
        lambda found: {"votes": int(found.n.sum())},
    )


def matmul_rate(dtype: torch.dtype, device: str, seconds: float = 1.0) -> float:
    """Measure the machine: floating-point operations per second of a product of two 2048 x 2048 matrices."""
    a, b = (torch.randn(2048, 2048, dtype=dtype, device=device) for _ in range(2))

    def once() -> None:
        a @ b
        if device != "cpu":
            torch.cuda.synchronize()

    once()
    best, end = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        begin = time.perf_counter()
        once()
        best = max(best, 2 * 2048**3 / (time.perf_counter() - begin))
    return best


def operations(arch: str) -> int:
    """Count floating-point operations of one forward pass of one image: two for each multiplication of weights."""
    from torch.utils.flop_counter import FlopCounterMode

    model = build(arch, 10, seed=0).eval()
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(load(arch, 1))
    return int(counter.get_total_flops())


def measure(arch: str, images: int, n: int, repeat: int, device: str) -> Row:
    """Let all contenders certify the same images, and relate them to the loop and to the machine."""
    names = [PLAIN, *OURS]
    result = contest({name: (prepare, (arch, name, images, n, device)) for name in names}, repeat)
    rates = {"float32": matmul_rate(torch.float32, device), "bfloat16": matmul_rate(torch.bfloat16, device)}
    flops = operations(arch)
    samples = images * n
    rows = {}
    for name in names:
        if result[name]["answer"]["votes"] != samples:
            raise SystemExit(f"{name} counted {result[name]['answer']['votes']} votes of {samples}")
        seconds = spread(result[name]["seconds"])
        precision = "bfloat16" if "bfloat16" in name else "float32"
        rows[name] = {
            "samples_per_second": {"min": samples / seconds["max"], "median": samples / seconds["median"]},
            "times_the_plain_loop": ratio(result[PLAIN], result[name]),
            "share_of_matmul_rate": samples / seconds["median"] * flops / rates[precision],
            "first_call_seconds": result[name]["first_call_seconds"],
            "peak_memory_mb": result[name]["peak_memory_mb"],
            "seconds": result[name]["seconds"],
        }
    return {
        "arch": arch,
        "device": torch.cuda.get_device_name() if device != "cpu" else "cpu",
        "images": images,
        "n": n,
        "flops_per_sample": flops,
        "matmul_flops_per_second": rates,
        "contenders": rows,
    }


def table(row: Row) -> str:
    """One line for every contender."""
    lines = [
        [
            name,
            f"{entry['samples_per_second']['median']:,.0f}",
            f"{entry['times_the_plain_loop']['of_medians']:.2f}",
            f"{entry['times_the_plain_loop']['min']:.2f} to {entry['times_the_plain_loop']['max']:.2f}",
            f"{100 * entry['share_of_matmul_rate']:.0f}%",
            f"{entry['first_call_seconds']:.1f}",
            f"{entry['peak_memory_mb']:,.0f}",
        ]
        for name, entry in row["contenders"].items()
    ]
    rates = {name: f"{rate / 1e9:,.0f}" for name, rate in row["matmul_flops_per_second"].items()}
    header = ["", "samples/s", "x plain", "rounds", "of matmul rate", "first call, s", "peak MB"]
    return (
        f"## {row['arch']} on {row['device']}: {row['images']} images, n = {row['n']:,}\n\n"
        f"One sample takes {row['flops_per_sample'] / 1e6:,.1f} million operations; products of matrices ran "
        f"at {rates['float32']} (float32) and {rates['bfloat16']} (bfloat16) GFLOP/s.\n\n"
        + markdown_table(header, lines)
    )


NOTE = """"As before" are the stream and the batch size that were the defaults before philox4x32 and measured
batches. Medians over the rounds; "rounds" are the smallest and largest ratio of one round. The first call includes
compiling. Weights are random: a forward pass costs the same whatever they are. "Of matmul rate" sets all work, noise
and votes included, against the rate of products of 2048 x 2048 matrices in the same run at the same precision.
"""


def main() -> None:
    """Measure all architectures and write the rows and the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=5, help="timed rounds")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--scale", type=float, default=1.0, help="factor for the number of samples")
    options = parser.parse_args()
    data_folder()  # complain before any work
    sizes = {"lenet": (4, 10_000), "cifar_resnet20": (2, 2000), "cifar_resnet110": (1, 1000)}
    if options.device != "cpu":
        sizes = {"lenet": (20, 100_000), "cifar_resnet20": (10, 50_000), "cifar_resnet110": (4, 20_000)}
    rows = [
        measure(arch, images, max(1000, int(n * options.scale)), options.repeat, options.device)
        for arch, (images, n) in sizes.items()
    ]
    name = "certify" if options.device == "cpu" else "certify_gpu"
    write_rows(name, rows)
    write_markdown(name, "Certification: noisy samples per second", [*map(table, rows), NOTE])


if __name__ == "__main__":
    main()
