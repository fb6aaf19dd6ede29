"""The gradient that is measured: of the metric's mean under noise on the prediction.

`core` is one call of the loss from draws to gradient; `smoothing` makes the noise, `estimator` the
gradient, `control_variate` says what the surrogate's slope is worth, `slope` fits it, and `forms`
has its nets. Knows no domain: only predictions with a batch dimension, and what the metric said.
"""
