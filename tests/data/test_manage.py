import shutil

import pytest
from made_audio_visual import write_ave, write_cremad, write_ucf101
from made_sentiment import write_mmsa

from vgmr.data import cremad_ratings, fetch, loader, names, store
from vgmr.data.manage import contents, overview, run, source_of, wrong_files


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VGMR_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("VGMR_DATA", str(tmp_path / "none"))


@pytest.fixture
def cremad(real_data, tmp_path):
    folder = tmp_path / "copy" / "cremad"
    folder.mkdir(parents=True)
    for path in cremad_ratings.SOURCE.files:
        shutil.copyfile(real_data / "cremad" / path, folder / path)
    return folder


def test_overview_covers_all_names_and_reads_nothing(nothing):
    table = overview().set_index("name")
    assert list(table.index) == names()
    assert table["state"]["digits"] == table["state"]["synthetic"] == "built in"
    assert table["state"]["utd-mhad"] == "not there, get it by hand"
    assert table["state"]["avdigits"] == "not there, downloads when loaded"
    assert table["files"]["avdigits"] == "0 of 3,000"
    assert "ODbL" in table["licence"]["cremad-ratings"]


def test_overview_of_the_real_data(real_data):
    table = overview().set_index("name")
    for name in ("avdigits", "utd-mhad", "mosi-utterance", "cremad-ratings"):
        assert table["state"][name] == "complete"
        assert table["folder"][name].startswith(str(real_data))


def test_list_prints_every_name(nothing, capsys):
    assert run(["list"]) == 0
    printed = capsys.readouterr().out
    assert all(f"{name} " in printed for name in names()) and "0 prepared in" in printed


def test_list_says_what_is_looked_for_and_where_it_is_from(nothing, capsys, tmp_path):
    assert run(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name in ("ave", "cremad", "mosei", "mosi", "ucf101"):
        (line,) = (line for line in lines if line.startswith(f"{name}: "))
        assert "https://" in line
        with pytest.raises(FileNotFoundError) as refused:
            loader(name)(tmp_path)
        assert line.partition(": ")[2] in str(refused.value)
    assert any(line.startswith("own: ") and "table.csv" in line for line in lines)


def test_only_files_that_a_loader_looks_for_are_there(tmp_path, capsys):
    gated = ["ave", "cremad", "mosei", "mosi", "own", "ucf101"]
    (tmp_path / "a.txt").write_text("x")
    assert set(overview(tmp_path).set_index("name")["state"][gated]) == {"not there"}
    write_mmsa(tmp_path / "mosi", "mosi")
    write_ave(tmp_path / "ave", audio=(5,), visual=(2, 3, 6))
    write_ucf101(tmp_path / "ucf101", layout=None)
    write_cremad(tmp_path / "cremad")
    (tmp_path / "table.csv").write_text("id,label,text\n")
    state = overview(tmp_path).set_index("name")["state"]
    assert set(state[gated].drop("mosei")) == {"there, not checked"} and state["mosei"] == "not there"
    assert run(["list", "--root", str(tmp_path / "none")]) == 1
    assert capsys.readouterr().err.startswith(f"vgmr data list: no folder {tmp_path}/none; give")


def test_check_of_a_sound_copy(cremad, capsys):
    assert wrong_files("cremad-ratings", cremad).empty
    assert run(["check", "cremad-ratings", "--root", str(cremad)]) == 0
    printed = capsys.readouterr().out
    assert "all 3 files" in printed and "fingerprint: " in printed and "6028" in printed


def test_check_names_what_is_missing_and_what_is_wrong(cremad, capsys):
    (cremad / "train.csv").unlink()
    content = (cremad / "test.csv").read_bytes()
    (cremad / "test.csv").write_bytes(content.replace(b"NEU", b"HAP", 1))
    table = wrong_files("cremad-ratings", cremad).set_index("file")["problem"]
    assert table.to_dict() == {"train.csv": "missing", "test.csv": "content differs from the published file"}
    assert run(["check", "cremad-ratings", "--root", str(cremad)]) == 1
    printed = capsys.readouterr().out
    assert "2 of 3 files are not as published" in printed and "https://github.com" in printed
    assert overview(cremad).set_index("name")["state"]["cremad-ratings"] == "incomplete"


def test_check_of_nothing_says_what_is_expected(nothing, capsys):
    assert run(["check", "utd-mhad"]) == 1
    error = capsys.readouterr().err
    assert "expected Inertial/" in error and "utdallas" in error and error.count("\n") == 1


def test_check_of_data_made_of_two_downloads_neither(real_data, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(fetch, "download", lambda source: pytest.fail(f"{source.name} would be downloaded"))
    shutil.copytree(real_data / "mosi-csd", tmp_path / "half" / "mosi-csd")
    monkeypatch.setenv("VGMR_DATA", str(tmp_path / "half"))
    assert run(["check", "mosi-words"]) == 1
    error = capsys.readouterr().err
    assert "no files of mosi-utterance in" in error and error.count("\n") == 1


def test_check_and_prepare_of_built_in_data(capsys):
    assert source_of("digits") is None
    assert run(["check", "digits"]) == 0
    assert run(["prepare", "digits"]) == 0
    assert "digits: ready in" in capsys.readouterr().out


def test_prepare_leaves_the_data_prepared(real_data, capsys, cache, tmp_path):
    assert run(["prepare", "utd-mhad", "--root", str(real_data)]) == 0
    assert [path.name[:8] for path in (tmp_path / "cache" / "prepared").iterdir()] == ["utd-mhad"]
    assert "skeleton" in capsys.readouterr().out
    assert contents("utd-mhad").attrs["classes"] == 27
    assert run(["list"]) == 0
    assert "1 prepared in" in capsys.readouterr().out


def test_prepare_that_cannot_keep_is_no_success(real_data, capsys, monkeypatch, tmp_path):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "write", full)
    assert run(["prepare", "utd-mhad", "--root", str(real_data)]) == 1
    told = capsys.readouterr().err
    assert "prepared data are not kept" in told and told.count("\n") == 1
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VGMR_CACHE", str(tmp_path / "file"))
    assert run(["prepare", "digits"]) == 1
    assert "give another place in VGMR_CACHE" in capsys.readouterr().err


def test_unknown_names_and_commands_end_with_usage(capsys):
    for arguments in (["check", "nobody"], ["burn"], []):
        with pytest.raises(SystemExit) as error:
            run(arguments)
        assert error.value.code == 2
    assert "nobody" in capsys.readouterr().err
