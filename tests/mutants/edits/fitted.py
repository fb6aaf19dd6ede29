"""Faults in the surrogate that is fitted to values, and followed."""

from .edit import of

CALLS = "test_value_core.py test_filter.py test_base_loss.py test_gradient.py test_stats.py"
CALLS += " test_warm_up.py test_loss.py test_held_wrongly.py test_workers.py"

EDITS = [
    *of(
        "_fitted/core.py",
        CALLS,
        ("learning and (len(batch.target) > 0 or self.sync.active)", "learning"),
        ("with nullcontext() if learning else learner.unchanged():", "with nullcontext():"),
        (
            "with learner.unchanged_by_errors():\n                evaluation",
            "with nullcontext():\n                evaluation",
        ),
        ("base is not None and self.base_share:", "base is not None:"),
        ("learner.calls += 1", "pass"),
        ("torch.where(factors == 0, 0.0, gradient * factors)", "gradient"),
        ("torch.where(factors == 0, 0.0, gradient * factors)", "gradient * factors"),
        ("gradient, learning and learner.learn()", "gradient, learner.learn()"),
        ("torch.promote_types(prediction.dtype, net.dtype)", "net.dtype"),
        ("flatten(1).isfinite().all(1)", "flatten(1).isfinite().any(1)"),
        ("z.new_full((len(z),), torch.nan)", "z.new_full((len(z),), 0.0)"),
        ("value.detach().where(finite, torch.nan)", "value.detach()"),
        ("[hooks.decode(self.task, batch), *draws]", "[*draws, hooks.decode(self.task, batch)]"),
        ("1.0 if self.learner.warming_up else self.recipe", "self.recipe"),
        ("torch.zeros_like(surrogate) if self.learner.warming_up else surrogate", "surrogate"),
        ("base if share == 1 else (1 - share)", "(1 - share)"),
        ("(1 - share) * surrogate + share * base", "share * surrogate + (1 - share) * base"),
        ("self.idle_calls += 1", "self.idle_calls += 2"),
        ("batches is None and self.recipe.data", "self.recipe.data"),
        ("1 + queue.ahead - len(started)", "queue.ahead - len(started)"),
        ("if learner.updates:\n", "if True:\n"),
        ("queue.wait_for_due()\n", "pass\n"),
        ("queue.cancel(evaluation)", "pass"),
        ("self.base_share if self.has_base_loss else 0.0", "self.base_share"),
    ),
    *of(
        "_fitted/state.py",
        "test_value_core.py test_state.py test_state_of_others.py test_workers.py test_sync.py",
        (
            "queue.lost,\n                queue.unmeasured,",
            "queue.unmeasured,\n                queue.lost,",
        ),
        ("learner.pairs.shapes is None or learner.net.module", "learner.net.module"),
        (
            "learner.pairs.metric_mean,\n                learner.mean_error,",
            "learner.mean_error,\n                learner.pairs.metric_mean,",
        ),
        ('if ring != "replay" or with_replay:', "if True:"),
        (
            "learner.calls, learner.updates, _, learner.warm_up_left",
            "learner.updates, learner.calls, _, learner.warm_up_left",
        ),
        ('impossible(state) + not_finite(state, ("scale",))', "impossible(state)"),
        ("if not (fitted or faults) and", "if False and"),
        ("if not key.startswith(parts)]", "]"),
        ("learner.forget()\n", "pass\n"),
        ('_empty_surrogate(learner, shapes, "meta")', '_empty_surrogate(learner, shapes, "cpu")'),
        ("except Exception as error:  # noqa: BLE001 - of", "except ValueError as error:  # of"),
        ('learner.penalty = state["penalty"].to(learner.net.device, copy=True)', "pass"),
        ('load_adam(learner.net.optimizer, trained, part(state, "adam."))', "pass"),
        ("named_parameters() if p.requires_grad]", "named_parameters()]"),
        ('learner.net.scale = state["scale"].to(learner.net.device, copy=True)', "pass"),
        ("learner.lost_updates = int(figures[2])", "pass"),
        ("replay.clear()\n", "pass\n"),
        ("for key in sorted(fields)", "for key in sorted(fields, reverse=True)"),
        ("learner.pairs.forget()", "pass"),
        ("queue.cancel_all()", "pass"),
        ('learner.pairs.random.set_state(state["random"].cpu())', "pass"),
        ("learner.sync.agreed = False", "pass"),
    ),
]
