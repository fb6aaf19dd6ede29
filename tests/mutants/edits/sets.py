"""Faults in the gradient of metrics of lists, sets and masks."""

from .edit import of

SPREAD = "sets/test_spread.py"
KNOWN = f"{SPREAD} sets/test_known.py sets/test_set_tasks.py"

EDITS = [
    *of(
        "_sets/spread.py",
        KNOWN,
        ("seen.isfinite() & ~fill_values(seen)", "seen.isfinite()"),
        ("seen.isfinite() & ~fill_values(seen)", "present & ~fill_values(seen)"),
        ("else rows - centre", "else rows"),
        ("from_mean.where(varies, 0.0) / (count * variance)", "from_mean / (count * variance)"),
        ("from_mean.where(varies, 0.0) / (count * variance)", "from_mean / variance"),
        ("rows - along.sum(1, keepdim=True)", "rows + along.sum(1, keepdim=True)"),
        ("along.sum(1, keepdim=True)", "along.sum()"),
        ("self._counted & rows.isfinite()", "self._counted"),
    ),
    *of(
        "_sets/known.py",
        KNOWN,
        ("gradient = self.spread.moving(gradient)", "gradient = gradient"),
        (
            "self.spread.moving(self.known.gradient(self._weights))",
            "self.known.gradient(self._weights)",
        ),
        ("rest - self._columns @ self._weights.float()", "rest"),
        ("stands_for * rest, 0.0", "rest, 0.0"),
    ),
    *of(
        "_sets/task.py",
        f"{KNOWN} sets/test_correction.py test_check.py",
        ("spread.moving(gradient).float()", "gradient.float()"),
        ("send(noise, batch.prediction.device)", "send(noise, batch.prediction)"),
        (
            "self._correction.read(batch, correction)",
            "self._correction.read(batch, 0 * correction)",
        ),
        ("AHEAD if learns else 0", "0"),
        ("(~undefined).sum().clamp(min=1)", "len(known)"),
        ("values = known.where(~undefined, mean)", "values = known"),
        (".float(), undefined)", ".float())"),
        ("self.r2 >= LEAST_KNOWN", "self.r2 >= 0.0"),
    ),
    *of(
        "ranking/_list_task.py",
        f"{KNOWN} sets/test_sets_held_wrongly.py",
        ("(z + self.spread(z, batch).mean) / 2", "z / 2"),
        ("losses.where(defined(batch.target, batch.present), torch.nan)", "losses"),
    ),
    *of(
        "segmentation/_mask_task.py",
        "sets/test_sets_held_wrongly.py",
        ("if batch.exclusive:\n            raise", "if False:\n            raise"),
    ),
    *of(
        "_diagnosis/check.py",
        "test_check.py",
        ("_deviations(CHANCE / len(self.steps), self.samples)", "2"),
        ("sure and all(change > 0 for change, _ in pairs)", "sure"),
        ("if self.samples == 1:", "if False:"),
    ),
    *of(
        "_sets/correction.py",
        "sets/test_correction.py sets/test_known.py",
        ("self.quality.sure_signal_to_noise**2", "self.quality.sure_signal_to_noise"),
        ("ratio + 1 / HORIZON", "ratio + HORIZON"),
        ("1.0 if len(batch.target) == 1 else 0.0", "0.0"),
    ),
    *of(
        "_measured/quality.py",
        "sets/test_correction.py measured/test_quality.py",
        ("signal - SURE * by_chance", "signal"),
        ("by_chance = 4 * math.sqrt", "by_chance = 40 * math.sqrt"),
        ("(2 - MOMENTUM) / MOMENTUM)", "1e9)"),
    ),
    *of(
        "_sets/hits.py",
        KNOWN,
        ("(logits - self.threshold) / self.width", "logits / self.width"),
        ("return logits > threshold", "return logits > 0"),
        (
            "self._counted(said * self.marked), self._counted(said)",
            "self._counted(said), self._counted(said)",
        ),
        ("chances * (1 - chances)", "chances"),
        ("(of_claims - of_hits) * iou.square()", "of_claims * iou.square()"),
        ("(variance / union.square())", "(variance / union)"),
    ),
    *of(
        "_evaluation/scale.py",
        "sets/test_sets_held_wrongly.py",
        ("SLACK * (1 + own.abs())", "1e9"),
        ("SLACK * (1 + own.abs())", "-1.0"),
    ),
    *of(
        "_core.py",
        f"{KNOWN} test_boxes_tasks.py",
        ("torch.full_like(finite, torch.nan, dtype=torch.float32)", "torch.zeros(len(finite))"),
        ("return values.where(finite, torch.nan)", "return values"),
    ),
    *of(
        "_measured/core.py",
        f"{KNOWN} sets/test_sets_held_wrongly.py",
        ("if record.calls or self.estimator.updates or not", "if not"),
        (
            "with self.unchanged_by_errors():\n            self.estimator.follow",
            "if True:\n            self.estimator.follow",
        ),
    ),
]
