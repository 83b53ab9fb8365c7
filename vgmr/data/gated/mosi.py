"""CMU-MOSI and CMU-MOSEI: sentiment of utterances of opinion videos, as text, audio and vision."""

from __future__ import annotations

from pathlib import Path

from vgmr.data.gated.sentiment import Corpus, load_sentiment
from vgmr.data.types import MultimodalData

MOSI = Corpus(
    name="mosi",
    citation="Zadeh, Zellers, Pincus and Morency, MOSI, IEEE Intelligent Systems 2016",
    mult_name="mosi",
    sizes=(1284, 229, 686),
    csd_sizes=((1283, 214, 686), (1284, 229, 686)),
    folds=(52, 10, 31),
    widths={"text": (768, 300), "audio": (5,), "vision": (20,)},
    checksums={
        "mmsa-aligned": "d3994fd25681f9c7ad6e9c6596a6fe9b4beb85ff7d478ba978b124139002e5f9",
        "mmsa-unaligned": "78e0f8b5ef8ff71558e7307848fc1fa929ecb078203f565ab22b9daab2e02524",
    },
)
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


def load_mosi(
    root: str | Path | None = None,
    layout: str | None = None,
    labels: str = "non-negative",
    allow_partial: bool = False,
) -> MultimodalData:
    """CMU-MOSI in the layouts of MMSA, MulT or the CMU Multimodal SDK; official split, `group` is the video.

    Features: text (N, T, 768) BERT or (N, T, 300) GloVe, audio (N, T, 5) COVAREP, vision (N, T, 20) FACET;
    74 and 47 wide in the SDK's sequences, where words are at most 50 and each holds the mean over its interval.
    Padding stands at the end. NaN and infinite values are set to 0; `notes` counts all that was changed.

    Args:
        root: the pickle, or the folder with the files; None looks in `mosi` in VGMR_DATA and in VGMR_DATA.
        layout: "mmsa-aligned", "mmsa-unaligned", "mult-aligned", "mult-unaligned" or "csd"; needed only where a
            folder holds several.
        labels: "non-negative", or "binary" for short (sentiment < 0 against >= 0, as in the paper), "positive"
            (zeros left out), "seven" (rounded to -3 to 3) or "regression" (the sentiment itself, no classes).
        allow_partial: accept counts other than the published 1284/229/686 (SDK: 1283/214/686 as well).

    Raises:
        FileNotFoundError: no such files, with what is expected and where it comes from.
        ValueError: content that is not as documented, a partial copy, several layouts, unknown options.
    """
    return load_sentiment(MOSI, root, layout, labels, allow_partial)


def load_mosei(
    root: str | Path | None = None,
    layout: str | None = None,
    labels: str = "non-negative",
    allow_partial: bool = False,
) -> MultimodalData:
    """CMU-MOSEI in the layouts of MMSA, MulT or the CMU Multimodal SDK; official split, `group` is the video.

    As `load_mosi`, which says what the arguments are and what is refused, but for the widths:
    audio (N, T, 74) and vision (N, T, 35), also in the SDK's sequences. The published counts are 16326/1871/4659
    (SDK: 16327/1871/4662 as well); of "non-negative", as in the paper, the majority is 0.7102. Files are looked
    for in `mosei` in VGMR_DATA. Unaligned ones take about 14 GB of memory.
    """
    return load_sentiment(MOSEI, root, layout, labels, allow_partial)
