"""A learner's state as flat tensors, and back.

Tensors alone, under plain names, are what `torch.load(weights_only=True)`, safetensors and
torch.distributed.checkpoint all carry; nested dicts and pickled bytes are not.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ._history import REMEMBERED
from ._learner import Learner

VERSION = 4
MOMENTS = ("step", "exp_avg", "exp_avg_sq")
# What the state of a loss that has not been called has.
ALWAYS = ("version", "counters", "random")

# A dimension of any size.
ANY = -1


def save(learner: Learner, *, with_replay: bool) -> dict[str, Tensor]:
    """The state: counters, random stream, weights, Adam's moments, ring buffers.

    A loss that has not been called yet has no weights and no pairs to save.
    """
    state = {
        "version": _tensor(VERSION),
        "counters": _tensor(
            [
                learner.calls,
                learner.updates,
                learner.pairs.skipped,
                learner.warm_up_left,
                learner.came_fitted,
                learner.pairs.evaluations.lost,
                learner.pairs.evaluations.unmeasured,
            ]
        ),
        "random": learner.pairs.random.get_state(),
    }
    if learner.pairs.shapes is None or learner.surrogate is None:
        return state
    state |= {
        "z_shape": _tensor(list(learner.pairs.shapes[0])),
        "target_shape": _tensor(list(learner.pairs.shapes[1])),
        "scale": learner.scale,
        "penalty": learner.penalty,
        "norms": learner.trust.norms,
        "figures": torch.tensor(
            [
                learner.pairs.metric_mean,
                learner.mean_error,
                learner.trust.level,
                learner.trust.judged,
                learner.trust.untrusted_updates,
            ],
            dtype=torch.float64,
            device="cpu",
        ),
        "history": learner.history.save(),
    }
    state |= {f"surrogate.{k}": v for k, v in learner.surrogate.state_dict().items()}
    moments = {} if learner.optimizer is None else learner.optimizer.state
    for name, parameter in learner.surrogate.named_parameters():
        if parameter in moments:
            state |= {f"adam.{name}.{key}": moments[parameter][key] for key in MOMENTS}
    for ring, replay in (("unseen", learner.pairs.unseen), ("replay", learner.pairs.replay)):
        if ring != "replay" or with_replay:
            state |= {f"{ring}.{i}": samples for i, samples in enumerate(replay.oldest_first())}
    return state


def shared(learner: Learner) -> dict[str, Tensor]:
    """What processes that fit one surrogate together have in common, on the CPU."""
    own = ("random", "penalty", "norms", "figures", "history", "unseen.")
    state = save(learner, with_replay=False)
    return {key: tensor.cpu() for key, tensor in state.items() if not key.startswith(own)}


def share(learner: Learner, state: dict[str, Tensor]) -> None:
    """Takes what another process has `shared`; pairs and random stream stay what they are."""
    shapes = _shapes(state)
    surrogate = learner.surrogate or _empty_surrogate(learner, shapes)
    _attach(learner, surrogate, learner.pairs.shapes or shapes, state)
    learner.calls, learner.updates, _, learner.warm_up_left, fitted = state["counters"][:5].tolist()
    learner.came_fitted = bool(fitted)


@dataclass
class Faults:
    """What is wrong with a state: keys that are missing or unknown, and other errors."""

    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.errors)


def load(learner: Learner, state: dict[str, Tensor]) -> Faults:
    """Takes a saved state, unless it has faults: then the learner is left as it was."""
    version = state.get("version")
    if version is not None and version.shape == () and int(version) != VERSION:
        # Before the keys: those of another version may well be others.
        return Faults(
            errors=[
                f"the state has version {int(version)} and this package reads version {VERSION}: "
                "load it with the version of learned-surrogates that saved it"
            ]
        )
    fitted = any(key not in ALWAYS for key in state)
    faults = _check(state, _header_shapes(learner, fitted))
    if not (fitted or faults) and int(state["counters"][1]):
        # What torch.distributed.checkpoint makes of a loss that has not been called.
        faults.errors = [
            f"the state counts {int(state['counters'][1])} updates of a surrogate that is not in "
            "it: what was saved has more keys, and all of them must be read"
        ]
    if faults.missing or faults.errors:
        return faults
    if not fitted:
        learner.detach()
        _load_rest(learner, state)
        return faults

    shapes = _shapes(state)
    surrogate = learner.surrogate or _empty_surrogate(learner, shapes)
    faults = _check(state, _header_shapes(learner, fitted) | _body_shapes(state, surrogate, shapes))
    if faults:
        return faults
    _attach(learner, surrogate, shapes, state)
    learner.penalty = state["penalty"].to(learner.device, copy=True)
    _load_figures(learner, state)
    _load_rest(learner, state)
    return faults


def _shapes(state: dict[str, Tensor]) -> tuple[torch.Size, torch.Size]:
    return torch.Size(state["z_shape"].tolist()), torch.Size(state["target_shape"].tolist())


def _empty_surrogate(learner: Learner, shapes: tuple[torch.Size, torch.Size]) -> nn.Module:
    """A surrogate for samples of these shapes, whose weights are to be loaded."""
    return learner.make_surrogate(
        torch.zeros(1, *shapes[0], device="cpu"),
        torch.zeros(1, *shapes[1], dtype=torch.int64, device="cpu"),
    )


def _attach(
    learner: Learner,
    surrogate: nn.Module,
    shapes: tuple[torch.Size, torch.Size],
    state: dict[str, Tensor],
) -> None:
    """Gives the learner a surrogate with the state's weights, moments and scale."""
    surrogate.load_state_dict(_part(state, "surrogate."))
    learner.attach(surrogate, shapes)
    if learner.optimizer is not None and _part(state, "adam."):
        _load_adam(learner.optimizer, surrogate, _part(state, "adam."))
    learner.scale = state["scale"].to(learner.device, copy=True)


def _check(state: dict[str, Tensor], expected: dict[str, tuple[int, ...]]) -> Faults:
    """Holds a state against the shapes that it must have."""
    wrong = [
        f"{key} must have shape {tuple('any' if n == ANY else n for n in shape)}; in the state it "
        f"has {tuple(state[key].shape)}"
        for key, shape in expected.items()
        if key in state and not _fits(state[key].shape, shape)
    ]
    return Faults(
        missing=[key for key in expected if key not in state],
        unexpected=[key for key in state if key not in expected],
        errors=wrong,
    )


def _fits(shape: torch.Size, expected: tuple[int, ...]) -> bool:
    return len(shape) == len(expected) and all(
        wanted in (n, ANY) for n, wanted in zip(shape, expected, strict=True)
    )


def _header_shapes(learner: Learner, fitted: bool) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "version": (),
        "counters": (7,),
        "random": tuple(learner.pairs.random.get_state().shape),
    }
    if fitted:
        shapes |= {"z_shape": (ANY,), "target_shape": (ANY,)}
        shapes |= {"scale": (), "penalty": (), "norms": (2,), "figures": (5,)}
        shapes |= {"history": (ANY, len(REMEMBERED))}
    return shapes


def _body_shapes(
    state: dict[str, Tensor], surrogate: nn.Module, samples: tuple[torch.Size, torch.Size]
) -> dict[str, tuple[int, ...]]:
    """The shapes of weights, moments and ring buffers, as far as the state must have them."""
    shapes = {f"surrogate.{k}": tuple(v.shape) for k, v in surrogate.state_dict().items()}
    for name, parameter in surrogate.named_parameters():
        moments = {f"adam.{name}.{key}": tuple(parameter.shape) for key in MOMENTS}
        moments[f"adam.{name}.step"] = ()
        if any(key in state for key in moments):  # none before the parameter's first gradient
            shapes |= moments
    fields: dict[str, tuple[torch.Size | tuple[()], ...]] = {
        "unseen": ((), (), ()),
        "replay": (*samples, ()),
    }
    for ring, parts in fields.items():
        keys = [f"{ring}.{i}" for i in range(len(parts))]
        held = [state[key] for key in keys if key in state]
        if held:  # all fields or none: a buffer may be empty, or left out of the state
            count = len(held[0]) if held[0].ndim else ANY
            shapes |= {key: (count, *part) for key, part in zip(keys, parts, strict=True)}
    return shapes


def _load_figures(learner: Learner, state: dict[str, Tensor]) -> None:
    figures = state["figures"].tolist()
    learner.pairs.metric_mean, learner.mean_error, learner.trust.level = figures[:3]
    learner.trust.judged = bool(figures[3])
    learner.trust.untrusted_updates = int(figures[4])
    learner.trust.norms = state["norms"].to(learner.device, copy=True)
    learner.history.load(state["history"])


def _load_rest(learner: Learner, state: dict[str, Tensor]) -> None:
    for ring, replay in (("replay.", learner.pairs.replay), ("unseen.", learner.pairs.unseen)):
        replay.clear()
        part = _part(state, ring)
        if part:
            replay.add(*(part[key].to(learner.device) for key in sorted(part)))
    counters = state["counters"].tolist()
    learner.calls, learner.updates, learner.pairs.skipped, learner.warm_up_left = counters[:4]
    learner.came_fitted = bool(counters[4])
    learner.pairs.forget()
    learner.pairs.evaluations.lost, learner.pairs.evaluations.unmeasured = counters[5:]
    learner.pairs.random.set_state(state["random"].cpu())
    learner.sync.agreed = False


def _load_adam(
    optimizer: torch.optim.Optimizer, surrogate: nn.Module, moments: dict[str, Tensor]
) -> None:
    names = [name for name, p in surrogate.named_parameters() if p.requires_grad]
    state: dict[str, Any] = optimizer.state_dict()
    state["state"] = {
        index: {key: moments[f"{name}.{key}"].clone() for key in MOMENTS}
        for index, name in enumerate(names)
        if f"{name}.step" in moments
    }
    optimizer.load_state_dict(state)


def _part(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def _tensor(values: int | list[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.int64, device="cpu")
