"""A metric, called in the form that it takes, which is found out and watched."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from .calling_form import AS_A_SAMPLE, OF_TEXTS, Form, find_form
from .coupling import COUPLED, CROSSED, coupling, crosstalk, told
from .error import CallingFormError, ReturnedError
from .parameters import takes_texts
from .probe import Answer, fault_of_all, same, varies
from .values import as_values, ask, is_wild, of_other_shapes, shape_of_samples, stacked

CALLED_ALONE = (
    "metric {!r} makes {}, which is not the mean of its samples', {:g}. It is called with one "
    "sample at a time, and that is what is learned. If that is meant, {}"
)
MEANT = {
    "one": "return one number a sample, [metric([p], [t]) for p, t in zip(predictions, targets)]",
    "sample": "say batched=False",
}
#: What was raised, by the sample that raised it.
Causes = dict[int, Exception]


class Called:
    """The user's callable as `(predictions, targets) -> values, causes`.

    Args:
        function: of the prediction and the target, batched or for one sample.
        name: its name.
        form: how it is called; None finds out at the first call.
        on_error: "raise" stops at the first sample that has no value.
    """

    def __init__(self, function: Callable[..., Any], name: str, form: Form | None, on_error: str):
        self.function = function
        self.name = name
        #: How the function is called; None until that is known.
        self.form = form
        self.on_error = on_error
        #: What the user is to be told of it, and whether something was said.
        self.word: str | None = None
        self.said = False

    @cached_property
    def of_texts(self) -> bool:
        """Whether it is one of texts, to which tensors say nothing."""
        return takes_texts(self.function)

    @property
    def batched(self) -> bool | None:
        """Whether the function takes whole batches; None until that is known."""
        return None if self.form is None else self.form.takes == "batch"

    def answers(self, predictions: Any, targets: Any) -> tuple[Tensor, Causes]:
        """Values (NaN where there is none), and what was raised by which sample.

        In the form that is known; where none is, in one that is found.

        Raises:
            CallingFormError: it is not clear how it is to be called.
        """
        if self.of_texts and isinstance(predictions, Tensor):
            raise CallingFormError(OF_TEXTS.format(self.name))
        known, refusal, form, count = self.form, None, self.form, len(targets)
        if form is None:
            finding = find_form(self.function, self.name, predictions, targets)
            form, refusal, self.word = finding.form, finding.refusal, finding.word
            self.form = form if finding.settled else None
        values, causes = self._evaluate(form, predictions, targets)
        if form.takes == "batch" and form.watched and count > 1 and not causes:
            if (changed := coupling(self.function, predictions, targets, values)) is not None:
                self.word = COUPLED.format(self.name, *changed)
                self.form = form = Form("one")
                values, causes = self._evaluate(form, predictions, targets)
            elif (crossed := crosstalk(self.function, predictions, targets, values)) is not None:
                self.word = CROSSED.format(self.name, *crossed)
                self.form = form = Form("batch")
            elif self.form is not None:
                self.form = replace(form, watched=0 if told(values) else form.watched - 1)
        if known is None and causes:
            # A failing metric does not tell which form it has: ask again at the next call.
            self.form = None
            causes = self._explained(causes, refusal, predictions, targets)
        elif form.takes != "batch" and form.watched and count > 1:
            self._watch(form, predictions, targets, values)
        return values, causes

    def _explained(
        self, causes: Causes, refusal: Exception | None, predictions: Any, targets: Any
    ) -> Causes:
        """Causes where no form is known: one for all samples, or each with what a batch did."""
        if (whole := fault_of_all(self.function, predictions, targets, causes.get(0))) is not None:
            return dict.fromkeys(range(len(targets)), whole)
        said = refusal if isinstance(refusal, ReturnedError) else f"had raised {refusal!r}"
        for cause in causes.values() if refusal else ():
            cause.add_note(f"Called with a batch, it {said}")
        return causes

    def _evaluate(self, form: Form, predictions: Any, targets: Any) -> tuple[Tensor, Causes]:
        """Values (NaN where there is none), and what was raised by which sample."""
        batched, shape, count = form.takes == "batch", shape_of_samples(predictions), len(targets)
        whole: Exception | None = None
        if batched:
            try:
                return as_values(ask(self.function, predictions, targets), count, shape), {}
            except Exception as error:  # noqa: BLE001 - one sample may have caused it: which?
                whole = error
        returned = isinstance(whole, ReturnedError)
        found: list[Tensor | None] = [None] * count
        causes: Causes = {}
        for sample in range(count):
            part = sample if form.takes == "sample" else slice(sample, sample + 1)
            try:
                value = ask(self.function, predictions[part], targets[part])
                found[sample] = as_values(value, 1 if batched else None, shape)
            except Exception as error:  # noqa: BLE001 - whatever a user's metric raises
                causes[sample] = error
                # What is returned of any sample is wrong with the metric, and no sample's fault.
                if returned and isinstance(error, ReturnedError) and len(causes) == sample + 1:
                    continue
                if self.on_error == "raise" and not is_wild(predictions[sample]):
                    break
        if returned and all(isinstance(causes.get(i), ReturnedError) for i in range(count)):
            assert whole is not None
            causes = dict.fromkeys(range(count), whole)
        for sample, odd in of_other_shapes(found).items():
            found[sample], causes[sample] = None, odd
        values = stacked(found, batched)
        if batched and not causes:
            # Every sample alone is fine, so the batch as a whole is not: its own error says more.
            try:
                as_values(ask(self.function, predictions, targets), count, shape)
            except Exception as error:  # noqa: BLE001
                values.fill_(torch.nan)
                causes = dict.fromkeys(range(count), error)
        return values, causes

    def _watch(self, form: Form, predictions: Any, targets: Any, values: Tensor) -> None:
        """Has a word for what makes something else of a batch than its samples' mean or sum."""
        whole = Answer(self.function, predictions, targets).mean
        known = values[values.isfinite()].tolist()
        if whole is not None and len(known) > 1:
            total = math.fsum(known)
            mean = total / len(known)
            if not (same(whole[0], mean) or same(whole[0], total)):
                parts = self.name, whole[1], mean, MEANT[form.takes]
                word = CALLED_ALONE.format(*parts)
                if isinstance(predictions, Tensor):
                    word += f". {AS_A_SAMPLE}"
                self.word = self.word or word
            elif not varies(known):
                # Of samples that are all alike, most scores are the mean.
                self.form = self.form and replace(form, watched=form.watched - 1)
                return
        self.form = self.form and replace(form, watched=0)
