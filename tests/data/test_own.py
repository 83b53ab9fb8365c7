"""A table of your own clips becomes a data set: extracted once, resumed where it stopped, broken clips named."""

import errno
import os
import re
import signal
import subprocess
import sys
import time
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
import torch
from made_audio_visual import StandIn, write_image, write_video, write_voice
from made_encoders import write_bert

from vgmr.data import load, own
from vgmr.data.extract.audio import egemaps, log_mel, read_wav
from vgmr.data.extract.clips import BrokenFile
from vgmr.data.extract.images import folder_images
from vgmr.data.extract.text import read_words, word_timing, word_vectors
from vgmr.data.manage import run

WORDS = ("good bad", "bad", "good good good", "so so")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VGMR_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return str(write_bert(tmp_path_factory.mktemp("encoder") / "bert"))


def write_table(folder, rows, name="table.csv"):
    folder.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(folder / name, index=False)
    return folder / name


def clips(folder, count=24, video=True, **more):
    """A table of `count` clips with words, a voice and a folder of images; six speakers, two classes."""
    generator = np.random.default_rng(0)
    rows = []
    for number in range(count):
        voice = np.sin(np.arange(4000) * (0.1 + 0.1 * (number % 2))) / 2 + generator.normal(0, 0.01, 4000)
        write_voice(folder / "sounds" / f"{number}.wav", voice)
        row = {
            "id": f"clip {number}",
            "text": f"{WORDS[number % 4]} {'abcdefghijklmnopqrstuvwxyz'[number % 26]}",
            "audio": f"sounds/{number}.wav",
            "label": ("yes", "no")[number % 2],
            "group": f"speaker {number // 4}",
        }
        if video:
            for step in (1, 2, 10):
                pixels = generator.integers(0, 255, (32, 40, 3))
                write_image(folder / "frames" / str(number) / f"{step}.jpg", pixels)
            row["video"] = f"frames/{number}"
        rows.append(row | more)
    return write_table(folder, rows)


def sizes(data):
    return [len(batch) for batch in data.parts.values()]


def literally(table, data, encoder, network=None):
    """Every sample of the data set is what the extractors give for some line, all of them are there once."""
    rows = pd.read_csv(table)
    seen = []
    for batch in data.parts.values():
        for sample in range(len(batch)):
            x = {name: batch.features[name][sample][batch.mask[name][sample]].numpy() for name in batch.features}
            for line in rows.itertuples():
                vectors = word_vectors([line.text.split()], encoder)[0]
                if x["text"].shape != vectors.shape or not np.allclose(x["text"], vectors, atol=1e-5):
                    continue
                samples, rate, _ = read_wav(table.parent / line.audio, 16000)
                if np.allclose(x["audio"], log_mel(samples, rate), atol=1e-5):
                    assert data.classes[int(batch.label[sample])] == line.label
                    seen.append(line.id)
    assert sorted(seen) == sorted(rows.id)


def test_a_table_becomes_a_data_set(tmp_path, encoder):
    table = clips(tmp_path / "clips")
    network = StandIn()
    data = load("own", str(table), text=encoder, video=network, frames=2, standardise=False)
    assert data.dims == {"text": 8, "audio": 64, "video": 12}
    assert data.classes == ("no", "yes")
    assert sum(sizes(data)) == 24 and min(sizes(data)) >= 4
    groups = [set(batch.group.tolist()) for batch in data.parts.values()]
    assert not groups[0] & groups[1] | groups[0] & groups[2] | groups[1] & groups[2]
    literally(table, data, encoder)
    assert data.notes["warnings"] == [] and "broken clips, left out" not in data.notes


def test_the_second_call_reads_no_clip(tmp_path, encoder, monkeypatch):
    table = clips(tmp_path / "clips")
    options = {"text": encoder, "video": StandIn(), "frames": 2}
    first = load("own", str(tmp_path / "clips"), **options)

    def never(*_):
        raise AssertionError("extracted again")

    for name in ("TextEncoder", "read_wav", "read_images", "read_raw"):
        if name != "read_raw":
            monkeypatch.setattr(own, name, never)
    again = load("own", str(table), **options)
    assert again.fingerprint == first.fingerprint
    for part, batch in again.parts.items():
        assert all(x.equal(first.parts[part].features[name]) for name, x in batch.features.items())


def test_what_was_cut_off_goes_on_where_it_stopped(tmp_path, monkeypatch):
    table = clips(tmp_path / "clips", video=False)
    rows = pd.read_csv(table).drop(columns="text")
    rows.to_csv(table, index=False)
    made = []

    def stopping(signal, rate):
        if len(made) == 10:
            raise KeyboardInterrupt
        made.append(1)
        return log_mel(signal, rate)

    monkeypatch.setitem(own.SOUNDS, "log-mel", stopping)
    with pytest.raises(KeyboardInterrupt):
        load("own", str(table))
    monkeypatch.setitem(own.SOUNDS, "log-mel", lambda signal, rate: made.append(2) or log_mel(signal, rate))
    data = load("own", str(table))
    assert made.count(2) == 14 and sum(sizes(data)) == 24


def test_a_killed_extraction_goes_on(tmp_path):
    table = clips(tmp_path / "clips", video=False)
    pd.read_csv(table).drop(columns="text").to_csv(table, index=False)
    code = (
        "import time\nfrom vgmr.data import load, own\nreal = own.SOUNDS['log-mel']\n"
        "def slow(*given):\n    time.sleep(0.3)\n    return real(*given)\n"
        f"own.SOUNDS['log-mel'] = slow\nload('own', {str(table)!r})"
    )
    process = subprocess.Popen([sys.executable, "-c", code], env=os.environ, stderr=subprocess.DEVNULL)
    store = tmp_path / "cache" / "features" / "audio-log-mel-16000"
    while process.poll() is None and len(list(store.glob("[!.]*.npy"))) < 3:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    kept = {path.name: path.stat().st_mtime_ns for path in store.glob("[!.]*.npy")}
    assert 3 <= len(kept) < 24
    data = load("own", str(table))
    assert sum(sizes(data)) == 24
    after = {path.name: path.stat().st_mtime_ns for path in store.glob("[!.]*.npy")}
    assert len(after) == 24 and {name: after[name] for name in kept} == kept


@pytest.mark.parametrize("harm", ["cut voice", "no voice", "cut image", "no images", "no words", "empty cell"])
def test_one_broken_clip_is_left_out_and_named(tmp_path, encoder, harm):
    table = clips(tmp_path / "clips")
    folder = table.parent
    rows = pd.read_csv(table)
    if harm == "cut voice":
        path = folder / "sounds" / "5.wav"
        path.write_bytes(path.read_bytes()[:500])
    elif harm == "no voice":
        (folder / "sounds" / "5.wav").unlink()
    elif harm == "cut image":
        path = folder / "frames" / "5" / "2.jpg"
        path.write_bytes(path.read_bytes()[:100])
    elif harm == "no images":
        for path in (folder / "frames" / "5").iterdir():
            path.rename(path.with_name(f"._{path.name}"))
    else:
        rows.loc[5, "text" if harm == "no words" else "audio"] = ""
        rows.to_csv(table, index=False)
    options = {"text": encoder, "video": StandIn(), "frames": 9}
    with pytest.warns(UserWarning, match=r"own: 1 of 24 clips cannot be read and are left out \(clip 5: "):
        data = load("own", str(table), **options)
    assert sum(sizes(data)) == 23
    (line,) = data.notes["broken clips, left out"]
    assert line.startswith("clip 5: ") and "\n" not in line


def labelled(folder, labels, **columns):
    """A table of recordings with these labels, in this order."""
    generator = np.random.default_rng(0)
    rows = []
    for number, label in enumerate(labels):
        write_voice(folder / f"{number}.wav", generator.normal(0, 0.1, 1000))
        more = {name: values[number] for name, values in columns.items()}
        rows.append({"id": number, "label": label, "audio": f"{number}.wav", **more})
    return write_table(folder, rows)


def counts(data):
    return {part: batch.label.bincount(minlength=len(data.classes)).tolist() for part, batch in data.parts.items()}


def test_a_rare_class_takes_nothing_from_the_others(tmp_path):
    data = load("own", str(labelled(tmp_path, "a" * 20 + "b" * 19 + "r" + "s" * 2)))
    assert counts(data) == {"train": [14, 13, 1, 1], "validation": [2, 2, 0, 1], "test": [4, 4, 0, 0]}
    assert data.notes["warnings"] == []


@pytest.mark.parametrize("column", ["split", "group"])
def test_a_class_that_no_clip_trains_is_named(tmp_path, column):
    parts = ["train", "validation"] * 4 + ["test"] * 2
    chosen = {"split": parts, "group": ["x", "y", "z", "w", "v"] + ["x"] * 3 + ["y"] * 2}[column]
    labels = "aabbaabbcc" if column == "split" else "abacdaaabb"
    table = labelled(tmp_path, labels, **{column: chosen})
    with pytest.warns(UserWarning, match="own: the training part has no clip of [bc]; give more"):
        data = load("own", str(table))
    assert 0 in counts(data)["train"]


def test_a_part_of_one_class_is_warned_of(tmp_path):
    split = ["train", "train", "dev", "dev"] * 5 + ["test"] * 10
    table = labelled(tmp_path, "ab" * 10 + "b" * 10, split=split)
    with pytest.warns(
        UserWarning, match="own: the test part has clips of b only; give more clips, or another split"
    ):
        load("own", str(table))


def test_clips_of_one_class_train_nothing(tmp_path):
    table = labelled(tmp_path, "aaaabb" * 2, split=["train", "train", "dev", "test", "dev", "test"] * 2)
    with pytest.raises(ValueError, match=r"table\.csv: the train part has clips of a only; give more clips, or"):
        load("own", str(table))


def test_a_group_that_is_most_of_the_clips_is_warned_of_with_the_sizes(tmp_path):
    table = labelled(tmp_path, "ab" * 20, group=["zz"] * 30 + [f"g{number // 2}" for number in range(10)])
    with pytest.warns(UserWarning) as said:
        data = load("own", str(table))
    assert max(sizes(data)[1:]) >= 30
    train, validation, test = sizes(data)
    line = (
        f"own: groups are so large that the drawn parts have {train} train, {validation} validation, {test} test"
    )
    assert any(str(one.message).startswith(line) for one in said)


def test_a_pipe_in_place_of_a_recording_is_left_out(tmp_path):
    table = labelled(tmp_path, "ab" * 6)
    (tmp_path / "3.wav").unlink()
    os.mkfifo(tmp_path / "3.wav")
    with pytest.warns(UserWarning, match=r"3\.wav: a folder, a pipe or a device; expected a file"):
        assert sum(sizes(load("own", str(table)))) == 11


def test_a_changed_clip_is_extracted_again(tmp_path):
    table = clips(tmp_path / "clips", video=False)
    pd.read_csv(table).drop(columns="text").to_csv(table, index=False)
    first = load("own", str(table))
    write_voice(table.parent / "sounds" / "3.wav", np.random.default_rng(1).normal(0, 0.1, 4000))
    second = load("own", str(table))
    assert second.fingerprint != first.fingerprint
    assert load("own", str(table)).fingerprint == second.fingerprint


def test_the_command_writes_a_folder_that_loads_by_itself(tmp_path, encoder, capsys, monkeypatch):
    table = clips(tmp_path / "clips", video=False)
    output = tmp_path / "made"
    given = ["extract", str(table), "--text", encoder, "--output", str(output)]
    assert run(given) == 0
    printed = capsys.readouterr().out
    assert f"load('own', root={str(output)!r})" in printed and "audio" in printed and "groups: 6" not in printed
    for path in (table.parent / "sounds").iterdir():
        path.unlink()
    data = load("own", str(output))
    assert sum(sizes(data)) == 24 and data.dims == {"text": 8, "audio": 64}
    assert run(["check", "own", "--root", str(output)]) == 0
    monkeypatch.setenv("VGMR_DATA", str(tmp_path))
    output.rename(tmp_path / "own")
    assert load("own").fingerprint == data.fingerprint
    full = tmp_path / "full"
    (full / "thing").mkdir(parents=True)
    assert run([*given[:-1], str(full)]) == 1
    assert capsys.readouterr().err.startswith(f"vgmr data extract: {full} is there and holds no data set")
    no_space = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(own.store, "write", Mock(side_effect=no_space))
    monkeypatch.setattr(own, "load_own", Mock(return_value=data))
    assert run([*given[:-1], str(tmp_path / "more")]) == 1
    assert f"{tmp_path / 'more'} cannot be written (No space left on device)" in capsys.readouterr().err


def test_an_empty_folder_is_filled_and_nothing_of_others_makes_way(tmp_path):
    table = clips(tmp_path / "clips", video=False)
    pd.read_csv(table).drop(columns="text").to_csv(table, index=False)
    empty, link, page = tmp_path / "empty", tmp_path / "link", tmp_path / "page"
    empty.mkdir()
    link.symlink_to(empty)
    first = own.extract(table, link)
    assert link.is_symlink() and load("own", str(empty)).fingerprint == first.fingerprint
    pd.read_csv(table)[:20].to_csv(table, index=False)
    assert own.extract(table, empty).fingerprint != first.fingerprint, "what was extracted before is replaced"
    (empty / "notes.txt").touch()
    page.mkdir()
    (page / "manifest.json").write_text('{"name": "a page"}')
    for folder in (empty, page, page / "manifest.json"):
        with pytest.raises(ValueError, match=f"{folder} is there and holds no data set"):
            own.extract(table, folder)
    assert (empty / "notes.txt").exists() and (page / "manifest.json").exists()


def test_a_folder_that_was_extracted_takes_no_other_options(tmp_path, encoder):
    network, made = StandIn(), tmp_path / "made"
    own.extract(clips(tmp_path / "clips"), made, text=encoder, video=network, frames=2, rate=8000)
    fingerprint = load("own", str(made)).fingerprint
    for options in (
        {"text": encoder, "video": network, "frames": 2, "rate": 8000, "audio": "log-mel", "labels": "classes"},
        {"video": own.ImageNetwork(network).name},
        {"frames": 16, "rate": 16000},  # the defaults
    ):
        assert load("own", str(made), **options).fingerprint == fingerprint
    other = str(write_bert(tmp_path / "other", width=12))
    for options, line in (
        ({"audio": "egemaps"}, "with audio='log-mel', got audio='egemaps'; leave audio out, or extract the table"),
        ({"labels": "regression"}, "with labels='classes', got labels='regression'"),
        ({"rate": 22050}, "with rate=8000, got rate=22050"),
        ({"frames": 3}, "with frames=2, got frames=3"),
        ({"video": StandIn(7)}, "with video='StandIn-"),
        ({"text": other}, "with text='BertModel-"),
    ):
        with pytest.raises(ValueError, match=f"^{re.escape(f'{made} was extracted {line}')}") as refused:
            load("own", str(made), **options)
        assert "\n" not in str(refused.value)
    for options, line in (({"audio": "mfcc"}, "audio must be one of"), ({"text": [1]}, "text must be an encoder")):
        with pytest.raises(ValueError, match=line):
            load("own", str(made), **options)


def test_options_of_what_was_not_extracted_are_refused(tmp_path):
    made = tmp_path / "made"
    own.extract(labelled(tmp_path, "ab" * 8), made)
    for options in ({"text": "bert"}, {"video": StandIn()}, {"frames": 3}):
        (name,) = options
        with pytest.raises(
            ValueError, match=f"made was extracted without {name}, got {name}=.*; leave {name} out"
        ):
            load("own", str(made), **options)


def test_a_column_that_is_not_read_is_named_at_each_call(tmp_path):
    made, speakers = tmp_path / "made", [f"speaker {number // 4}" for number in range(16)]
    table = labelled(tmp_path, "ab" * 8, Speaker=speakers, age=["30"] * 16)
    line = "own: table.csv: not read are its columns age, speaker; known are id, label, text, .*group, split"
    for _ in range(2):
        with pytest.warns(UserWarning, match=line):
            assert load("own", str(table)).train.group is None
    own.extract(table, made)
    with pytest.warns(UserWarning, match=line):
        load("own", str(made))
    table.write_text("".join(f"{row},\n" for row in table.read_text().replace("Speaker,age", "x,x").splitlines()))
    with pytest.warns(UserWarning, match="not read are its columns x; known"):
        load("own", str(table))


def test_no_name_of_a_column_is_not_warned_of_and_none_is_a_class(tmp_path):
    table = labelled(tmp_path, ["none", "joy"] * 8)
    pd.read_csv(table).to_csv(table, index_label="")
    assert load("own", str(table)).classes == ("joy", "none")


def test_videos_are_read_as_well_as_folders_of_images(tmp_path):
    rows = []
    generator = np.random.default_rng(0)
    for number in range(12):
        images = generator.integers(0, 255, (5, 64, 64, 3)).astype(np.uint8)
        write_video(tmp_path / f"{number}.avi", images)
        rows.append({"id": number, "label": number % 2, "video": f"{number}.avi"})
    table = write_table(tmp_path, rows)
    raw = (tmp_path / "3.avi").read_bytes()
    (tmp_path / "3.avi").write_bytes(raw[: len(raw) // 2])
    with pytest.warns(UserWarning, match=r"1 of 12 clips .*3\.avi: not an \.avi file, or cut short"):
        data = load("own", str(table), video=StandIn(), frames=3)
    assert data.dims == {"video": 12} and data.train.lengths()["video"].tolist() == [3] * len(data.train)
    assert data.classes == ("0", "1") and data.train.group is None


def test_images_of_a_folder_come_by_number_without_hidden_ones(tmp_path):
    for name in ("f10.jpg", "f9.png", "._f1.jpg", "f2.jpeg", "notes.txt", "f3.webp", "f11.BMP"):
        (tmp_path / name).write_bytes(b"")
    ordered = ["f2.jpeg", "f3.webp", "f9.png", "f10.jpg", "f11.BMP"]
    assert [path.name for path in folder_images(tmp_path)] == ordered
    assert folder_images(tmp_path / "nowhere") == []


def test_words_with_times_give_timing_and_numbers_regression(tmp_path, encoder):
    rows = []
    for number in range(20):
        words = ["good", "bad", "so"][: 1 + number % 3]
        times = [[0.5 * k, 0.5 * k + 0.1 + 0.01 * number] for k in range(len(words))]
        lines = "".join(f"{word},{a},{b}\n" for word, (a, b) in zip(words, times, strict=True))
        (tmp_path / f"{number}.csv").write_text("word,start,end\n" + lines)
        rows.append({"id": number, "label": number / 10 - 1, "text_file": f"{number}.csv"})
    rows[4] |= {"split": "test"}
    for number, row in enumerate(rows):
        row["split"] = ("train", "train", "val", "test")[number % 4]
    table = write_table(tmp_path, rows)
    data = load("own", str(table), text=encoder, labels="regression", standardise=False)
    assert data.task == "regression" and sizes(data) == [10, 5, 5]
    torch.testing.assert_close(data.test.label, torch.arange(3, 20, 4) / 10 - 1)
    expected = word_timing(["good"], np.array([[0, 0.13]]))
    np.testing.assert_allclose(data.test.features["timing"][0][:1], expected, rtol=1e-6)
    (tmp_path / "3.csv").write_text("word,start\ngood,0\n")
    with pytest.warns(UserWarning, match=r"3\.csv: expected the columns word, start and end in seconds"):
        assert sizes(load("own", str(table), text=encoder, labels="regression")) == [10, 5, 4]


def test_columns_in_capital_letters_are_the_same_columns(tmp_path):
    table = clips(tmp_path / "clips", video=False)
    rows = pd.read_csv(table).drop(columns="text")
    rows["split"] = np.repeat(["test", "train", "dev"], 8)
    write_table(tmp_path / "small", rows.assign(audio=[str(table.parent / name) for name in rows.audio]))
    rows.rename(columns=str.title).to_csv(table, index=False)
    small, large = load("own", str(tmp_path / "small")), load("own", str(table))
    assert large.notes["split"] == "that of the table" and large.notes["groups"] == 6
    for part, batch in small.parts.items():
        assert len(batch) == 8 and batch.group.equal(large.parts[part].group)
        assert batch.features["audio"].equal(large.parts[part].features["audio"])


TABLES = {
    "id,text\n1,a\n": r"expected the columns id, label, and one or more of .*got id, text",
    "id,label\n1,a\n": r"expected the columns id, label, and one or more",
    "id,label,text,text_file\n1,a,b,c\n": r"both text and text_file",
    "id,label,text\n": r"no line below its header",
    "id,label,text\n1,a,b\n2,nan,c\n": r"line 3: the label is 'nan', as tables write a missing value; give one",
    "id,label,text,group\n1,a,b,<NA>\n2,b,c,NaN\n": r"line 2: the group is '<NA>', as tables write",
    **{
        f"id,label,text\n1,a,b\n2,{label},c\n": re.escape(f"line 3: the label is {label!r}, as tables write")
        for label in ("N/A", "n/a", "#N/A", "NA", "NULL", "null", "None", "?")
    },
    "id,label,text,group,split\n1,a,good,x,train\n2,b,bad,x,test\n3,b,so,y,dev\n": r"'x' is in train and test",
    "id,label,text,split\n1,a,good,train\n2,b,bad,dev\n": r"no clip is left for test; name some in the column",
    "id,label,text\n1,a,good\n2,b,\n": r"at least two classes .*got \['a'\]; 1 of 2 clips cannot be read",
    "id,label,text\n1,a,b\n1,b,c\n": r"id '1' is there more than once",
    "id,label,text\n1,,b\n": r"line 2: no label",
    "id,label,text,split\n1,a,b,holdout\n": r"split must be train, validation or test, got 'holdout'",
    "id,label,text\n1,a,good\n2,a,bad\n": r"at least two classes",
    "id,label,text,group\n1,a,good,x\n2,b,bad,x\n": r"no clip is left for",
    "id,label,text\n1,a,\n2,b,bad\n3,c,\n": r"2 of 3 clips cannot be read .*more than half",
    "": r"empty",
    '"id,label\n': r"expected the columns|not a table",
    "id,label,text\n1,a,b,\n2,b,c,\n": r"line 2: 4 fields, more than the 3 of the header; take away a comma",
    "id,label,text\n1,a,b\n\n2,b,c,d\n": r"line 4: 4 fields, more than the 3 of the header",
    "id,label,audio,audio\n1,a,b,c\n": r"has the column audio more than once",
    "id,label,audio,group,Group\n1,a,b,c,d\n": r"has the column group more than once",
    'id,label,text\n1,a,"b\n': r"not a table \(.*EOF inside string",
    "id;label;text\n1;a;b\n": r"separated by commas, got id;label;text",
    'id,label,text\n1,a,"so\n2,b,bad\n3,a,"good\n4,b,x\n': r"'1' holds a further line of the table, '2,b,bad'",
    "id,label,text\n\u00e9,a,b\ne\u0301,b,c\n": "id 'é' is there more than once",
    'id,label,text\n\n1,a,"b\nc"\n\n2,,c\n': "line 6: no label",
    "\nid,label,text\n\n1,a,b\n\n2,nan,c\n": "line 6: the label is 'nan'",
    "id,"
    + ",".join(f"f{number}" for number in range(5000)): r"got id, f0, .{150,200} \.\.\. \(5,001 in all\); feat",
    "id,label,text\n1,.25,good\n2,.5,bad\n": "of 2 clips in 2 classes no clip is left for",
    "id,label,text\n1,a,\udce4\n": r"not text in UTF-8 \(byte 18\)",
}


@pytest.mark.parametrize("content", TABLES)
def test_other_tables_are_refused_in_one_line(tmp_path, encoder, content):
    table = tmp_path / "table.csv"
    table.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=TABLES[content]) as refused:
        load("own", str(table), text=encoder)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("ending", ["gz", "zip", "xz", "zst"])
def test_a_table_that_is_compressed_is_named(tmp_path, ending):
    (tmp_path / f"table.csv.{ending}").write_bytes(b"PK\x03\x04\x8b\xff")
    with pytest.raises(ValueError, match=rf"table\.csv\.{ending}: not text in UTF-8 \(byte 4\); save it as \.csv"):
        load("own", str(tmp_path / f"table.csv.{ending}"))


def test_labels_of_many_digits_and_in_two_forms_have_an_order(tmp_path):
    table = labelled(tmp_path, ["01", "1", "1" * 5000] * 5)
    with pytest.warns(UserWarning, match="label '01' and '1' differ"):
        assert load("own", str(table)).classes == ("01", "1", "1" * 5000)


def test_a_table_that_is_not_there_is_said_to_be(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"clips\.csv: no such table; give the \.csv file, or the folder"):
        load("own", str(tmp_path / "clips.csv"))


@pytest.mark.parametrize(
    "name", ["~nobody-here/a.wav", "x" * 300, "a\0b.wav", "../no/such.wav", "https://a/b.wav"]
)
def test_a_name_that_no_file_can_have_costs_one_clip(tmp_path, name):
    table = clips(tmp_path / "clips", video=False)
    rows = pd.read_csv(table).drop(columns=["text", "group"])
    rows.loc[5, "audio"] = name
    rows.to_csv(table, index=False)
    with pytest.warns(UserWarning, match=r"own: 1 of 24 clips cannot be read and are left out \(clip 5: "):
        assert sum(sizes(load("own", str(table)))) == 23


def test_labels_and_groups_may_be_any_text(tmp_path):
    table = clips(tmp_path / "clips", video=False)
    rows = pd.read_csv(table).drop(columns="text")
    rows["label"] = ["²", "①"] * 12
    rows["group"] = [f"{'①②③④⑤⑥'[number // 4]}½" for number in range(24)]
    rows.to_csv(table, index=False, encoding="utf-8-sig")
    data = load("own", str(table))
    assert set(data.classes) == {"²", "①"} and data.notes["groups"] == 6


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("word,start,end\n ,0,1\n,1,2\n", "clip 5: it has no word"),
        ("word,start,end\ngood,3,4\nbad,1,2\n", "clip 5: .*words that are not in order of time"),
        ("\ufeffword,start,end\r\ngood,nan,4\r\n", "clip 5: its times: expected a finite start and end"),
    ],
)
def test_words_of_a_clip_that_make_no_sense_cost_one_clip(tmp_path, encoder, content, line):
    rows = []
    for number in range(24):
        text = f"word,start,end\ngood,0,{1 + number}\nbad,1,{2 + number}\n"
        (tmp_path / f"{number}.csv").write_text(content if number == 5 else text, encoding="utf-8")
        rows.append({"id": f"clip {number}", "label": "ab"[number % 2], "text_file": f"{number}.csv"})
    table = write_table(tmp_path, rows)
    with pytest.warns(UserWarning, match=rf"own: 1 of 24 clips cannot be read and are left out \({line}"):
        assert sum(sizes(load("own", str(table), text=encoder))) == 23


def test_timing_that_a_clip_lacks_is_missed_aloud(tmp_path, encoder):
    rows = []
    for number in range(24):
        word = "abcdefghijklmnopqrstuvwxyz"[number]
        name = f"{number}.{'txt' if number == 5 else 'csv'}"
        (tmp_path / name).write_text(word if number == 5 else f"word,start,end\n{word},0,1\n")
        rows.append({"id": f"clip {number}", "label": "ab"[number % 2], "text_file": name})
    table = write_table(tmp_path, rows)
    line = r"own: 1 of 24 clips have no times of their words \(first: clip 5\), so there is no timing for any"
    with pytest.warns(UserWarning, match=line):
        assert load("own", str(table), text=encoder).modalities == ["text"]


def test_a_word_with_an_open_double_quote_takes_no_others(tmp_path):
    (tmp_path / "a.csv").write_text('word,start,end\n",0,1\ngood,1,2\n",2,3\n')
    with pytest.raises(BrokenFile, match=r"a\.csv: expected the columns .*a double quote that is left open"):
        read_words(tmp_path / "a.csv")


def test_names_are_the_same_in_either_form_of_unicode(tmp_path):
    table = clips(tmp_path / "clips", video=False)
    rows = pd.read_csv(table).drop(columns="text")
    (tmp_path / "clips" / "sounds").rename(tmp_path / "clips" / "é")
    rows["group"] = [("André", "Andre\u0301")[number % 2] + str(number // 4) for number in range(24)]
    rows["label"] = ["é", "e\u0301", "o"] * 8
    rows["audio"] = rows.audio.str.replace("sounds", "e\u0301")
    rows.to_csv(table, index=False)
    data = load("own", str(table))
    assert data.classes == ("o", "é") and data.notes["groups"] == 6 and sum(sizes(data)) == 24


def test_a_clip_that_is_in_two_parts_is_named(tmp_path):
    table = clips(tmp_path / "clips", video=False)
    rows = pd.read_csv(table).drop(columns=["text", "group"])
    rows["split"] = np.repeat(["test", "train", "dev"], 8)
    rows.loc[20, "audio"] = "sounds/4.wav"
    rows.to_csv(table, index=False)
    with pytest.raises(ValueError, match="'clip 20' in validation and 'clip 4' in test are the same clip, or"):
        load("own", str(table))


def test_clips_that_differ_in_what_is_not_heard_only_are_named_with_a_remedy(tmp_path):
    table = labelled(tmp_path, "ab" * 6, split=["train", "dev", "test"] * 4)
    for number in (3, 5):
        write_voice(tmp_path / f"{number}.wav", np.full(1000, number / 100))
    message = "'3' in train and '5' in test are the same clip, or have the same features; leave one of them out"
    with pytest.raises(ValueError, match=message):
        load("own", str(table))
    rows = pd.read_csv(table)
    write_table(tmp_path, rows[rows.id != 5])
    assert sum(sizes(load("own", str(table)))) == 11


def test_a_manifest_of_others_beside_the_table_is_none(tmp_path):
    labelled(tmp_path, "ab" * 6)
    (tmp_path / "manifest.json").write_text('{"made by": "a recorder"}')
    assert sum(sizes(load("own", str(tmp_path)))) == 12


def test_clips_that_memory_does_not_hold_are_named(tmp_path, monkeypatch):
    table = labelled(tmp_path, "ab" * 6)
    write_voice(tmp_path / "7.wav", np.random.default_rng(0).normal(0, 0.1, 20000))
    monkeypatch.setattr(own, "pad", Mock(side_effect=RuntimeError("[enforce fail at alloc_cpu.cpp")))
    message = (
        r"table\.csv: audio is padded to the \d+ steps of '7', \d\.\d GiB, which memory does not hold; cut that"
    )
    with pytest.raises(ValueError, match=message):
        load("own", str(table))


def test_a_modality_that_is_the_same_everywhere_is_warned_of(tmp_path):
    """A microphone that was off: every recording is silence, as long as each is."""
    table = labelled(tmp_path, "ab" * 6, split=["train", "train", "dev", "dev", "test", "test"] * 2)
    for number in (4, 5, 10, 11):
        write_voice(tmp_path / f"{number}.wav", np.zeros(1000 + 200 * number))
    line = "own: audio is the same in every step of every sample of the test part; look at its files"
    with pytest.warns(UserWarning, match=line):
        assert line[5:] in load("own", str(table)).notes["warnings"]
    for number in (0, 1, 6, 7):
        write_voice(tmp_path / f"{number}.wav", np.zeros(1100 + 200 * number))
    with pytest.warns(UserWarning, match=line.replace("test", "train")), pytest.warns(UserWarning, match=line):
        load("own", str(table))


@pytest.mark.parametrize(
    ("column", "values", "line"),
    [
        ("label", ["Yes", "no", "yes", "no"], "label 'Yes' and 'yes' differ in how they are written only"),
        ("group", ["A", "B", "c", "b"], "group 'B' and 'b' differ in how they are written only"),
        ("group", ["1", "2", "3", "1.0"], "group '1' and '1.0' differ in how they are written only"),
        ("group", ["01", "2", "3", "1"], "group '01' and '1' differ in how they are written only"),
        ("label", ["0", "1", "x", "1.0"], "label '1' and '1.0' differ"),
        ("label", ["True", "0", "False", "x"], "label '0' and 'False' differ"),
        ("label", ["so good", "bad", "so\u00a0good", "bad"], r"label 'so good' and 'so\\xa0good' differ"),
        ("label", ["good", "bad", "good\u200b", "bad"], r"label 'good' and 'good\\u200b' differ"),
        ("label", ["0,5", "1,5", "2,5", "3,5"], "its 4 classes are numbers such as 0,5; .*written with a point"),
        ("label", ["-1.5", "0.5", "1", "2.25"], "its 4 classes are numbers such as 0.5; labels='regression'"),
    ],
)
def test_classes_that_are_hardly_meant_are_warned_of(tmp_path, column, values, line):
    table = clips(tmp_path / "clips", video=False)
    rows = pd.read_csv(table).drop(columns=["text", "group"])
    rows.assign(**{column: values * 6}).to_csv(table, index=False)
    with pytest.warns(UserWarning) as said:
        load("own", str(table))
    assert any(re.search(line, str(one.message)) for one in said)


def test_a_label_that_is_no_finite_number_is_named(tmp_path):
    table = clips(tmp_path / "clips", count=8, video=False)
    rows = pd.read_csv(table).drop(columns="text")
    rows.assign(label=["1", "0.5", "1e39", "inf"] * 2).to_csv(table, index=False)
    with pytest.raises(ValueError, match="the label of 'clip 2' is 1e39; expected a finite number"):
        load("own", str(table), labels="regression")


def test_options_that_do_not_fit_are_refused(tmp_path, encoder):
    table = clips(tmp_path / "clips", count=8, video=False)
    for options, line in (
        ({}, "give text= an encoder"),
        ({"text": encoder, "audio": "mfcc"}, "audio must be one of log-mel, egemaps"),
        ({"text": encoder, "labels": "seven"}, "labels must be classes or regression"),
        ({"text": [encoder]}, "text must be an encoder, a hub name or a local folder"),
        ({"text": encoder, "frames": 0}, "frames must be a whole number of at least 1, got 0"),
        ({"text": encoder, "rate": 16000.5}, r"rate must be a whole number of at least 1000, got 16000\.5"),
        ({"text": encoder, "rate": 10**7}, "rate must be at most 400000, got 10000000"),
        ({"text": encoder, "rate": "x"}, "rate must be a whole number of at least 1000, got 'x'"),
        ({"text": encoder, "labels": "regression"}, "labels must be numbers"),
    ):
        with pytest.raises(ValueError, match=line):
            load("own", str(table), **options)
    with pytest.raises(FileNotFoundError, match=r"no table\.csv of own .*give as root a table"):
        load("own", str(tmp_path / "nowhere"))
    pd.read_csv(table).drop(columns="text").to_csv(table, index=False)
    with pytest.raises(ValueError, match="no column text"):
        load("own", str(table), text=encoder)


def test_real_recordings_with_descriptors_and_log_mel(real_data, encoder, tmp_path):
    recordings = real_data / "free-spoken-digit-dataset" / "recordings"
    rows = []
    for path in sorted(recordings.glob("[23]_*_[0-2].wav")):
        digit, speaker, index = path.stem.split("_")
        text = f"{'good' if digit == '2' else 'bad'} {speaker} {index}"
        rows.append({"id": path.stem, "text": text, "audio": path, "label": digit, "group": speaker})
    table = write_table(tmp_path, rows)
    data = load("own", str(table), text=encoder, audio="egemaps", rate=8000, standardise=False)
    assert data.dims == {"text": 8, "audio": 25} and sum(sizes(data)) == 36
    pitch = data.train.features["audio"][..., 10][data.train.mask["audio"]]
    assert (pitch > 0).float().mean() > 0.3
    assert load("own", str(table), text=encoder, rate=8000).dims == {"text": 8, "audio": 64}


def test_descriptors_follow_pitch_and_refuse_what_is_too_short(monkeypatch):
    time_ = np.arange(16000) / 16000
    voice = [sum(np.sin(2 * np.pi * f * k * time_) / k for k in range(1, 8)) / 4 for f in (110, 220)]
    low, high = (np.median(egemaps(x, 16000)[:, 10]) for x in voice)
    assert abs(high - low - 12) < 0.5
    assert egemaps(voice[0], 16000).shape[1] == 25
    with pytest.raises(ValueError, match=r"too short, it needs 0\.1 s"):
        egemaps(np.zeros(100), 16000)
    with pytest.raises(ValueError, match="NaN or infinite"):
        egemaps(np.full(9000, np.nan), 16000)
    monkeypatch.setitem(sys.modules, "opensmile", None)
    with pytest.raises(ImportError, match=r"no commercial use; install vgmr with the extra audio \(.*opensmile"):
        egemaps(voice[0], 16000)
