"""`kill -9` at a random moment, again and again: the resumed run is the uninterrupted one."""

import multiprocessing
import random
import time

import killable
import pytest
import torch
from conftest import assert_identical


@pytest.fixture(scope="module")
def processes():
    """Processes that start with PyTorch imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "learned_surrogates", "conftest"])
    return context


def steps_done(folder):
    try:
        return int((folder / "done").read_text() or 0)
    except FileNotFoundError:
        return 0


def killed_and_resumed(processes, name, folder, steps, kills, seed):
    """The last checkpoint of a run that was killed at random, and after which steps."""
    chance, killed = random.Random(seed), []
    for kill in range(kills + 1):
        process = processes.Process(target=killable.train, args=(name, folder, steps))
        process.start()
        goal = chance.randint(steps * kill // kills, steps * (kill + 1) // kills - 2)
        while kill < kills and steps_done(folder) < goal and process.is_alive():
            time.sleep(0.001)
        if kill < kills:
            time.sleep(chance.uniform(0, 0.02))  # anywhere within a step, also while it saves
            process.kill()
            killed.append(steps_done(folder))
        process.join(timeout=600)
        assert process.exitcode == (-9 if kill < kills else 0)
    return torch.load(folder / "checkpoint.pt", weights_only=True), killed


def compare(processes, name, folder, steps, kills):
    (folder / "whole").mkdir()
    (folder / "killed").mkdir()
    whole = processes.Process(target=killable.train, args=(name, folder / "whole", steps))
    whole.start()
    whole.join(timeout=600)
    assert whole.exitcode == 0
    expected = torch.load(folder / "whole" / "checkpoint.pt", weights_only=True)
    state, killed = killed_and_resumed(processes, name, folder / "killed", steps, kills, seed=0)
    assert len(killed) == kills
    assert state["done"] == expected["done"] == steps
    assert_identical(state["loss"], expected["loss"])
    assert_identical(state["model"], expected["model"])
    return killed


def test_three_kills(processes, tmp_path):
    killed = compare(processes, "ctc", tmp_path, steps=36, kills=3)
    assert len(set(killed)) == 3


@pytest.mark.long
@pytest.mark.parametrize("case", ["measured", "ctc-auto", "ctc", "boxes-frame"])
def test_a_hundred_kills(processes, tmp_path, case):
    print(compare(processes, case, tmp_path, steps=500, kills=100))


@pytest.mark.long
def test_twenty_kills_of_the_text_example(processes, tmp_path):
    if not killable.EXAMPLES.is_dir():
        pytest.skip("the examples are not part of the package")
    print(compare(processes, "text", tmp_path, steps=200, kills=20))
