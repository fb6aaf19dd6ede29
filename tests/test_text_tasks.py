import copy
import re
from itertools import groupby

import pytest
import torch
from conftest import (
    ALPHABET,
    CLASSES,
    assert_identical,
    make_arguments,
    make_loss,
    step,
    train,
)
from torch import nn
from within import core_of, replay_of

from learned_surrogates import LearnedSurrogateLoss, MetricError, text


def trained(case, **options):
    criterion = make_loss(case, reduction="none", **options)
    train(criterion, case, range(3))
    return criterion.eval()


def assert_same_step(criterion, first, second, crop=lambda gradient: gradient):
    (loss, gradient), (other_loss, other) = step(criterion, first), step(criterion, second)
    torch.testing.assert_close(other_loss, loss)
    torch.testing.assert_close(crop(other), gradient, atol=1e-6, rtol=1e-4)
    assert gradient.abs().sum() > 0


# CTC


def ctc_forms():
    log_probs, targets, input_lengths, target_lengths = make_arguments("ctc", seed=3)
    counts, frames = target_lengths.tolist(), input_lengths.tolist()
    concatenated = torch.cat([row[:n] for row, n in zip(targets, counts, strict=True)])
    return log_probs, {
        "tensors": (targets, input_lengths, target_lengths),
        "lists": (targets, frames, counts),
        "tuples": (targets, tuple(frames), tuple(counts)),
        "int32": (targets.int(), input_lengths.int(), target_lengths.int()),
        "concatenated": (concatenated, input_lengths, target_lengths),
        "concatenated, tuples": (concatenated, tuple(frames), tuple(counts)),
    }


@pytest.mark.parametrize("form", ctc_forms()[1])
def test_ctc_takes_whatever_ctc_loss_takes(form):
    log_probs, forms = ctc_forms()
    nn.CTCLoss()(log_probs, *forms[form])
    assert_same_step(trained("ctc"), (log_probs, *forms["tensors"]), (log_probs, *forms[form]))


def test_ctc_takes_keywords_named_as_in_ctc_loss():
    log_probs, forms = ctc_forms()
    keywords = dict(zip(("targets", "input_lengths", "target_lengths"), forms["lists"]))
    nn.CTCLoss()(log_probs=log_probs, **keywords)
    criterion = trained("ctc")
    assert_identical(
        criterion(log_probs=log_probs, **keywords), criterion(log_probs, *forms["tensors"])
    )


@pytest.mark.parametrize("kind", [torch.tensor, lambda n: torch.tensor([n]), lambda n: (n,)])
def test_ctc_takes_one_sample_as_ctc_loss_does(kind):
    log_probs, targets, input_lengths, target_lengths = make_arguments("ctc", seed=3, batch=1)
    frames, count = int(input_lengths), int(target_lengths)
    single = log_probs.detach()[:, 0].requires_grad_()
    arguments = (single, targets[0, :count], kind(frames), kind(count))
    nn.CTCLoss()(*arguments)
    criterion = trained("ctc")
    criterion.reduction = "mean"
    batched = (log_probs, targets, input_lengths, target_lengths)
    assert_same_step(criterion, arguments, batched, lambda gradient: gradient[:, 0])
    criterion.reduction = "none"
    assert criterion(*arguments).shape == ()


def test_ctc_learns_from_one_sample_without_a_batch():
    criterion = make_loss("ctc")
    log_probs, targets, _, _ = make_arguments("ctc", seed=3, batch=1)
    criterion(log_probs.detach()[:, 0].requires_grad_(), targets[0], 9, 4)
    assert criterion.stats["replay/size"] == 1


def greedy(log_probs, frames, characters, blank):
    """The text of the best class of each frame, `(time, classes)`."""
    text, previous = "", blank
    for scores in log_probs[:frames]:
        best = int(scores.argmax())
        if best not in (previous, blank):
            text += characters[best]
        previous = best
    return text


@pytest.mark.parametrize("blank", [0, 3, 6])
def test_ctc_decoding_is_that_of_a_plain_loop(blank):
    task = text.CTC(ALPHABET, blank=blank)
    characters = {c: ALPHABET[c - (c > blank)] for c in range(CLASSES) if c != blank}
    random = torch.Generator().manual_seed(blank)
    scores = torch.randn(20, 8, CLASSES, generator=random)
    scores[:, :, blank] += 0.5
    # Runs of the same class, which are to be merged.
    log_probs = scores.repeat_interleave(2, 0).log_softmax(-1)
    frames = torch.randint(0, 41, (8,), generator=random)
    classes = torch.tensor([c for c in range(CLASSES) if c != blank])
    targets = classes[torch.randint(0, CLASSES - 1, (8, 5), generator=random)]
    counts = torch.randint(0, 6, (8,), generator=random)
    decoded, expected = task.decode(task.read(log_probs, targets, frames, counts))
    assert decoded == [greedy(log_probs[:, i], frames[i], characters, blank) for i in range(8)]
    assert expected == [
        "".join(characters[c] for c in row[:n].tolist())
        for row, n in zip(targets, counts, strict=True)
    ]


@pytest.mark.parametrize("blank", [0, 3, 6])
def test_ctc_representation_is_probabilities_and_a_path_that_spells_the_target(blank):
    task = text.CTC(ALPHABET, blank=blank)
    log_probs, targets, input_lengths, target_lengths = make_arguments("ctc")
    targets = targets - (targets <= blank).long()
    batch = task.read(log_probs, targets, input_lengths, target_lengths)
    z, y = task.represent(log_probs, batch), task.expand(batch.target)
    assert z.shape == y.shape == (4, CLASSES, 9)
    for i, (frames, count) in enumerate(zip(input_lengths, target_lengths, strict=True)):
        torch.testing.assert_close(z[i, :, :frames], log_probs[:frames, i].exp().T)
        assert not z[i, :, frames:].any()
        assert not y[i, :, frames:].any()
        assert (y[i, :, :frames].sum(0) == 1).all()
        path = y[i, :, :frames].argmax(0).tolist()
        spelled = [c for c, _ in groupby(path) if c != blank]
        assert spelled == targets[i, :count].tolist()


def test_frames_beyond_the_input_length_do_not_matter():
    criterion = trained("ctc")
    log_probs, *rest = make_arguments("ctc", seed=3)
    rest[1] = torch.tensor([9, 7, 6, 6])
    noisy = torch.cat([log_probs.detach(), torch.randn(5, 4, CLASSES).log_softmax(-1)])
    for i, frames in enumerate(rest[1]):
        noisy[frames:, i] = torch.randn(14 - int(frames), CLASSES).log_softmax(-1)
    noisy.requires_grad_()
    assert_same_step(criterion, (log_probs, *rest), (noisy, *rest), lambda grad: grad[:9])
    (_, gradient) = step(criterion, (noisy, *rest))
    assert all(not gradient[n:, i].any() for i, n in enumerate(rest[1]))


def test_entries_beyond_the_target_length_do_not_matter():
    log_probs, targets, input_lengths, target_lengths = make_arguments("ctc", seed=3)
    padded = torch.full((4, 9), -1)
    for row, target, count in zip(padded, targets, target_lengths, strict=True):
        row[:count] = target[:count]
    lengths = (input_lengths, target_lengths)
    assert_same_step(trained("ctc"), (log_probs, targets, *lengths), (log_probs, padded, *lengths))


@pytest.mark.parametrize("case", ["ctc", "characters"])
def test_ragged_batches_share_one_replay(case):
    criterion = make_loss(case)
    kept = []
    for length in (7, 12, 9):
        arguments = make_arguments(case, seed=length, length=length)
        loss, gradient = step(criterion, arguments)
        assert loss.isfinite()
        assert gradient.isfinite().all()
        batch = criterion.task.read(*arguments)
        kept += list(criterion.task.represent(arguments[0].detach(), batch))
    z, target, errors = replay_of(criterion).oldest_first()
    assert z.shape == (12, CLASSES, 12)
    assert target.shape == (12, 12)
    for stored, own in zip(z, kept, strict=True):
        assert_identical(stored[:, : own.shape[1]], own)
        assert not stored[:, own.shape[1] :].any()
    value = core_of(criterion).net.value(z, core_of(criterion).net.expand(target))
    alone = core_of(criterion).net.value(
        kept[0][None], core_of(criterion).net.expand(target[:1, : kept[0].shape[1]])
    )
    torch.testing.assert_close(value[:1], alone)
    assert errors.shape == (12,)


@pytest.mark.parametrize("layout", ["aligned", "even"])
def test_ctc_bears_targets_and_inputs_of_any_length(layout):
    criterion = make_loss("ctc", task=text.CTC(ALPHABET, layout=layout))
    log_probs, *_ = make_arguments("ctc", batch=5)
    targets = torch.tensor([[1, 1, 1, 1], [1, 2, 3, 4], [0, 0, 0, 0], [2, 2, 0, 0], [3, 0, 0, 0]])
    lengths = ([3, 9, 9, 0, 1], [4, 4, 0, 2, 1])
    for _ in range(3):
        loss, gradient = step(criterion, (log_probs, targets, *lengths))
        assert loss.isfinite()
        assert gradient.isfinite().all()
    assert criterion.stats["updates"] == 3


@pytest.mark.parametrize("layout", ["aligned", "even"])
def test_a_target_too_long_for_its_frames_is_laid_out_as_far_as_it_fits(layout):
    task = text.CTC("ab", layout=layout)
    batch = task.read(torch.zeros(3, 1, 3), [[1, 1, 2]], [3], [3])
    assert (batch.target[0] - 1).tolist() == [1, 0, 1]
    assert batch.texts == ["aab"]


def test_logits_in_place_of_log_probabilities_give_the_same():
    log_probs, *rest = make_arguments("ctc", seed=3)
    logits = (log_probs.detach() + torch.randn(9, 4, 1)).requires_grad_()
    assert_same_step(trained("ctc"), (log_probs, *rest), (logits, *rest))


@pytest.mark.parametrize("case", ["ctc", "characters"])
def test_generated_pairs_decode_to_themselves(case):
    """Their representation is what the task makes of a certain model's output."""
    task = make_loss(case).task
    readings, targets = ["", "abba", "aab", "fff"], ["a", "", "abba", "cdefab"]
    z, stored = task.encode(readings, targets, None)
    assert z.shape[-1] == stored.shape[-1]
    assert (z.sum(1) == 1).all()
    longer, _ = task.encode(readings, targets, torch.Size((7, 30)))
    assert longer.shape[-1] == 30
    if case.startswith("ctc"):
        classes = [[ALPHABET.index(c) + 1 for c in target] for target in targets]
        padded = torch.zeros(4, 6, dtype=torch.long)
        for row, labels in zip(padded, classes, strict=True):
            row[: len(labels)] = torch.tensor(labels, dtype=torch.long)
        log_probs = z.clamp(min=1e-6).log().permute(2, 0, 1)
        counts = [len(labels) for labels in classes]
        batch = task.read(log_probs, padded, [z.shape[-1]] * 4, counts)
    else:
        batch = task.read(z * 10, stored.long() - 1)
    assert task.decode(batch) == (readings, targets)
    assert_identical(batch.target, stored)


# Characters


def test_characters_take_what_cross_entropy_loss_takes():
    logits, target = make_arguments("characters", seed=3)
    nn.CrossEntropyLoss()(logits, target)
    criterion = trained("characters")
    expected = criterion(logits, target)
    keywords = {"input": logits, "target": target}
    nn.CrossEntropyLoss()(**keywords)
    assert_identical(criterion(**keywords), expected)
    assert_identical(criterion(logits, target.to(torch.uint8)), expected)
    assert_identical(criterion(logits, target.tolist()), expected)


def test_both_layouts_of_characters_agree():
    first, last = trained("characters"), make_loss("characters", reduction="none")
    last.task.classes_last = True
    with pytest.warns(UserWarning, match="classes_last was False, and is True"):
        last.load_state_dict(first.state_dict())
    logits, target = make_arguments("characters", seed=3)
    turned = logits.detach().transpose(1, 2).requires_grad_()
    loss, gradient = step(first, (logits, target))
    other_loss, other = step(last.eval(), (turned, target))
    assert_identical(other_loss, loss)
    assert_identical(other.transpose(1, 2), gradient)


@pytest.mark.parametrize("end", [0, 3, 6])
def test_characters_decoding_is_that_of_a_plain_loop(end):
    task = text.PerPosition(ALPHABET, end=end)

    def read(classes):
        string = ""
        for c in classes:
            if c == end:
                break
            if c != -100:
                string += ALPHABET[c - (c > end)]
        return string

    logits, target = make_arguments("characters", seed=end, batch=30, length=6)
    target[:, 1] = -100
    kept = logits.argmax(1)
    kept[:, 1] = -100
    decoded = task.decode(task.read(logits, target))
    assert decoded == ([read(row) for row in kept.tolist()], [read(row) for row in target.tolist()])


@pytest.mark.parametrize("end", [0, 3, 6])
def test_characters_representation_is_probabilities_and_one_hot_targets(end):
    task = text.PerPosition(ALPHABET, end=end, ignore_index=-1)
    logits, _ = make_arguments("characters", batch=2, length=5)
    a, b = [c for c in range(CLASSES) if c != end][:2]
    batch = task.read(logits, [[a, b, end, b, a], [b, b, a, end, -1]])
    z, y = task.represent(logits, batch), task.expand(batch.target)
    torch.testing.assert_close(z[0], logits.softmax(1)[0])
    torch.testing.assert_close(z[1, :, :4], logits.softmax(1)[1, :, :4])
    assert not z[1, :, 4].any()
    assert y[0].argmax(0).tolist() == [a, b, end, end, end]
    assert y[1, :, :4].argmax(0).tolist() == [b, b, a, end]
    assert y.sum(1).tolist() == [[1] * 5, [1, 1, 1, 1, 0]]


def test_ignored_positions_at_the_end_change_nothing():
    criterion = trained("characters")
    logits, target = make_arguments("characters", seed=3)
    longer = torch.cat([logits.detach(), torch.randn(4, CLASSES, 5)], 2).requires_grad_()
    ignored = torch.cat([target, torch.full((4, 5), -100)], 1)
    assert_same_step(criterion, (logits, target), (longer, ignored), lambda grad: grad[..., :9])


def test_whatever_follows_the_end_symbol_in_a_target_does_not_matter():
    logits, target = make_arguments("characters", seed=3)
    target[:, 4] = 0
    other = target.clone()
    other[:, 5:] = torch.randint(0, CLASSES, (4, 4))
    assert_same_step(trained("characters"), (logits, target), (logits, other))


def test_a_sample_that_is_ignored_whole():
    criterion = make_loss("characters")
    logits, target = make_arguments("characters")
    target[1] = -100
    loss, gradient = step(criterion, (logits, target))
    assert loss.isfinite()
    assert not gradient[1].any()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("make", [text.CTC, text.PerPosition])
def test_word_pieces(make):
    task = make(["a", "ab", "b", "\n"])
    assert task.alphabet.encode("aabb\n") == [1, 2, 3, 4]
    assert task.alphabet.decode([2, 0, 3]) == "abb"
    with pytest.raises(ValueError, match="z"):
        task.alphabet.encode("abz")


def test_what_folds_to_nothing_is_one_but_not_the_special_symbol():
    fold = lambda character: character.lower().strip("'-")  # noqa: E731
    assert text.CTC("aA'-b").alphabet.folded(fold) == [0, 1, 1, 3, 3, 5]


@pytest.mark.parametrize("make", [text.CTC, text.PerPosition])
@pytest.mark.parametrize("fold", ["lower", lambda character: 1])
def test_a_wrong_fold_is_refused(make, fold):
    with pytest.raises(TypeError, match="fold must"):
        make("aA", fold=fold)


@pytest.mark.parametrize("case", ["ctc", "characters"])
@pytest.mark.parametrize("special", [0, 3, 6])
def test_training_with_any_special_class(case, special):
    if case.startswith("ctc"):
        task = text.CTC(ALPHABET, blank=special)
        log_probs, targets, *lengths = make_arguments("ctc")
        arguments = (log_probs, targets - (targets <= special).long(), *lengths)
    else:
        task, arguments = text.PerPosition(ALPHABET, end=special), make_arguments("characters")
    criterion = make_loss(case, task=task)
    for _ in range(2):
        loss, gradient = step(criterion, arguments)
        assert loss.isfinite()
        assert gradient.abs().sum() > 0


# Wrong arguments

LOG_PROBS = torch.zeros(9, 2, CLASSES, requires_grad=True)
TARGETS = torch.ones(2, 3, dtype=torch.long)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((None, TARGETS, [9, 9], [3, 3]), TypeError, "log_probs must be a tensor"),
        ((LOG_PROBS.long(), TARGETS, [9, 9], [3, 3]), TypeError, "log_probs.*floating point"),
        ((LOG_PROBS[0, 0], TARGETS, [9, 9], [3, 3]), ValueError, "log_probs.*three dimensions"),
        ((LOG_PROBS[..., :5], TARGETS, [9, 9], [3, 3]), ValueError, "log_probs.*5 classes.*7"),
        ((LOG_PROBS, TARGETS.float(), [9, 9], [3, 3]), TypeError, "targets must be integers"),
        ((LOG_PROBS, "ab", [9, 9], [3, 3]), TypeError, "targets must be integers"),
        ((LOG_PROBS, ["ab", "c"], [9, 9], [3, 3]), TypeError, "targets must be integers"),
        ((LOG_PROBS, None, [9, 9], [3, 3]), TypeError, "targets must be integers"),
        ((LOG_PROBS, TARGETS[:1], [9, 9], [3, 3]), ValueError, "targets have 1 rows.*2"),
        ((LOG_PROBS, TARGETS[None], [9, 9], [3, 3]), ValueError, "targets must be padded"),
        ((LOG_PROBS, TARGETS[0], [9, 9], [3, 3]), ValueError, "concatenated targets have 3.*6"),
        ((LOG_PROBS, TARGETS + 6, [9, 9], [3, 3]), ValueError, r"targets.*class 7.*0\.\.6"),
        ((LOG_PROBS, TARGETS - 1, [9, 9], [3, 3]), ValueError, "targets of sample 0.*blank"),
        ((LOG_PROBS, TARGETS, [9], [3, 3]), ValueError, "input_lengths has 1 entries.*2"),
        ((LOG_PROBS, TARGETS, [9, 10], [3, 3]), ValueError, r"input_lengths.*1 is 10.*0\.\.9"),
        ((LOG_PROBS, TARGETS, [9, -1], [3, 3]), ValueError, "input_lengths.*1 is -1"),
        ((LOG_PROBS, TARGETS, [9.5, 9], [3, 3]), TypeError, "input_lengths must be integers"),
        ((LOG_PROBS, TARGETS, None, [3, 3]), TypeError, "input_lengths must be integers"),
        ((LOG_PROBS, TARGETS, [9, 9], [3]), ValueError, "target_lengths has 1 entries.*2"),
        ((LOG_PROBS, TARGETS, [9, 9], [3, 4]), ValueError, r"target_lengths.*1 is 4.*0\.\.3"),
        ((LOG_PROBS, TARGETS, [9, 9], [True, True]), TypeError, "target_lengths.*integers"),
        ((LOG_PROBS, TARGETS, [9, 9]), TypeError, "target_lengths"),
    ],
)
def test_wrong_arguments_of_ctc_are_named(arguments, error, message):
    criterion = make_loss("ctc")
    with pytest.raises(error, match=message):
        criterion(*arguments)
    assert criterion.stats["calls"] == 0


INPUT = torch.zeros(2, CLASSES, 4, requires_grad=True)
TARGET = torch.ones(2, 4, dtype=torch.long)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((INPUT.tolist(), TARGET), TypeError, "input must be a tensor; got list"),
        ((INPUT.long(), TARGET), TypeError, "input must be floating point"),
        ((INPUT[0, 0], TARGET), ValueError, "input must have three dimensions"),
        ((INPUT.transpose(1, 2), TARGET), ValueError, "input has.*4 classes.*7"),
        ((INPUT, TARGET.float()), TypeError, "target must be integers"),
        ((INPUT, TARGET[:1]), ValueError, r"target must hold.*\(2, 4\).*\(1, 4\)"),
        ((INPUT, TARGET[:, :3]), ValueError, r"target must hold.*\(2, 4\).*\(2, 3\)"),
        ((INPUT[0], TARGET), ValueError, r"target must hold.*\(4,\)"),
        ((INPUT, TARGET * 7), ValueError, r"target of sample 0 has class 7.*0\.\.6"),
        ((INPUT, TARGET * -1), ValueError, "target of sample 0 has class -1"),
        ((INPUT,), TypeError, "target"),
    ],
)
def test_wrong_arguments_of_characters_are_named(arguments, error, message):
    criterion = make_loss("characters")
    with pytest.raises(error, match=message):
        criterion(*arguments)
    assert criterion.stats["calls"] == 0


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([1.0], torch.zeros(1)), TypeError, "prediction must be a tensor.*list"),
        ((torch.zeros(1), [1.0]), TypeError, "target must be a tensor.*list"),
        ((torch.zeros(()), torch.zeros(1)), ValueError, "prediction must have a batch dimension"),
        ((torch.zeros(1), torch.zeros(())), ValueError, "target must have a batch dimension"),
        ((torch.zeros(2).long(), torch.zeros(2)), TypeError, "prediction must be floating point"),
        ((torch.zeros(2, 1), torch.zeros(3, 1)), ValueError, r"same batch size.*\(2, 1\).*\(3, 1"),
        ((torch.zeros(2, 1),), TypeError, "target"),
    ],
)
def test_wrong_arguments_of_tensors_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        make_loss()(*arguments)


@pytest.mark.parametrize("make", [text.CTC, text.PerPosition])
@pytest.mark.parametrize(
    ("alphabet", "error"),
    [
        ("", ValueError),
        ([], ValueError),
        ("aba", ValueError),
        (["a", ""], ValueError),
        ([1, 2], TypeError),
        (None, TypeError),
        (5, TypeError),
    ],
)
def test_unusable_alphabets_are_refused(make, alphabet, error):
    with pytest.raises(error, match="alphabet"):
        make(alphabet)


@pytest.mark.parametrize(("make", "name"), [(text.CTC, "blank"), (text.PerPosition, "end")])
@pytest.mark.parametrize("special", [-1, 3, "a", None, 1.0])
def test_a_special_class_out_of_range_is_refused(make, name, special):
    with pytest.raises(ValueError, match=rf"{name} must be a class index in 0\.\.2"):
        make("ab", special)


def test_an_unknown_layout_is_refused():
    with pytest.raises(ValueError, match="layout must be one of 'aligned', 'even'"):
        text.CTC("ab", layout="centered")


@pytest.mark.parametrize("index", [None, 1.5])
def test_an_ignore_index_that_is_no_integer_is_refused(index):
    with pytest.raises(TypeError, match="ignore_index must be an integer"):
        text.PerPosition("ab", ignore_index=index)


@pytest.mark.parametrize(("make", "name"), [(text.CTC, "blank"), (text.PerPosition, "end")])
def test_repr_of_a_task(make, name):
    assert repr(make("abc", 2)) == f"{make.__name__}(3 characters, {name}=2)"


def test_a_large_alphabet_is_stored_exactly():
    alphabet = [chr(0x4E00 + i) for i in range(2**15)]
    task = text.PerPosition(alphabet)
    _, target = task.encode([alphabet[-1]], [alphabet[-1]], None)
    assert int(target[0, 0]) - 1 == 2**15


def test_a_metric_that_fails_on_strings_shows_them():
    def failing(predictions, targets):
        raise ValueError("no such language")

    with pytest.raises(MetricError, match=re.escape("target 'aaa'")):
        make_loss("ctc", metric=failing)(LOG_PROBS, TARGETS, [9, 9], [3, 3])


@pytest.mark.parametrize("task", ["ctc", "characters"])
def test_outputs_without_positions_are_named(task):
    arguments = {
        "ctc": (torch.zeros(0, 2, 7), torch.ones(2, 3, dtype=torch.long), [0, 0], [3, 3]),
        "characters": (torch.zeros(2, 7, 0), torch.ones(2, 0, dtype=torch.long)),
    }
    tasks = {"ctc": text.CTC("abcdef"), "characters": text.PerPosition("abcdef")}
    criterion = LearnedSurrogateLoss(text.edit_distance, task=tasks[task])
    with pytest.raises(ValueError, match=r"no (frames|positions)"):
        criterion(*arguments[task])


@pytest.mark.parametrize("case", ["ctc", "ctc-auto"])
@pytest.mark.parametrize("number", [torch.inf, -torch.inf, torch.nan, 3e38, -3e38])
def test_log_probabilities_of_any_size_are_aligned_with_their_targets(case, number):
    criterion = make_loss(case, reduction="none")
    log_probs, *rest = make_arguments(case)
    with torch.no_grad():
        log_probs[:, 1] = number
    loss, gradient = step(criterion, (log_probs, *rest))
    assert loss.isnan().tolist() == [False, abs(number) != 3e38, False, False]
    assert gradient[:, [0, 2, 3]].isfinite().all()


@pytest.mark.parametrize("case", ["ctc", "ctc-auto"])
def test_nan_in_padding_reaches_neither_value_nor_gradient(case):
    criterion = make_loss(case, reduction="none")
    train(criterion, case, range(2))
    log_probs, targets, _, target_lengths = make_arguments(case, seed=7)
    lengths = [9, 8, 7, 9]
    twin = copy.deepcopy(criterion.eval())
    clean = twin(log_probs, targets, lengths, target_lengths)
    with torch.no_grad():
        log_probs[8, 1], log_probs[7:, 2] = torch.nan, torch.nan
    loss, gradient = step(criterion, (log_probs, targets, lengths, target_lengths))
    torch.testing.assert_close(loss, clean.detach())
    assert gradient.isfinite().all()
