"""Faults in the expected edit distance and its gradient."""

from .edit import of

TESTS = "test_expected_edit_distance.py"

EDITS = [
    *of(
        "text/_closed_form/difference_rows.py",
        TESTS,
        ('outside = {"keep": 1.0,', 'outside = {"keep": 0.0,'),
        ("mixing.fill_diagonal_(0)", "pass"),
        ("carry[:, :, 0] = v\n", "pass\n"),
        ("mix[:, -1].addcmul_(state[:, -1], moves.leave[at])", "pass"),
        ("total += last\n", "pass\n"),
        ("mix /= mix.sum(0).clamp_(min=LEAST_MASS)", "mix *= self.inverse[:, at]"),
        ("lasts[j].addcmul_(last, moves.hold[at])", "pass"),
        ("mixed[:, -1].addcmul_(d_mix[:, -1], moves.leave[at])", "pass"),
        ("d_last += d_total\n", "pass\n"),
        ("d_last += d_mix.sum(1)", "pass"),
        ("wide[2].mul_(self.inverse).neg_()", "wide[2].mul_(self.inverse)"),
        ("narrow[0].mul_(self.inverse[-1])", "pass"),
        ("if gradient and self.size < self.count:", "if False:"),
        ("self._backward(first + begin,", "self._backward(first,"),
    ),
    *of(
        "text/_closed_form/column_steps.py",
        TESTS,
        ("torch.mul(d, a1, out=right[0])", "torch.mul(d, a, out=right[0])"),
        ("return b * c1, (b * u)", "return b * c, (b * u)"),
        ("out=d_left[1]).addcmul_(plus, u, value=-1)", "out=d_left[1])"),
        ("if match else substitution, v + deletion", "if match else substitution, v + insertion"),
        ("(d_pairs * h[None]).sum(1)", "(d_pairs * h[None]).sum(0)"),
    ),
    *of(
        "text/_closed_form/chained_step.py",
        TESTS,
        ("d_given -= (d_given * given).sum(1, keepdim=True)", "pass"),
        ("_turned(match, beside, own)", "_turned(match, v, own)"),
        ("= own[..., :-1, :]", "= own[..., 1:, :]"),
    ),
    *of(
        "text/_closed_form/frame_moves.py",
        TESTS,
        ("mass[..., -1].addcmul_(leave, self.before[..., -2])", "pass"),
        ("keep[..., -1] *= outputs.again", "pass"),
        ("self.before[0, :, -1] = 1", "pass"),
        ("d_again -= d_leave", "pass"),
        ("d_special[:-1] += d_before[1:, :, -1]", "pass"),
        ("torch.addcmul(d_masses[t], self.goes_on[t], later)", "d_masses[t]"),
    ),
    *of(
        "text/_closed_form/recursion.py",
        TESTS,
        ("level[:-1].addcdiv_(pull[1:], some[:-1], value=-1)", "pass"),
        ("of_target = (d_characters - mean[..., None])", "of_target = d_characters"),
        ("others.scatter_(2, index, 0)", "pass"),
        ("d_logits[:-1].addcmul_(ratio, others[1:])", "pass"),
        ("(d_special - mean).mul_(special)", "d_special.mul(special)"),
    ),
    *of(
        "text/_closed_form/spelling.py",
        "test_expected_edit_distance.py",
        ("alike.get(letter, [letter])", "[letter]"),
        ("[letter for letter, _ in own]", "range(len(own))"),
    ),
]
