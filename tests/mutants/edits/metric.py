"""Faults in how the metric is called, and in what it said."""

from .edit import of

FORMS = "test_calling_form.py test_metrics_held_wrongly.py"

EDITS = [
    *of(
        "_metric/metric.py",
        "test_metric.py test_threads_and_processes.py measured/test_bounded.py",
        (
            "errors = self.best - values if self.higher_is_better",
            "errors = values - self.best if self.higher_is_better",
        ),
        ("errors >= -slack", "errors >= 0"),
        ("errors.clamp(min=0)", "errors"),
        ("fine.flatten(1).all(1) if fine.ndim > 1", "fine.flatten(1).any(1) if fine.ndim > 1"),
        ("sample if positions is None else positions[sample]", "sample"),
        (
            "return self.best - errors if self.higher_is_better",
            "return errors - self.best if self.higher_is_better",
        ),
        ("not (undefined or is_wild(predictions[place[0]]))", "not undefined"),
        ("not (undefined or is_wild(", "not (is_wild("),
        ("place[0] not in causes and values", "values"),
        ("(values.abs() <= LARGEST)", "values.isfinite()"),
    ),
    *of(
        "_metric/called.py",
        "test_metric.py test_threads_and_processes.py measured/test_bounded.py",
        (
            "and not is_wild(predictions[sample]):\n                    break",
            ":\n                    break",
        ),
        ("values.fill_(torch.nan)", "pass"),
    ),
    *of(
        "_metric/values.py",
        FORMS + " test_metric.py test_threads_and_processes.py",
        (
            "return function(_copied(predictions), _copied(targets))",
            "return function(_copied(predictions), targets)",
        ),
        ("return objects.clone()", "return objects"),
        ("return list(objects)\n", "return objects\n"),
        ("values.shape == (count, 1)", "values.shape == (count, 2)"),
        ("outputs == sample_shape[: len(outputs)]", "outputs == sample_shape[-len(outputs) :]"),
        ('.to("cpu", torch.float64)', '.to("cpu", torch.float32)'),
    ),
    *of(
        "_metric/coupling.py",
        "test_calling_form.py test_metrics_held_wrongly.py",
        ("if again is not None and same(first, again):", "if again is not None:"),
        ("if len(different) >= ENOUGH_VALUES:", "if len(different) >= 1:"),
        (
            "values.flatten(1).mean(1) if values.ndim > 1",
            "values.flatten(1)[:, 0] if values.ndim > 1",
        ),
    ),
    *of(
        "_metric/calling_form.py",
        "test_calling_form.py test_metrics_held_wrongly.py",
        ("return shapes if count > 1 and sorted(shapes)", "return shapes if sorted(shapes)"),
        ("if CLASSES_LAST in str(refusal):", "if False:"),
        ("and not probe.answers_one():", "and False:"),
        ("and not probe.answers_one():", "and True:"),
        ("two.shape[1:] == one.shape[1:]", "True"),
        ("if same(equal[0], unequal[0]) or probe.minds_order():", "if probe.minds_order():"),
        ("if not many:", "if many:"),
        ("if looks_inside and probe.scores_batches():", "if looks_inside:"),
    ),
    *of(
        "_metric/probe.py",
        "test_calling_form.py test_metrics_held_wrongly.py",
        ("sorted({0, middle, last})", "[0]"),
        ("between = min(known) <= two <= max(known)", "between = True"),
        ("not same(first, second)", "same(first, second)"),
        ("(text, text),", "(text, text[1:]),"),
        (
            "ordered is not None and turned is not None and not same(ordered, turned)",
            "ordered is not None and turned is not None and same(ordered, turned)",
        ),
    ),
    *of(
        "_metric/parameters.py",
        "test_metrics_held_wrongly.py",
        ("second == PREDICTED or _only(of_first, TRUE)", "True"),
        ("_only(of_second, PREDICTED - CANDIDATES)", "True"),
        ("if len(roles) == 1", "if roles"),
    ),
]
