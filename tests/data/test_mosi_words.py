"""MOSI word by word on the real files: alignment, split, floors, vectors, labels from files of the user."""

import gzip
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from vgmr.data import folds, load, mosi_words
from vgmr.data.extract.glove import glove_vectors


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VGMR_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def means(parts, names):
    return np.concatenate(
        [
            torch.cat([part.features[m].sum(1) / part.mask[m].sum(1, keepdim=True) for m in names], 1).numpy()
            for part in parts
        ]
    )


def with_spread(parts, name):
    """Mean, deviation and largest value over words."""
    rows = [x[real] for part in parts for x, real in zip(part.features[name], part.mask[name], strict=True)]
    return np.stack([torch.cat([x.mean(0), x.std(0, correction=0), x.amax(0)]).numpy() for x in rows])


def test_alignment_and_official_split(real_data):
    data = load("mosi-words", standardise=False)
    assert data.notes["words"] == 27489
    assert data.notes["words with a time"] / 27489 == pytest.approx(0.996, abs=0.0005)
    assert data.notes["utterances with a time for four words of five"] == 2192
    assert [len(part) for part in data.parts.values()] == [1284, 229, 686]
    assert [len(part.group.unique()) for part in data.parts.values()] == [52, 10, 31]
    assert data.dims == {"text": 50, "timing": 3, "acoustic": 73} and not data.overlap
    assert [part.label.bincount().tolist() for part in data.parts.values()] == [
        [552, 732],
        [92, 137],
        [379, 307],
    ], "as published: 552, 92 and 379 negative ones"
    duration = data.train.features["timing"][..., 0][data.train.mask["timing"]]
    assert 0.1 < duration.median() < 0.4 and duration.min() >= 0, "a word takes a fifth of a second, in seconds"


def test_lengths_are_those_of_the_transcripts(real_data, tmp_path):
    table = pd.read_csv(real_data / "mosi-utterance" / "transcripts.csv", header=None)
    spoken = sorted({word for text in table[1] for word in mosi_words.WORD.findall(text.lower())})
    (tmp_path / "glove.txt").write_text("".join(f"{word} {len(word)} 2\n" for word in spoken), encoding="utf-8")
    data = load("mosi-words", longest=120, vectors=str(tmp_path / "glove.txt"))
    assert data.notes["vectors"] == "glove.txt" and data.dims["text"] == 2
    lengths = torch.cat([part.mask["text"].sum(1) for part in data.parts.values()])
    assert (int(lengths.min()), int(lengths.median()), int(lengths.max())) == (1, 10, 114)
    assert data.notes["words beyond the 120th of an utterance, cut"] == 0


def test_floors_over_folds_by_video(real_data):
    """By means over words GloVe .635, with timing .633; timing .566, not by its means, which are at chance."""
    right, count, positive = dict.fromkeys([("text",), ("timing",), ("text", "timing")], 0), 0, 0
    spread = 0
    for fold in range(folds("mosi-words")):
        data = load("mosi-words", fold=fold, standardise=False)
        fitted, label = [data.train, data.validation], torch.cat([data.train.label, data.validation.label])
        for names in right:
            model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
            model.fit(means(fitted, names), label)
            right[names] += int((model.predict(means([data.test], names)) == data.test.label.numpy()).sum())
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
        model.fit(with_spread(fitted, "timing"), label)
        spread += int((model.predict(with_spread([data.test], "timing")) == data.test.label.numpy()).sum())
        count += len(data.test)
        positive += int(data.test.label.sum())
    assert count == 2199 and positive / count == pytest.approx(0.535, abs=0.001)
    assert right["text",] / count == pytest.approx(0.635, abs=0.02)
    assert right["text", "timing"] / count == pytest.approx(0.633, abs=0.02)
    assert right["timing",] / count == pytest.approx(0.535, abs=0.03)
    assert spread / count == pytest.approx(0.566, abs=0.02)


def test_the_first_words_have_their_times(real_data):
    """ANYHOW IT WAS REALLY GOOD: each word starts where the one before it ended, or later."""
    data = load("mosi-words", standardise=False)
    table = pd.read_csv(real_data / "mosi-utterance" / "transcripts.csv", header=None)
    assert table[1][0] == "ANYHOW IT WAS REALLY GOOD"
    first = data.train.features["text"][0, :5]
    assert np.allclose(first, glove_vectors([["anyhow", "it", "was", "really", "good"]])[0])
    assert data.train.mask["text"][0].sum() == 5
    assert data.train.features["timing"][0, 0, 1] == 0 and (data.train.features["timing"][0, :5, 0] > 0).all()


def test_sentiment_of_the_user_gives_regression_and_seven_classes(real_data, tmp_path):
    table = pd.read_csv(real_data / "mosi-utterance" / "transcripts.csv", header=None)
    value = np.where(table[3] == 1, 1.4, -2.6)
    made = pd.DataFrame({"text": table[1], "label": value})[5:]
    made.to_csv(tmp_path / "all.tsv", sep="\t", index=False)
    data = load("mosi-words", labels="regression", sentiment=tmp_path / "all.tsv")
    data.check()
    assert data.task == "regression" and data.test.label.dtype == torch.float32
    assert {round(x, 4) for x in data.test.label.tolist()} == {1.4, -2.6}
    assert 0 < data.notes["utterances without a sentiment, left out"] <= 5
    seven = load("mosi-words", labels="seven", sentiment=str(tmp_path / "all.tsv"), fold=2)
    assert len(seven.classes) == 7 and set(seven.test.label.tolist()) == {0, 4}
    binary = load("mosi-words")
    assert len({data.fingerprint, seven.fingerprint, binary.fingerprint}) == 3
    made.assign(label=9).to_csv(tmp_path / "all.tsv", sep="\t", index=False)
    with pytest.raises(ValueError, match=r"line 2 holds no sentiment from -3 to 3"):
        load("mosi-words", labels="seven", sentiment=tmp_path / "all.tsv")


def test_an_encoder_of_the_user_is_run_once(real_data, monkeypatch, tmp_path):
    calls = []

    def fake(words, encoder):
        calls.append(encoder)
        return [np.full((len(text), 3), len(text), np.float32) for text in words]

    monkeypatch.setattr(mosi_words, "word_vectors", fake)
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    for fold in (None, 0, 1):
        data = load("mosi-words", vectors=str(tmp_path), fold=fold)
        assert data.dims["text"] == 3
    assert calls == [str(tmp_path)]
    (tmp_path / "config.json").write_text("{ }", encoding="utf-8")
    load("mosi-words", vectors=str(tmp_path))
    assert len(calls) == 2, "another encoder in the same folder"


def test_refusals(real_data, tmp_path):
    with pytest.raises(ValueError, match="labels must be one of binary, seven, regression"):
        load("mosi-words", labels="five")
    with pytest.raises(FileNotFoundError, match="need continuous sentiment, which the open files do not hold"):
        load("mosi-words", labels="regression")
    with pytest.raises(FileNotFoundError, match=r"no GloVe file /typo/glove\.txt; give the path of one"):
        load("mosi-words", vectors="/typo/glove.txt")
    with pytest.raises(ValueError, match="longest must be a whole number of at least 1"):
        load("mosi-words", longest=0)
    with pytest.raises(ValueError, match="fold must be a whole number from 0 to 9"):
        load("mosi-words", fold=10)
    shutil.copytree(real_data / "mosi-utterance", tmp_path / "mosi-utterance")
    with pytest.raises(FileNotFoundError, match="no files of mosi-words"):
        load("mosi-words", root=str(tmp_path))


def test_glove_from_a_text_file(tmp_path):
    file = tmp_path / "glove.txt"
    file.write_text("the 1 2\ncafé 3 4.5\nrest x y\n", encoding="utf-8")
    found = glove_vectors([["the", "nothing"], ["café"]], file)
    assert found[0].tolist() == [[1, 2], [0, 0]] and found[1].tolist() == [[3, 4.5]]
    with pytest.raises(ValueError, match="line 3: expected a word and numbers"):
        glove_vectors([["rest"]], file)
    with pytest.raises(ValueError, match="none of the 1 words is in it"):
        glove_vectors([["absent"]], file)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("the 1 2\ncafé 3 4\n".encode("latin-1"), "line 2: expected text in UTF-8"),
        (gzip.compress(b"the 1 2\n"), "line 1: expected text in UTF-8; unpack the file, or save it so"),
    ],
    ids=["Latin-1", "gzip"],
)
def test_glove_files_that_are_no_text_are_refused(tmp_path, content, message):
    (tmp_path / "glove.txt").write_bytes(content)
    with pytest.raises(ValueError, match=rf"glove.txt.* {message}") as refused:
        glove_vectors([["the", "one", "café"], ["that", "the"]], tmp_path / "glove.txt")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_byte_order_mark_is_of_no_word_but_on_a_later_line(tmp_path, encoding, ending):
    content = ending.join(["the 1 2", "\ufeffthe 3 4", ""])
    (tmp_path / "glove.txt").write_bytes(content.encode(encoding))
    assert glove_vectors([["the", "one"]], tmp_path / "glove.txt")[0].tolist() == [[1, 2], [0, 0]]
    assert glove_vectors([["\ufeffthe"]], tmp_path / "glove.txt")[0].tolist() == [[3, 4]]


def test_a_word_with_a_space_in_a_glove_file_is_no_other_word(tmp_path):
    file = tmp_path / "glove.840B.txt"
    file.write_text(", 9 9\nat 1 2\nat name@domain.com 3 4\nin mylot.com 5 6\nin 7 8\n", encoding="utf-8")
    assert glove_vectors([["in", "at"]], file)[0].tolist() == [[7, 8], [1, 2]]
    file.write_text("2 2\nin mylot.com 5 6\nin 7 8\n", encoding="utf-8")  # with the header of word2vec
    with pytest.raises(ValueError, match="line 2: expected a word and numbers"):
        glove_vectors([["in"]], file)


def test_glove_of_the_package_tells_which_words_are_alike():
    good, great, tuesday = glove_vectors([["good", "great", "tuesday"]])[0]
    assert good.shape == (50,) and good @ great / np.linalg.norm(good) / np.linalg.norm(great) > 0.75
    assert good @ tuesday / np.linalg.norm(good) / np.linalg.norm(tuesday) < 0.6
