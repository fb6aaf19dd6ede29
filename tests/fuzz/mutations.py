"""What users do to one argument of a good call."""

import numpy as np
import torch
from calls import Call
from hypothesis import strategies as st
from torch import Tensor, nn

FLOATS = [torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn]
INTEGERS = [torch.int64, torch.int32, torch.int16, torch.uint8]
OTHERS = [torch.bool, torch.complex64]
WILD = [float("nan"), float("inf"), float("-inf"), 1e30, -1e30, 1e12, 0.0, -3.0]
JUNK = [
    None,
    "text",
    b"bytes",
    [],
    [[]],
    [1, 2],
    [[1.5], [2.5, 3.5]],
    (),
    {},
    3,
    -1,
    2.5,
    float("nan"),
    1j,
    True,
    object(),
    int,
    np.zeros(3),
    np.array(["a", "b"]),
    np.array([None, 1], dtype=object),
    np.float32(2.0),
]


def leaf(value: Tensor, like: object = None) -> Tensor:
    """The tensor as a leaf, which requires a gradient where the other one did."""
    value, wanted = value.detach(), isinstance(like, Tensor) and like.requires_grad
    possible = value.is_floating_point() and not value.is_inference()
    return value.requires_grad_() if wanted and possible else value


def pick(draw, call: Call, of=Tensor) -> tuple[str, Tensor] | None:
    names = [name for name, value in call.arguments.items() if isinstance(value, of)]
    if not names:
        return None
    name = draw(st.sampled_from(names))
    return name, call.arguments[name]


def replace(call: Call, name: str, value: object, why: str, same: bool = False) -> None:
    old = call.arguments.get(name)
    call.arguments[name] = leaf(value, old) if isinstance(value, Tensor) else value
    call.same &= same
    call.history.append(f"{name}: {why}")


def junk(draw, call: Call) -> None:
    name = draw(st.sampled_from(list(call.arguments) or ["prediction"]))
    value = draw(st.sampled_from(JUNK))
    replace(call, name, value, f"replaced by {value!r}")


def container(draw, call: Call) -> None:
    if (picked := pick(draw, call)) is None:
        return
    name, value = picked
    if value.device.type == "meta" or value.layout != torch.strided:
        return
    kind = draw(st.sampled_from(["list", "tuple", "numpy", "parameter", "subclass"]))
    plain = value.detach()
    if kind == "parameter":
        if plain.is_floating_point() and value.requires_grad:
            call.arguments[name] = nn.Parameter(plain)
            call.history.append(f"{name}: parameter")
    elif kind == "subclass":
        replace(call, name, plain.as_subclass(Named), kind, same=True)
    elif kind == "numpy" and plain.dtype not in (torch.bfloat16, torch.float8_e4m3fn):
        replace(call, name, plain.clone().numpy(), kind)
    elif plain.dtype != torch.float8_e4m3fn:
        numbers = plain.tolist()
        replace(call, name, tuple(numbers) if kind == "tuple" and plain.ndim else numbers, kind)


class Named(Tensor):
    """A tensor of a class of the user's own."""


def dtype(draw, call: Call) -> None:
    if (picked := pick(draw, call)) is None:
        return
    name, value = picked
    to = draw(st.sampled_from(FLOATS + INTEGERS + OTHERS))
    if value.device.type == "meta" or value.layout != torch.strided or value.is_complex():
        return
    # A box or class index has fewer digits there, or no such number at all.
    same = to == torch.float64 and value.is_floating_point()
    replace(call, name, value.detach().to(to), f"as {to}", same)


def foreign(draw, call: Call) -> None:
    if (picked := pick(draw, call)) is None:
        return
    name, value = picked
    kind = draw(st.sampled_from(["meta", "sparse", "inference", "requires_grad", "detached"]))
    if value.device.type == "meta" or value.layout != torch.strided:
        return
    if kind == "meta":
        replace(call, name, value.detach().to("meta"), "on the meta device")
    elif kind == "sparse":
        replace(call, name, value.detach().to_sparse(), "sparse")
    elif kind == "inference":
        with torch.inference_mode():
            call.arguments[name] = value.detach().clone()
        call.history.append(f"{name}: made in inference mode")
    elif (value.is_floating_point() or value.is_complex()) and not value.is_inference():
        call.arguments[name] = value.detach().requires_grad_(kind == "requires_grad")
        call.history.append(f"{name}: {kind}")


def shape(draw, call: Call) -> None:
    if (picked := pick(draw, call)) is None:
        return
    name, value = picked
    if value.layout != torch.strided:
        return
    dim = draw(st.integers(0, max(0, value.ndim - 1)))
    changes = {"one dimension more": lambda: value.detach()[None], "flattened": value.flatten}
    if value.ndim:
        size = value.shape[dim]
        changes |= {
            "one dimension less": lambda: value.detach().narrow(dim, 0, min(1, size)).sum(dim),
            f"first of dimension {dim}": lambda: value.detach().narrow(dim, 0, min(1, size)),
            f"one less in dimension {dim}": lambda: value.detach().narrow(dim, 0, max(0, size - 1)),
            f"twice dimension {dim}": lambda: torch.cat([value.detach()] * 2, dim),
            f"nothing in dimension {dim}": lambda: value.detach().narrow(dim, 0, 0),
            "turned over": lambda: value.detach().permute(*range(value.ndim)[::-1]),
        }
    why = draw(st.sampled_from(list(changes)))
    try:
        changed = changes[why]()
    except RuntimeError:  # a sum of float8, say
        return
    replace(call, name, changed, why)


def memory(draw, call: Call) -> None:
    """The same numbers, laid out in another way."""
    if (picked := pick(draw, call)) is None:
        return
    name, value = picked
    if value.device.type == "meta" or value.layout != torch.strided or not value.ndim:
        return
    kind = draw(st.sampled_from(["every second", "turned", "expanded", "offset"]))
    plain = value.detach()
    if kind == "every second":
        plain = torch.stack([plain, plain], -1)[..., 0]
    elif kind == "turned":
        plain = plain.transpose(0, -1).contiguous().transpose(0, -1)
    elif kind == "offset":
        plain = torch.cat([plain, plain])[len(plain) :]
    else:
        plain = plain[:1].expand(plain.shape) if len(plain) else plain
    replace(call, name, plain, kind, same=kind != "expanded")


def wild(draw, call: Call) -> None:
    """Numbers that are none, or out of range: one, a row or all."""
    if (picked := pick(draw, call)) is None:
        return
    name, value = picked
    if value.device.type == "meta" or value.layout != torch.strided or not value.numel():
        return
    if value.is_complex() or value.dtype in (torch.bool, torch.float8_e4m3fn):
        return
    changed = value.detach().clone()
    if value.is_floating_point():
        number = draw(st.sampled_from(WILD))
    else:
        number = draw(st.sampled_from([-1, -100, 0, 7, 9, 10, 100]))
        number = number if value.dtype != torch.uint8 else abs(number)
    index = tuple(draw(st.integers(0, size - 1)) for size in value.shape)
    index = index[: draw(st.integers(0, len(index)))]
    changed[index] = number
    replace(call, name, changed, f"{number} at {index}")
