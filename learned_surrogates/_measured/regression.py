"""What a difference is worth in terms of several others that are known: running least squares."""

import torch
from torch import Tensor

# Share that a call takes of what is known of those before: it tells of some 50 calls.
MOMENTUM = 0.02
# A difference counts as no more than so many times the usual one: an outlier must not bend the fit.
MOST = 20.0


class Regression:
    """Least squares of d on columns x, over calls, the older ones counting less and less.

    Args:
        ridge: the penalty on each column's weight, `(columns,)`: so many rows of the column's usual
            size in which d is 0. A column that is likely to matter needs little, one of many that
            may not needs more. Columns of one penalty share their usual size, so that one that has
            hardly varied yet does not get any weight.
    """

    def __init__(self, ridge: Tensor):
        self.ridge = ridge.to(dtype=torch.float64, device="cpu")
        alike = (self.ridge[:, None] == self.ridge).double()
        self._alike = alike / alike.sum(1, keepdim=True)
        columns = len(ridge)
        #: Sums of x x' and x d over rows, and the number of rows that tell, faded alike.
        self.normal = torch.zeros(columns, columns, dtype=torch.float64, device="cpu")
        self.products = torch.zeros(columns, dtype=torch.float64, device="cpu")
        self.rows = torch.zeros((), dtype=torch.float64, device="cpu")
        #: Sum of d squared.
        self.squares = torch.zeros((), dtype=torch.float64, device="cpu")
        #: Of the columns, `(columns,)`.
        self.weights = torch.zeros(columns, dtype=torch.float64, device="cpu")

    def take(self, columns: Tensor, differences: Tensor) -> None:
        """Takes a call's rows: columns `(n, columns)` and differences `(n,)`, on the CPU."""
        x, d = columns.double(), differences.double()
        usable = d.isfinite() & x.isfinite().all(1)
        x, d = x[usable], d[usable]
        if self.squares > 0:
            largest = MOST * (self.squares / self.rows).sqrt()
            d = d.clamp(-largest, largest)
        keep = 1 - MOMENTUM
        self.normal = keep * self.normal + x.T @ x
        self.products = keep * self.products + x.T @ d
        # Rows in which nothing varies tell nothing.
        self.rows = keep * self.rows + x.any(1).sum()
        self.squares = keep * self.squares + d.square().sum()

    def solve(self) -> None:
        """Fits the weights to what was taken."""
        energy = self.normal.diagonal()
        varies = energy > 0
        usual = torch.maximum(energy, self._alike @ energy)
        penalty = self.ridge * usual / self.rows.clamp(min=1)
        normal = self.normal + torch.diag(torch.where(varies, penalty, 1.0))
        factor, failed = torch.linalg.cholesky_ex(normal)
        if not failed:
            weights = torch.cholesky_solve(self.products[:, None], factor)[:, 0]
            self.weights = weights.where(varies, 0.0)

    @property
    def sums(self) -> list[Tensor]:
        """All that the weights follow from."""
        return [self.normal, self.products, self.rows, self.squares]

    @sums.setter
    def sums(self, sums: list[Tensor]) -> None:
        self.normal, self.products, self.rows, self.squares = (
            each.to(self.ridge, copy=True) for each in sums
        )
