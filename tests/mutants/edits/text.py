"""Faults in the domain of text."""

from .edit import of

EDITS = [
    *of(
        "text/_controls.py",
        "test_readings.py",
        ("return columns - columns.mean(0)", "return columns"),
        ("gradient -= of_wrong[:, None, None]", "gradient += of_wrong[:, None, None]"),
        ("wrong = [a != b", "wrong = [a == b"),
        ("spelt = read if self.task.merges else same", "spelt = same"),
        ("self.task.chance_to_count(p, self.batch.present) * (p", "(p"),
        ("added = added * self.task.counts(drawn, self.batch.present)", "pass"),
        ("read[:, None] + (probable @ self._p)[:, None]", "read[:, None]"),
        ("likely = (-self.distance).exp()", "likely = self.distance.exp()"),
        ("1 / lengths, likely], 1)", "lengths, likely], 1)"),
        (".where(batch.present[:, None], 0.0).requires_grad_()", ".requires_grad_()"),
    ),
    *of(
        "text/_reading_draws.py",
        "test_draws.py test_readings.py test_loss.py measured/test_calls.py",
        ("/ (count - 1)", "/ count"),
        ("rest = rest - self.share *", "rest = rest - "),
        ("stands_for * rest, 0.0", "rest, 0.0"),
        ("self.task.counts(self.drawn, self.batch.present)", "self.batch.present"),
        ("-p * of_draws.sum(0)[:, None]", "torch.zeros_like(p)"),
    ),
    *of(
        "text/_readings.py",
        "test_readings.py test_draws.py test_loss.py",
        ("> (1 - READS) * characters", "< (1 - READS) * characters"),
        ("float(self.control.r2[1:].max()) >= AKIN", "float(self.control.r2[0]) >= AKIN"),
        ("return self.task.base_weight if akin else 0.0", "return self.task.base_weight"),
        ("if self.measured and not known", "if not known"),
    ),
    *of(
        "text/_per_position.py",
        "test_readings.py",
        ("ends.cumsum(-1) - ends.long() == 0", "ends.cumsum(-1) == 0"),
        ("goes_on[:, :-1]], 1)", "goes_on[:, 1:]], 1)"),
    ),
    *of(
        "text/_known_distance.py",
        "test_readings.py",
        ("type(function) is WeightedEditDistance", "isinstance(function, WeightedEditDistance)"),
    ),
    *of(
        "text/_edit_distance.py",
        "test_edit_distance.py",
        ("[word for word in text.split(separator) if word]", "text.split(separator)"),
        ("len(predictions) != len(targets)", "len(predictions) > len(targets)"),
        ("if isinstance(strings, str):", "if False:"),
        (
            "_compare_words(predictions, targets, Levenshtein.normalized_distance, separator)",
            "_compare_words(predictions, targets, Levenshtein.normalized_distance, None)",
        ),
    ),
    *of(
        "text/_weighted_edit_distance.py",
        "test_edit_distance.py",
        (
            "compare(targets, predictions, Levenshtein.distance,",
            "compare(predictions, targets, Levenshtein.distance,",
        ),
        ("/ self._unit", "/ 1"),
        ('* self._costs["wrong"] * worth_meant', '* self._costs["wrong"]'),
        (
            'row + self._costs["additional"] * worth_read[:, i, None]',
            'row + self._costs["additional"]',
        ),
        ("np.minimum.accumulate(best - missing, 1) + missing", "np.minimum.accumulate(best, 1)"),
        ("lengths == i + 1", "lengths == i"),
        ("exact and max(whole) <= LARGEST", "exact"),
        ("limit_denominator(1000)", "limit_denominator(1)", "slower, in Python, and as exact"),
    ),
    *of(
        "text/_alignment.py",
        "test_alignment.py",
        ("row[available:] = -1", "pass"),
        (
            "symbols += [blank, label] if index and label == text[index - 1]",
            "symbols += [label, label] if index and label == text[index - 1]",
        ),
        (
            "skippable[:, 3::2] = extended[:, 3::2] != extended[:, 1:-2:2]",
            "skippable[:, 3::2] = True",
        ),
        ("best[:, :2] = scores[0, :, :2]", "best[:, :1] = scores[0, :, :1]"),
        (
            "candidates[2, :, 2:] = np.where(skippable[:, 2:]",
            "candidates[2, :, 2:] = np.where(~skippable[:, 2:]",
        ),
        ("alive = (frame < frames)", "alive = (frame <= frames)"),
        (
            "best[rows, last_label] > best[rows, 2 * label_counts]",
            "best[rows, last_label] < best[rows, 2 * label_counts]",
        ),
    ),
    *of(
        "text/_alphabet.py",
        "test_text_tasks.py test_predictions_held_wrongly.py",
        ('[*tokens[:special], "", *tokens[special:]]', '["", *tokens]'),
        ("self.classes = len(tokens) + 1", "self.classes = len(tokens)"),
        ("key=len, reverse=True)\n        self._pattern", "key=len)\n        self._pattern"),
        (
            "first.setdefault(of_token, index) if token else index",
            "first.setdefault(of_token, index)",
        ),
        ("len(rest) + 1 <= len(best)", "len(rest) + 1 >= len(best)"),
    ),
    *of(
        "text/_ctc.py",
        "test_readings.py",
        ("needed <= frames", "needed < frames"),
        (".clamp(min=LEAST_LOG_PROBABILITY)", ""),
        ("zero_infinity=True", "zero_infinity=False"),
        ("where(send(frames > 0, loss.device), 0.0)", "where(send(frames > -1, loss.device), 0.0)"),
    ),
]
