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

    As `vgmr.data.gated.mosi.load_mosi`, which says what the arguments are and what is refused, but for the widths:
    audio (N, T, 74) and vision (N, T, 35), also in the SDK's sequences. The published counts are 16326/1871/4659
    (SDK: 16327/1871/4662 as well); of "non-negative", as in the paper, the majority is 0.7102. Files are looked
    for in `mosei` in VGMR_DATA. Unaligned ones take about 14 GB of memory.
    """
    return load_sentiment(MOSEI, root, layout, labels, allow_partial)
