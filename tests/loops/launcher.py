"""What a launcher such as torchrun tells a process, for the length of a test."""

import contextlib
import os
import socket
import warnings
from unittest import mock

import torch.distributed as dist


@contextlib.contextmanager
def launched():
    """In a kept rank: the environment in which Accelerate and Trainer find their process group."""
    from accelerate.state import AcceleratorState, PartialState

    port = [0]
    if dist.get_rank() == 0:
        with socket.socket() as free:
            free.bind(("", 0))
            port[0] = free.getsockname()[1]
    dist.broadcast_object_list(port)
    variables = {
        "RANK": dist.get_rank(),
        "LOCAL_RANK": dist.get_rank(),
        "WORLD_SIZE": dist.get_world_size(),
        "LOCAL_WORLD_SIZE": dist.get_world_size(),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port[0],
        "ACCELERATE_USE_CPU": "true",
        "TORCHELASTIC_RUN_ID": "test",
        "GROUP_RANK": 0,
    }
    environment = {key: str(value) for key, value in variables.items()}
    AcceleratorState._reset_state()
    PartialState._reset_state()
    try:
        with mock.patch.dict(os.environ, environment), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # these libraries' own; ours show in one process
            yield
    finally:
        AcceleratorState._reset_state()
        PartialState._reset_state()
