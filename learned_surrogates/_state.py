"""A learner's state as flat tensors, and back.

Tensors alone, under plain names, are what `torch.load(weights_only=True)`, safetensors and
torch.distributed.checkpoint all carry; nested dicts and pickled bytes are not.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ._learner import Learner

VERSION = 1
COUNTERS = ("calls", "updates", "skipped", "warm_up_left")
ALWAYS = ("version", "counters", "random")
FITTED = ("z_shape", "target_shape", "scale", "penalty")


def save(learner: Learner, *, with_replay: bool) -> dict[str, Tensor]:
    """The state: counters, random stream, weights, Adam's moments, replay buffer.

    A loss that has not been called yet has no weights and no replay to save.
    """
    state = {
        "version": torch.tensor(VERSION),
        "counters": torch.tensor([getattr(learner, name) for name in COUNTERS]),
        "random": learner.random.get_state(),
    }
    if learner.shapes is None or learner.surrogate is None:
        return state
    for name, shape in zip(("z_shape", "target_shape"), learner.shapes, strict=True):
        state[name] = torch.tensor(shape, dtype=torch.int64)
    state |= {"scale": learner.scale, "penalty": learner.penalty}
    state |= {f"surrogate.{k}": v for k, v in learner.surrogate.state_dict().items()}
    for name, moments in _adam_moments(learner).items():
        state |= {f"adam.{name}.{key}": moment for key, moment in moments.items()}
    rings = {"unseen": learner.unseen} | ({"replay": learner.replay} if with_replay else {})
    for ring, replay in rings.items():
        state |= {f"{ring}.{i}": samples for i, samples in enumerate(replay.oldest_first())}
    return state


@dataclass
class Faults:
    """What is wrong with a state; falsy if nothing is."""

    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def load(learner: Learner, state: dict[str, Tensor], *, strict: bool) -> Faults:
    """Takes a saved state, unless it has faults: then the learner is left as it was.

    With `strict=False`, keys that are not known do not keep the rest from being loaded.
    """
    faults = Faults(missing=[key for key in ALWAYS if key not in state])
    if not faults.missing and int(state["version"]) != VERSION:
        faults.errors.append(
            f"the state has version {int(state['version'])} and this package reads {VERSION}: "
            "load it with the version of learned-surrogates that saved it"
        )
    if faults.missing or faults.errors:
        return faults
    if "z_shape" not in state:
        faults.unexpected = sorted(set(state) - set(ALWAYS))
        if not (strict and faults.unexpected):
            learner.detach()
            _load_rest(learner, state)
        return faults

    faults.missing = [key for key in FITTED if key not in state]
    if faults.missing:
        return faults
    shapes = tuple(torch.Size(state[key].tolist()) for key in ("z_shape", "target_shape"))
    surrogate = learner.surrogate or learner.make_surrogate(
        torch.zeros(1, *shapes[0]), torch.zeros(1, *shapes[1], dtype=torch.int64)
    )
    expected = {f"surrogate.{k}": v for k, v in surrogate.state_dict().items()}
    names = [name for name, p in surrogate.named_parameters() if p.requires_grad]
    adam = {f"adam.{name}.{key}" for name in names for key in ("step", "exp_avg", "exp_avg_sq")}
    rings = {f"unseen.{i}" for i in range(2)} | {f"replay.{i}" for i in range(3)}
    given = {key for key in state if key.startswith("adam.")}
    faults.missing = sorted((set(expected) | (adam if given else set())) - set(state))
    faults.unexpected = sorted(set(state) - set(expected) - adam - rings - {*ALWAYS, *FITTED})
    faults.errors = [
        f"{key} has shape {tuple(state[key].shape)} in the state and {tuple(value.shape)} here"
        for key, value in expected.items()
        if key in state and state[key].shape != value.shape
    ]
    if faults.missing or faults.errors or (strict and faults.unexpected):
        return faults

    surrogate.load_state_dict(_part(state, "surrogate."))
    learner.attach(surrogate, (shapes[0], shapes[1]))
    if given:
        _load_adam(learner, surrogate, names, _part(state, "adam."))
    learner.scale = state["scale"].to(learner.device, copy=True)
    learner.penalty = state["penalty"].clone()
    _load_rest(learner, state)
    return faults


def _load_rest(learner: Learner, state: dict[str, Tensor]) -> None:
    for ring, replay in (("replay.", learner.replay), ("unseen.", learner.unseen)):
        replay.clear()
        part = _part(state, ring)
        if part:
            replay.add(*(part[key].to(learner.device) for key in sorted(part)))
    for name, count in zip(COUNTERS, state["counters"].tolist(), strict=True):
        setattr(learner, name, count)
    learner.random.set_state(state["random"].cpu())


def _part(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def _adam_moments(learner: Learner) -> dict[str, dict[str, Tensor]]:
    assert learner.surrogate is not None
    if learner.optimizer is None:
        return {}
    state = learner.optimizer.state
    return {name: state[p] for name, p in learner.surrogate.named_parameters() if p in state}


def _load_adam(
    learner: Learner, surrogate: nn.Module, names: list[str], moments: dict[str, Tensor]
) -> None:
    assert learner.optimizer is not None
    state: dict[str, Any] = learner.optimizer.state_dict()
    state["state"] = {
        index: {key: moments[f"{name}.{key}"].clone() for key in ("step", "exp_avg", "exp_avg_sq")}
        for index, name in enumerate(names)
    }
    learner.optimizer.load_state_dict(state)
