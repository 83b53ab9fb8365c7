"""`vgmr search`: the search for VGMR's one form, over open data sets, on validation alone, by one command."""

from __future__ import annotations

import argparse
import json

from vgmr.machine.files import in_repository, try_place, write
from vgmr.studies.forms import FORM_COMMON, FORM_STUDIES, FORM_TRIALS, TRAINED_KINDS, chosen_forms, search_forms
from vgmr.studies.search import SEARCH_SEEDS, SEARCHED

KEPT = "forms.json"


def main(arguments: list[str]) -> int:
    """`vgmr search [--jobs N]`; writes what it found to `KEPT` among the repository's kept searches."""
    parser = argparse.ArgumentParser("vgmr search", description="search a form for VGMR on validation")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at once")
    options = parser.parse_args(arguments)
    if options.jobs < 1:
        raise ValueError(f"--jobs must be 1 or more, got {options.jobs}")
    path = in_repository(SEARCHED) / KEPT
    try_place(path)
    table = search_forms(jobs=options.jobs)
    means = table.drop(columns="seed").groupby(["study", "form"], sort=False).mean().round(4)
    print(means.to_string())
    content = {
        "seeds": list(SEARCH_SEEDS),
        "trained_kinds": list(TRAINED_KINDS),
        "forms": FORM_TRIALS,
        "studies": FORM_STUDIES,
        "common": FORM_COMMON,
        "validation": json.loads(table.round(4).to_json(orient="records")),
        "chosen": chosen_forms(table),
    }
    write(path, (json.dumps(content, indent=1) + "\n").encode())
    print(f"chosen, leaving each study out: {content['chosen']}; written to {path}")
    return 0
