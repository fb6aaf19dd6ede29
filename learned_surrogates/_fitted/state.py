"""A learner's state as named tensors, and back."""

import torch
from torch import Tensor, nn

from .._evaluation.queue import Queue
from .._state.tensors import (
    ANY,
    VERSION,
    Faults,
    Shapes,
    adam_shapes,
    as_tensor,
    check_shapes,
    impossible,
    load_adam,
    negative,
    not_finite,
    part,
    ring_shapes,
    save_adam,
    wrong_version,
)
from .learner import REMEMBERED, Learner

# What the state of a loss that has not been called has.
ALWAYS = ("version", "counters", "random")
# Beginnings of what depends on the surrogate.
OWN = ("surrogate.", "adam.", "unseen.", "replay.")


def save(learner: Learner, queue: Queue, *, with_replay: bool) -> dict[str, Tensor]:
    """The state: counters, random stream, weights, Adam's moments, ring buffers.

    A loss that has not been called yet has no weights and no pairs to save.
    """
    state = {
        "version": as_tensor(VERSION),
        "counters": as_tensor(
            [
                learner.calls,
                learner.updates,
                learner.pairs.skipped,
                learner.warm_up_left,
                queue.lost,
                queue.unmeasured,
            ]
        ),
        "random": learner.pairs.random.get_state(),
    }
    if learner.pairs.shapes is None or learner.net.module is None:
        return state
    state |= {
        "z_shape": as_tensor(list(learner.pairs.shapes[0])),
        "target_shape": as_tensor(list(learner.pairs.shapes[1])),
        "scale": learner.net.scale,
        "penalty": learner.penalty,
        "figures": torch.tensor(
            [
                learner.pairs.metric_mean,
                learner.mean_error,
                learner.lost_updates,
            ],
            dtype=torch.float64,
            device="cpu",
        ),
        "history": learner.history.save(),
    }
    state |= {f"surrogate.{k}": v for k, v in learner.net.module.state_dict().items()}
    state |= save_adam(learner.net.optimizer, dict(learner.net.module.named_parameters()))
    for ring, replay in (("unseen", learner.pairs.unseen), ("replay", learner.pairs.replay)):
        if ring != "replay" or with_replay:
            state |= {f"{ring}.{i}": samples for i, samples in enumerate(replay.oldest_first())}
    return state


def shared(learner: Learner) -> dict[str, Tensor]:
    """What processes that fit one surrogate together have in common, on the CPU."""
    own = ("random", "penalty", "figures", "history", "unseen.")
    state = save(learner, learner.pairs.queue, with_replay=False)
    return {key: tensor.cpu() for key, tensor in state.items() if not key.startswith(own)}


def share(learner: Learner, state: dict[str, Tensor]) -> None:
    """Takes what another process has `shared`; pairs and random stream stay what they are."""
    shapes = _shapes(state)
    surrogate = learner.net.module or _empty_surrogate(learner, shapes, "cpu")
    _attach(learner, surrogate, learner.pairs.shapes or shapes, state)
    learner.calls, learner.updates, _, learner.warm_up_left = state["counters"][:4].tolist()


def load(state: dict[str, Tensor], learner: Learner, queue: Queue) -> Faults:
    """Takes a saved state, unless it has faults: then the learner is left as it was."""
    fitted = any(key not in ALWAYS for key in state)
    # The version before the keys: those of another one may well be others.
    faults = (
        wrong_version(state)
        or check_shapes(state, _header_shapes(learner, fitted), beside=OWN)
        or impossible(state) + negative(state, ("counters",)) + not_finite(state, ("scale",))
    )
    if faults:
        return faults
    if not fitted:
        learner.forget()
        _load_rest(learner, queue, state)
        return faults

    shapes, header = _shapes(state), _header_shapes(learner, fitted)
    try:
        # What is in the state is held against a surrogate before there is memory for one.
        surrogate = learner.net.module or _empty_surrogate(learner, shapes, "meta")
        faults = check_shapes(state, header | _body_shapes(state, surrogate, shapes))
        if faults:
            return faults
        surrogate = learner.net.module or _empty_surrogate(learner, shapes, "cpu")
    except Exception as error:  # noqa: BLE001 - of whatever a spoilt state asks for
        return [f"the surrogate of the state cannot be made: {error}"]
    _attach(learner, surrogate, shapes, state)
    learner.penalty = state["penalty"].to(learner.net.device, copy=True)
    _load_figures(learner, state)
    _load_rest(learner, queue, state)
    return faults


def _shapes(state: dict[str, Tensor]) -> tuple[torch.Size, torch.Size]:
    return torch.Size(state["z_shape"].tolist()), torch.Size(state["target_shape"].tolist())


def _empty_surrogate(
    learner: Learner, shapes: tuple[torch.Size, torch.Size], device: str
) -> nn.Module:
    """A surrogate for samples of these shapes, whose weights are to be loaded.

    On the meta device it takes no memory, so that no shape is too large to be asked about.
    """
    with torch.device(device):
        z, target = torch.zeros(1, *shapes[0]), torch.zeros(1, *shapes[1], dtype=torch.int64)
        return learner.net.make_surrogate(z, target)


def _attach(
    learner: Learner,
    surrogate: nn.Module,
    shapes: tuple[torch.Size, torch.Size],
    state: dict[str, Tensor],
) -> None:
    """Gives the learner a surrogate with the state's weights, moments and scale."""
    surrogate.load_state_dict(part(state, "surrogate."))
    learner.net.attach(surrogate, shapes)
    named = dict(surrogate.named_parameters())
    load_adam(learner.net.optimizer, named, part(state, "adam."))
    learner.net.scale = state["scale"].to(learner.net.device, copy=True)


def _header_shapes(learner: Learner, fitted: bool) -> Shapes:
    shapes: Shapes = {
        "version": (),
        "counters": (6,),
        "random": tuple(learner.pairs.random.get_state().shape),
    }
    if fitted:
        shapes |= {"z_shape": (ANY,), "target_shape": (ANY,)}
        shapes |= {"scale": (), "penalty": (), "figures": (3,)}
        shapes |= {"history": (ANY, len(REMEMBERED))}
    return shapes


def _body_shapes(
    state: dict[str, Tensor], surrogate: nn.Module, samples: tuple[torch.Size, torch.Size]
) -> Shapes:
    """The shapes of weights, moments and ring buffers, as far as the state must have them."""
    shapes = {f"surrogate.{k}": tuple(v.shape) for k, v in surrogate.state_dict().items()}
    shapes |= adam_shapes(state, dict(surrogate.named_parameters()))
    shapes |= ring_shapes(state, "unseen", [(), (), ()])
    return shapes | ring_shapes(state, "replay", [*map(tuple, samples), ()])


def _load_figures(learner: Learner, state: dict[str, Tensor]) -> None:
    figures = state["figures"].tolist()
    learner.pairs.metric_mean, learner.mean_error = figures[:2]
    learner.lost_updates = int(figures[2])
    learner.history.load(state["history"])


def _load_rest(learner: Learner, queue: Queue, state: dict[str, Tensor]) -> None:
    for ring, replay in (("replay.", learner.pairs.replay), ("unseen.", learner.pairs.unseen)):
        replay.clear()
        fields = part(state, ring)
        if fields:
            replay.add(*(fields[key].to(learner.net.device) for key in sorted(fields)))
    counters = state["counters"].tolist()
    learner.calls, learner.updates, learner.pairs.skipped, learner.warm_up_left = counters[:4]
    learner.pairs.forget()
    queue.cancel_all()
    queue.lost, queue.unmeasured = counters[4:]
    learner.pairs.random.set_state(state["random"].cpu())
    learner.sync.agreed = False
