"""What every score of a family's network should be, one sample and one output at a time, in no way that the library goes."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, lru_cache

import torch
import torch.nn.functional as F
from families import Family
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from pruneviz.door.parameters import named

ALPHA, DAMPING, TEMPERATURE = 1e-4, 1e-6, 200.0
CALLS: dict[str, tuple[Callable, list[str]]] = {
    "linear": (F.linear, ["input", "weight", "bias"]),
    "conv1d": (F.conv1d, ["input", "weight", "bias", "stride", "padding", "dilation", "groups"]),
    "conv2d": (F.conv2d, ["input", "weight", "bias", "stride", "padding", "dilation", "groups"]),
}
Each = dict[str, Tensor]


class Truth:
    """``expected(method, name)`` for single weights; factors by layer."""

    def __init__(self, family: Family):
        self.family, self.net = family, family.net
        self.params = named(family.net)
        self.samples = len(family.y)
        self.weights = self._matrices()

    def _matrices(self) -> list[str]:
        """Everything of several axes that is no table; a matrix that is a table too under the matrix's name."""
        of = {f"{prefix}.{k}": m for prefix, m in self.net.named_modules(remove_duplicate=False)
              for k, _ in m.named_parameters(recurse=False)}  # fmt: skip
        found: dict[int, str] = {}
        for name, p in self.params.items():
            table = name in self.family.tables or isinstance(of.get(name), nn.Embedding)
            if p.dim() > 1 and not table:
                found.setdefault(id(p), name)
        return list(found.values())

    def outputs(self, i: int | None = None) -> Tensor:
        x = self.family.x
        some = slice(None) if i is None else slice(i, i + 1)
        result = self.net(**{k: v[some] for k, v in x.items()}) if isinstance(x, dict) else self.net(x[some])
        return result if isinstance(result, Tensor) else result[self.family.options.get("outputs", "logits")].double()

    def loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Of one sample: outputs [...], y [...]."""
        if self.family.options.get("loss") == "squared":
            return sum((a - b) ** 2 for a, b in zip(outputs.flatten(), y.flatten(), strict=True))
        if outputs.dim() == 1:
            return outputs.logsumexp(0) - outputs[y]
        rows = outputs.flatten(1).T if outputs.shape[1:] == y.shape else outputs.flatten(0, -2)
        counted = [(row, int(k)) for row, k in zip(rows, y.flatten(), strict=True) if k != -100]
        return sum(row.logsumexp(0) - row[k] for row, k in counted) / len(counted)

    @lru_cache  # noqa: B019
    def mean_slopes(self, mode: bool) -> Each:
        """In evaluation mode one by one; with batch statistics all at once."""
        self.net.train(mode)
        kept = {n: b.clone() for n, b in self.net.named_buffers()}
        names = self.weights
        if mode:
            all_of_them = self.outputs()
            total = sum(self.loss(o, y) for o, y in zip(all_of_them, self.family.y, strict=True)) / self.samples
            slopes = torch.autograd.grad(total, [self.params[n] for n in names])
        else:
            each = [
                torch.autograd.grad(self.loss(self.outputs(i)[0], self.family.y[i]), [self.params[n] for n in names])
                for i in range(self.samples)
            ]
            slopes = [sum(gs) / self.samples for gs in zip(*each, strict=True)]
        self.net.eval()
        with torch.no_grad():
            for n, b in self.net.named_buffers():
                b.copy_(kept[n])
        return dict(zip(names, slopes, strict=True))

    @cached_property
    def flow(self) -> Each:
        """Hessian times gradient of the tempered loss, over the weights."""
        chosen = [self.params[n] for n in self.weights]
        with sdpa_kernel(SDPBackend.MATH):
            cold = 1.0 if self.family.options.get("loss") == "squared" else TEMPERATURE

            def slopes(i: int) -> tuple[Tensor, ...]:
                value = self.loss(self.outputs(i)[0] / cold, self.family.y[i])
                return torch.autograd.grad(value, chosen, create_graph=True)

            each = [slopes(i) for i in range(self.samples)]
            mean = [sum(g.detach() for g in gs) / self.samples for gs in zip(*each, strict=True)]
            found = [torch.zeros_like(p) for p in chosen]
            for gs in each:
                along = sum((g * v).sum() for g, v in zip(gs, mean, strict=True))
                for total, h in zip(found, torch.autograd.grad(along, chosen, allow_unused=True), strict=True):
                    total += 0 if h is None else h / self.samples
        return dict(zip(self.weights, found, strict=True))

    @cached_property
    def jacobians(self) -> list[tuple[Each, Tensor, Tensor]]:
        """Of each sample: d outputs / d parameters [o, ...], the loss's slope [o] and its Hessian [o, o] at the outputs."""
        params = {n: p for n, p in self.params.items() if p.requires_grad}
        found = []
        for i in range(self.samples):
            outputs = self.outputs(i)[0]
            rows = [
                torch.autograd.grad(o, list(params.values()), retain_graph=True, allow_unused=True)
                for o in outputs.flatten()
            ]
            J = {
                n: torch.stack([torch.zeros_like(p) if r[k] is None else r[k] for r in rows])
                for k, (n, p) in enumerate(params.items())
            }
            at, y = outputs.detach(), self.family.y[i]
            found.append((J, _slope(self.loss, at, y), _hessian(self.loss, at, y)))
        return found

    def diagonal(self, name: str) -> Tensor:
        """Of the mean Gauss-Newton matrix."""
        total = torch.zeros_like(self.params[name])
        for J, _, A in self.jacobians:
            flat = J[name].flatten(1)
            total += ((A @ flat) * flat).sum(0).view_as(total) / self.samples
        return total

    def second(self, places: int) -> Each:
        """Second derivatives of the mean loss by the first so many entries of each weight: name -> [places]."""
        found = {name: torch.zeros(places, dtype=torch.float64) for name in self.weights}
        chosen = [self.params[name] for name in self.weights]
        with sdpa_kernel(SDPBackend.MATH):
            for i in range(self.samples):
                value = self.loss(self.outputs(i)[0], self.family.y[i])
                slopes = torch.autograd.grad(value, chosen, create_graph=True)
                for name, p, slope in zip(self.weights, chosen, slopes, strict=True):
                    for q in range(places):
                        (row,) = torch.autograd.grad(slope.flatten()[q], p, retain_graph=True)
                        found[name][q] += row.flatten()[q] / self.samples
        return found

    def squares(self, name: str) -> Tensor:
        """Mean squared slope of single samples."""
        return (
            sum((slope @ J[name].flatten(1)) ** 2 for J, slope, _ in self.jacobians).view_as(self.params[name])
            / self.samples
        )

    def surgeon(self, blocks: list[list[tuple[str, Tensor]]]) -> Each:
        """w^2 / (2 [H^-1]_qq), H over each block alone: (parameter, flat places) pairs."""
        found = {name: torch.full_like(self.params[name], torch.nan).flatten() for b in blocks for name, _ in b}
        for block in blocks:
            sizes = [len(places) for _, places in block]
            H = ALPHA * torch.eye(sum(sizes), dtype=torch.float64)
            for J, _, A in self.jacobians:
                rows = torch.cat([J[name].flatten(1)[:, places] for name, places in block], 1)
                H += rows.T @ A @ rows / self.samples
            inverse = torch.linalg.inv(H).diagonal().split(sizes)
            for (name, places), d in zip(block, inverse, strict=True):
                found[name][places] = self.params[name].detach().flatten()[places] ** 2 / (2 * d)
        return {name: value.view_as(self.params[name]) for name, value in found.items()}

    @cached_property
    def factors(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Weight -> A and S by given labels [g, ...]: of every linear layer and convolution, from what it was really given."""
        totals: dict[str, list[Tensor]] = {}
        names = {id(self.params[n]): n for n in self.weights}
        for i in range(self.samples):
            with _Watch(names) as seen:
                outputs = self.outputs(i)[0]
            self.net.zero_grad()
            self.loss(outputs, self.family.y[i]).backward()
            for name, rows, groups, out in seen.found:
                g = out.grad.flatten(2).mT if out.dim() > 2 and seen.conv[name] else out.grad
                g = g.flatten(0, -2).unflatten(1, (groups, -1)).transpose(0, 1)
                r = rows.unflatten(1, (groups, -1)).transpose(0, 1)
                mine = [r.mT @ r / self.samples, g.mT @ g / len(rows) / self.samples]
                totals[name] = [a + b for a, b in zip(totals.get(name, [0, 0]), mine, strict=True)]
        self.net.zero_grad()
        return {n: (A, S) for n, (A, S) in totals.items()}

    def filters(self, layer: str, *, moved: bool) -> Tensor:
        """Rise of the loss by each output's removal; ``moved``: when the others move."""
        A, S = self.factors[f"{layer}.weight"]
        rows = self.params[f"{layer}.weight"].detach().flatten(1).view(len(A), S.shape[1], -1)
        quadratic = torch.stack([(f @ a @ f.T).diagonal() for f, a in zip(rows, A, strict=True)])
        if not moved:
            return (quadratic * S.diagonal(dim1=1, dim2=2) / 2).flatten()
        eye = torch.eye(S.shape[1], dtype=S.dtype)
        damped = [s + DAMPING * s.trace() / len(s) * eye if s.any() else eye for s in S]  # units that nothing reaches
        inverse = torch.linalg.inv(torch.stack(damped))
        return (quadratic / (2 * inverse.diagonal(dim1=1, dim2=2))).flatten()

    def directions(self, layer: str) -> tuple[Tensor, Tensor]:
        """Rise of the loss by each direction's removal, by falling eigenvalue: outputs, inputs; groups have equal ranks."""
        A, S = self.factors[f"{layer}.weight"]
        W = self.params[f"{layer}.weight"].detach()
        W = W.reshape(len(A), -1, W.shape[1], W[0, 0].numel())  # [g, out, in, k k]
        k = W.shape[3]
        mean = sum(A[:, d::k, d::k] for d in range(k)) / k
        (a, Q), (s, P) = (tuple(t.flip(-1) for t in torch.linalg.eigh(m)) for m in (mean, S))
        values = s.clamp(min=0).mean(0)[:, None] * a.clamp(min=0).mean(0)
        theta = sum((P[g].T @ W[g, :, :, d] @ Q[g]) ** 2 * values for g in range(len(A)) for d in range(k)) / 2
        return theta.sum(1), theta.sum(0)


class _Watch(TorchFunctionMode):
    """Rows that each known weight multiplies [positions, in], and what leaves; once only."""

    def __init__(self, names: dict[int, str]):
        super().__init__()
        self.names = names
        self.found: list[tuple[str, Tensor, int, Tensor]] = []
        self.conv: dict[str, bool] = {}

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        key = next((key for key, (real, _) in CALLS.items() if func is real), None)
        if key is None:
            return out
        given = dict(zip(CALLS[key][1], args, strict=False)) | (kwargs or {})
        name = self.names.get(id(given["weight"]))
        if name is not None:
            out.retain_grad()
            self.conv[name] = key != "linear"
            self.found.append((name, _rows(key, given), given.get("groups", 1), out))
        return out


def _rows(key: str, given: dict) -> Tensor:
    x, weight = given["input"].detach(), given["weight"]
    if key == "linear":
        return x.flatten(0, -2)

    def pair(value, first: int) -> tuple[int, int]:
        value = (value,) if isinstance(value, int) else tuple(value)
        return value if len(value) == 2 else (first, *value) if key == "conv1d" else value * 2

    kernel = tuple(weight.shape[2:])
    dilation, stride = pair(given.get("dilation", 1), 1), pair(given.get("stride", 1), 1)
    if key == "conv1d":
        x, kernel = x[:, :, None], (1, *kernel)
    padding = given.get("padding", 0)
    if isinstance(padding, str):
        full = [(k - 1) * d if padding == "same" else 0 for k, d in zip(kernel, dilation, strict=True)]
        x = F.pad(x, [side for f in reversed(full) for side in (f // 2, f - f // 2)])
    else:
        x = F.pad(x, [side for p in reversed(pair(padding, 0)) for side in (p, p)])
    return F.unfold(x, kernel, dilation, 0, stride)[0].mT


def _slope(loss: Callable, at: Tensor, y: Tensor) -> Tensor:
    z = at.clone().requires_grad_()
    return torch.autograd.grad(loss(z, y), z)[0].flatten()


def _hessian(loss: Callable, at: Tensor, y: Tensor) -> Tensor:
    return torch.autograd.functional.hessian(lambda z: loss(z, y), at).view(at.numel(), at.numel())
