"""What tells how the loss does: the gradient check, the report, its `repr`. Changes nothing."""
