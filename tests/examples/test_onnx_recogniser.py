"""From an ONNX graph to a module, beside ONNX's own evaluation; and what it is trained on."""

from importlib.util import find_spec

import numpy as np
import pytest
import torch

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from learned_surrogates import text  # noqa: E402
from lib.onnx_recogniser import labels, recogniser  # noqa: E402
from lib.onnx_recogniser.onnx_module import module_of  # noqa: E402


def graph_of(nodes, arrays, result):
    """A file with one input "x" of four dimensions."""
    unknown = [TensorProto.FLOAT, [None] * 4]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", *unknown)],
        [helper.make_tensor_value_info(result, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    # At 12, whose nodes here are the same, ONNX's own evaluation normalises by the batch.
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)])


def small_model():
    random = np.random.default_rng(0)
    arrays = {
        "weight": random.normal(size=(4, 1, 3, 3)).astype(np.float32),
        **{name: random.uniform(0.5, 2, 4).astype(np.float32) for name in ("w", "b", "m", "v")},
        "half": np.array([0.5], np.float32),
        "shape": np.array([0, 2, -1], np.int64),
        **{name: np.array([at], np.int64) for name, at in (("from", 1), ("to", 9), ("axis", 2))},
    }
    convolution = {"strides": [1, 2], "pads": [1, 1, 1, 1], "dilations": [1, 1], "group": 2}
    nodes = [
        helper.make_node("Conv", ["x", "weight"], ["c"], kernel_shape=[3, 3], **convolution),
        helper.make_node("BatchNormalization", ["c", "w", "b", "m", "v"], ["n"], epsilon=1e-5),
        helper.make_node("HardSigmoid", ["n"], ["s"], alpha=0.3),
        helper.make_node("Mul", ["s", "half"], ["h"]),
        helper.make_node("Slice", ["h", "from", "to", "axis"], ["p"]),
        helper.make_node("Reshape", ["p", "shape"], ["r"]),
        helper.make_node("Softmax", ["r"], ["y"], axis=2),
    ]
    return graph_of(nodes, arrays, "y")


def test_the_module_is_the_graph():
    from onnx.reference import ReferenceEvaluator

    model = small_model()
    module = module_of(model)
    x = torch.randn(3, 2, 5, 7, generator=torch.Generator().manual_seed(0))
    (expected,) = ReferenceEvaluator(model).run(None, {"x": x.numpy()})
    torch.testing.assert_close(module(x), torch.from_numpy(expected), rtol=1e-5, atol=1e-6)
    # The statistics and the single number are not for training.
    assert sorted(p.numel() for p in module.parameters()) == [4, 4, 36]


def test_a_parameter_can_be_trained():
    module = module_of(small_model())
    module(torch.ones(1, 2, 5, 7))[0, 0, 0].backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in module.parameters())


def test_an_unknown_operator_is_named():
    model = graph_of([helper.make_node("Erf", ["x"], ["y"], name="third")], {}, "y")
    with pytest.raises(NotImplementedError, match="Erf, of node 'third'"):
        module_of(model)


def test_votes():
    readings = [["ab", "cd", "", "x"], ["ab", "ce", "", "y"], ["b", "cd", "q", "z"]]
    assert labels.majority(readings) == ["ab", "cd", None, None]


def test_errors_are_one_to_three_edits_in_two_texts_of_five():
    texts = ["serial"] * 2000
    wrong = labels.with_errors(texts, "abc", np.random.default_rng(0))
    distances = text.edit_distance(wrong, texts)
    assert set(distances.tolist()) == {0, 1, 2, 3}
    assert (distances > 0).mean() == pytest.approx(0.4, abs=0.04)


@pytest.mark.skipif(not find_spec("rapidocr_onnxruntime"), reason="needs rapidocr-onnxruntime")
def test_the_public_recogniser_is_onnxruntimes():
    from benchmarks.public_recogniser import TOLERANCE, verify

    assert verify() < TOLERANCE
    whole, part = recogniser.Recogniser(), recogniser.Recogniser("019 ")
    features = whole.features(torch.rand(1, 1, recogniser.HEIGHT, 64))
    of_part = [0, *(whole.alphabet.index(character) + 1 for character in "019 ")]
    expected = whole(features)[..., of_part].log_softmax(2)
    torch.testing.assert_close(part(features), expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="does not know"):
        recogniser.Recogniser("0\uf8ff")
