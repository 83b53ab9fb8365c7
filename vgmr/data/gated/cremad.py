"""CREMA-D: six emotions acted in 7,442 clips by 91 actors, as log-mel of the voice and features of the face."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vgmr.data.extract.audio import log_mel, read_wav
from vgmr.data.extract.clips import BrokenFile, Source, complete, digest_of, folder_of, note_counts, read_lines
from vgmr.data.extract.images import Extractor, ImageNetwork, numbered_images, read_images, rgb_input, spread
from vgmr.data.types import Batch, MultimodalData, check_whole, fingerprint, holdout, pad
from vgmr.machine.files import user_path

CLASSES = ("NEU", "HAP", "SAD", "FEA", "DIS", "ANG")
SPLITS = ("literature", "actors")
SIZES = {"train": 6698, "test": 744}
ACTORS = range(1001, 1092)
BAD_CLIPS = ("1076_MTI_NEU_XX", "1076_MTI_SAD_XX", "1064_TIE_SAD_XX", "1064_IEO_DIS_MD")
HELD_OUT = 0.1
RATE, BANDS, WINDOW, HOP, LONGEST = 16000, 64, 0.050, 0.025, 5.0
SOUNDS = f"log-mel-{BANDS}-{WINDOW}-{HOP}-{LONGEST}"
LISTS = "https://github.com/GeWu-Lab/OGM-GE_CVPR2022 (data/CREMAD)"
MARKERS = ("train.csv",)
EXPECTED = f"train.csv and test.csv from {LISTS}, AudioWAV and Image-01-FPS"
CLIPS = (
    "https://github.com/CheyneyComputerScience/CREMA-D (AudioWAV, with git lfs pull) and the frames as cut from "
    "its VideoFlash by data/CREMAD/video_preprocessing.py of https://github.com/GeWu-Lab/OGM-GE_CVPR2022"
)
NAME = re.compile(r"(\d{4})_([A-Z]{3})_([A-Z]{3})_(XX|LO|MD|HI)")


@dataclass(frozen=True)
class Clip:
    """A line of a list: the clip's name, its class from 0, its actor's number."""

    name: str
    label: int
    actor: int


def load_cremad(
    root: str | Path | None = None,
    split: str = "literature",
    frames: int = 3,
    extractor: Extractor = None,
    bad_clips: str = "keep",
    store: str | Path | None = None,
    allow_partial: bool = False,
) -> MultimodalData:
    """CREMA-D: `audio` (N, T, 64) log-mel and `visual` (N, frames, D) from a frozen image network.

    Audio is `vgmr.data.extract.audio.log_mel` of the first 5 s at 16 kHz (other rates are resampled, channels
    averaged): 64 bands, windows of 50 ms every 25 ms, so T is at most 199. The frames are the middles of
    `frames` equal parts of those in the clip's folder, in order of their number; clips with fewer are padded.
    Features are stored once per clip, so a cut-off extraction goes on; those of a clip that is changed later are
    made again. Labels are NEU, HAP, SAD, FEA, DIS, ANG; `group` is the actor.

    The lists of the literature share all 91 actors between training and test, so a score on them says nothing
    about new speakers; there the validation part is about a tenth of the training clips, of whole actors. The
    split "actors" deals the actors out instead: 20 percent test, 10 percent validation, the rest training, no
    actor in two parts.

    Args:
        root: folder with train.csv, test.csv, AudioWAV/<name>.wav and Image-01-FPS/<name>/00001.jpg; None takes
            cremad in VGMR_DATA.
        split: "literature" or "actors".
        frames: number of frames taken of a clip.
        extractor: see `vgmr.data.extract.images.ImageNetwork`; None takes torchvision's ResNet-18 (D = 512).
        bad_clips: "keep", as the literature does, or "drop" the four clips reported as broken (silent, no face, no
            duration, over a minute; issue 8 of the publisher's repository).
        store: folder for the features; None takes `features` in the root.
        allow_partial: accept lists and copies that are not whole, and say so in `notes`.

    Raises:
        FileNotFoundError: missing lists or clips, with what is expected and where it comes from.
        ValueError: content that is not as documented, Git LFS pointers in place of files, unknown options.
        ImportError: the default network needs torchvision, images need pillow.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}; got {split!r}")
    if bad_clips not in ("keep", "drop"):
        raise ValueError(f"bad_clips must be 'keep' or 'drop', got {bad_clips!r}")
    check_whole(1, frames=frames)
    network = ImageNetwork(extractor)
    folder = folder_of("cremad", root, MARKERS[0], EXPECTED)
    paths = {part: folder / f"{part}.csv" for part in SIZES}
    lists = {part: read_list(path) for part, path in paths.items()}
    notes: dict[str, Any] = {"split": split, "extractor": network.name}
    note_counts("cremad", {part: len(clips) for part, clips in lists.items()}, SIZES, allow_partial, notes)
    both = {clip.name for clip in lists["train"]} & {clip.name for clip in lists["test"]}
    if both:
        raise ValueError(f"{folder}: {len(both)} clips are in train.csv and in test.csv, such as {min(both)}")

    clips = [clip for part in lists.values() for clip in part]
    reported = [clip.name for clip in clips if clip.name in BAD_CLIPS]
    notes["clips reported as broken"] = f"{'kept' if bad_clips == 'keep' else 'left out'}: {', '.join(reported)}"
    if bad_clips == "drop":
        clips = [clip for clip in clips if clip.name not in BAD_CLIPS]
    kept = folder / "features" if store is None else user_path(store)

    def voice(name: str) -> Path:
        return folder / "AudioWAV" / f"{name}.wav"

    def images(name: str) -> list[Path]:
        numbered = list(numbered_images(folder / "Image-01-FPS" / name).values())
        return [numbered[moment] for moment in spread(len(numbered), frames)]

    def features_of_images(name: str) -> tuple[np.ndarray, bytes]:
        pixels, digest = read_images(images(name))
        return network(rgb_input(pixels)), digest

    def lacking(name: str, modalities: Sequence[str]) -> str:
        silent = "audio" in modalities and not voice(name).is_file()
        unseen = "visual" in modalities and not images(name)
        return " and ".join(["no .wav file"] * silent + ["no frames"] * unseen)

    sources = {
        "audio": Source(kept / SOUNDS, voice, lambda name: read_voice(voice(name))),
        "visual": Source(kept / network.name / f"frames-{frames}", images, features_of_images),
    }
    names = [clip.name for clip in clips]
    made, missing, broken = complete("cremad", names, sources, lacking, CLIPS, allow_partial, notes)
    clips = [clip for clip in clips if clip.name not in missing and clip.name not in broken]
    names = [clip.name for clip in clips]
    listed = {clip.name: part for part in lists for clip in lists[part]}
    parts = _split(clips, [listed[clip.name] for clip in clips], split)
    if split == "literature":
        seen = [{clip.actor for clip in clips if listed[clip.name] == part} for part in SIZES]
        notes["actors in training or validation and in test"] = len(seen[0] & seen[1])
    for part, rows in parts.items():
        if not len(rows) and broken:
            raise ValueError(f"cremad: no clip of the {part} part can be read: {next(iter(broken.values()))}")
        if not len(rows):
            raise ValueError(f"cremad: the {part} part of split {split!r} is empty; it needs more actors or clips")

    audio, visual = ([made[name][clip][0] for clip in names] for name in sources)
    most = 1 + (round(LONGEST * RATE) - round(WINDOW * RATE)) // round(HOP * RATE)
    notes["clips of 5 s or more, cut there"] = sum(len(sequence) == most for sequence in audio)
    notes[f"clips with fewer than {frames} frames"] = sum(len(sequence) < frames for sequence in visual)
    padded = {"audio": pad(audio), "visual": pad(visual, frames)}
    whole = Batch(
        {name: x for name, (x, _) in padded.items()},
        {name: mask for name, (_, mask) in padded.items()},
        torch.tensor([clip.label for clip in clips]),
        torch.tensor([clip.actor for clip in clips]),
    )
    batches: dict[str, Any] = {part: whole.index(torch.from_numpy(rows)) for part, rows in parts.items()}
    return MultimodalData(
        "cremad",
        **batches,
        classes=CLASSES,
        source="Cao, Cooper, Keutmann, Gur, Nenkova and Verma, CREMA-D, IEEE Transactions on Affective Computing "
        "2014, https://github.com/CheyneyComputerScience/CREMA-D; lists by Peng et al., CVPR 2022",
        licence="ODbL 1.0",
        fingerprint=fingerprint(
            {
                "data": "cremad",
                "version": 1,
                "split": split,
                "frames": frames,
                "extractor": network.name,
                "audio": SOUNDS,
                "clips": names,
            },
            *map(digest_of, paths.values()),
            *(parts[part] for part in batches),
            *(made[name][clip][1] for name in sources for clip in names),
        ),
        notes=notes,
        overlap="the published split is kept as it is",
    )


def read_list(path: Path) -> list[Clip]:
    """Clips of a list, lines "1001_IEO_NEU_XX,NEU" in UTF-8 with or without byte order mark, LF or CRLF.

    The emotion must be that in the name. Raises ValueError naming the line, and FileNotFoundError.
    """
    clips = []
    for row, line in enumerate(read_lines(path, f"expected from {LISTS}"), start=1):
        name, _, emotion = line.strip().partition(",")
        match = NAME.fullmatch(name)
        if match is None or match[3] != emotion or emotion not in CLASSES or int(match[1]) not in ACTORS:
            raise ValueError(f"{path}, line {row}: expected such as 1001_IEO_NEU_XX,NEU, got {line[:60]!r}")
        clips.append(Clip(name, CLASSES.index(emotion), int(match[1])))
    if not clips or len({clip.name for clip in clips}) < len(clips):
        raise ValueError(f"{path}: expected every clip once, got {'a repeated one' if clips else 'none'}")
    return clips


def _split(clips: Sequence[Clip], listed: Sequence[str], split: str) -> dict[str, np.ndarray]:
    """Part -> rows of `clips`."""
    actor = np.array([clip.actor for clip in clips])
    if split == "literature":
        training = np.flatnonzero(np.array(listed) == "train")
        label = np.array([clip.label for clip in clips])[training]
        kept, held = holdout(label, HELD_OUT, 0, actor[training])
        test = np.flatnonzero(np.array(listed) == "test")
        return {"train": training[kept], "validation": training[held], "test": test}
    dealt = [number for number in np.random.default_rng(0).permutation(ACTORS) if number in set(actor)]
    test_end = round(0.2 * len(dealt))
    validation_end = test_end + max(1, round(0.1 * len(dealt)))
    chosen = {
        "train": dealt[validation_end:],
        "validation": dealt[test_end:validation_end],
        "test": dealt[:test_end],
    }
    return {part: np.flatnonzero(np.isin(actor, actors)) for part, actors in chosen.items()}


def read_voice(path: Path) -> tuple[np.ndarray, bytes]:
    """Log-mel bands (T, 64) of a .wav file as documented in `load_cremad`, and the SHA-256 of the file.

    Raises what `vgmr.data.extract.audio.read_wav` raises.
    """
    try:
        signal, _, digest = read_wav(path, RATE, LONGEST)
    except BrokenFile as error:
        if path.stem in BAD_CLIPS:
            raise ValueError(f"{error}; or pass bad_clips='drop' to leave it out") from None
        raise
    return log_mel(signal[: round(LONGEST * RATE)], RATE, BANDS, WINDOW, HOP), digest
