"""Good calls, after one to three things that users do to them."""

import torch
from calls import BOXES, MODES, Call, good_call
from hypothesis import strategies as st
from mutations import container, dtype, foreign, junk, leaf, memory, shape, wild
from torch import Tensor


def samples(draw, call: Call) -> None:
    """Another number of samples, in all arguments alike; or one without a batch."""
    if not all(isinstance(v, Tensor) for v in call.arguments.values()):
        return
    if any(value.ndim == 0 or value.layout != torch.strided for value in call.arguments.values()):
        return
    kind = draw(st.sampled_from(["none", "one", "unbatched", "two"]))
    prediction = call.names[0]
    for name, value in call.arguments.items():
        dim = call.batch_dim if name == prediction else 0
        if value.ndim <= dim or not value.shape[dim]:
            return
        count = {"none": 0, "two": 2}.get(kind, 1)
        part = value.detach().narrow(dim, 0, min(count, value.shape[dim]))
        part = part.squeeze(dim) if kind == "unbatched" else part
        call.arguments[name] = leaf(part, value)
    call.same = False
    call.history.append(f"samples: {kind}")


def size(draw, call: Call) -> None:
    """Another call altogether: of longer or shorter text, or of other numbers."""
    length = draw(st.sampled_from([1, 6, 20]))
    if length < 6 and call.case.startswith("ctc"):
        length = 30
    call.arguments = good_call(call.case, length, length=length).arguments
    call.same = False
    call.history = [f"length: {length}"]


def signature(draw, call: Call) -> None:
    kind = draw(st.sampled_from(["missing", "superfluous", "unknown", "keywords", "twice"]))
    if kind == "missing" and call.arguments:
        call.arguments.pop(draw(st.sampled_from(list(call.arguments))))
        call.superfluous = ()
    elif kind == "superfluous":
        call.superfluous += (draw(st.sampled_from([None, 1, torch.zeros(4)])),) * 4
    elif kind == "unknown":
        call.arguments["weights"], call.by_keyword = None, True
    elif kind == "keywords":
        call.by_keyword = True
    elif call.names[0] in call.arguments:
        call.superfluous, call.by_keyword = (call.prediction,), True
    call.same &= kind == "keywords"
    call.history.append(f"signature: {kind}")


def reduction(draw, call: Call) -> None:
    call.reduction = draw(st.sampled_from(["mean", "sum", "avg", None, 3]))
    call.history.append(f"reduction: {call.reduction}")


def mode(draw, call: Call) -> None:
    call.mode = draw(st.sampled_from(MODES))
    call.history.append(f"mode: {call.mode}")


def detector(draw, call: Call) -> None:
    """What detectors give beside boxes."""
    if call.case not in BOXES:
        return
    name = draw(st.sampled_from(["weight", "avg_factor", "reduction_override"]))
    options = {
        "weight": [
            torch.ones(4),
            torch.tensor([0.0, 1.0, 2.0, 0.0]),
            torch.zeros(4),
            torch.tensor([True, False, True, True]),
            torch.tensor([float("nan"), 1.0, 1.0, 1.0]),
            torch.tensor([float("inf"), 1.0, 1.0, 0.0]),
            torch.tensor([-1.0, 1.0, 1.0, 1.0]),
            torch.ones(4, dtype=torch.complex64),
            torch.ones(4, device="meta"),
            torch.ones(3),
            torch.ones(4, 1),
            torch.ones(()),
            torch.ones(4).to_sparse(),
            [1.0] * 4,
        ],
        "avg_factor": [
            2.0,
            0,
            -1,
            float("nan"),
            True,
            torch.tensor(3.0),
            torch.tensor(3),
            torch.tensor([3.0]),
            torch.tensor([1.0, 2.0]),
            torch.tensor(1j),
            torch.ones((), device="meta"),
            torch.tensor(3.0, requires_grad=True),
            "2",
        ],
        "reduction_override": ["none", "mean", "sum", "avg", 3, ["mean"]],
    }
    value = draw(st.sampled_from(options[name]))
    call.arguments[name], call.by_keyword, call.same = value, True, False
    call.history.append(f"{name}: {value!r}")


# The more often, the more there is to try.
MUTATIONS = (
    [junk, signature, size, reduction, container]
    + 2 * [dtype, foreign, samples, mode]
    + 3 * [shape, memory, wild]
)


@st.composite
def spoilt(draw, call: Call) -> Call:
    """The call after one to three mutations."""
    kinds = MUTATIONS + (3 * [detector] if call.case in BOXES else [])
    for mutate in draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=3)):
        mutate(draw, call)
    return call
