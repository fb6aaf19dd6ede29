"""The gradient that is measured: of the metric's mean under noise on the prediction.

`core` is one call of the loss from draws to gradient, of any estimator; `followed` makes that one
with the base loss's. Of plain tensors the estimator is `gaussian`: `smoothing` makes the noise,
`score_function` the gradient, `control_variate` says what the surrogate's slope is worth, `slope`
fits it, and `forms` has its nets. `regressed` is for draws of which something is known, as of
readings and of sets. Knows no domain.
"""
