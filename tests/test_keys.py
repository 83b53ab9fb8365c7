"""Settings say what an experiment is, and give it back."""

from dataclasses import replace

from vgmr.records.keys import from_settings, settings
from vgmr.refiner import FORMS
from vgmr.settings import Experiment

QUICK = Experiment("digits", prefusion="none", epochs=1, batch_size=256, form="paper")


def test_settings_are_what_differs_from_the_defaults():
    chosen = replace(QUICK, root="somewhere", device="cuda", modalities=("left",), data_options={"conflict": 0.1})
    assert settings(chosen) == {
        "dataset": "digits",
        "prefusion": "none",
        "epochs": 1,
        "batch_size": 256,
        "modalities": ["left"],
        "data_options": {"conflict": 0.1},
    }
    assert settings(Experiment("digits", form="paper")) == {"dataset": "digits"}
    adopted = {"dataset": "digits", "form": "calibrated", **FORMS["calibrated"]}
    assert settings(Experiment("digits")) == adopted, "a row says its form, whatever the default is"
    for one in (QUICK, Experiment("digits"), chosen):
        assert from_settings(settings(one)) == replace(one, root=None, device="auto")
