"""One vector per word from a text encoder, and the words' times."""

import shutil
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_encoders import write_bert, write_roberta, write_t5
from transformers import AutoModel, AutoTokenizer

from vgmr.data.extract.clips import BrokenFile
from vgmr.data.extract.text import TextEncoder, read_words, word_timing, word_vectors


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_bert(tmp_path_factory.mktemp("encoder") / "bert")


@pytest.fixture(scope="module")
def encoder(folder):
    return TextEncoder(folder)


def literally(folder, words):
    """One word after the other: the tokens of the whole text, those of each word averaged by hand."""
    tokenizer, network = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    ids, spans = [2], []
    for word in words:
        tokens = tokenizer(word, add_special_tokens=False)["input_ids"]
        spans.append((len(ids), len(ids) + len(tokens)))
        ids += tokens
    with torch.no_grad():
        hidden = network(torch.tensor([[*ids, 3]])).last_hidden_state[0]
    return torch.stack([hidden[start:end].mean(0) for start, end in spans]).numpy()


def test_the_sub_words_of_a_word_are_averaged(folder, encoder):
    words = ["badly", "good", "abc", "don't", "Bad"]
    (vectors,) = encoder([words])
    assert vectors.shape == (5, 8) and vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, literally(folder, words), atol=1e-6)
    assert abs(vectors[4] - vectors[1]).max() > 1e-3
    np.testing.assert_array_equal(word_vectors([words], folder)[0], vectors)


TEXTS = st.lists(
    st.lists(st.text("abyz'.", min_size=1, max_size=4), min_size=1, max_size=5), min_size=1, max_size=40
)


@settings(max_examples=25, deadline=None)
@given(texts=TEXTS)
def test_a_text_does_not_see_the_others(encoder, texts):
    together = encoder(texts)
    assert [len(x) for x in together] == [len(text) for text in texts]
    for text, vectors in zip(texts[:3], together, strict=False):
        np.testing.assert_allclose(vectors, encoder([text])[0], atol=1e-5)


def test_long_texts_are_encoded_in_pieces_of_whole_words(folder, encoder):
    # 24 positions, 2 spare, 2 for the ends of a text: 20 sub-words
    words = [*["good"] * 18, "abc", "bad"]
    (vectors,) = encoder([words])
    np.testing.assert_allclose(vectors[:18], literally(folder, words[:18]), atol=1e-6)
    np.testing.assert_allclose(vectors[18:], literally(folder, words[18:]), atol=1e-6)
    (vectors,) = encoder([["good", "a" * 50, "bad"]])
    np.testing.assert_allclose(vectors[1], literally(folder, ["a" * 20])[0], atol=1e-6)
    assert np.isfinite(vectors).all()


def test_words_without_sub_words_are_unknown_ones(folder, encoder):
    (vectors,) = encoder([["good", "", "\u200b\u200b", "bad"]])
    expected = literally(folder, ["good", "[UNK]", "[UNK]", "bad"])
    np.testing.assert_allclose(vectors, expected, atol=1e-6)
    with pytest.raises(ValueError, match=r"text 1 \(from 0\) has no word"):
        encoder([["good"], []])
    assert encoder([]) == []


def test_the_name_follows_the_weights(folder, encoder, tmp_path):
    other = tmp_path / "moved"
    shutil.copytree(folder, other)
    assert TextEncoder(str(other)).name == encoder.name
    assert TextEncoder(write_bert(tmp_path / "wide", width=10)).name != encoder.name


def test_other_kinds_of_encoders(tmp_path):
    words = [["a", "bé"], ["longer", "text", "of", "words"], ["x" * 90]]
    for write in (write_roberta, write_t5):
        vectors = word_vectors(words, write(tmp_path / write.__name__))
        assert [x.shape for x in vectors] == [(2, 8), (4, 8), (1, 8)]
        assert np.isfinite(np.concatenate(vectors)).all()
        assert abs(vectors[0][0] - vectors[0][1]).max() > 1e-4


def test_what_is_no_encoder_is_refused_in_one_line(tmp_path, folder, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "empty").mkdir()
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    (broken / "model.safetensors").write_bytes(b"cut")
    for place in (tmp_path / "nowhere", tmp_path / "empty", broken):
        with pytest.raises(FileNotFoundError, match=r"no text encoder found .* a local folder with") as refused:
            word_vectors([["a"]], place)
        assert "\n" not in str(refused.value) and str(place) in str(refused.value)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"install vgmr with the extra text \(.*transformers"):
        word_vectors([["a"]], folder)


@pytest.mark.parametrize("name", ["a.tsv", "a.SRT", "a.json"])
def test_files_of_another_format_are_no_words(tmp_path, name):
    (tmp_path / name).write_text("1\n00:00:01,000 --> 00:00:02,000\ngood\n")
    with pytest.raises(
        BrokenFile, match=rf"{name}: expected plain text, or a .csv with .* start and end; save it so"
    ):
        read_words(tmp_path / name)


def test_a_csv_without_a_header_says_so(tmp_path):
    (tmp_path / "a.csv").write_text("good,0.1,0.5\n")
    with pytest.raises(BrokenFile, match=r"the columns word, start and end .* first line does not name them"):
        read_words(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text("word,start,end\ngood,0.1,0.5\n")
    assert read_words(tmp_path / "a.csv")[0] == ["good"]


def test_word_timing_by_hand():
    words, intervals = ["so", "it's", "sp!"], [[0.5, 1.0], [1.5, 1.75], [1.7, 1.7]]
    expected = [[0.5, 0, 4], [0.25, 0.5, 12], [0, 0, 0]]
    np.testing.assert_allclose(word_timing(words, intervals), expected, atol=1e-6)
    for wrong, line in (
        ([[0, 1]], "each of 2 words"),
        ([[0, 1], [1, np.nan]], "finite"),
        ([[0, 1], [2, 1]], r"word 1 .*'b', ends"),
    ):
        with pytest.raises(ValueError, match=line):
            word_timing(["a", "b"], np.array(wrong))
