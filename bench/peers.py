"""The libraries that compute one of our quantities best, each as a function of no arguments, in our conventions.

``pip install -r bench/requirements.txt``; one that is not installed, or that refuses a network, is left out with the reason.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Values = dict[str, Tensor]
Run = Callable[[], Values]


def layers_of(model: nn.Module) -> dict[str, nn.Module]:
    return {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}


def curvlinops_kfac(model: nn.Module, x: Tensor, y: Tensor, fisher: str) -> Run:
    """Kronecker factors (curvlinops, Dangel et al. 2025): "A:name" times its positions, "S:name" over them, as ours."""
    from curvlinops import KFACLinearOperator

    layers, positions = layers_of(model), {}
    hooks = [
        m.register_forward_hook(lambda m, i, o, n=n: positions.__setitem__(n, o[0].numel() // len(m.weight)))
        for n, m in layers.items()
    ]
    with torch.no_grad():
        model(x[:1])
    for hook in hooks:
        hook.remove()
    operator = KFACLinearOperator(
        model, nn.CrossEntropyLoss(), [m.weight for m in layers.values()], [(x, y)], kfac_approx="expand",
        fisher_type={"exact": "type-2", "sampled": "mc", "empirical": "empirical"}[fisher],
        separate_weight_and_bias=True, check_deterministic=False,
    )  # fmt: skip

    def run() -> Values:
        operator._input_covariances, operator._gradient_covariances = {}, {}  # a second call would add to the first
        operator.compute_kronecker_factors()
        A, S = operator._input_covariances, operator._gradient_covariances
        return {f"A:{n}": A[n] * positions[n] for n in layers} | {f"S:{n}": S[n] / positions[n] for n in layers}

    return run


def backpack_diagonal(model: nn.Module, x: Tensor, y: Tensor, kind: str) -> Run:
    """A diagonal (BackPACK, Dangel et al. 2020), of weights and biases of Linear and Conv2d."""
    import backpack
    from backpack import extensions

    plain = all(type(m).__module__.startswith("torch.nn") for m in model.modules())
    twin = backpack.extend(model, use_converter=not plain)
    loss = backpack.extend(nn.CrossEntropyLoss(reduction="mean"))
    extension, place, scale = {
        "ggn": (extensions.DiagGGNExact(), "diag_ggn_exact", 1),
        "sampled": (extensions.DiagGGNMC(mc_samples=1), "diag_ggn_mc", 1),
        "empirical": (extensions.SumGradSquared(), "sum_grad_squared", len(x)),  # of gradients over n: times n
        "exact": (extensions.DiagHessian(), "diag_h", 1),
    }[kind]

    def run() -> Values:
        twin.zero_grad()
        with backpack.backpack(extension):
            loss(twin(x), y).backward()
        return {n: getattr(p, place) * scale for n, p in twin.named_parameters() if hasattr(p, place)}

    return run


def asdl_diagonal(model: nn.Module, x: Tensor, y: Tensor, kind: str) -> Run:
    """A diagonal (asdfghjkl, Osawa et al. 2023). Its convolutions are wrong on small maps: look at the difference."""
    import asdl

    fisher = {"ggn": asdl.FISHER_EXACT, "sampled": asdl.FISHER_MC, "empirical": asdl.FISHER_EMP}[kind]
    config = asdl.FisherConfig(fisher, asdl.SHAPE_DIAG, loss_type=asdl.LOSS_CROSS_ENTROPY, data_size=len(x))
    maker = asdl.get_fisher_maker(model, config)
    logits = maker.setup_model_call(model, x)
    maker.setup_loss_call(F.cross_entropy, logits, y, reduction="sum")
    layers = layers_of(model)

    def run() -> Values:
        maker.forward_and_backward()
        return {f"{n}.weight" if n else "weight": m.fisher.diag.weight for n, m in layers.items()}

    return run


def vmap_diagonal(model: nn.Module, x: Tensor, y: Tensor, kind: str) -> Run:
    """Squared per-sample gradients by torch's own vmap, some samples at a time so that they fit in memory."""
    assert kind == "empirical"
    params = {n: p.detach() for n, p in model.named_parameters()}
    buffers = dict(model.named_buffers())
    one = torch.func.grad(
        lambda p, xi, yi: F.cross_entropy(torch.func.functional_call(model, (p, buffers), (xi[None],)), yi[None])
    )
    chunk = max(1, 2**27 // sum(p.numel() for p in params.values()))
    each = torch.func.vmap(one, (None, 0, 0), randomness="same")

    def run() -> Values:
        total: Values = {}
        for xs, ys in zip(x.split(chunk), y.split(chunk), strict=True):
            for n, g in each(params, xs, ys).items():
                total[n] = total.get(n, 0) + g.square().sum(0)
        return {n: t / len(x) for n, t in total.items()}

    return run


def curvlinops_product(model: nn.Module, x: Tensor, y: Tensor, kind: str) -> Run:
    """The Hessian as a linear operator (curvlinops), times the gradient, over the weights of Linear and Conv2d."""
    from curvlinops import HessianLinearOperator

    named = {n: p for n, p in model.named_parameters() if p.dim() > 1}
    operator = HessianLinearOperator(
        model, nn.CrossEntropyLoss(), list(named.values()), [(x, y)], check_deterministic=False
    )

    def run() -> Values:
        g = torch.autograd.grad(F.cross_entropy(model(x), y), list(named.values()))
        return dict(zip(named, operator @ list(g), strict=True))

    return run


def plain_product(model: nn.Module, x: Tensor, y: Tensor, kind: str) -> Run:
    """The same by two plain backward passes."""
    named = {n: p for n, p in model.named_parameters() if p.dim() > 1}

    def run() -> Values:
        weights = list(named.values())
        slopes = torch.autograd.grad(F.cross_entropy(model(x), y), weights, create_graph=True)
        along = sum((g * g.detach()).sum() for g in slopes)
        return dict(zip(named, torch.autograd.grad(along, weights), strict=True))

    return run


def autograd_jacobians(model: nn.Module, x: Tensor, vectorize: bool) -> Run:
    """Each Linear layer's Jacobian with the activation that follows, by autograd, then its singular values.

    ``vectorize``: torch's experimental way, all rows of a Jacobian in one backward pass.
    """
    steps = list(model.children())

    def run() -> Values:
        found, h = {}, x
        for i, step in enumerate(steps):
            if isinstance(step, nn.Linear):
                piece = nn.Sequential(*steps[i : i + 2])
                J = torch.stack([torch.autograd.functional.jacobian(piece, one, vectorize=vectorize) for one in h])
                found[str(i)] = torch.linalg.svdvals(J)
            h = step(h).detach()
        return found

    return run
