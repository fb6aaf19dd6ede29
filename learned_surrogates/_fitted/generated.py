"""The random generator's pairs, "global" data."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from .._contract.errors import check_pair
from .._evaluation.measurement import Evaluation
from .._evaluation.queue import Queue
from .._learning.fit_values import Generator

# Batches of pairs that are on their way to be measured, if any may be.
AHEAD = 8

Pairs = tuple[Any, Any]


class Generated:
    """Batches of the generator's pairs, measured.

    Where calls need not wait for values, some batches are measured ahead of their use.

    Args:
        generator: R of LS.
        queue: has the pairs evaluated.
        random: the only source of chance.
    """

    def __init__(self, generator: Generator, queue: Queue, random: torch.Generator):
        self.generator = generator
        self.queue = queue
        self.random = random
        #: Whether `next` waits for values.
        self.patient = queue.lag is not None
        self._ahead: deque[tuple[Pairs, Evaluation]] = deque()

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_ahead": deque()}

    def fresh(self, count: int) -> tuple[Pairs, Evaluation]:
        """A batch that was not measured ahead; waits for its values."""
        started = self._start(count)
        self.queue.wait(started[1])
        return started

    def next(self, count: int) -> tuple[Pairs, Evaluation] | None:
        """A batch for a step of the surrogate; None if there is none yet and none is waited for."""
        if not self.queue.ahead:
            return self.fresh(count)
        while len(self._ahead) < AHEAD:
            self._ahead.append(self._start(count))
        self.queue.pool.advance()
        found = self._ahead[0]
        if not self.patient:
            done = [started for started in self._ahead if started[1].done]
            if not done:
                return None
            found = done[0]
        self._ahead = deque(started for started in self._ahead if started is not found)
        self._ahead.append(self._start(count))
        self.queue.wait(found[1])
        return found

    @contextmanager
    def waited_for(self) -> Iterator[None]:
        """A context in which batches are waited for."""
        before, self.patient = self.patient, True
        try:
            yield
        finally:
            self.patient = before

    def clear(self) -> None:
        """Forgets what is on its way."""
        for _, evaluation in self._ahead:
            self.queue.cancel(evaluation)
        self._ahead.clear()

    def _start(self, count: int) -> tuple[Pairs, Evaluation]:
        seed = torch.randint(2**62, (), generator=self.random, device="cpu").item()
        pairs = self.generator(count, np.random.default_rng(int(seed)))
        check_pair("the generator", pairs, count)
        size = len(pairs[1])
        return pairs, self.queue.submit([pairs], size, list(range(size)))
