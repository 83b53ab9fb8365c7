"""What the paper claims, one row each, with the notebook and the recorded keys that test it.

The keys are what the notebooks must hand over, by `vgmr.notebook.lesson.record(RECORD, {KEY: evidence(...)})`:
one per data set, which `vgmr.paper.ledger` pools. "DATASET" stands for a data set's name in the patterns below. A
key says whose difference to whom it holds; a claim that is `turned` says that this difference lies below zero.
"""

from __future__ import annotations

from dataclasses import dataclass

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


OPEN_SETS = {"MOSI": ("04", "mosi-words"), "UCF101": ("06", "utd-mhad")}
OPEN_SETS |= {"AVE": ("07", "avdigits"), "CREMA-D": ("08", "cremad-ratings")}
CONTROLLED_SETS = ("uci-mfeat", "utd-mhad")
ABLATED_SETS = ("uci-mfeat", "cremad-ratings")
BALANCED_SETS = ("uci-mfeat",)
FOLLOWED_SETS = ("utd-mhad",)
VALUE_SETS = ("mosi-words", "uci-mfeat", "utd-mhad")
VALUE_TARGETS = {PAPER_FORM: ("delta", "impact"), ADOPTED: ("anchors",)}
ROBUST_SETS = ("utd-mhad",)
INFORMED_SETS = ("uci-mfeat", "utd-mhad")
PLUGGED_SETS = ("uci-mfeat", "utd-mhad")


def _keys(pattern: str, datasets: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(pattern.replace("DATASET", name) for name in datasets)


def _overall(kind: str) -> list[Claim]:
    label, where = LABELS[kind], "vgmr.comparison.compare"
    found = []
    for paper, (number, partner) in OPEN_SETS.items():
        for backbone in ("pooled",):
            text = f"{paper}, here {partner}, {backbone}: VGMR beats the same backbone without it"
            if backbone == "pooled" or partner == "utd-mhad":
                keys = (f"{backbone}: {label} over plain",)
                name = f"training {partner}"
                found.append(Claim(kind, "Table 2", text, number, name, keys, where=where, sets=(partner,)))
    return found


def _plugged(kind: str) -> list[Claim]:
    keys = _keys(f"DATASET, mean over hosts: {LABELS[kind]} over plain", PLUGGED_SETS)
    text = "in front of any fusion system VGMR adds accuracy, mean over the systems of notebook 18"
    where = "vgmr.comparison.contrasts"
    return [Claim(kind, "Abstract", text, "18", "plug-in", keys, where=where, sets=PLUGGED_SETS)]


def _controlled(kind: str) -> list[Claim]:
    label = LABELS[kind]
    rivals = {
        "Table 5": ("Summation", "Tensor Fusion", "parameter-matched MLP"),
        "Table 6": ("plain", "Cross-Attention", "Sigmoid+Tanh gate"),
    }
    return [
        Claim(
            kind,
            item,
            f"VGMR beats {rival}, {metric.replace('_', '-')}",
            "09",
            "controlled comparison",
            _keys(f"DATASET, {metric}: {label} over {rival}", CONTROLLED_SETS),
            paper=figures.lead(figures.FORM, rival, metric),
            where="vgmr.comparison.contrasts",
            sets=CONTROLLED_SETS,
            unit={"macro_f1": "macro-F1"}.get(metric, metric),
        )
        for item, names in rivals.items()
        for rival in names
        for metric in ("accuracy", "macro_f1")
    ]


def _ablation(kind: str) -> list[Claim]:
    label = LABELS[kind]
    parts = {
        "the global value contributes": "no global value",
        "the channel value contributes": "no channel value",
        "the two values together contribute": "no value in the gate",
        "agreement contributes": "no agreement",
        "discrepancy contributes": "no discrepancy",
        "agreement and discrepancy together contribute": "neither of the two",
    }
    if kind == ADOPTED:  # its value is measured, not learned from agreement and discrepancy
        parts = {text: part for text, part in parts.items() if part == "no value in the gate"}
    found = [
        Claim(
            kind,
            "Table 3",
            text,
            "11",
            "ablations",
            _keys(f"DATASET, {label}: full over {without}", ABLATED_SETS),
            paper=figures.loss_without(without),
            where="vgmr.comparison.contrasts",
            sets=ABLATED_SETS,
        )
        for text, without in parts.items()
    ]
    if kind == ADOPTED:
        return found
    for text, more, less in (
        ("the channel value matters more than the global value", "no global value", "no channel value"),
        ("discrepancy matters more than agreement", "no agreement", "no discrepancy"),
    ):
        keys = _keys(f"DATASET, {label}: {more} over {less}", ABLATED_SETS)
        effect = figures.ABLATIONS[more][0] - figures.ABLATIONS[less][0]
        where = "vgmr.comparison.contrasts"
        found.append(
            Claim(kind, "Table 3", text, "11", "ablations", keys, paper=effect, where=where, sets=ABLATED_SETS)
        )
    return found


def _value(kind: str) -> list[Claim]:
    """Table 4 and section 4.11, with the target of the reconstruction (delta) and with impact (|delta|).

    The value of the calibrated form is not trained; its anchors stand in the place of a target.
    """
    label, where = LABELS[kind], "vgmr.analysis"
    moves = {
        "global_value": "the global value goes up",
        "channel_value": "the channel value goes up",
        "channel_deviation": "channel values spread out",
        "gate": "the gate goes down",
    }
    found = []
    for target in VALUE_TARGETS[kind]:
        for name, text in moves.items():
            found.append(
                Claim(
                    kind,
                    "Table 4",
                    f"noise in the text of MOSI: {text}; target {target}",
                    "14",
                    "value and gate",
                    (f"mosi-words, {label}, target {target}: change of {name}",),
                    turned=name == "gate",
                    paper=abs(figures.CORRUPTED_TEXT[name][2]),
                    where=where,
                    sets=("mosi-words",),
                    unit="value or gate",
                )
            )
        for name, text, turned in (
            ("global_value", "a higher value tells the unreliable modality", False),
            ("global_value", "a lower value tells the unreliable modality", True),
            ("gate", "a lower gate tells the unreliable modality", True),
        ):
            keys = _keys(f"DATASET, {label}, target {target}: AUROC less 1/2 of {name}", VALUE_SETS)
            text = f"{text}; target {target}"
            found.append(
                Claim(
                    kind,
                    "Section 4.11",
                    text,
                    "14",
                    "value and gate",
                    keys,
                    turned=turned,
                    where=where,
                    sets=VALUE_SETS,
                    unit="AUROC",
                )
            )
    return found


def _noise(kind: str) -> list[Claim]:
    label, where, found = LABELS[kind], "vgmr.analysis.robustness.scores", []
    for item, setting in (("Figure 2", "noise ratio"), ("Figure 3", "noise weight")):
        for rival in ("plain", "Grad-Blending"):
            for quantity, text in (
                ("area", f"VGMR stays above {rival}"),
                ("retention", f"VGMR keeps more of what it has above chance than {rival}"),
            ):
                keys = _keys(f"DATASET, {setting}: {quantity}, {label} over {rival}", ROBUST_SETS)
                unit = "accuracy" if quantity == "area" else "retention"
                found.append(
                    Claim(kind, item, text, "13", "robustness", keys, where=where, sets=ROBUST_SETS, unit=unit)
                )
        text = "every model loses accuracy as noise grows"
        keys = _keys(f"DATASET, {setting}: drop, {label}", ROBUST_SETS)
        found.append(Claim(kind, item, text, "13", "robustness", keys, where=where, sets=ROBUST_SETS))
    return found


def _optimisation(kind: str) -> list[Claim]:
    label, where = LABELS[kind], "vgmr.analysis"
    rows = (
        ("Figure 4", "VGMR's loss falls faster at first", "early loss", True),
        ("Figure 4", "its validation curve is smoother later", "late roughness", True),
        ("Figure 5", "VGMR's cosine is closer to zero", "mean |cosine|", True),
        ("Figure 5", "VGMR's cosine is smoother", "change of the cosine", True),
    )
    return [
        Claim(
            kind,
            item,
            text,
            "15",
            "optimization diagnostics",
            _keys(f"DATASET: {key}, {label} over plain", FOLLOWED_SETS),
            turned=turned,
            where=where,
            sets=FOLLOWED_SETS,
            unit="nats" if item == "Figure 4" else "cosine",
        )
        for item, text, key, turned in rows
    ]


def _refinement(kind: str) -> list[Claim]:
    label = LABELS[kind]
    rows = (
        (
            "Figure 6",
            "in samples that only VGMR gets right, the strongest modality is suppressed less than the others",
            "suppression where only VGMR is right, strongest over others",
        ),
        (
            "Figure 7",
            "on average, the strongest modality is suppressed less than the others",
            "suppression, strongest over others",
        ),
    )
    found = []
    for item, text, key in rows:
        keys = _keys(f"DATASET, {label}: {key}", VALUE_SETS)
        where = "vgmr.analysis"
        found.append(
            Claim(kind, item, text, "14", "value and gate", keys, True, None, where, sets=VALUE_SETS, unit="gate")
        )
    return found


def _beside(kind: str) -> list[Claim]:
    label = LABELS[kind]
    found = [
        Claim(
            kind,
            "Table 8",
            f"{name} gains by VGMR in front",
            "10",
            "balancing methods",
            _keys(f"DATASET: {key} + {label} over {key}", BALANCED_SETS),
            paper=figures.gain_in_front(key),
            where="vgmr.comparison.contrasts",
            sets=BALANCED_SETS,
        )
        for name, key in (("OGM-GE", "ogm-ge"), ("ARL", "arl"))
    ]
    where = "vgmr.analysis.removal.removal_claims"
    for claim, text in (
        ("a", "VGMR loses most without the dominant modality"),
        ("c", "VGMR loses without a weak modality"),
    ):
        keys = _keys(f"DATASET, zeroed: ({claim}) {label}", BALANCED_SETS)
        effect = 0.8446 - 0.8410 if claim == "c" else 0.8371 - 0.7102
        found.append(
            Claim(
                kind, "Table 9", text, "12", "weak modalities", keys, paper=effect, where=where, sets=BALANCED_SETS
            )
        )
    return found


def _information(kind: str) -> list[Claim]:
    """The relation to information decomposition that section 5 asks for, over samples within a modality."""
    rows = (
        ("a higher value goes with more unique information", "unique", False),
        ("a higher value goes with more complementary information", "synergy", False),
        ("a higher value goes with less redundant information", "redundancy", True),
    )
    return [
        Claim(
            kind,
            "Section 5",
            text,
            "20",
            "information",
            _keys(f"DATASET, {LABELS[kind]}: rank correlation of value and {held}", INFORMED_SETS),
            turned=turned,
            where="vgmr.analysis.information",
            sets=INFORMED_SETS,
            unit="rank correlation",
        )
        for text, held, turned in rows
    ]


def _costs() -> list[Claim]:
    rows = (
        ("VGMR trains faster than Grad-Blending", "vgmr over grad-blending", "training", True),
        ("VGMR trains faster than AGM", "vgmr over agm", "training", True),
        ("VGMR trains slower than parameter-matched MLP", "vgmr over mlp", "training", False),
        ("VGMR infers slower than parameter-matched MLP", "vgmr over mlp", "inference", False),
    )
    return [
        Claim(
            PAPER_FORM,
            "Table 7",
            text,
            "09",
            "controlled comparison",
            (f"log ratio of {what} time, {key}",),
            turned=turned,
            where="vgmr.analysis.cost",
            sets=("made data",),
            unit="log of a ratio",
        )
        for text, key, what, turned in rows
    ]


def _rivals() -> list[Claim]:
    motivation = [
        Claim(
            PAPER_FORM,
            "Table 1",
            f"{name} beats plain",
            "09",
            "controlled comparison",
            _keys(f"DATASET, accuracy: {name} over plain", CONTROLLED_SETS),
            paper=figures.lead(name, "plain"),
            where="vgmr.comparison.contrasts",
            sets=CONTROLLED_SETS,
        )
        for name in ("MMPareto", "parameter-matched MLP")
    ]
    text = "balancing methods gain where a weak modality is removed"
    keys = _keys("DATASET, zeroed: (b) balancing methods", BALANCED_SETS)
    where = "vgmr.analysis.removal.removal_claims"
    weak = Claim(PAPER_FORM, "Table 9", text, "12", "weak modalities", keys, where=where, sets=BALANCED_SETS)
    swings = Claim(
        PAPER_FORM,
        "Figure 5",
        "plain's cosine changes its sign at more than half of the checkpoints",
        "15",
        "optimization diagnostics",
        _keys("DATASET: sign changes of plain's cosine less 1/2", FOLLOWED_SETS),
        where="vgmr.analysis",
        sets=FOLLOWED_SETS,
        unit="share of steps",
    )
    reason = "the set may not be passed on and has no open counterpart; notebook 05 trains on made data"
    mosei = Claim(PAPER_FORM, "Table 2", "MOSEI: VGMR beats plain, pooled and Transformer", reason=reason)
    return [*motivation, mosei, weak, swings]


EQUATIONS = {
    "Eq. (1)": (
        "features of any length and width go in, refined ones of the same shape come out",
        "refined features",
    ),
    "Eq. (2)": ("projection into a shared width", "Eq. (2)"),
    "Eq. (3)": ("summary of mean and maximum over real steps", "Eq. (3)"),
    "Eq. (4)": ("the other modalities", "Eq. (4)"),
    "Eq. (5)": ("their mean summary", "Eq. (5)"),
    "Eq. (6)": ("agreement and discrepancy of each pair", "Eq. (6)"),
    "Eq. (7)": ("their collections", "Eq. (7)"),
    "Eq. (8)": ("interaction input", "Eq. (8)"),
    "Eq. (9)": ("interaction and value state", "Eq. (9)"),
    "Eq. (10)": ("global and channel value", "Eq. (10)"),
    "Eq. (11)": ("gate", "Eq. (11)"),
    "Eq. (12)": ("amplification", "Eq. (12)"),
    "Eq. (13)": ("residual retention", "Eq. (13)"),
    "Section 3.7": ("LayerNorm, then Dropout, of the gated features", "Section 3.7"),
    "Section 3.8": ("contribution, value supervision and regulariser", "Section 3.8"),
    "Figure 1": ("the parts work together as the text says", "forward pass"),
}


def _code() -> list[Claim]:
    found = [
        Claim(CODE, item, text, "03", "method walkthrough", (key,), where="vgmr.refiner")
        for item, (text, key) in EQUATIONS.items()
    ]
    text = "the cosine of identical losses is 1, of opposite ones -1"
    return [
        *found,
        Claim(CODE, "Eq. (14)", text, "15", "optimization diagnostics", ("Eq. (14)",), where="vgmr.analysis"),
    ]


def _results(kind: str) -> list[Claim]:
    makers = (
        _plugged,
        _overall,
        _ablation,
        _value,
        _controlled,
        _beside,
        _noise,
        _optimisation,
        _refinement,
        _information,
    )
    return [claim for make in makers for claim in make(kind)]


CLAIMS: list[Claim] = [*_rivals(), *_results(PAPER_FORM), *_costs(), *_results(ADOPTED), *_code()]
