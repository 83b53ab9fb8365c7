"""Every number that the paper states, in one place: the "paper" column of all tables. Shares are 0 to 1.

Table 2 and Figures 1 to 7 have no numbers in the text at hand, but for two cells of Table 2; see
`vgmr.paper.ledger.PROVENANCE`.
"""

from __future__ import annotations

from collections.abc import Mapping

FORM = "VGMR, paper's form"

# Tables 1, 5, 6: MOSEI behind the Transformer, accuracy and macro-F1.
CONTROLLED = {
    "Summation": (0.8219, 0.7785),
    "Tensor Fusion": (0.8289, 0.7871),
    "plain": (0.8255, 0.7810),
    "MMPareto": (0.8279, 0.7812),
    "parameter-matched MLP": (0.8298, 0.7803),
    "Cross-Attention": (0.8317, 0.7941),
    "Sigmoid+Tanh gate": (0.8326, 0.7924),
    FORM: (0.8446, 0.8029),
}

# Table 3: accuracy and macro-F1 without a part.
ABLATIONS = {
    "full": (0.8446, 0.8029),
    "no channel value": (0.8324, 0.7831),
    "no global value": (0.8390, 0.8011),
    "no value in the gate": (0.8287, 0.7917),
    "no agreement": (0.8347, 0.7965),
    "no discrepancy": (0.8330, 0.7908),
    "neither of the two": (0.8257, 0.7812),
}

# Table 4: MOSI, Concat backbone, 30% of the text's steps noise: clean, noisy, and the stated change.
CORRUPTED_TEXT = {
    "global_value": (0.598, 0.788, 0.190),
    "channel_value": (0.554, 0.707, 0.153),
    "channel_deviation": (0.102, 0.301, 0.199),
    "gate": (0.481, 0.417, -0.064),
}

# Table 7: parameters and those before fusion (millions), seconds per training epoch, milliseconds per batch.
COSTS = {
    "plain": (0.72, 0.00, 4.26, 1.17),
    "grad-blending": (0.77, 0.05, 13.24, 1.20),
    "agm": (0.77, 0.05, 17.71, 1.18),
    "parameter-matched MLP": (3.04, 2.32, 4.82, 1.33),
    "Cross-Attention": (3.06, 2.33, 7.32, 2.86),
    "Sigmoid+Tanh gate": (3.07, 2.35, 5.25, 1.46),
    FORM: (3.04, 2.32, 10.01, 3.87),
}

# Table 8: accuracy and macro-F1 with VGMR in front and without. Table 8's text says 1.01 points where its cells
# differ by 1.03.
IN_FRONT = {
    "ogm-ge": ((0.8367, 0.7914), (0.8264, 0.7724)),
    "arl": ((0.8343, 0.7870), (0.8268, 0.7856)),
}

# Table 9: accuracy with all modalities, without text, without audio, without vision.
REMOVALS = {
    "plain": (0.8255, 0.7053, 0.8092, 0.8253),
    "grad-blending": (0.8337, 0.7096, 0.8317, 0.8343),
    "ogm-ge": (0.8264, 0.7094, 0.8255, 0.8244),
    "pmr": (0.8332, 0.7102, 0.8324, 0.8332),
    "arl": (0.8268, 0.7102, 0.8246, 0.8270),
    "mmpareto": (0.8279, 0.7102, 0.8289, 0.8291),
    "relearning": (0.8311, 0.7092, 0.8302, 0.8330),
    "mla": (0.8184, 0.7062, 0.8161, 0.8184),
    "agm": (0.8302, 0.7105, 0.8283, 0.8296),
    FORM: (0.8446, 0.7102, 0.8410, 0.8371),
}

# Tables 1 and 9, and VGMR: accuracy of the balancing methods.
BALANCING = {
    **{"none" if name == "plain" else name: row[0] for name, row in REMOVALS.items() if name != FORM},
    "none + VGMR": 0.8446,
}


def scores(dataset: str, backbone: str, metric: str = "accuracy") -> dict[str, float]:
    """The paper's test scores by variant, where its text holds them: MOSEI with the Transformer only.

    Args:
        metric: accuracy or macro_f1.
    """
    if (dataset, backbone) != ("mosei", "transformer"):
        return {}
    return {name: row[metric == "macro_f1"] for name, row in CONTROLLED.items()}


def effects(figures: Mapping[str, float], baseline: str) -> dict[str, float]:
    """The paper's difference of each entry to `baseline`, to be handed to `vgmr.statistics.verdicts.judged`."""
    return {name: figure - figures[baseline] for name, figure in figures.items() if name != baseline}


def lead(better: str, worse: str, metric: str = "accuracy") -> float:
    """By how much `better` is above `worse` in Tables 1, 5 and 6."""
    place = metric == "macro_f1"
    return CONTROLLED[better][place] - CONTROLLED[worse][place]


def gain_in_front(method: str) -> float:
    """What `method` gains in accuracy in Table 8 by VGMR in front; "none" is plain."""
    if method == "none":
        return lead(FORM, "plain")
    return IN_FRONT[method][0][0] - IN_FRONT[method][1][0]
