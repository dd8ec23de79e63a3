"""Two processes train one model: the same weights in both, the same bits again, one exchange of gradients a step."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from training import Engine, SmoothAdv, SmoothMix, Stage, WeightedLevels, fit

ENGINES = {
    "whole": Engine(device="cpu"),
    "in parts": Engine(device="cpu", accumulate=2),
    "compiled, in parts": Engine(device="cpu", accumulate=2, compile=True),
    "mixed, in parts": Engine(device="cpu", accumulate=2),
}
STAGE = Stage(epochs=2, sigma=(0.1, 0.5), lr=0.05, m=2, attack=SmoothAdv(0.5, 2), batch_size=32)
MIXED = replace(STAGE, sigma=WeightedLevels((0.1, 0.5), (1.0, 2.0)), attack=None, mix=SmoothMix(steps=2))
#: Without noise of their own, processes compute what one would.
SILENT = Stage(epochs=2, sigma=(0.0, 0.0), lr=0.05, attack=SmoothAdv(0.5, 2), batch_size=32)
STEPS = 4
RNG = np.random.default_rng(0)
IMAGES, LABELS = RNG.random((64, 1, 8, 8), dtype=np.float32), RNG.integers(0, 10, 64)


def network():
    """A model that keeps running means, and draws numbers of its own."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.Dropout(0.3), nn.Linear(16, 10))


def plain_weights(engine):
    """A network whose copies of an image do not depend on the rest of the batch, after training without noise."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
    before = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
    fit(model, IMAGES, LABELS, stage=SILENT, engine=engine)
    return before, nn.utils.parameters_to_vector(model.parameters()).detach()


#: Writes into the file argv[1] what each of its processes found.
PROGRAM = """
import copy, hashlib, json, sys
import torch
from accelerate.utils import gather_object
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel
from tests.training.test_processes import ENGINES, IMAGES, LABELS, MIXED, STAGE, network, plain_weights
from training import fit

torch.set_num_threads(1)
exchanges = 0
made = DistributedDataParallel.__init__

def counting(self, *arguments, **options):
    def exchange(state, bucket):
        global exchanges
        exchanges += 1
        return allreduce_hook(None, bucket)
    made(self, *arguments, **options)
    self.register_comm_hook(None, exchange)

DistributedDataParallel.__init__ = counting

def bits(tensors):
    return hashlib.sha256(b"".join(t.detach().numpy().tobytes() for t in tensors)).hexdigest()

def train(name, engine, weights=None, state=None):
    model, states = network(), []
    if weights is not None:
        model.load_state_dict(weights)
    stage = MIXED if "mixed" in name else STAGE
    fit(model, IMAGES, LABELS, stage=stage, engine=engine, state=state,
        after_epoch=lambda state: states.append(copy.deepcopy((model.state_dict(), state))))
    return model, states

found = {}
for name, engine in ENGINES.items():
    exchanges = 0
    model, states = train(name, engine)
    seen = exchanges
    saved = [states[0]]
    torch.distributed.broadcast_object_list(saved)  # the first process writes the checkpoint that all go on from
    found[name] = {
        "parameters": bits(model.parameters()),
        "state": bits(model.state_dict().values()),
        "again": bits(train(name, engine)[0].state_dict().values()),
        "resumed": bits(train(name, engine, *saved[0])[0].state_dict().values()),
        "exchanges": seen,
        "plain": plain_weights(engine)[1].tolist(),
    }
everywhere = gather_object([found])
if torch.distributed.get_rank() == 0:
    with open(sys.argv[1], "w") as stream:
        json.dump(everywhere, stream)
"""


#: Trains on two processes, and writes which threads are left once all that was registered later has ended.
ENDING = """
import atexit
from pathlib import Path

@atexit.register
def show():
    print([task.read_text().strip() for task in Path("/proc/self/task").glob("*/comm")], flush=True)

from tests.training.test_processes import ENGINES, IMAGES, LABELS, STAGE, network
from training import fit

fit(network(), IMAGES, LABELS, stage=STAGE, engine=ENGINES["compiled, in parts"])
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="names of threads need /proc")
def test_no_thread_of_the_group_runs_when_the_interpreter_ends(tmp_path):
    # One that does now and then aborts its process, and a finished run looks like a failed one.
    program = tmp_path / "program.py"
    program.write_text(ENDING)
    done = launch(program)
    lines = [line for line in done.stdout.splitlines() if line.startswith("[")]
    assert len(lines) == 2
    assert not [line for line in lines if "gloo" in line]


def launch(*arguments):
    """Run a program in two processes, and return how it ended."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}  # the program imports this file
    done = subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, timeout=300, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What both processes found, with each engine."""
    folder = tmp_path_factory.mktemp("processes")
    (folder / "program.py").write_text(PROGRAM)
    launch(folder / "program.py", folder / "found.json")
    return json.loads((folder / "found.json").read_text())


@pytest.mark.parametrize("name", ENGINES)
def test_processes_end_with_the_same_weights_and_running_means_and_the_same_bits_again(found, name):
    first, second = (process[name] for process in found)
    assert first["parameters"] == second["parameters"]
    assert first["state"] == second["state"]
    assert first["again"] == first["state"]
    assert second["again"] == second["state"]


@pytest.mark.parametrize("name", ENGINES)
def test_processes_that_go_on_from_the_checkpoint_of_the_first_end_with_the_same_bits(found, name):
    for process in found:
        assert process[name]["resumed"] == process[name]["state"]


@pytest.mark.parametrize("name", ENGINES)
def test_gradients_are_exchanged_once_a_step(found, name):
    assert [process[name]["exchanges"] for process in found] == [STEPS, STEPS]


@pytest.mark.parametrize("name", ENGINES)
def test_after_attacks_processes_average_their_gradients(found, name):
    before, alone = plain_weights(ENGINES["whole"])
    assert (alone - before).abs().max() > 0.01
    for process in found:
        torch.testing.assert_close(torch.tensor(process[name]["plain"]), alone, rtol=1e-4, atol=1e-6)
