"""What the paper claims, one row each, with the notebook and the recorded keys that test it.

The keys are what the notebooks must hand over, by `vgmr.notebook.lesson.record(RECORD, {KEY: evidence(...)})`:
one per data set, which `vgmr.paper.ledger` pools. "DATASET" stands for a data set's name in the patterns below. A
key says whose difference to whom it holds; a claim that is `turned` says that this difference lies below zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vgmr.paper import figures

PAPER_FORM = "results of the paper's form"
ADOPTED = "results of the calibrated form"
CODE = "the code against our reconstruction of the equations"
LISTS = (PAPER_FORM, ADOPTED, CODE)
LABELS = {PAPER_FORM: "VGMR, paper's form", ADOPTED: "VGMR, calibrated"}


@dataclass(frozen=True)
class Claim:
    """One row of the ledger.

    Attributes:
        list: one of `LISTS`; the lists are never added up.
        item: number in the paper, such as "Table 3", or its section. Claims of one item are one family for Holm.
        text: what the paper says, in our words.
        notebook: number of the one that tests it; empty if none does.
        record, keys: name of the record there, and the keys in it, one per data set.
        turned: the claim is that the recorded difference is below zero.
        paper: the paper's effect on MOSEI or MOSI, above zero, where our copy of the paper states one.
        sets: data sets that the keys are about, in their order; made data are called so.
        unit: of the difference.
        where: the function in `vgmr` that computes it.
        reason: why it is not tested.
    """

    list: str
    item: str
    text: str
    notebook: str = ""
    record: str = ""
    keys: tuple[str, ...] = ()
    turned: bool = False
    paper: float | None = None
    where: str = ""
    reason: str = ""
    sets: tuple[str, ...] = ()
    unit: str = "accuracy"


@dataclass(frozen=True)
class Tested:
    """What claims that one record tests have in common: notebook, record, function in `vgmr`, data sets."""

    notebook: str
    record: str
    where: str
    sets: tuple[str, ...]

    def claim(self, kind: str, item: str, text: str, pattern: str, **more: Any) -> Claim:
        """A claim whose keys are `pattern`, once for each data set; `more` are other fields of `Claim`."""
        keys = tuple(pattern.replace("DATASET", name) for name in self.sets)
        return Claim(kind, item, text, self.notebook, self.record, keys, where=self.where, sets=self.sets, **more)


OPEN_SETS = {"MOSI": ("04", "mosi-words"), "UCF101": ("06", "utd-mhad")}
OPEN_SETS |= {"AVE": ("07", "avdigits"), "CREMA-D": ("08", "cremad-ratings")}
CONTRASTS, ANALYSIS = "vgmr.comparison.contrasts", "vgmr.analysis"
CONTROLLED = Tested("09", "controlled comparison", CONTRASTS, ("uci-mfeat", "utd-mhad"))
COSTS = Tested("09", "controlled comparison", f"{ANALYSIS}.cost", ("made data",))
BALANCED = Tested("10", "balancing methods", CONTRASTS, ("uci-mfeat",))
ABLATED = Tested("11", "ablations", CONTRASTS, ("uci-mfeat", "cremad-ratings"))
REMOVED = Tested("12", "weak modalities", f"{ANALYSIS}.removal.removal_claims", ("uci-mfeat",))
ROBUST = Tested("13", "robustness", f"{ANALYSIS}.robustness.scores", ("utd-mhad",))
VALUED = Tested("14", "value and gate", ANALYSIS, ("mosi-words", "uci-mfeat", "utd-mhad"))
NOISY_TEXT = Tested("14", "value and gate", ANALYSIS, ("mosi-words",))
FOLLOWED = Tested("15", "optimization diagnostics", ANALYSIS, ("utd-mhad",))
PLUGGED = Tested("18", "plug-in", CONTRASTS, ("uci-mfeat", "utd-mhad"))
INFORMED = Tested("20", "information", f"{ANALYSIS}.information", ("uci-mfeat", "utd-mhad"))
VALUE_TARGETS = {PAPER_FORM: ("delta", "impact"), ADOPTED: ("anchors",)}


def _overall(kind: str) -> list[Claim]:
    found = []
    for paper, (number, partner) in OPEN_SETS.items():
        test = Tested(number, f"training {partner}", "vgmr.comparison.compare", (partner,))
        text = f"{paper}, here {partner}, pooled: VGMR beats the same backbone without it"
        found.append(test.claim(kind, "Table 2", text, f"pooled: {LABELS[kind]} over plain"))
    return found


def _plugged(kind: str) -> list[Claim]:
    text = "in front of any fusion system VGMR adds accuracy, mean over the systems of notebook 18"
    return [PLUGGED.claim(kind, "Abstract", text, f"DATASET, mean over hosts: {LABELS[kind]} over plain")]


def _controlled(kind: str) -> list[Claim]:
    rivals = {
        "Table 5": ("Summation", "Tensor Fusion", "parameter-matched MLP"),
        "Table 6": ("plain", "Cross-Attention", "Sigmoid+Tanh gate"),
    }
    return [
        CONTROLLED.claim(
            kind,
            item,
            f"VGMR beats {rival}, {metric.replace('_', '-')}",
            f"DATASET, {metric}: {LABELS[kind]} over {rival}",
            paper=figures.lead(figures.FORM, rival, metric),
            unit={"macro_f1": "macro-F1"}.get(metric, metric),
        )
        for item, names in rivals.items()
        for rival in names
        for metric in ("accuracy", "macro_f1")
    ]


def _ablation(kind: str) -> list[Claim]:
    rows = [
        ("the global value contributes", "full", "no global value"),
        ("the channel value contributes", "full", "no channel value"),
        ("the two values together contribute", "full", "no value in the gate"),
        ("agreement contributes", "full", "no agreement"),
        ("discrepancy contributes", "full", "no discrepancy"),
        ("agreement and discrepancy together contribute", "full", "neither of the two"),
        ("the channel value matters more than the global value", "no global value", "no channel value"),
        ("discrepancy matters more than agreement", "no agreement", "no discrepancy"),
    ]
    if kind == ADOPTED:  # its value is measured, not learned from agreement and discrepancy
        rows = [row for row in rows if "no value in the gate" in row]
    found = []
    for text, more, less in rows:
        pattern = f"DATASET, {LABELS[kind]}: {more} over {less}"
        effect = figures.ABLATIONS[more][0] - figures.ABLATIONS[less][0]
        found.append(ABLATED.claim(kind, "Table 3", text, pattern, paper=effect))
    return found


def _value(kind: str) -> list[Claim]:
    """Table 4 and section 4.11, with the target of the reconstruction (delta) and with impact (|delta|).

    The value of the calibrated form is not trained; its anchors stand in the place of a target.
    """
    moves = {
        "global_value": "the global value goes up",
        "channel_value": "the channel value goes up",
        "channel_deviation": "channel values spread out",
        "gate": "the gate goes down",
    }
    found = []
    for target in VALUE_TARGETS[kind]:
        start = f"DATASET, {LABELS[kind]}, target {target}:"
        for name, text in moves.items():
            text, pattern = f"noise in the text of MOSI: {text}; target {target}", f"{start} change of {name}"
            more = {"turned": name == "gate", "unit": "value or gate"}
            effect = abs(figures.CORRUPTED_TEXT[name][2])
            found.append(NOISY_TEXT.claim(kind, "Table 4", text, pattern, paper=effect, **more))
        for name, text, turned in (
            ("global_value", "a higher value tells the unreliable modality", True),
            ("global_value", "a lower value tells the unreliable modality", False),
            ("gate", "a lower gate tells the unreliable modality", False),
        ):
            text, pattern = f"{text}; target {target}", f"{start} AUROC less 1/2 of a low {name}"
            found.append(VALUED.claim(kind, "Section 4.11", text, pattern, turned=turned, unit="AUROC"))
    return found


def _noise(kind: str) -> list[Claim]:
    label, found = LABELS[kind], []
    for item, setting in (("Figure 2", "noise ratio"), ("Figure 3", "noise weight")):
        for rival in ("plain", "Grad-Blending"):
            for quantity, text, unit in (
                ("area", f"VGMR stays above {rival}", "accuracy"),
                ("retention", f"VGMR keeps more of what it has above chance than {rival}", "retention"),
            ):
                pattern = f"DATASET, {setting}: {quantity}, {label} over {rival}"
                found.append(ROBUST.claim(kind, item, text, pattern, unit=unit))
        text = "every model loses accuracy as noise grows"
        found.append(ROBUST.claim(kind, item, text, f"DATASET, {setting}: drop, {label}"))
    return found


def _optimisation(kind: str) -> list[Claim]:
    rows = (
        ("Figure 4", "VGMR's loss falls faster at first", "early loss", "nats"),
        ("Figure 4", "its validation curve is smoother later", "late roughness", "nats"),
        ("Figure 5", "VGMR's cosine is closer to zero", "mean |cosine|", "cosine"),
        ("Figure 5", "VGMR's cosine is smoother", "change of the cosine", "cosine"),
    )
    return [
        FOLLOWED.claim(kind, item, text, f"DATASET: {key}, {LABELS[kind]} over plain", turned=True, unit=unit)
        for item, text, key, unit in rows
    ]


def _refinement(kind: str) -> list[Claim]:
    less, key = "the strongest modality is suppressed less than the others", "strongest over others"
    start = f"DATASET, {LABELS[kind]}: suppression"
    rows = (
        ("Figure 6", f"in samples that only VGMR gets right, {less}", f"{start} where only VGMR is right, {key}"),
        ("Figure 7", f"on average, {less}", f"{start}, {key}"),
    )
    return [
        VALUED.claim(kind, item, text, pattern, turned=True, unit="share of |X|") for item, text, pattern in rows
    ]


def _beside(kind: str) -> list[Claim]:
    label, found = LABELS[kind], []
    for name, key in (("OGM-GE", "ogm-ge"), ("ARL", "arl")):
        text, pattern = f"{name} gains by VGMR in front", f"DATASET: {key} + {label} over {key}"
        found.append(BALANCED.claim(kind, "Table 8", text, pattern, paper=figures.gain_in_front(key)))
    whole, no_text, no_audio, no_vision = figures.REMOVALS[figures.FORM]
    for claim, text, effect in (
        ("a", "VGMR loses most without the dominant modality", no_vision - no_text),
        ("c", "VGMR loses without a weak modality", whole - no_audio),
    ):
        found.append(REMOVED.claim(kind, "Table 9", text, f"DATASET, zeroed: ({claim}) {label}", paper=effect))
    return found


def _information(kind: str) -> list[Claim]:
    """The relation to information decomposition that section 5 asks for, over samples within a modality."""
    rows = (
        ("a higher value goes with more unique information", "unique", False),
        ("a higher value goes with more complementary information", "synergy", False),
        ("a higher value goes with less redundant information", "redundancy", True),
    )
    start, unit = f"DATASET, {LABELS[kind]}: rank correlation of value and", "rank correlation"
    return [
        INFORMED.claim(kind, "Section 5", text, f"{start} {held}", turned=turned, unit=unit)
        for text, held, turned in rows
    ]


def _costs() -> list[Claim]:
    rows = (
        ("VGMR trains faster than Grad-Blending", "training time, vgmr over grad-blending", True),
        ("VGMR trains faster than AGM", "training time, vgmr over agm", True),
        ("VGMR trains slower than parameter-matched MLP", "training time, vgmr over mlp", False),
        ("VGMR infers slower than parameter-matched MLP", "inference time, vgmr over mlp", False),
    )
    return [
        COSTS.claim(PAPER_FORM, "Table 7", text, f"log ratio of {key}", turned=turned, unit="log of a ratio")
        for text, key, turned in rows
    ]


def _rivals() -> list[Claim]:
    motivation = []
    for name in ("MMPareto", "parameter-matched MLP"):
        pattern, effect = f"DATASET, accuracy: {name} over plain", figures.lead(name, "plain")
        motivation.append(CONTROLLED.claim(PAPER_FORM, "Table 1", f"{name} beats plain", pattern, paper=effect))
    text = "balancing methods gain where a weak modality is removed"
    weak = REMOVED.claim(PAPER_FORM, "Table 9", text, "DATASET, zeroed: (b) balancing methods")
    text = "plain's cosine changes its sign at more than half of the checkpoints"
    pattern = "DATASET: sign changes of plain's cosine less 1/2"
    swings = FOLLOWED.claim(PAPER_FORM, "Figure 5", text, pattern, unit="share of steps")
    reason = "the set may not be passed on and has no open counterpart; notebook 05 trains on made data"
    mosei = Claim(PAPER_FORM, "Table 2", "MOSEI: VGMR beats plain, pooled and Transformer", reason=reason)
    return [*motivation, mosei, weak, swings]


EQUATIONS = {
    "Eq. (1)": "features of any length and width go in, refined ones of the same shape come out",
    "Eq. (2)": "projection into a shared width",
    "Eq. (3)": "summary of mean and maximum over real steps",
    "Eq. (4)": "the other modalities",
    "Eq. (5)": "their mean summary",
    "Eq. (6)": "agreement and discrepancy of each pair",
    "Eq. (7)": "their collections",
    "Eq. (8)": "interaction input",
    "Eq. (9)": "interaction and value state",
    "Eq. (10)": "global and channel value",
    "Eq. (11)": "gate",
    "Eq. (12)": "amplification",
    "Eq. (13)": "residual retention",
    "Section 3.7": "LayerNorm, then Dropout, of the gated features",
    "Section 3.8": "contribution, value supervision and regulariser",
    "Figure 1": "the parts work together as the text says",
}


def _code() -> list[Claim]:
    keys = {"Eq. (1)": "refined features", "Figure 1": "forward pass"}  # the others are kept by their item
    found = [
        Claim(CODE, item, text, "03", "method walkthrough", (keys.get(item, item),), where="vgmr.refiner")
        for item, text in EQUATIONS.items()
    ]
    text = "the cosine of identical losses is 1, of opposite ones -1"
    followed = ("15", "optimization diagnostics", ("Eq. (14)",))
    return [*found, Claim(CODE, "Eq. (14)", text, *followed, where="vgmr.analysis")]


def _results(kind: str) -> list[Claim]:
    makers = (_plugged, _overall, _ablation, _value, _controlled, _beside, _noise, _optimisation, _refinement)
    return [claim for make in (*makers, _information) for claim in make(kind)]


CLAIMS: list[Claim] = [*_rivals(), *_results(PAPER_FORM), *_costs(), *_results(ADOPTED), *_code()]
