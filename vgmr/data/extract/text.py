"""Words to vectors by a frozen text encoder, and what the words' times say."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from logging import ERROR, getLogger
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vgmr.data.extract.clips import BrokenFile, read_lines
from vgmr.machine.work import bar

BATCH = 32
OTHERS = (".json", ".jsonl", ".srt", ".textgrid", ".tsv", ".vtt", ".xml")  # whose marks would become words


class TextEncoder:
    """A frozen `transformers` encoder from words to one vector per word.

    Attributes:
        name: class of the network and a digest of its weights, by which its vectors can be stored.

    Args:
        encoder: a name on the Hugging Face hub, or a local folder with config.json, model.safetensors and
            tokenizer.json.

    Raises:
        ImportError: `transformers` is not installed.
        FileNotFoundError: no such encoder, or the hub cannot be reached.
        ValueError: an encoder whose tokenizer does not say which word a sub-word is from.
    """

    def __init__(self, encoder: str | Path) -> None:
        self._tokenizer, self._network = _pretrained(encoder)
        if not getattr(self._tokenizer, "is_fast", False):
            raise ValueError(f"encoder {encoder}: its tokenizer does not say which word a sub-word is from")
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._network = self._network.float().eval().to(self._device)
        positions = getattr(self._network.config, "max_position_embeddings", None) or 512
        # RoBERTa's first two positions are no token's
        self._longest = min(self._tokenizer.model_max_length, positions - 2)
        digest = hashlib.sha256(self._network.config.to_json_string().encode())
        for key, value in sorted(self._network.state_dict().items()):
            digest.update(key.encode() + value.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        self.name = f"{type(self._network).__name__}-{digest.hexdigest()[:12]}"

    def __call__(self, words: Sequence[Sequence[str]]) -> list[np.ndarray]:
        """One (words, d) float32 array for each text: the mean of the last layer over each word's sub-words.

        A word without any sub-word, such as an empty one, counts as the tokenizer's unknown word. A text longer
        than the encoder takes is encoded in pieces of whole words that do not see one another; of a word that is
        too long by itself, the beginning.

        Raises ValueError for a text without words.
        """
        empty = next((row for row, text in enumerate(words) if not len(text)), None)
        if empty is not None:
            raise ValueError(f"text {empty} (from 0) has no word; leave it out")
        unknown = str(self._tokenizer.unk_token or ".")
        cleaned = [
            [word if count else unknown for word, count in zip(text, self._count(text), strict=True)]
            for text in words
        ]
        pieces = [piece for row, text in enumerate(cleaned) for piece in self._pieces(row, text)]
        order = sorted(range(len(pieces)), key=lambda number: -len(pieces[number][1]))
        width = int(self._network.config.hidden_size)
        found: list[np.ndarray] = [np.zeros((0, width), np.float32)] * len(pieces)
        for start in bar(range(0, len(order), BATCH), desc="words", unit="batch", disable=len(order) <= BATCH):
            chosen = order[start : start + BATCH]
            for number, vectors in zip(chosen, self._encode([pieces[n][1] for n in chosen]), strict=True):
                found[number] = vectors
        gathered: list[list[np.ndarray]] = [[] for _ in words]
        for (row, _), vectors in zip(pieces, found, strict=True):
            gathered[row].append(vectors)
        return [np.concatenate(parts) for parts in gathered]

    def _tokens(self, words: Sequence[Sequence[str]], **options: Any) -> Any:
        return self._tokenizer([list(text) for text in words], is_split_into_words=True, **options)

    def _count(self, words: Sequence[str]) -> np.ndarray:
        """Number of sub-words of each word, special ones left out."""
        of_word = self._tokens([words], add_special_tokens=False, verbose=False).word_ids(0)
        return np.bincount([word for word in of_word if word is not None], minlength=len(words))

    def _pieces(self, row: int, words: list[str]) -> list[tuple[int, list[str]]]:
        room = self._longest - self._tokenizer.num_special_tokens_to_add()
        pieces: list[tuple[int, list[str]]] = []
        used = room
        for word, count in zip(words, self._count(words), strict=True):
            if used + count > room:
                pieces.append((row, []))
                used = 0
            pieces[-1][1].append(word)
            used += int(count)
        return pieces

    def _encode(self, words: Sequence[Sequence[str]]) -> list[np.ndarray]:
        tokens = self._tokens(words, padding=True, truncation=True, max_length=self._longest, return_tensors="pt")
        with torch.inference_mode():
            hidden: Tensor = self._network(**tokens.to(self._device)).last_hidden_state.cpu()
        vectors = []
        for row, text in enumerate(words):
            ids = tokens.word_ids(row)
            place = torch.tensor([position for position, word in enumerate(ids) if word is not None])
            word = torch.tensor([ids[position] for position in place])
            sums = torch.zeros(len(text), hidden.shape[2]).index_add_(0, word, hidden[row, place])
            vectors.append((sums / word.bincount(minlength=len(text)).unsqueeze(1)).numpy())
        return vectors


def word_vectors(words: Sequence[Sequence[str]], encoder: str | Path) -> list[np.ndarray]:
    """One (words, d) float32 array for each text, by `TextEncoder(encoder)`, which documents it."""
    return TextEncoder(encoder)(words)


def read_words(path: Path) -> tuple[list[str], np.ndarray | None]:
    """Words of a text file in UTF-8; from a .csv with the columns word, start and end also (words, 2) seconds.

    Raises BrokenFile for a file that is neither, and FileNotFoundError.
    """
    if path.suffix.lower() in OTHERS:
        raise BrokenFile(
            f"{path}: expected plain text, or a .csv with the columns word, start and end; save it so"
        )
    lines = read_lines(path)
    if path.suffix.lower() != ".csv":
        return [word for line in lines for word in line.split()], None
    try:
        reader = csv.DictReader((f"{line}\n" for line in lines), skipinitialspace=True)
        table = list(reader)
        if not {"word", "start", "end"} <= set(reader.fieldnames or ()):
            raise ValueError("its first line does not name them")
        if any("\n" in row["word"] for row in table):
            raise ValueError("a double quote that is left open")
        times = np.array([[float(row["start"]), float(row["end"])] for row in table]).reshape(-1, 2)
        if (np.diff(times[:, 0]) < 0).any():
            raise ValueError("words that are not in order of time")
        return [row["word"].strip() for row in table], times
    except (KeyError, TypeError, ValueError, AttributeError, csv.Error) as error:
        reason = f"{type(error).__name__}: {error}"
        raise BrokenFile(f"{path}: expected the columns word, start and end in seconds ({reason})") from None


def word_timing(words: Sequence[str], intervals: np.ndarray) -> np.ndarray:
    """What the times of words say without a recording, (words, 3) float32.

    Columns: duration in seconds; pause before the word in seconds (0 for the first, and where words overlap);
    letters per second (0 for a word without duration).

    Args:
        intervals: (words, 2) start and end of each word in seconds, in order of time.

    Raises ValueError for other shapes, values that are not finite, and words that end before they start.
    """
    intervals = np.asarray(intervals, np.float64)
    if intervals.shape != (len(words), 2) or not np.isfinite(intervals).all():
        raise ValueError(
            f"expected a finite start and end for each of {len(words)} words, got shape {intervals.shape}"
        )
    duration = intervals[:, 1] - intervals[:, 0]
    if (duration < 0).any():
        row = int((duration < 0).argmax())
        raise ValueError(f"word {row} (from 0), {words[row]!r}, ends before it starts: {intervals[row].tolist()}")
    pause = np.zeros(len(words))
    pause[1:] = np.maximum(0, intervals[1:, 0] - intervals[:-1, 1])
    letters = np.array([sum(character.isalnum() for character in word) for word in words], np.float64)
    rate = np.divide(letters, duration, out=np.zeros(len(words)), where=duration > 0)
    return np.stack([duration, pause, rate], 1).astype(np.float32)


def _pretrained(encoder: str | Path) -> tuple[Any, Any]:
    """Tokenizer and network; of a network that also decodes, the encoder."""
    try:
        from transformers import AutoModel, AutoTokenizer, logging
    except ImportError as error:
        raise ImportError(f"text encoders need transformers; install vgmr with the extra text ({error})") from None
    local = Path(encoder).expanduser()
    place = str(local if local.is_dir() else encoder)
    hub = getLogger("huggingface_hub")
    bars, levels = logging.is_progress_bar_enabled(), (logging.get_verbosity(), hub.level)
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    hub.setLevel(ERROR)
    try:
        # RoBERTa and GPT-2 read words in a list only with the space before them
        tokenizer = AutoTokenizer.from_pretrained(place, add_prefix_space=True)
        network = AutoModel.from_pretrained(place)
    except Exception as error:  # damaged files surface as whatever they lead to
        line = " ".join(str(error).split())[:200]
        raise FileNotFoundError(
            f"encoder {encoder}: no text encoder found ({line}); give a local folder with config.json, "
            "model.safetensors and tokenizer.json, or a name on the Hugging Face hub that can be reached"
        ) from None
    finally:
        logging.set_verbosity(levels[0])
        hub.setLevel(levels[1])
        if bars:
            logging.enable_progress_bar()
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    return tokenizer, network.get_encoder() if network.config.is_encoder_decoder else network
