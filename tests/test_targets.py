"""Losses and targets: against losses written out by hand, one sample and one position after another, in float64."""

import itertools
from math import log

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pruneviz as pv
from pruneviz.basics.errors import PrunevizError, UnknownName, Unsuitable
from pruneviz.curvature.statistic import Diagonal, Kronecker
from pruneviz.curvature.sweep import sweep
from pruneviz.door.loss import BINARY, CROSS_ENTROPY, SQUARED, CrossEntropy, Custom, Loss, right, tempered
from pruneviz.door.targets import fit, fit_batches

# --- the losses of a single sample, by hand ---------------------------------------------------------------------------


def places(z: Tensor, axis: int) -> Tensor:
    """Outputs of one sample as rows of logits: [positions, classes]."""
    return z.movedim(0, -1).reshape(-1, z.shape[0]) if axis == 1 else z.reshape(-1, z.shape[-1])


def cross_entropy(z: Tensor, y: Tensor, axis: int = 1) -> Tensor:
    """Mean of log sum exp less the label's logit over positions that are counted; of one output, of its log."""
    if z.shape == (1,):
        q = float(y)
        return -(q * z[0].log() if q else 0 * z[0]) - ((1 - q) * (1 - z[0]).log() if q < 1 else 0 * z[0])
    rows = places(z, axis)
    targets = places(y, axis) if y.is_floating_point() else y.reshape(-1)
    found = []
    for row, target in zip(rows, targets, strict=True):
        whole = (row - row.max()).exp().sum().log() + row.max()
        if y.is_floating_point():
            found.append(sum(q * (whole - logit) for q, logit in zip(target, row, strict=True)))
        elif target != -100:
            found.append(whole - row[target])
    return sum(found) / max(1, len(found)) + 0 * z.sum()


def squared(z: Tensor, y: Tensor) -> Tensor:
    return sum((a - b) * (a - b) for a, b in zip(z.reshape(-1), y.reshape(-1), strict=True))


def binary(z: Tensor, y: Tensor) -> Tensor:
    return sum((1 + a.exp()).log() - b * a for a, b in zip(z.reshape(-1), y.reshape(-1), strict=True))


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def labels(*shape: int, classes: int, ignored: float = 0.0, seed: int = 1) -> Tensor:
    draws = torch.Generator().manual_seed(seed)
    found = torch.randint(0, classes, shape, generator=draws)
    return torch.where(torch.rand(shape, generator=draws) < ignored, -100, found)


# name -> loss, outputs, targets, the loss by hand
PROBLEMS: dict[str, tuple[Loss, Tensor, Tensor, object]] = {
    "classes": (CROSS_ENTROPY, numbers(3, 4), labels(3, classes=4), cross_entropy),
    "one-probability": (CROSS_ENTROPY, numbers(4, 1).sigmoid(), labels(4, classes=2), cross_entropy),
    "probabilities": (CROSS_ENTROPY, numbers(3, 4), numbers(3, 4, seed=2).softmax(1), cross_entropy),
    "tokens-axis-1": (CrossEntropy(1), numbers(3, 4, 5), labels(3, 5, classes=4), cross_entropy),
    "tokens-last": (CrossEntropy(-1), numbers(3, 5, 4), labels(3, 5, classes=4), lambda z, y: cross_entropy(z, y, -1)),
    "pixels": (CrossEntropy(1), numbers(2, 3, 2, 4), labels(2, 2, 4, classes=3), cross_entropy),
    "pixels-last": (CrossEntropy(-1), numbers(2, 2, 4, 3), labels(2, 2, 4, classes=3), lambda z, y: cross_entropy(z, y, -1)),
    "pixels-ignored": (CrossEntropy(1), numbers(4, 3, 2, 4), labels(4, 2, 4, classes=3, ignored=0.6), cross_entropy),
    "tokens-last-ignored": (
        CrossEntropy(-1), numbers(4, 5, 3), labels(4, 5, classes=3, ignored=0.6), lambda z, y: cross_entropy(z, y, -1),
    ),
    "probabilities-of-pixels": (CrossEntropy(1), numbers(2, 3, 2, 2), numbers(2, 3, 2, 2, seed=2).softmax(1), cross_entropy),
    "probabilities-last": (
        CrossEntropy(-1), numbers(2, 4, 3), numbers(2, 4, 3, seed=2).softmax(-1), lambda z, y: cross_entropy(z, y, -1),
    ),
    "squared": (SQUARED, numbers(3, 4), numbers(3, 4, seed=2), squared),
    "squared-of-[n]": (SQUARED, numbers(3), numbers(3, seed=2), squared),
    "squared-of-images": (SQUARED, numbers(2, 3, 2, 2), numbers(2, 3, 2, 2, seed=2), squared),
    "binary": (BINARY, numbers(3, 4), labels(3, 4, classes=2), binary),
    "binary-of-[n]": (BINARY, numbers(3), labels(3, classes=2), binary),
    "binary-between": (BINARY, numbers(2, 3, 2), torch.rand(2, 3, 2, dtype=torch.float64), binary),
}  # fmt: skip


@pytest.fixture(params=PROBLEMS)
def problem(request):
    return PROBLEMS[request.param]


def test_each_sample_s_loss(problem):
    loss, outputs, y, by_hand = problem
    want = torch.stack([by_hand(z, t) for z, t in zip(outputs, y, strict=True)])
    assert torch.allclose(loss.each(outputs, y), want, rtol=1e-12)
    assert torch.allclose(loss(outputs, y), want.sum() / len(want), rtol=1e-12)


def test_slopes(problem):
    loss, outputs, y, by_hand = problem
    want = [
        torch.autograd.functional.jacobian(lambda z, t=t: by_hand(z, t), z) for z, t in zip(outputs, y, strict=True)
    ]
    assert torch.allclose(loss.slope(outputs, y), torch.stack(want), rtol=1e-10, atol=1e-14)


def curvature(problem) -> list[Tensor]:
    """Hessians of the samples' losses; where they depend on the label, their mean under the model."""
    loss, outputs, y, by_hand = problem
    found = []
    for z, t in zip(outputs, y, strict=True):
        if outputs.shape[1:] == (1,) and isinstance(loss, CrossEntropy):
            p = float(z[0])
            several = [(p, torch.tensor(1)), (1 - p, torch.tensor(0))]
        else:
            several = [(1.0, t)]
        h = sum(q * torch.autograd.functional.hessian(lambda v, t=t: by_hand(v, t), z) for q, t in several)
        found.append(h.reshape(z.numel(), z.numel()))
    return found


def test_roots_multiply_to_the_hessian(problem):
    loss, outputs, y, _ = problem
    root = loss.root(outputs, y)
    assert root.shape[:-1] == outputs.shape
    for b, want in zip(root.reshape(len(outputs), -1, root.shape[-1]), curvature(problem), strict=True):
        assert torch.allclose(b @ b.T, want, rtol=1e-10, atol=1e-13)


def test_slopes_drawn_from_the_model_have_the_hessian_as_mean_square(problem):
    loss, outputs, y, _ = problem
    draws = 20_000
    found = loss.drawn(outputs, draws, torch.Generator().manual_seed(0), y)
    assert found.shape == (draws, *outputs.shape)
    flat = found.reshape(draws, len(outputs), -1)
    for i, want in enumerate(curvature(problem)):
        products = flat[:, i, :, None] * flat[:, i, None, :]
        spread = products.std(0) / draws**0.5
        assert bool(((products.mean(0) - want).abs() <= 5 * spread + 1e-12).all())


def test_slopes_drawn_do_not_depend_on_batches(problem):
    loss, outputs, y, _ = problem
    whole = loss.drawn(outputs, 3, torch.Generator().manual_seed(7), y)
    draws = torch.Generator().manual_seed(7)
    parts = [loss.drawn(outputs[i : i + 1], 3, draws, y[i : i + 1]) for i in range(len(outputs))]
    assert torch.equal(whole, torch.cat(parts, 1))


@pytest.mark.parametrize("name", ["pixels-ignored", "tokens-last-ignored"])
def test_an_ignored_position_has_no_slope(name):
    loss, outputs, y, _ = PROBLEMS[name]
    gone = (y == -100).unsqueeze(loss.axis).expand_as(outputs)
    assert bool(gone.any())
    for found in (
        loss.slope(outputs, y)[None],
        loss.root(outputs, y).movedim(-1, 0),
        loss.drawn(outputs, 2, torch.Generator().manual_seed(0), y),
    ):
        assert not bool(found[:, gone].any())
        assert bool(found[:, ~gone].any())


def test_drawn_slopes_of_one_position_are_those_of_classes():
    z, seeds = numbers(5, 4), (torch.Generator().manual_seed(3) for _ in itertools.count())
    plain = CROSS_ENTROPY.drawn(z, 6, next(seeds))
    assert torch.allclose(CrossEntropy(1).drawn(z[..., None], 6, next(seeds))[..., 0], plain, rtol=1e-12)
    assert torch.allclose(CrossEntropy(-1).drawn(z[:, None], 6, next(seeds))[:, :, 0], plain, rtol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_axes_one_hot_labels_and_classes_agree(seed):
    """One loss said in four ways, on shapes of any size."""
    draws = torch.Generator().manual_seed(seed)
    n, c, a, b = (int(torch.randint(2, 6, (1,), generator=draws)) for _ in range(4))
    z, y = numbers(n, c, a, b, seed=seed), labels(n, a, b, classes=c, seed=seed)
    hot = F.one_hot(y, c).double().movedim(-1, 1)
    first, last = CrossEntropy(1), CrossEntropy(-1)
    for one, other in ((z, hot), (z, y)):
        assert torch.allclose(first.each(one, other), first.each(z, y), rtol=1e-12)
    assert torch.allclose(last.each(z.movedim(1, -1), y), first.each(z, y), rtol=1e-12)
    assert torch.allclose(last.slope(z.movedim(1, -1), y).movedim(-1, 1), first.slope(z, hot), rtol=1e-10, atol=1e-14)
    assert torch.equal(last.root(z.movedim(1, -1), y).movedim(-2, 1), first.root(z, y))


def test_many_slopes_are_refused_with_the_mend():
    for loss, outputs in (
        (CrossEntropy(1), torch.zeros(1, 3, 64, 64)),
        (CROSS_ENTROPY, torch.zeros(1, 5000)),
        (SQUARED, torch.zeros(1, 65, 64)),
        (BINARY, torch.zeros(1, 65, 64)),
    ):
        with pytest.raises(
            Unsuitable, match=r"(8,192|4,999|4,160) backward.*4,096.*hessian='fisher'.*fisher='sampled'"
        ):
            loss.root(outputs)
        assert loss.drawn(outputs, 1, torch.Generator()).shape == (1, *outputs.shape)


@pytest.mark.parametrize("name", [n for n, p in PROBLEMS.items() if p[0] is not SQUARED and n != "one-probability"])
def test_a_temperature_divides_logits(name):
    loss, outputs, y, by_hand = PROBLEMS[name]
    want = torch.stack([by_hand(z / 3, t) for z, t in zip(outputs, y, strict=True)]).mean()
    assert torch.allclose(tempered(loss, 3.0)(outputs, y), want, rtol=1e-12)


def test_a_probability_and_its_logit_have_one_temperature():
    z, y = numbers(6, 1), labels(6, classes=2)
    cooled = tempered(CROSS_ENTROPY, 5.0)(z.sigmoid(), y)
    assert torch.allclose(cooled, tempered(BINARY, 5.0)(z, y[:, None]), rtol=1e-12)
    assert tempered(SQUARED, 5.0) is SQUARED


def test_right_answers():
    assert right(torch.tensor([[0.2, 0.8], [0.9, 0.1]]), torch.tensor([1, 1])).tolist() == [True, False]
    assert right(torch.tensor([[0.7], [0.4]]), torch.tensor([1, 1])).tolist() == [True, False]
    z = F.one_hot(torch.tensor([[0, 1, 2, 2], [0, 0, 0, 0]]), 3).double()  # [n, positions, classes]
    y = torch.tensor([[0, 1, 1, -100], [1, 0, 0, 0]])
    assert right(z, y, -1).tolist() == pytest.approx([2 / 3, 3 / 4])
    assert right(z.movedim(-1, 1), y).tolist() == pytest.approx([2 / 3, 3 / 4])


# --- targets as people have them --------------------------------------------------------------------------------------

Y = torch.tensor([0, 2, 1, 0, 2])
FIVE = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))


def unwritable() -> np.ndarray:
    found = Y.numpy().copy()
    found.flags.writeable = False
    return found


@pytest.mark.parametrize(
    "y",
    [
        Y, Y[:, None], Y.int(), Y.short(), Y.to(torch.uint8), Y.tolist(), tuple(Y.tolist()), Y.numpy(), Y.numpy()[:, None],
        Y.numpy().astype("uint16"), Y.numpy().astype(">i4"), Y.numpy()[::-1][::-1], Y.numpy().copy()[::-1].copy()[::-1],
        unwritable(), list(Y), F.one_hot(Y), F.one_hot(Y).bool(), F.one_hot(Y).double().numpy(), F.one_hot(Y).tolist(),
    ],
)  # fmt: skip
def test_classes_in_all_forms(y):
    found = fit(FIVE[:2], y, "cross-entropy", n=5)
    assert found.loss == CROSS_ENTROPY
    assert found.counted is None
    assert torch.allclose(found.loss.each(FIVE, found.y), F.cross_entropy(FIVE, Y, reduction="none"))


def test_one_hot_labels_of_positions():
    for axis, z in ((1, numbers(4, 3, 5, 6)), (-1, numbers(4, 5, 6, 3))):
        y = labels(4, 5, 6, classes=3)
        hot = F.one_hot(y, 3).movedim(-1, axis)
        for form in (hot, hot.bool(), hot.float()):
            found = fit(z[:2], form, "cross-entropy", n=4)
            assert found.loss == CrossEntropy(axis)
            assert torch.allclose(found.loss.each(z, found.y), found.loss.each(z, y))


def test_data_frames():
    pandas = pytest.importorskip("pandas")
    for y in (pandas.Series(Y.tolist(), index=list("abcde")), pandas.DataFrame({"label": Y.tolist()})):
        assert torch.equal(fit(FIVE, y, "cross-entropy", n=5).y, Y)


@pytest.mark.parametrize(
    ("shape", "targets", "axis"),
    [
        ((4, 3, 5), (4, 5), 1), ((4, 5, 3), (4, 5), -1), ((4, 3, 5, 6), (4, 5, 6), 1), ((4, 5, 6, 3), (4, 5, 6), -1),
        ((4, 3, 5, 6), (4, 1, 5, 6), 1), ((4, 5, 3), (4, 5, 1), -1), ((4, 3, 1, 1), (4,), 1), ((4, 1, 3), (4,), -1),
        ((4, 3, 3, 1), (4, 3, 1), 1), ((4, 3, 7, 3), (4, 3, 7), -1),
    ],
)  # fmt: skip
def test_the_axis_of_classes(shape, targets, axis):
    y = labels(*targets, classes=3)
    z = numbers(*shape)
    found = fit(z[:2], y, "cross-entropy", n=4)
    assert found.loss == CrossEntropy(axis)
    assert torch.equal(found.y.reshape(-1), y.reshape(-1))
    want = [cross_entropy(one, t, axis) for one, t in zip(z, found.y, strict=True)]
    assert torch.allclose(found.loss.each(z, found.y), torch.stack(want))


def test_where_both_axes_fit_it_asks_and_its_mend_works():
    z, y = numbers(4, 3, 3), labels(4, 3, classes=3)
    with pytest.raises(Unsuitable, match=r"axis 1 or the last.*y\[\.\.\., None\]"):
        fit(z, y, "cross-entropy", n=4)
    with pytest.raises(Unsuitable, match="axis 1 or the last"):
        fit(z, torch.eye(3).expand(4, 3, 3), "cross-entropy", n=4)  # one-hot along both
    first = fit(z[..., None], y[..., None], "cross-entropy", n=4)
    last = fit(z.movedim(-1, 1)[..., None], y[..., None], "cross-entropy", n=4)
    for found, outputs, axis in ((first, z[..., None], 1), (last, z.movedim(-1, 1)[..., None], -1)):
        want = torch.stack([cross_entropy(one, t, axis) for one, t in zip(z, y, strict=True)])
        assert torch.allclose(found.loss.each(outputs, found.y), want)
    assert fit(z[:2], y, CrossEntropy(-1), n=4).loss == CrossEntropy(-1)
    only = F.one_hot(y, 3).double()
    only[0] = 1 / 3  # uniform: adds up along both, the others along the last alone
    only[1] = torch.tensor([1.0, 0, 0])
    assert fit(z, only, "cross-entropy", n=4).loss == CrossEntropy(-1)


def test_samples_without_a_label_are_told_apart():
    y = torch.where(Y == 2, -100, Y)
    found = fit(FIVE, y, "cross-entropy", n=5)
    assert found.counted.tolist() == [True, False, True, True, False]
    z, y = numbers(3, 4, 2), torch.tensor([[-100, -100], [-100, 3], [0, 1]])
    assert fit(z, y, "cross-entropy", n=3).counted.tolist() == [False, True, True]
    assert fit(z[1:], y[1:], "cross-entropy", n=2).counted is None
    assert fit(FIVE, torch.where(Y == 2, -100, Y), "squared", n=5).counted.tolist() == [True, False, True, True, False]


def test_batches_may_have_no_label_but_not_all():
    none = torch.full((5,), -100)
    loss, found = fit_batches(FIVE[:2], [(5, none), (5, Y)], "cross-entropy")
    assert loss == CROSS_ENTROPY
    assert not found[0].counted.any()
    assert found[1].counted is None
    with pytest.raises(Unsuitable, match="Every label is -100"):
        fit_batches(FIVE[:2], [(5, none), (5, none)], "cross-entropy")
    with pytest.raises(Unsuitable, match="different kinds of targets"):
        fit_batches(FIVE[:2], [(5, Y), (5, FIVE.softmax(1))], "cross-entropy")


@pytest.mark.parametrize(
    ("outputs", "y", "loss", "want"),
    [
        (numbers(4, 1), numbers(4, seed=3), "squared", numbers(4, 1)),
        (numbers(4), numbers(4, 1, seed=3), "squared", numbers(4)),
        (numbers(4, 3, 2), numbers(4, 3, 2, seed=3).float().numpy(), "squared", numbers(4, 3, 2)),
        (numbers(4, 1, 3), numbers(4, 3, seed=3), "squared", numbers(4, 1, 3)),
        (numbers(4, 1), torch.tensor([0, 1, 1, 0]), "binary", numbers(4, 1)),
        (numbers(4), [False, True, True, False], "binary", numbers(4)),
        (numbers(4, 1, 2, 2), labels(4, 2, 2, classes=2), "binary", numbers(4, 1, 2, 2)),
    ],
)
def test_numbers_take_the_shape_of_the_outputs(outputs, y, loss, want):
    found = fit(outputs[:2], y, loss, n=4).y
    assert found.shape == want.shape
    assert found.dtype == outputs.dtype
    assert torch.allclose(found.reshape(-1), torch.as_tensor(np.asarray(y)).double().reshape(-1))


def test_class_numbers_are_one_hot_for_squared_error():
    found = fit(FIVE, Y[:, None], "squared", n=5)
    assert torch.allclose(SQUARED.each(FIVE, found.y), (FIVE - F.one_hot(Y, 3)).square().sum(1))


ONE = torch.tensor([[0.2], [0.6], [0.9], [0.1], [0.5]])
NEGATIVE = [-1, 0, 1, 2, 0]
REFUSED = [
    (FIVE, None, "cross-entropy", "needs targets"),
    (FIVE, Y[:3], "cross-entropy", "5 samples and 3 targets"),
    (FIVE, [*Y.tolist(), 1], "cross-entropy", "5 samples and 6 targets"),
    (FIVE, torch.tensor(2), "cross-entropy", "single number"),
    (FIVE, list("abcab"), "cross-entropy", "can't be read as numbers"),
    (FIVE, [[0], [1, 2], [0], [1], [2]], "cross-entropy", "can't be read as numbers"),
    (FIVE, [torch.zeros(1), torch.zeros(2)], "cross-entropy", "can't be read as numbers"),
    (FIVE, {"a": 1}, "cross-entropy", "can't be read as numbers"),
    (FIVE, [None, 1, 0, 2, 1], "cross-entropy", "can't be read as numbers"),
    (FIVE, Y + 1, "cross-entropy", "label 3 is no class: the network has 3 classes.*subtract 1"),
    (FIVE, [2, 3, 3, 2, 3], "cross-entropy", "label 3 .*3 classes.*subtract 1"),
    (FIVE, [0, 1, 2, 3, 0], "cross-entropy", "label 3 .*3 classes.*0 to 2"),
    (FIVE, NEGATIVE, "cross-entropy", "label -1 .*3 classes.*-100"),
    (FIVE, NEGATIVE, "squared", "label -1 .*3 classes.*-100"),
    (FIVE, [-100] * 5, "cross-entropy", "Every label is -100"),
    (FIVE, Y.float(), "cross-entropy", r"y\.long\(\)"),
    (FIVE, FIVE, "cross-entropy", "loss='squared'.*loss='binary'"),
    (FIVE, FIVE.softmax(1) * 1.01, "cross-entropy", "neither class numbers nor class probabilities"),
    (FIVE, (FIVE > 0).float(), "cross-entropy", "loss='binary'"),
    (FIVE, (FIVE > 0).long(), "cross-entropy", "loss='binary'"),
    (FIVE, torch.full((5, 3), torch.nan), "cross-entropy", "NaN"),
    (FIVE, [0.0, 1.0, float("inf"), 0.0, 0.0], "squared", "NaN or infinity"),
    (FIVE, torch.zeros(5, dtype=torch.complex64), "squared", "complex"),
    (FIVE, torch.zeros(5, 4), "squared", r"\[n, 3\]; found \[n, 4\]"),
    (FIVE, torch.zeros(5), "squared", r"\[n, 3\]; found \[n\]"),
    (FIVE, FIVE, "binary", "are 0 and 1"),
    (FIVE, torch.zeros(5, 2, dtype=torch.long), "cross-entropy", r"\[n, 2\] do not fit outputs \[n, 3\]"),
    (FIVE[:, 0], Y, "cross-entropy", "no axis of classes"),
    (ONE, [0, 1, 1, 2, 0], "cross-entropy", "label 2 .*2 classes"),
    (10 * ONE, [0, 1, 1, 0, 0], "cross-entropy", "probability.*loss='binary'"),
    (10 * ONE, [0.0, 0.5, 1.0, 0.0, 0.0], "cross-entropy", "probability.*loss='binary'"),
    (numbers(5, 1, 4), labels(5, 4, classes=2), "cross-entropy", "single class.*loss='binary'"),
    (numbers(5, 4, 3), Y, "cross-entropy", r"\[n\] do not fit outputs \[n, 4, 3\]"),
    (FIVE, Y, 3, "loss is one of cross-entropy, squared, binary"),
    (FIVE, Y, nn.CrossEntropyLoss, r"CrossEntropyLoss\(\)"),
]


@pytest.mark.parametrize(("outputs", "y", "loss", "said"), REFUSED)
def test_what_does_not_fit_is_refused_in_one_sentence(outputs, y, loss, said):
    with pytest.raises(Unsuitable, match=said) as caught:
        fit(outputs[:2], y, loss, n=5)
    assert len(str(caught.value)) < 400


def test_no_samples_and_unknown_losses():
    with pytest.raises(Unsuitable, match="no samples"):
        fit(FIVE, Y[:0], "cross-entropy", n=0)
    with pytest.raises(UnknownName, match="Did you mean 'cross-entropy'"):
        fit(FIVE, Y, "crossentropy", n=5)


def test_a_softmax_before_cross_entropy_is_noticed():
    said = ("look like probabilities",)
    for z, y in ((FIVE, Y), (numbers(5, 3, 4), labels(5, 4, classes=3)), (FIVE, F.one_hot(Y))):
        assert not fit(z, y, "cross-entropy", n=5).notes
        assert not fit(z.log_softmax(1), y, "cross-entropy", n=5).notes
        assert said[0] in fit(z.softmax(1), y, "cross-entropy", n=5).notes[0]
    assert "probabilities" in fit(numbers(5, 4, 3).softmax(-1), labels(5, 4, classes=3), "cross-entropy", n=5).notes[0]
    assert not fit(ONE, [0, 1, 1, 0, 0], "cross-entropy", n=5).notes
    assert not fit(FIVE.softmax(1), FIVE, "squared", n=5).notes


def test_anybodys_loss():
    z = FIVE.double().requires_grad_()
    found = fit(z, Y.int(), F.cross_entropy, n=5)
    assert isinstance(found.loss, Custom)
    assert torch.equal(found.loss(z, found.y), F.cross_entropy(z, Y))
    for asked in (
        lambda: found.loss.each(z, Y),
        lambda: found.loss.root(z),
        lambda: found.loss.slope(z, Y),
        lambda: found.loss.drawn(z, 1, torch.Generator()),
    ):
        with pytest.raises(Unsuitable, match="cross-entropy, squared, binary"):
            asked()
    wrong = {
        r"this one gives \[5\]": lambda o, t: F.cross_entropy(o, t, reduction="none"),
        "this one gives float": lambda o, t: float(o.detach().sum()),
        "no slope": lambda o, t: F.cross_entropy(o.detach(), t),
        r"stops on outputs \[5, 3\] and targets \[5\]: ": lambda o, t: (o - t).square().mean(),
        "mend of its own": _refuse,
    }
    for said, function in wrong.items():
        with pytest.raises(Unsuitable, match=said):
            Custom(function)(z, Y)


def _refuse(outputs: Tensor, y: Tensor) -> Tensor:
    raise Unsuitable("A sentence with a mend of its own.")


# --- through pv.score -------------------------------------------------------------------------------------------------


def pixels(axis: int = 1) -> tuple[nn.Module, Tensor, Tensor]:
    """A network that labels every pixel, with a third of the labels ignored."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 3, 1)).double()
    if axis == -1:
        net = nn.Sequential(*net, Last())
    return net, numbers(4, 2, 3, 5), labels(4, 3, 5, classes=3, ignored=0.3)


class Last(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        return z.movedim(1, -1)


def jacobians(net: nn.Module, name: str, one: Tensor) -> Tensor:
    """Of one sample's outputs with respect to a weight: [outputs, weights]."""
    w = dict(net.named_parameters())[name]
    z = net(one[None])[0].reshape(-1)
    return torch.stack([torch.autograd.grad(v, w, retain_graph=True)[0].reshape(-1) for v in z])


def flat(scores) -> Tensor:
    """All numbers of scores: by parameter, by layer and filter, by eigenbasis."""
    if isinstance(scores, Tensor):
        return scores.detach().reshape(-1)
    return torch.cat([flat(scores[key]) for key in sorted(scores, key=str)])


def close(found, want, tolerance: float = 1e-10) -> bool:
    one, other = flat(found), flat(want)
    return float((one - other).norm()) <= tolerance * float(other.norm())


@pytest.mark.parametrize("axis", [1, -1])
@pytest.mark.parametrize("term", [False, True])
def test_obd_of_pixels_is_the_loop_over_samples(axis, term):
    net, x, y = pixels(axis)
    name = "0.weight"
    w = net[0].weight.detach()
    ggn, fisher, slope = 0, 0, 0
    for one, t in zip(x, y, strict=True):
        j, z = jacobians(net, name, one), net(one[None])[0].detach()
        h = torch.autograd.functional.hessian(lambda v, t=t: cross_entropy(v, t, axis), z).reshape(z.numel(), -1)
        g = torch.autograd.functional.jacobian(lambda v, t=t: cross_entropy(v, t, axis), z).reshape(-1) @ j
        ggn, fisher, slope = ggn + (j.T @ h @ j).diagonal() / 4, fisher + g.square() / 4, slope + g / 4
    for hessian, want in (("ggn", ggn), ("empirical", fisher)):
        found = pv.score(net, x, y, method="obd", hessian=hessian, gradient_term=term)[name]
        flat = w.reshape(-1)
        assert close(found, want * flat.square() / 2 - term * slope * flat), hessian


def test_the_last_axis_gives_the_scores_of_the_first():
    net, x, y = pixels()
    last, _, _ = pixels(-1)
    for how in (
        {"method": "snip"}, {"method": "grasp"}, {"method": "obd"}, {"method": "obd", "hessian": "exact"},
        {"method": "kron-obd", "fisher": "exact"}, {"method": "kron-obd"}, {"method": "obs"},
    ):  # fmt: skip
        found, want = pv.score(last, x, y, **how), pv.score(net, x, y, **how)
        assert close(found, want, 1e-9), how


def test_slopes_of_many_positions_come_in_portions():
    net, x, y = pixels()
    kinds = (Kronecker("exact"), Diagonal("ggn"))
    whole = sweep(net, [(x, y)], kinds, loss=CrossEntropy(1))
    parts = sweep(net, [(x, y)], kinds, loss=CrossEntropy(1), limit=1)
    for name, value in whole[kinds[1]].items():
        assert close(parts[kinds[1]][name], value)


def test_samples_without_a_label_do_not_count_in_any_method():
    net, x, _ = dense()
    y = torch.tensor([0, 1, -100, 2, -100, 1, 0, -100, 2, 1])
    known = y != -100
    for method in ("snip", "grasp", "obd", "obs", "kron-obd", "eigendamage"):
        found, want = pv.score(net, x, y, method=method), pv.score(net, x[known], y[known], method=method)
        assert close(found, want), method
        batches = [(x[known], y[known]), (x[~known], y[~known])]  # the second without a label at all
        found = pv.score(net, batches, method=method)
        assert close(found, want), method


def dense(outputs: int = 3) -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, outputs)).double()
    return net, numbers(10, 4), labels(10, outputs, classes=2)


@pytest.mark.parametrize(("loss", "by_hand"), [("binary", binary), ("squared", squared)])
def test_numbers_and_yes_no_by_every_second_derivative(loss, by_hand):
    net, x, y = dense()
    params = dict(net.named_parameters())
    joined = torch.zeros(sum(p.numel() for p in params.values()), dtype=torch.float64).diag()
    slopes = {n: torch.zeros_like(p).reshape(-1) for n, p in params.items()}
    for one, t in zip(x, y.double(), strict=True):
        j, z = torch.cat([jacobians(net, n, one) for n in params], 1), net(one[None])[0].detach()
        joined += j.T @ torch.autograd.functional.hessian(lambda v, t=t: by_hand(v, t), z) @ j / 10
        g = torch.autograd.functional.jacobian(lambda v, t=t: by_hand(v, t), z)
        slopes = {n: slopes[n] + g @ jacobians(net, n, one) / 10 for n in params}
    inverse = torch.linalg.inv(joined + 1e-4 * torch.eye(len(joined)).double()).diagonal()
    sizes = [p.numel() for p in params.values()]
    obd, obs = (dict(zip(params, d.split(sizes), strict=True)) for d in (joined.diagonal(), inverse))
    found = {m: pv.score(net, x, y, method=m, loss=loss) for m in ("obd", "obs", "snip")}
    for n in ("0.weight", "2.weight"):
        w = params[n].detach().reshape(-1)
        assert close(found["obd"][n], obd[n] * w.square() / 2)
        assert close(found["obs"][n], w.square() / (2 * obs[n]), 1e-7)
        assert close(found["snip"][n], (slopes[n] * w).abs())


def test_a_network_with_outputs_n():
    net, x, y = dense(1)
    flat = nn.Sequential(*net, nn.Flatten(0))
    for loss, method in itertools.product(
        ("squared", "binary"), ("snip", "grasp", "obd", "obs", "kron-obd", "isometry")
    ):
        found = pv.score(flat, x, y[:, 0], method=method, loss=loss)
        want = pv.score(net, x, y, method=method, loss=loss)
        assert close(found, want, 1e-9), (loss, method)


def test_a_function_serves_gradients_and_curvature_says_why_not():
    net, x, _ = dense()
    y = labels(10, classes=3)
    assert close(
        pv.score(net, x, y, method="snip", loss=F.cross_entropy)["0.weight"],
        pv.score(net, x, y, method="snip")["0.weight"],
    )
    for method in ("obd", "obs", "kron-obd", "kron-obs", "eigendamage"):
        with pytest.raises(Unsuitable, match="cross-entropy, squared, binary"):
            pv.score(net, x, y, method=method, loss=F.cross_entropy)


def test_a_loss_given_as_itself_is_the_one_of_that_name():
    net, x, y = dense()
    for method in ("obs", "obd"):
        found = pv.score(net, x, y, method=method, loss=BINARY)
        assert close(found["0.weight"], pv.score(net, x, y, method=method, loss="binary")["0.weight"])


@pytest.mark.parametrize("method", ["snip", "grasp", "obd", "obs", "kron-obd", "kron-obs", "eigendamage", "isometry"])
def test_every_method_refuses_targets_that_do_not_fit_with_a_sentence(method):
    net, x, _ = dense()
    for y in (
        labels(10, classes=3) + 1,
        labels(9, classes=3),
        numbers(10, 3),
        torch.full((10,), -100),
        list("abcabcabca"),
    ):
        with pytest.raises(PrunevizError, match=r"label|target|y can't"):
            pv.score(net, x, y, method=method)


def test_a_uniform_network_has_the_loss_log_of_classes():
    z = torch.zeros(2, 7, 3, 4, dtype=torch.float64)
    found = fit(z, labels(2, 3, 4, classes=7, ignored=0.5), "cross-entropy", n=2)
    assert float(found.loss(z, found.y)) == pytest.approx(log(7), rel=1e-14)
