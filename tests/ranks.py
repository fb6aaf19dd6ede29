"""A few processes that are kept, and run what a test gives them, each as a rank of one group."""

import datetime
import multiprocessing
import pickle
import tempfile
import traceback
import warnings
from pathlib import Path

import torch
import torch.distributed as dist

# Seconds until a process has imported what it needs, for an answer, and for an exchange.
START, TIMEOUT, EXCHANGE = 600, 240, 30


class Ranks:
    """Calls `function(*arguments)` in every process; returns or raises what they do."""

    def __init__(self, world: int):
        context = multiprocessing.get_context("spawn")
        self.meeting = Path(tempfile.mkdtemp()) / "meeting"
        self.pipes, self.processes = [], []
        for rank in range(world):
            ours, theirs = context.Pipe()
            process = context.Process(
                target=_serve, args=(theirs, rank, world, str(self.meeting)), daemon=True
            )
            process.start()
            theirs.close()
            self.pipes.append(ours)
            self.processes.append(process)
        # They meet once all are there: on a busy machine, one may come minutes after another.
        for rank in range(world):
            self.result(rank, START)
        for pipe in self.pipes:
            pipe.send_bytes(b"go")

    def __call__(self, function, *arguments, timeout=TIMEOUT):
        self.send(function, *arguments)
        results = [self.result(rank, timeout) for rank in range(len(self.pipes))]
        errors = [f"rank {rank}:\n{error}" for rank, (_, error) in enumerate(results) if error]
        if errors:
            raise AssertionError("\n".join(errors))
        return [result for result, _ in results]

    def send(self, function, *arguments) -> None:
        for pipe in self.pipes:
            pipe.send_bytes(pickle.dumps((function, arguments)))

    def result(self, rank: int, timeout: float = TIMEOUT):
        """What one process returned, and the traceback of what it raised."""
        if not self.pipes[rank].poll(timeout):
            self.close()
            raise TimeoutError(f"rank {rank} did not come back within {timeout} s")
        return pickle.loads(self.pipes[rank].recv_bytes())

    @property
    def alive(self) -> bool:
        return all(process.is_alive() for process in self.processes)

    def close(self) -> None:
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.join()


def kept(started: dict[int, Ranks], world: int) -> Ranks:
    """As many processes, of those that were started; anew after a test that lost some."""
    if world not in started or not started[world].alive:
        started[world] = Ranks(world)
    return started[world]


def _serve(pipe, rank, world, meeting):
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    pipe.send_bytes(pickle.dumps("here"))
    pipe.recv_bytes()
    dist.init_process_group(
        "gloo",
        init_method=f"file://{meeting}",
        rank=rank,
        world_size=world,
        timeout=datetime.timedelta(seconds=EXCHANGE),
    )
    while True:
        try:
            function, arguments = pickle.loads(pipe.recv_bytes())
        except EOFError:
            return
        try:
            answer = function(*arguments), None
        except BaseException:  # noqa: BLE001 - the test shows it
            answer = None, traceback.format_exc()
        pipe.send_bytes(pickle.dumps(answer))
