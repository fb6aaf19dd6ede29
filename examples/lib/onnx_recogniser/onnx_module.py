"""An ONNX graph as a PyTorch module that can be trained: each node is one call of `OPERATORS`."""

import torch
from onnx import ModelProto, helper, numpy_helper
from torch import Tensor, fx, nn

from .operators import OPERATORS


def module_of(model: ModelProto) -> fx.GraphModule:
    """The module, called with the graph's inputs in their order; returns its first output.

    `module.code` is what it runs. Its parameters are all arrays of floats but single numbers and a
    batch normalisation's statistics; these, and what counts or indexes, are buffers.

    Args:
        model: that `onnx.load` read, or that `onnx.utils.Extractor` cut out of another.

    Raises:
        NotImplementedError: an operator is not among `OPERATORS`.
    """
    holder, graph = nn.Module(), fx.Graph()
    arrays = arrays_of(model)
    statistics = {
        name
        for node in model.graph.node
        if node.op_type == "BatchNormalization"
        for name in node.input[3:]
    }
    values = {
        given.name: graph.placeholder(f"input_{i}") for i, given in enumerate(model.graph.input)
    }

    def value(name: str) -> fx.Node:
        if name not in values:
            array, own = arrays[name], f"array_{len(values)}"
            if array.is_floating_point() and array.numel() > 1 and name not in statistics:
                holder.register_parameter(own, nn.Parameter(array))
            else:
                holder.register_buffer(own, array)
            values[name] = graph.get_attr(own)
        return values[name]

    # `get_attr` looks for what it names in here.
    graph.owning_module = holder
    for node in model.graph.node:
        if node.op_type == "Constant":
            continue
        if node.op_type not in OPERATORS:
            raise NotImplementedError(
                f"{node.op_type}, of node {node.name!r}: add it to OPERATORS in operators.py"
            )
        attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        inputs = tuple(value(name) if name else None for name in node.input)
        values[node.output[0]] = graph.call_function(OPERATORS[node.op_type], inputs, attributes)
    graph.output(values[model.graph.output[0].name])
    return fx.GraphModule(holder, graph)


def arrays_of(model: ModelProto) -> dict[str, Tensor]:
    """The file's arrays by name, whether it has them beside the graph or as nodes of it."""
    constants = (node for node in model.graph.node if node.op_type == "Constant")
    arrays = {array.name: array for array in model.graph.initializer}
    arrays |= {node.output[0]: node.attribute[0].t for node in constants}
    return {name: torch.tensor(numpy_helper.to_array(array)) for name, array in arrays.items()}
