"""Figures: data in, axes out. Few functions for many callers; one colour per model in all of them."""

from vgmr.plots.curves import balancing_acts, bands, learning_curves, matrices
from vgmr.plots.diagrams import architecture, method_line
from vgmr.plots.intervals import against_cost, beside_paper, forest, hosts_against_cost, seed_points, verdicts
from vgmr.plots.look import COLOURS, display_name, look, shades, style
from vgmr.plots.samples import (
    answers_by_class,
    before_and_after,
    confusion_matrix,
    corrupted,
    corruption_gallery,
    gate_strength,
    refinement_maps,
    sequences,
    small_matrices,
)

__all__ = [
    "COLOURS",
    "against_cost",
    "answers_by_class",
    "architecture",
    "balancing_acts",
    "bands",
    "before_and_after",
    "beside_paper",
    "confusion_matrix",
    "corrupted",
    "corruption_gallery",
    "display_name",
    "forest",
    "gate_strength",
    "hosts_against_cost",
    "learning_curves",
    "look",
    "matrices",
    "method_line",
    "refinement_maps",
    "seed_points",
    "sequences",
    "shades",
    "small_matrices",
    "style",
    "verdicts",
]
