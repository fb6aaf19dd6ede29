"""How many operations a call gives to its device, counted on the CPU."""

from contextlib import contextmanager

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# These start nothing: they make room, or look at a number.
NOTHING = {"empty_like", "new_empty", "new_empty_strided", "_unsafe_view", "_local_scalar_dense"}


class Launches(TorchDispatchMode):
    """Counts operations on tensors that would be on a GPU, each a kernel or more there.

    These are the ones given, what is sent there, and all that is computed from them. Views count
    not.

    Attributes:
        names: of what was counted.
    """

    def __init__(self, *tensors):
        super().__init__()
        self.names = []
        # Held, so that their memory is not taken for that of others.
        self.there = {}
        self.paused = False
        self.place(tensors)

    def place(self, tensors):
        for tensor in tensors:
            self.there[tensor.untyped_storage().data_ptr()] = tensor

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        results = func(*args, **(kwargs or {}))
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        if not any(x.untyped_storage().data_ptr() in self.there for x in given):
            return results
        self.place(x for x in tree_leaves(results) if isinstance(x, Tensor))
        name = func.overloadpacket.__name__
        returns = [part.alias_info for part in func._schema.returns]
        view = any(alias is not None and not alias.is_write for alias in returns)
        if not (view or self.paused or name in NOTHING):
            self.names.append(name)
        return results

    def sending(self, send):
        """The same way to the device, where a copy counts."""

        def counted(tensor, to):
            self.names.append("copy to the device")
            sent = send(tensor, to).clone()
            self.place([sent])
            return sent

        return counted

    @contextmanager
    def one(self, name):
        """All within it is one kernel."""
        self.names.append(name)
        self.paused = True
        try:
            yield
        finally:
            self.paused = False
