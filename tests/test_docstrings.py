import doctest
import importlib.util
import pkgutil

import pytest

import learned_surrogates

# Numba is an extra, and Triton comes with PyTorch for GPUs.
NEEDS = {"row_kernels": "numba", "column_kernels": "numba"}
NEEDS |= dict.fromkeys(("triton_columns", "triton_frames", "triton_rows"), "triton")
PUBLIC = (
    learned_surrogates,
    learned_surrogates.text,
    learned_surrogates.boxes,
    learned_surrogates.ranking,
    learned_surrogates.retrieval,
    learned_surrogates.classification,
    learned_surrogates.segmentation,
)


def all_modules():
    yield learned_surrogates
    for found in pkgutil.walk_packages(learned_surrogates.__path__, "learned_surrogates."):
        # Those import their libraries: tests/loops runs their examples.
        if found.name.startswith("learned_surrogates.integrations."):
            continue
        needs = NEEDS.get(found.name.rsplit(".", 1)[-1])
        if needs and importlib.util.find_spec(needs) is None:
            continue
        yield importlib.import_module(found.name)


def public_names(module):
    return {name: value for name, value in vars(module).items() if not name.startswith("_")}


def examples():
    for module in all_modules():
        names = {name: value for room in PUBLIC for name, value in public_names(room).items()}
        for test in doctest.DocTestFinder().find(module, extraglobs=names | vars(module)):
            if test.examples:
                yield test


EXAMPLES = list(examples())


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_example_of_docstring(example):
    report = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    result = runner.run(example, out=report.append)
    assert result.failed == 0, "".join(report)


def test_the_main_classes_have_examples():
    names = {example.name.rsplit(".", 1)[-1] for example in EXAMPLES}
    assert {"LearnedSurrogateLoss", "CTC", "PerPosition", "Rotated", "Tensors", "warm_up"} <= names


def test_every_public_object_is_documented():
    for module in PUBLIC:
        for name, value in public_names(module).items():
            assert value.__doc__, name
