"""Predictions of another form than the one that is taken, which would be trained in silence."""

import functools
import warnings

import numpy as np
import pytest
import torch
from conftest import CLASSES, make_arguments, make_loss
from torch import nn
from torch.nn import functional

from learned_surrogates import FitValues, LearnedSurrogateLoss, text

CLASS_DIM = {"ctc": -1, "characters": 1}


def handed_over(case, function, dtype=torch.float32, impossible=()):
    """A call with the softmax, say, of the logits in the place of what the loss takes."""
    logits, *rest = make_arguments(case)
    logits = logits.detach()
    for index in impossible:
        logits.select(CLASS_DIM[case], index).fill_(-torch.inf)
    prediction = function(logits, dim=CLASS_DIM[case]).to(dtype)
    return (prediction.requires_grad_(), *rest)


@pytest.mark.parametrize("case", CLASS_DIM)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("call", ["forward", "check"])
def test_a_softmax_in_the_place_of_its_logarithm_is_doubted_once(case, dtype, call):
    criterion, arguments = make_loss(case), handed_over(case, torch.softmax, dtype)
    with pytest.warns(UserWarning, match=r"seems to hold probabilities.*log\(\)"):
        criterion(*arguments) if call == "forward" else criterion.check([arguments])
    criterion(*arguments)


def test_padding_neither_hides_a_softmax_nor_looks_like_one():
    criterion = make_loss("ctc")
    log_probs, *rest = handed_over("ctc", torch.softmax)
    padded = torch.cat([log_probs.detach(), torch.full((3, 4, CLASSES), torch.nan)])
    with pytest.warns(UserWarning, match="seems to hold probabilities"):
        criterion(padded.requires_grad_(), *rest)


PARTIAL = [
    functools.partial(functional.ctc_loss, zero_infinity=True),
    functools.partial(functional.nll_loss, reduction="sum"),
    functools.partial(functools.partial(functional.cross_entropy, ignore_index=0), reduction="sum"),
]


@pytest.mark.parametrize(
    "base_loss", [nn.CTCLoss(zero_infinity=True), functional.ctc_loss, PARTIAL[0]]
)
def test_logits_that_break_the_base_loss_are_doubted(base_loss):
    logits = torch.randn(9, 4, CLASSES, requires_grad=True)
    _, *rest = make_arguments("ctc")
    with pytest.warns(UserWarning, match=r"wrong about such scores.*log_probs\.log_softmax"):
        make_loss("ctc", base_loss=base_loss)(logits, *rest)


@pytest.mark.parametrize("case", CLASS_DIM)
@pytest.mark.parametrize("function", [torch.log_softmax, lambda logits, dim: 3 * logits])
def test_logits_and_their_log_softmax_are_not_doubted(case, function):
    """Nor do logits break any other loss than CTC's; and a class may be impossible."""
    prediction, *rest = handed_over(case, function, impossible=[2])
    base_loss = lambda prediction, *rest: prediction.logsumexp(CLASS_DIM[case]).mean()  # noqa: E731
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_loss(case, base_loss=base_loss)(prediction, *rest)
        if function is torch.log_softmax and case == "ctc":
            make_loss(case, base_loss=nn.CTCLoss(zero_infinity=True))(prediction, *rest)


@pytest.mark.filterwarnings("ignore:.*is wrong about such scores")
@pytest.mark.parametrize(
    "loss", [nn.CrossEntropyLoss(), nn.NLLLoss(), functional.cross_entropy, *PARTIAL[1:]]
)
def test_a_cross_entropy_beside_classes_last_is_refused(loss):
    """Where there are as many positions as classes, it would take one for the other."""
    task = text.PerPosition("abc", classes_last=True)
    logits = torch.randn(2, 4, 4, requires_grad=True)
    target = torch.tensor([[1, 2, 3, 0], [2, 0, 0, 0]])
    criterion = LearnedSurrogateLoss(text.edit_distance, task=task, base_loss=loss)
    with pytest.raises(ValueError, match=r"cross_entropy\(input\.transpose\(1, 2\), target\)"):
        criterion(logits, target)
    assert criterion.stats["calls"] == 0
    criterion(logits[0], target[0])  # (length, classes), as it takes them

    def transposed(input, target):
        return functional.cross_entropy(input.transpose(1, 2), target)

    for beside, form in ((transposed, task), (loss, text.PerPosition("abc"))):
        criterion = LearnedSurrogateLoss(text.edit_distance, task=form, base_loss=beside)
        criterion(logits, target)


@pytest.mark.parametrize("symbol", ["[GO]", "<unk>", "</s>", "<|pad|>", "{end}"])
def test_special_symbols_of_several_characters_are_doubted(symbol):
    with pytest.warns(UserWarning, match=f"sees as {len(symbol)} characters"):
        text.PerPosition([symbol, "a", "b"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text.CTC(["ab", "<", "[", "]", ">", "a>", "<>", "\ue000"])


def test_word_pieces_read_what_they_can_spell():
    alphabet = text.CTC(["ab", "a", "bc", "cd", "abcx"]).alphabet
    for word in ("abc", "abcd", "aab", "abccd", "abcx", "", "abab"):
        assert alphabet.decode(alphabet.encode(word)) == word
    assert alphabet.encode("abcd") == [1, 4]  # as few as will do
    several = text.CTC(["xy", "x", "yzw", "yz", "w"], blank=0).alphabet
    assert several.encode("xyzw") == [2, 3]  # not "x", "yz", "w"
    for word in ("abcc", "b", "x"):
        with pytest.raises(ValueError, match="the alphabet lacks"):
            alphabet.encode(word)


@pytest.mark.parametrize("index", [-1, -100, 4])
def test_a_class_that_the_alphabet_lacks_is_no_text(index):
    """Python would take -1 for the last one."""
    alphabet = text.PerPosition("abc").alphabet
    assert alphabet.decode(torch.tensor([1, 0, 3])) == "ac"
    with pytest.raises(ValueError, match=f"class {index} is none of the alphabet's, 0 to 3"):
        alphabet.decode([1, index])


# As GPT-2's, pieces are bytes; the text is what they make together.
BYTES = ["h", "\xc3", "\xb6", "r", "t"]


def of_bytes(indices):
    assert 5 not in indices
    return "".join(BYTES[i] for i in indices).encode("latin-1").decode(errors="replace")


@pytest.mark.parametrize("kind", ["ctc", "characters"])
@pytest.mark.parametrize("surrogate", [None, "embedding"])
def test_a_tokenizers_decode_makes_the_metrics_texts(kind, surrogate):
    seen = []

    def metric(predictions, targets):
        seen.extend(zip(predictions, targets))
        return text.edit_distance(predictions, targets)

    make = {"ctc": text.CTC, "characters": text.PerPosition}[kind]
    task = make(BYTES, 5, decode=of_bytes)
    options = {"surrogate": surrogate, "draws": 0, "fit": FitValues(warm_up=1)}
    if surrogate is None:
        options = {}
    criterion = LearnedSurrogateLoss(metric, task=task, base_loss=None, **options)
    assert "local-global" not in repr(criterion)
    target = [0, 1, 2, 3, 4]
    read = [0, 3, 1, 2, 4, 5]
    logits = 20 * functional.one_hot(torch.tensor(read), 6).float()[:, None]
    if kind == "ctc":
        call = logits.log_softmax(-1), torch.tensor([target]), [6], [5]
    else:
        call = logits.permute(1, 2, 0), torch.tensor([[*target, 5]])
    criterion(call[0].requires_grad_(), *call[1:])
    assert ("hr\xf6t", "h\xf6rt") in seen  # two characters, of three bytes, changed places
    assert all(target == "h\xf6rt" for _, target in seen)


def test_a_decode_that_is_none_is_named():
    with pytest.raises(TypeError, match="decode must be a function"):
        text.CTC("ab", decode="utf-8")
    with pytest.raises(TypeError, match="decode must return a string; it returned list"):
        text.CTC("ab", decode=list).alphabet.decode([1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text.CTC(["[GO]", "a"], decode=str)


OTHER_DIMS = {("ctc", 0): "positions", ("ctc", 1): "batch"}
OTHER_DIMS |= {("characters", 2): "positions", ("characters", 0): "batch"}


@pytest.mark.parametrize("function", [torch.softmax, torch.log_softmax])
@pytest.mark.parametrize(("case", "dim"), OTHER_DIMS)
def test_a_softmax_along_another_dimension_is_doubted(case, dim, function):
    logits, *rest = make_arguments(case)
    classes = f"classes are in dimension {-2 if case == 'characters' else -1}"
    with pytest.warns(UserWarning, match=f"over the {OTHER_DIMS[case, dim]}.*{classes}"):
        make_loss(case)(function(logits, dim), *rest)


def test_the_classes_of_one_sample_are_where_they_are_said_to_be():
    logits = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))  # (classes, length)
    criterion = text.ExpectedEditDistance(text.PerPosition("abc"))
    with pytest.warns(UserWarning, match="over the positions.*classes are in dimension -2"):
        criterion(logits.softmax(-1), torch.tensor([1, 2, 0, 0, 0]))


@pytest.mark.parametrize(("dim", "doubt"), [(0, "over the positions"), (2, "hold probabilities")])
def test_the_closed_form_alone_doubts_what_it_gets_once(dim, doubt):
    logits, *rest = make_arguments("ctc")
    criterion = text.ExpectedEditDistance(make_loss("ctc").task)
    with pytest.warns(UserWarning, match=doubt):
        criterion(logits.softmax(dim), *rest)
    criterion(logits.softmax(dim), *rest)


def test_a_softmax_is_one_where_some_positions_are_padded_with_zeros():
    log_probs, *rest = handed_over("ctc", torch.softmax)
    with torch.no_grad():
        log_probs[-2:] = 0
    with pytest.warns(UserWarning, match="seems to hold probabilities"):
        make_loss("ctc")(log_probs, *rest)


@pytest.mark.parametrize("base_loss", [nn.NLLLoss(), functional.nll_loss, PARTIAL[1]])
def test_logits_beside_a_likelihood_of_logarithms_are_doubted(base_loss):
    logits, *rest = make_arguments("characters")
    with pytest.warns(UserWarning, match=r"wrong about such scores.*input\.log_softmax\(-2\)"):
        make_loss("characters", base_loss=base_loss)(logits, *rest)


def test_targets_that_all_begin_with_the_end_symbol_are_doubted():
    """As where one symbol starts and ends a text: all would be empty."""
    targets = torch.tensor([[0, 1, 2, 0], [0, 3, 0, 0]])
    criterion = LearnedSurrogateLoss(text.edit_distance, task=text.PerPosition("abc"))
    logits = torch.randn(2, 4, 4, requires_grad=True)
    with pytest.warns(UserWarning, match=r"all targets begin with the end symbol, class 0"):
        criterion(logits, targets)
    for some in (torch.tensor([[0, 1, 2, 0], [3, 0, 0, 0]]), torch.tensor([[0, 0, 0, 0]] * 2)):
        LearnedSurrogateLoss(text.edit_distance, task=text.PerPosition("abc"))(logits, some)


def test_frames_that_are_too_few_for_all_targets_are_doubted():
    log_probs = torch.randn(9, 2, 4).log_softmax(-1).requires_grad_()
    targets = torch.tensor([[1, 2, 3], [1, 2, 0]])
    criterion = LearnedSurrogateLoss(text.edit_distance, task=text.CTC("abc"))
    with pytest.warns(UserWarning, match=r"less than target_lengths for all samples, 1 and 3"):
        criterion(log_probs, targets, [1, 1], [3, 2])
    LearnedSurrogateLoss(text.edit_distance, task=text.CTC("abc"))(
        log_probs, targets, [1, 2], [3, 2]
    )


@pytest.mark.parametrize("characters", [set("abc"), frozenset("ab"), {"a": 2, "b": 1}])
def test_an_alphabet_without_an_order_is_refused(characters):
    """Of a set, the order is another one in each process."""
    with pytest.raises(TypeError, match=r"in the order of their classes.*sorted\(vocabulary"):
        text.CTC(characters)


@pytest.mark.parametrize("role", ["blank", "end"])
def test_a_special_class_is_an_index(role):
    make = {"blank": text.CTC, "end": text.PerPosition}[role]
    assert type(make("ab", np.int64(2)).alphabet.special) is int
    with pytest.raises(ValueError, match=f"{role} must be a class index.*got True"):
        make("ab", True)
