"""Passes that a compiler makes, which need not be there and may fail."""

import importlib
from collections.abc import Callable
from functools import cached_property
from types import ModuleType
from typing import TypeVar

import torch

from ..._support.warnings import warn

Passed = TypeVar("Passed")


class Compiled:
    """A module of compiled passes, and where it has failed.

    Args:
        name: of the module, in this folder.
        failing: what the user is told where it fails, with the `error`.
    """

    def __init__(self, name: str, failing: str):
        self.name = f"{__package__}.{name}"
        self.failing = failing
        #: Devices on which it is done without.
        self.failed_on: set[torch.device] = set()

    @cached_property
    def module(self) -> ModuleType | None:
        """None where its compiler is not installed, or fails as it is imported."""
        try:
            return importlib.import_module(self.name)
        except ImportError:
            return None
        except Exception as error:  # noqa: BLE001 - there is no one class of them
            self._tell(error)
            return None

    def attempt(
        self, device: torch.device, run: Callable[[ModuleType], Passed | None]
    ) -> Passed | None:
        """What is made of the module; None where there is none, or it has failed by now."""
        if device in self.failed_on or self.module is None:
            return None
        try:
            return run(self.module)
        except (MemoryError, torch.cuda.OutOfMemoryError):
            raise
        except Exception as error:  # noqa: BLE001 - there is no one class of them
            self.failed_on.add(device)
            self._tell(error)
            return None

    def _tell(self, error: Exception) -> None:
        warn(self.failing.format(error=f"{type(error).__name__}: {error}"))
