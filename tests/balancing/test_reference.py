"""Methods that change losses or gradients, step by step against the literal form of their equations."""

import math
from itertools import permutations

import pytest
import torch
from literal import Literal, entropy, follow, length, mean, mean_cross_entropy, probabilities, signal_times

from vgmr.balancing import AGM, ARL, OGMGE, PMR, Balancing, MMPareto, Uniform, UniSMMC

SEEDS = (0, 1, 2, 3)  # two modalities and three by turns


def cases(*options):
    """Each set of options with two seeds of its own, for two modalities and for three."""
    return [(2 * index + more, given) for index, given in enumerate(options) for more in (0, 1)]


@pytest.mark.parametrize("head", ["concat", "tensor"])
@pytest.mark.parametrize("seed", SEEDS)
def test_plain_training(seed, head):
    follow(Balancing(), Literal, seed, head=head)


def true_probabilities(answers, label):
    """Of each sample's class, as numbers."""
    return [float(probabilities(z)[y].detach()) for z, y in zip(answers, label, strict=True)]


class LiteralUniform(Literal):
    """L + sum_m L_m."""

    def unimodal(self, batch, vectors, name):
        return mean_cross_entropy([self.linear(f"method.heads.{name}", h[name]) for h in vectors], batch.label)

    def terms(self, batch, vectors, epoch):
        return sum(self.unimodal(batch, vectors, name) for name in self.names)


@pytest.mark.parametrize("seed", SEEDS)
def test_uniform(seed):
    follow(Uniform(), LiteralUniform, seed)


class LiteralOGMGE(Literal):
    """Scores are sums of true-class probabilities of u_m = W_m h_m + b / K; damping by Eq. (10)."""

    def __init__(self, model, method, data):
        super().__init__(model, method, data)
        self.chance = torch.Generator().manual_seed(method.generator.initial_seed())

    def damping(self, batch):
        vectors, bias = self.encode_all(batch), self.p["backbone.head.linear.bias"] / len(self.names)
        score, kappa = {}, {}
        for name in self.names:
            own = [self.part_of_head(name, h[name]) + bias for h in vectors]
            score[name] = sum(true_probabilities(own, batch.label))
        for name in self.names:
            others = [score[other] for other in self.names if other != name]
            rho = mean([score[name] / other for other in others])
            if self.method.ratio == "least":
                rho = score[name] / min(score.values())
            kappa[name] = 1 - math.tanh(self.method.alpha * rho) if rho > 1 else 1.0
        self.note(kappa)
        return kappa

    def step(self, batch, epoch):
        first, last = self.method.active
        if not first <= epoch <= last:
            return super().step(batch, epoch)
        slopes, kappa = self.gradients(batch, epoch), self.damping(batch)
        scale = {}
        for name in self.names:
            weight = f"backbone.encoder.{name}.0.weight"
            scale[weight], g = kappa[name], slopes[weight]
            if self.method.apply_to == "gradient":
                slopes[weight] = kappa[name] * g
            if self.method.noise:
                entries = g.flatten().tolist()
                middle = mean(entries)
                spread = math.sqrt(sum((x - middle) ** 2 for x in entries) / (len(entries) - 1)) + 1e-8
                slopes[weight] = slopes[weight] + spread * torch.randn(g.shape, generator=self.chance)
        before = {name: self.p[name].detach() for name in scale}
        self.move(slopes)
        if self.method.apply_to == "update":
            for name, kept in before.items():
                way = self.p[name].detach() - kept
                self.p[name] = (kept + scale[name] * way).requires_grad_()


@pytest.mark.parametrize(
    ("seed", "options"),
    cases(
        {"alpha": 0.4, "window": (0, 0)},
        {"alpha": 0.8, "window": (1, 2), "noise": False},
        {"alpha": 0.5, "ratio": "least"},
        {"alpha": 1.0, "apply_to": "update", "window": (0, 2)},
    ),
)
def test_ogm_ge(seed, options):
    twin = follow(OGMGE(**options), LiteralOGMGE, seed)
    assert min(min(kappa) for kappa in twin.notes.values()) < 1 == max(max(kappa) for kappa in twin.notes.values())


class LiteralPMR(Literal):
    """Eqs. (8) to (13) for two modalities; for more, each against the best and the worst."""

    def epoch_start(self, epoch):
        part, method = self.data.train, self.method
        vectors, old = self.encode_all(part), getattr(self, "prototypes", None)
        self.prototypes = {}
        for name in self.names:
            for k in range(len(self.data.classes)):
                fresh = mean([h[name].detach() for h, y in zip(vectors, part.label, strict=True) if y == k])
                if epoch > 1:  # those before the first epoch and after it are not smoothed
                    fresh = method.momentum * old[name, k] + (1 - method.momentum) * fresh
                self.prototypes[name, k] = fresh

    def weights(self, score):
        """beta of the prototypical losses and gamma of the entropies, by modality."""
        if len(self.names) == 2:
            one, other = self.names
            ratio = score[one] / score[other]
            beta = min(max(1 / ratio - 1, 0), 1) if ratio < 1 else 0.0
            gamma = 0.0 if ratio < 1 else min(max(ratio - 1, 0), 1)
            return {one: beta, other: gamma}, {one: gamma, other: beta}
        best, worst = max(score.values()), min(score.values())
        pull = {name: min(max(best / own - 1, 0), 1) for name, own in score.items()}
        return pull, {name: min(max(own / worst - 1, 0), 1) for name, own in score.items()}

    def terms(self, batch, vectors, epoch):
        method, score, pulled, spread = self.method, {}, {}, {}
        if method.window is not None and not method.window[0] <= epoch <= method.window[1]:
            return torch.zeros(())
        for name in self.names:
            closeness = [
                torch.stack(
                    [
                        -length(h[name] - self.prototypes[name, k]) / method.temperature
                        for k in range(len(self.data.classes))
                    ]
                )
                for h in vectors
            ]
            score[name] = sum(true_probabilities(closeness, batch.label))
            pulled[name] = mean_cross_entropy(closeness, batch.label)
            spread[name] = mean([entropy(z) for z in closeness])
        beta, gamma = self.weights(score)
        if method.variant == "official":
            beta, gamma = {name: float(value > 0) for name, value in beta.items()}, dict.fromkeys(beta, 0.0)
        self.note(beta)
        total = method.alpha * sum(beta[name] * pulled[name] for name in self.names)
        if epoch < method.hold_epochs:
            total = total - method.entropy_weight * sum(gamma[name] * spread[name] for name in self.names)
        return total


@pytest.mark.parametrize(
    ("seed", "options"),
    cases(
        {"alpha": 2.0, "entropy_weight": 0.7, "entropy_epochs": 2, "momentum": 0.3},
        {"entropy_weight": 0.5, "momentum": 0.8, "temperature": 0.02, "window": (0, 1)},
        {"alpha": 2.0, "entropy_weight": 0.7, "variant": "official"},
    ),
)
def test_pmr(seed, options):
    twin = follow(PMR(share=1.0, **options), LiteralPMR, seed)
    assert max(max(beta) for beta in twin.notes.values()) > 0


class LiteralAGM(Literal):
    """Shapley shares as means over all orders of arrival; each share's signal scaled on its way back."""

    def __init__(self, model, method, data):
        super().__init__(model, method, data)
        self.seen = {name: [] for name in self.names}

    def shares(self, h):
        orders = list(permutations(self.names))
        worth = {frozenset(): torch.zeros(len(self.data.classes))}
        gains = {name: [] for name in self.names}
        for order in orders:
            for count, name in enumerate(order):
                before, after = frozenset(order[:count]), frozenset(order[: count + 1])
                if after not in worth:
                    worth[after] = self.answer(h, after)
                gains[name].append(worth[after] - worth[before])
        return {name: mean(gains[name]) for name in self.names}

    def discrepancy(self, score, name):
        return math.exp(mean([score[other] for other in self.names if other != name]) - score[name])

    def gradients(self, batch, epoch):
        method = self.method
        shares = [self.shares(h) for h in self.encode_all(batch)]
        score = {}
        for name in self.names:
            right = true_probabilities([of[name] for of in shares], batch.label)
            score[name] = mean([-math.log(max(p, 1e-8)) for p in right])
        average = {name: mean(self.seen[name]) if self.seen[name] else 0.0 for name in self.names}
        kappa = {}
        for name in self.names:
            gap = self.discrepancy(average, name) - self.discrepancy(score, name)
            kappa[name] = math.exp(method.alpha * min(gap, method.limit))
            self.seen[name].append(score[name])
        inside = method.window is None or method.window[0] <= epoch <= method.window[1]
        if inside:
            self.note(kappa)
        scale = kappa if inside else dict.fromkeys(self.names, 1.0)
        answers = [sum(signal_times(of[name], scale[name]) for name in self.names) for of in shares]
        slopes = self.slopes(mean_cross_entropy(answers, batch.label))
        if inside and method.clip is not None:
            peak = max(
                float(g.abs().max()) for name, g in slopes.items() if ".head." in name and name.endswith("weight")
            )
            if peak > method.clip:
                factor = min(1.0, method.clip / (float(length(*slopes.values())) + 1e-6))
                slopes = {name: factor * g for name, g in slopes.items()}
        return slopes


@pytest.mark.parametrize(
    ("seed", "options"),
    cases(
        {"alpha": 1.5, "clip": None},
        {"alpha": 4.0, "limit": 0.01, "clip": 0.05, "window": (1, 2)},
        {"alpha": 2.5, "clip": 0.2},
    ),
)
def test_agm(seed, options):
    twin = follow(AGM(**options), LiteralAGM, seed, head="tensor")
    found = [value for kappa in twin.notes.values() for value in kappa]
    assert min(found) < 1 < max(found)


class LiteralMMPareto(LiteralUniform):
    """The weight of the joint gradient is found by halving: where the shortest mixture has no slope."""

    def share_of_joint(self, g, u):
        if sum((x * y).sum() for x, y in zip(g, u, strict=True)) > 0:
            return 0.5
        low, high = 0.0, 1.0
        for _ in range(100):
            c = (low + high) / 2
            slope = sum(((x - y) * (c * x + (1 - c) * y)).sum() for x, y in zip(g, u, strict=True))
            low, high = (low, c) if slope > 0 else (c, high)
        return c

    def gradients(self, batch, epoch):
        vectors = self.encode_all(batch)
        joint = self.slopes(self.joint_loss(batch, vectors))
        unimodal = {name: self.slopes(self.unimodal(batch, vectors, name)) for name in self.names}
        result = {}
        for name in self.names:
            branch = self.branch(name)
            g, u = [joint[place] for place in branch], [unimodal[name][place] for place in branch]
            c = self.share_of_joint(g, u)
            self.note({name: c})
            mixed = [2 * c * x + 2 * (1 - c) * y for x, y in zip(g, u, strict=True)]
            whole = length(*[x + y for x, y in zip(g, u, strict=True)]) / length(*mixed)
            for place, x, y, h in zip(branch, g, u, mixed, strict=True):
                ratio = whole if self.method.rescale == "encoder" else length(x + y) / length(h)
                result[place] = self.method.strength * max(1.0, float(ratio)) * h
        for place in self.p:
            if place not in result:
                result[place] = sum(slopes[place] for slopes in (joint, *unimodal.values()) if place in slopes)
        return result


@pytest.mark.parametrize(("seed", "options"), cases({}, {"strength": 0.8, "rescale": "encoder"}))
def test_mmpareto(seed, options):
    twin = follow(MMPareto(**options), LiteralMMPareto, seed)
    found = {weight for weights in twin.notes.values() for weight in weights}
    assert 0.5 in found and len(found) > 1, "some agree and some conflict"


class LiteralARL(Literal):
    """The joint head on one modality judges it; the gradient at h_m is multiplied by 1 + (K / 2) w_m."""

    def __init__(self, model, method, data):
        super().__init__(model, method, data)
        self.before = dict.fromkeys(self.names, 1.0)

    def logits(self, h, name):
        return self.part_of_head(name, h[name]) + self.p["backbone.head.linear.bias"]

    def factors(self, vectors):
        method, count = self.method, len(self.names)
        if method.variant == "released":
            return dict.fromkeys(self.names, 1.5)
        magnitude, doubt = {}, {}
        for name in self.names:
            own = [self.logits(h, name).detach() for h in vectors]
            magnitude[name] = sum(float(mean([abs(z[c]) for z in own])) for c in range(len(own[0])))
            doubt[name] = float(mean([entropy(z) for z in own]))
        share = {name: max(doubt[name] / sum(doubt.values()), 0.6 / count) for name in self.names}
        sure = {name: (1 / share[name]) / sum(1 / s for s in share.values()) for name in self.names}
        weight = {}
        for name in self.names:
            others = sum(magnitude[other] for other in self.names if other != name) / sum(magnitude.values())
            weight[name] = math.exp(method.temperature * others * sure[name])
        return {name: 1 + count / 2 * weight[name] / sum(weight.values()) for name in self.names}

    def gradients(self, batch, epoch):
        method, vectors = self.method, self.encode_all(batch)
        factors, strength = dict.fromkeys(self.names, 1.0), 1.0
        if epoch > method.start_epoch:
            factors, strength = self.factors(vectors), method.unimodal_weight
            if method.lag:
                factors, self.before = self.before, factors
            self.note(factors)
        vectors = [{name: signal_times(h[name], factors[name]) for name in self.names} for h in vectors]
        loss = self.joint_loss(batch, vectors)
        for name in self.names:
            loss = loss + strength * mean_cross_entropy([self.logits(h, name) for h in vectors], batch.label)
        slopes = self.slopes(loss)
        factor = min(1.0, method.clip / (float(length(*slopes.values())) + 1e-6))
        return {name: factor * g for name, g in slopes.items()}


@pytest.mark.parametrize(
    ("seed", "options"),
    cases(
        {"start_epoch": 0}, {"start_epoch": 0, "lag": 1, "clip": 0.5}, {"start_epoch": -1, "variant": "released"}
    ),
)
def test_arl(seed, options):
    twin = follow(ARL(unimodal_weight=1.7, temperature=4.0, **options), LiteralARL, seed, tolerance=1e-7)
    found = {round(value, 6) for factors in twin.notes.values() for value in factors}
    assert found == {1.5} if options.get("variant") else len(found) > 4


class LiteralUniSMMC(Literal):
    """Each sample's two vectors pull at each other; the one that alone is right stays where it is."""

    def logits(self, name, vector):
        inner = torch.relu(self.linear(f"method.heads.{name}.0", vector))
        inner = torch.relu(self.linear(f"method.heads.{name}.3", inner))
        return self.linear(f"method.heads.{name}.5", inner)

    def contrast(self, a, b, vectors, right):
        chosen, every = [], []
        for row, h in enumerate(vectors):
            x, y = h[a], h[b]
            if right[a][row] and not right[b][row]:
                x = x.detach()
            if right[b][row] and not right[a][row]:
                y = y.detach()
            every.append(torch.exp((x * y).sum() / (length(x) * length(y)) / self.method.temperature))
            if right[a][row] or right[b][row]:
                chosen.append(every[-1])
        self.kinds |= {(bool(r), bool(s)) for r, s in zip(right[a], right[b], strict=True)}
        return -(sum(chosen) / sum(every)).log() if chosen else torch.zeros(())

    def terms(self, batch, vectors, epoch):
        self.kinds = getattr(self, "kinds", set())
        total, right = 0.0, {}
        for name in self.names:
            own = [self.logits(name, h[name]) for h in vectors]
            total = total + mean_cross_entropy(own, batch.label)
            right[name] = [int(z.argmax()) == int(y) for z, y in zip(own, batch.label, strict=True)]
        pairs = [(a, b) for i, a in enumerate(self.names) for b in self.names[i + 1 :]]
        together = sum(self.contrast(a, b, vectors, right) for a, b in pairs)
        self.note({"contrast": together.detach()})
        return total + self.method.weight * together


def test_unis_mmc():
    kinds = set()
    for seed in SEEDS:
        kinds |= follow(UniSMMC(weight=0.8, temperature=0.5), LiteralUniSMMC, seed).kinds
    assert len(kinds) == 4, "both right, one or the other alone, none"
