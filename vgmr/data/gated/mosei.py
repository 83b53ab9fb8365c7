"""CMU-MOSEI: sentiment of 22,856 utterances of 3,225 opinion videos, as text, audio and vision."""

from __future__ import annotations

from pathlib import Path

from vgmr.data.gated.sentiment import Corpus, load_sentiment
from vgmr.data.types import MultimodalData

MOSEI = Corpus(
    name="mosei",
    citation="Zadeh, Liang, Poria, Cambria and Morency, CMU-MOSEI, ACL 2018",
    mult_name="mosei_senti",
    sizes=(16326, 1871, 4659),
    csd_sizes=((16327, 1871, 4662), (16326, 1871, 4659)),
    folds=(2249, 300, 678),
    widths={"text": (768, 300), "audio": (74,), "vision": (35,)},
    checksums={
        "mmsa-aligned": "45eccfb748a87c80ecab9bfac29582e7b1466bf6605ff29d3b338a75120bf791",
        "mmsa-unaligned": "ad8b23d50557045e7d47959ce6c5b955d8d983f2979c7d9b7b9226f6dd6fec1f",
    },
)


def load_mosei(
    root: str | Path | None = None,
    layout: str | None = None,
    labels: str = "non-negative",
    allow_partial: bool = False,
) -> MultimodalData:
    """CMU-MOSEI in the layouts of MMSA, MulT or the CMU Multimodal SDK; official split, `group` is the video.

    Features: text (N, T, 768) BERT or (N, T, 300) GloVe, audio (N, T, 74) COVAREP, vision (N, T, 35) FACET; in
    the SDK's sequences words are at most 50 and each holds the mean over its interval. Padding stands at the
    end. NaN and infinite values are set to 0; `notes` counts all that was changed. Unaligned files take about
    14 GB of memory.

    Args:
        root: the pickle, or the folder with the files; None looks in `mosei` in VGMR_DATA and in VGMR_DATA.
        layout: "mmsa-aligned", "mmsa-unaligned", "mult-aligned", "mult-unaligned" or "csd"; needed only where a
            folder holds several.
        labels: "non-negative", or "binary" for short (sentiment < 0 against >= 0, as in the paper; majority
            0.7102), "positive" (zeros left out), "seven" (rounded to -3 to 3) or "regression" (the sentiment
            itself, no classes).
        allow_partial: accept counts other than the published 16326/1871/4659 (SDK: 16327/1871/4662 as well).

    Raises:
        FileNotFoundError: no such files, with what is expected and where it comes from.
        ValueError: content that is not as documented, a partial copy, several layouts, unknown options.
    """
    return load_sentiment(MOSEI, root, layout, labels, allow_partial)
