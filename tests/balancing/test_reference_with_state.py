"""Methods with own turns, trials, resets or labels, step by step against the literal form of their equations."""

import copy
import math
from itertools import combinations

import pytest
import torch
from literal import RATE, Literal, entropy, follow, length, mean, mean_cross_entropy

from vgmr.balancing import MLA, MMIM, GradBlending, Relearning, SelfMM

SEEDS = (0, 1, 2, 3)  # two modalities and three by turns


class LiteralMLA(Literal):
    """The modalities take turns at the head W, whose gradient P guards; then what lies before the head steps."""

    def __init__(self, model, method, data):
        super().__init__(model, method, data)
        self.guard = torch.eye(self.width)
        self.turns, self.batches, self.size = 0, 0, 0
        self.weights = method.fixed_weights

    def epoch_start(self, epoch):
        self.batches = 0

    def learn(self, r, a):
        """P - k k^T / (a + r k) with k = P r; the elementwise form divides by a + k_i r_j."""
        size = range(len(r))
        k = [sum(self.guard[i, j] * r[j] for j in size) for i in size]
        product = sum(r[i] * k[i] for i in size)
        fresh = torch.zeros(len(r), len(r))
        for i in size:
            for j in size:
                below = product if self.method.projection == "rls" else k[i] * r[j]
                fresh[i, j] = self.guard[i, j] - k[i] * k[j] / (a + below)
        if self.method.normalise:
            fresh = fresh / length(fresh)
        self.guard = fresh

    def step(self, batch, epoch):
        self.size = max(self.size, len(batch))
        count = -(-len(self.data.train) // self.size)
        a = 0.1 ** (1 + self.batches / count)
        vectors, before = self.encode_all(batch), {}
        for name in self.names:
            own = [self.linear("backbone.head.linear", h[name]) for h in vectors]
            slopes = self.slopes(mean_cross_entropy(own, batch.label))
            of_head = {place: slopes.pop(place) for place in list(slopes) if ".head." in place}
            for place, slope in slopes.items():
                before[place] = before.get(place, 0) + slope
            r, weight = mean([h[name].detach() for h in vectors]), "backbone.head.linear.weight"
            if self.method.projection == "elementwise" and self.turns:  # the first turn does neither
                self.learn(r, a)
                of_head[weight] = of_head[weight] @ self.guard.T
            if self.method.projection == "rls":
                of_head[weight] = of_head[weight] @ self.guard.T
                self.learn(r, a)
            self.move(of_head)
            self.turns += 1
        self.move(before)
        self.batches += 1

    def answer(self, vectors, keep=None):
        own = {name: self.linear("backbone.head.linear", vectors[name]) for name in self.names}
        weight = self.weights or {name: torch.exp(-entropy(own[name])) for name in self.names}
        return sum(weight[name] * own[name] for name in self.names) / sum(weight.values())


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("projection", ["none", "rls", "elementwise"])
def test_mla(seed, projection):
    weights = {"sound": 0.5, "text": 0.2, "image": 0.3}
    if seed % 2 == 0:
        del weights["image"]
    method = MLA(
        projection, normalise=seed > 1 or projection == "elementwise", weights=weights if seed > 1 else None
    )
    follow(method, LiteralMLA, seed, head="shared", batches=3, tolerance=1e-8)


class LiteralGradBlending(Literal):
    """Trials of one loss each; their gain for their overfitting weighs the losses."""

    def __init__(self, model, method, data):
        super().__init__(model, method, data)
        self.kept, self.held = data.train.index(method.kept), data.train.index(method.held)

    def loss(self, which, part):
        vectors = self.encode_all(part)
        if which == "joint":
            return self.joint_loss(part, vectors)
        return mean_cross_entropy([self.linear(f"method.heads.{which}", h[which]) for h in vectors], part.label)

    def trial(self, which, epochs):
        """V_N - V_(N+n) and the growth of V - T."""
        other, seen = copy.copy(self), []
        other.p = dict(self.p)
        for _ in range(2):
            if seen:
                for _ in range(epochs):
                    for name, slope in other.slopes(other.loss(which, self.kept)).items():
                        other.p[name] = (other.p[name].detach() - RATE * slope).requires_grad_()
            seen.append([float(other.loss(which, part).detach()) for part in (self.kept, self.held)])
        (train, held), (train_after, held_after) = seen
        return held - held_after, (held_after - train_after) - (held - train)

    def epoch_start(self, epoch):
        method, names = self.method, [*self.names, "joint"]
        interval = method.super_epoch if method.online else method.epochs
        if epoch % interval == 0:
            trials = {which: self.trial(which, min(interval, method.epochs - epoch)) for which in names}
            raw = {
                which: max(gain, 0) / max(grown**2, method.least_overfitting**2)
                for which, (gain, grown) in trials.items()
            }
            total = sum(raw.values())
            self.blend = {which: value / total if total else 1 / len(raw) for which, value in raw.items()}
        self.note({"joint loss" if which == "joint" else which: weight for which, weight in self.blend.items()})

    def gradients(self, batch, epoch):
        return self.slopes(sum(weight * self.loss(which, batch) for which, weight in self.blend.items()))


@pytest.mark.parametrize("seed", SEEDS)
def test_grad_blending(seed):
    method = GradBlending(super_epoch=2, online=seed < 2, held_out=0.3, least_overfitting=0.05)
    twin = follow(method, LiteralGradBlending, seed)
    weights = [value for blend in twin.notes.values() for value in blend]
    assert max(weights) > min(weights)


class LiteralRelearning(Literal):
    """Branches go tanh(lambda |purity gap|) of the way back to where they began."""

    def __init__(self, model, method, data):
        super().__init__(model, method, data)
        self.initial, self.resets = {name: p.detach().clone() for name, p in self.p.items()}, 0

    def purity(self, part, name):
        from sklearn.cluster import KMeans

        rows = [h[name].detach().tolist() for h in self.encode_all(part)]
        columns = []
        for column in zip(*rows, strict=True):
            low, high = min(column), max(column)
            columns.append([2 * (x - low) / (high - low) - 1 for x in column])
        scaled = list(zip(*columns, strict=True))
        clusters = KMeans(len(self.data.classes), n_init=self.method.starts, random_state=0).fit_predict(scaled)
        right = 0
        for cluster in set(clusters):
            members = [int(y) for own, y in zip(clusters, part.label, strict=True) if own == cluster]
            right += max(members.count(k) for k in members)
        return right / len(part)

    def epoch_end(self, epoch):
        method, train, validation = self.method, self.data.train, self.data.validation
        if epoch == 0 or epoch % method.interval != 0 or self.resets == method.times:
            return
        self.resets += 1
        if method.size_matched and len(validation) < len(train):
            chance = torch.Generator().manual_seed(method.seed)
            train = train.index(torch.randperm(len(train), generator=chance)[: len(validation)])
        for name in self.names:
            gap = abs(self.purity(train, name) - self.purity(validation, name))
            share = math.tanh(method.strength * gap)
            self.note({name: share})
            for place in self.branch(name):
                mixed = share * self.initial[place] + (1 - share) * self.p[place].detach()
                self.p[place] = mixed.requires_grad_()


@pytest.mark.parametrize("seed", SEEDS)
def test_relearning(seed):
    method = Relearning(strength=2.0, interval=1 + seed // 2, times=2, size_matched=bool(seed % 3), starts=3)
    twin = follow(method, LiteralRelearning, seed, epochs=5)
    shares = [share for found in twin.notes.values() for share in found]
    assert twin.resets == 2 and max(shares) > 0


class LiteralSelfMM(Literal):
    """One sample after the other: features and labels that are kept, and how they lean."""

    def __init__(self, model, method, data):
        super().__init__(model, method, data)
        label = data.train.label.double()
        self.truth = 2 * label - 1 if data.classes else label
        self.highest = max(abs(y) for y in self.truth)
        self.own = {name: self.truth.clone() for name in self.names}
        self.features = {name: {} for name in [*self.names, "fused"]}

    def centre(self, which, labels, sign):
        near = [f for row, f in self.features[which].items() if sign * labels[row] > 0]
        return mean(near)

    def lean(self, feature, which, labels):
        near = length(feature - self.centre(which, labels, 1))
        return (length(feature - self.centre(which, labels, -1)) - near) / (near + 1e-8)

    def terms(self, batch, vectors, epoch):
        rows, total, fresh = batch.row.tolist(), 0.0, {name: {} for name in self.features}
        for row, h in zip(rows, vectors, strict=True):
            fresh["fused"][row] = torch.cat([h[name] for name in sorted(self.names)]).detach()
            for name in self.names:
                feature = torch.relu(self.linear(f"method.heads.{name}.first", h[name]))
                inner = torch.relu(self.linear(f"method.heads.{name}.second", feature))
                answer = self.linear(f"method.heads.{name}.third", inner)[0]
                own = self.own[name][row]
                total = total + torch.tanh(abs(own - self.truth[row])) * (answer - own).abs() / len(rows)
                fresh[name][row] = feature.detach()
        if epoch >= 1:
            e, labels = epoch + 1, {name: own.clone() for name, own in self.own.items()}
            for row in rows:
                y, whole = self.truth[row], self.lean(fresh["fused"][row], "fused", self.truth)
                for name in self.names:
                    single = self.lean(fresh[name][row], name, labels[name])
                    new = y * single / (whole + 1e-8) / 2 + (y + single - whole) / 2
                    new = max(min(new, self.highest), -self.highest)
                    self.own[name][row] = (e - 1) / (e + 1) * labels[name][row] + 2 / (e + 1) * new
        for name, found in fresh.items():
            self.features[name].update(found)
        return total


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("classes", [0, 2])
def test_self_mm(seed, classes):
    method = SelfMM()
    twin = follow(method, LiteralSelfMM, seed, classes=classes)
    for name, own in twin.own.items():
        torch.testing.assert_close(method.get_buffer(f"label_{name}"), own, atol=1e-9, rtol=0)
        assert (own - twin.truth).abs().max() > 0.1


class LiteralMMIM(Literal):
    """Stage A by Adam on the predictors of one vector from another; stage B by all terms on all else."""

    def __init__(self, model, method, data):
        super().__init__(model, method, data)
        self.pairs = list(combinations(self.names, 2))
        if method.anchor is not None:
            self.pairs = [(method.anchor, name) for name in self.names if name != method.anchor]
        self.frozen = {place for place in self.p if ".bounds." in place}
        self.learnt = sorted(place for place in self.frozen if ".narrow." not in place)
        self.first, self.second, self.steps = {}, {}, 0

    def likelihood(self, vectors, x, y):
        found = []
        for h in vectors:
            net = f"method.bounds.{x}+{y}"
            mu, s = (
                self.linear(f"{net}.{of}.2", torch.relu(self.linear(f"{net}.{of}.0", h[x])))
                for of in ("mean", "log_variance")
            )
            total = 0.0
            for k in range(self.width):
                log_variance = torch.clamp(s[k], min=-4.0)
                total = total - (mu[k] - h[y][k]) ** 2 / (2 * log_variance.exp())
                if self.method.variant == "corrected":
                    total = total - log_variance / 2
            found.append(total)
        return mean(found)

    def epoch_start(self, epoch):
        part, self.kept, self.seen = self.data.train, {}, 0
        vectors = [{name: h[name].detach() for name in self.names} for h in self.encode_all(part)]
        loss = -sum(self.likelihood(vectors, x, y) for x, y in self.pairs)
        slopes = torch.autograd.grad(loss, [self.p[place] for place in self.learnt])
        self.steps += 1
        for place, slope in zip(self.learnt, slopes, strict=True):
            slope = slope + 1e-4 * self.p[place].detach()
            self.first[place] = 0.9 * self.first.get(place, 0) + 0.1 * slope
            self.second[place] = 0.999 * self.second.get(place, 0) + 0.001 * slope**2
            way = self.first[place] / (1 - 0.9**self.steps)
            spread = (self.second[place] / (1 - 0.999**self.steps)).sqrt() + 1e-8
            self.p[place] = (self.p[place].detach() - self.method.learning_rate * way / spread).requires_grad_()

    def group_entropy(self, rows, groups):
        """Half the log-determinant of each group's covariance; too few samples have none."""
        count, found = len(self.data.classes) or 2, []
        for value in range(count):
            own = [row for row, group in zip(rows, groups, strict=True) if group == value]
            size = len(rows[0])
            if len(own) <= size:
                continue
            middle = mean(own)
            spread = mean([torch.outer(row - middle, row - middle) for row in own])
            if count > 2:
                spread = spread + 1e-4 * torch.eye(size)
            found.append(torch.linalg.cholesky(spread).diagonal().log().sum())
        self.entropies += len(found)
        return mean(found) if found else torch.zeros(())

    def terms(self, batch, vectors, epoch):
        self.entropies = getattr(self, "entropies", 0)
        contrast, information, unit = 0.0, 0.0, lambda x: x / length(x)
        fused = [torch.cat([h[name] for name in sorted(self.names)]) for h in vectors]
        for name in self.names:
            told = [unit(self.linear(f"method.project.{name}", f)) for f in fused]
            for b, h in enumerate(vectors):
                products = [(unit(h[name]) * q).sum() for q in told]
                contrast = contrast - (products[b] - sum(x.exp() for x in products).log()) / len(vectors)
        groups = batch.label.tolist()
        if not self.data.classes:
            groups = [None if y == 0 else int(y > 0) for y in groups]
        for x, y in self.pairs:
            information = information + self.likelihood(vectors, x, y)
            rows = [torch.tanh(self.linear(f"method.bounds.{x}+{y}.narrow", h[y])) for h in vectors]
            if self.seen >= 2:
                older, before = self.kept[x, y]
                information = information + self.group_entropy(rows + older, groups + before)
            self.kept[x, y] = [row.detach() for row in rows], groups
        self.seen += 1
        self.note({"contrast": contrast.detach(), "information": information.detach()})
        return self.method.contrast_weight * contrast - self.method.likelihood_weight * information


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("classes", [0, 2, 3])
def test_mmim(seed, classes):
    options = {"variant": "official"} if seed == 2 else {"anchor": "text"} if seed == 3 else {}
    method = MMIM(contrast_weight=0.4, likelihood_weight=0.2, learning_rate=0.1, **options)
    twin = follow(method, LiteralMMIM, seed, classes=classes, batches=3, tolerance=1e-7)
    assert twin.entropies
