"""The smallest network that can be pruned: one logistic neuron with two weights, trained to the end. No torch.

Small enough that every quantity is exact: the loss's minimum, its curvature there, and what each removal really costs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

Array = np.ndarray
SAMPLES = 400
STRENGTHS = (2.0, 1.2)  # weights that the labels are drawn with, inputs of standard deviation 1
STEPS = 50  # of Newton's method; a handful are enough


@dataclass(frozen=True)
class Removal:
    """One weight is gone: ``removed`` (0 or 1), where the weights are then, the climb foretold (None: the method tells none),
    and the real one, in nats."""

    removed: int
    end: Array
    predicted: float | None
    real: float


@dataclass(frozen=True)
class Neuron:
    r""":math:`p = \sigma(w_1 x_1 + w_2 x_2)` with mean cross-entropy, at its minimum.

    ``correlation`` of the two inputs, -1 to 1; ``size``: standard deviation of the second input, the first has 1. Labels are
    drawn from such a neuron, so that the second weight grows as its input shrinks.
    """

    correlation: float = 0.8
    size: float = 1.0
    seed: int = 0

    @cached_property
    def _data(self) -> tuple[Array, Array]:
        draw = np.random.default_rng(self.seed)
        a, b = draw.standard_normal((2, SAMPLES))
        x = np.stack([a, self.correlation * a + (1 - self.correlation**2) ** 0.5 * b], 1)
        y = (draw.random(SAMPLES) < _sigmoid(x @ np.array(STRENGTHS))).astype(float)
        return x * np.array([1.0, self.size]), y

    def loss(self, w: Array) -> Array:
        """Mean cross-entropy in nats at weights [..., 2]: [...]."""
        x, y = self._data
        z = np.asarray(w) @ x.T  # [..., n]
        return (np.logaddexp(0, z) - y * z).mean(-1)

    def slope(self, w: Array) -> Array:
        """The gradient: [2]."""
        x, y = self._data
        return x.T @ (_sigmoid(x @ w) - y) / len(x)

    def curvature(self, w: Array) -> Array:
        """The Hessian, which for this neuron is its Gauss-Newton matrix and its Fisher: [2, 2]."""
        x, _ = self._data
        p = _sigmoid(x @ w)
        return (x * (p * (1 - p))[:, None]).T @ x / len(x)

    @cached_property
    def trained(self) -> Array:
        """The weights at the minimum, by Newton's method: [2]."""
        w = np.zeros(2)
        for _ in range(STEPS):
            w = w - np.linalg.solve(self.curvature(w), self.slope(w))
        return w

    def removals(self) -> dict[str, Removal]:
        r"""What magnitude, OBD and OBS each do: the weight of least :math:`|w|`, of least :math:`\tfrac12 H_{qq} w_q^2`, of
        least :math:`w_q^2 / 2 [H^{-1}]_{qq}` with the other moved along (methods' keys -> removal)."""
        w, H = self.trained, self.curvature(self.trained)
        inverse = np.linalg.inv(H)
        zeroed, moved = np.diag(H) * w**2 / 2, w**2 / (2 * np.diag(inverse))
        found = {
            key: self._removal(int(np.argmin(score)), predicted)
            for key, score, predicted in (("magnitude", np.abs(w), None), ("obd", zeroed, zeroed))
        }
        q = int(np.argmin(moved))
        return found | {"obs": self._removal(q, moved, w - w[q] / inverse[q, q] * inverse[:, q])}

    def _removal(self, q: int, predicted: Array | None, end: Array | None = None) -> Removal:
        end = self.trained.copy() if end is None else end
        end[q] = 0.0
        real = float(self.loss(end) - self.loss(self.trained))
        return Removal(q, end, None if predicted is None else float(predicted[q]), real)


def _sigmoid(z: Array) -> Array:
    return 1 / (1 + np.exp(-z))
