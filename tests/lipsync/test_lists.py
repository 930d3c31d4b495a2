"""Folders and lists as people leave them, and paths that lead to one file."""

import json
import os

import cv2
import numpy as np
import pytest

from lipsync import batch
from lipsync.__main__ import main
from lipsync.batch import pairs_of
from lipsync.errors import InputError
from lipsync.files import identity, refuse_overwriting
from lipsync.lists import clips_in, frames_of_one, read_list
from tests.helpers.media_maker import count_up, write_media

SIDECARS = (
    "a.srt a.vtt a.ass a.align a.txt a.json a.wav Thumbs.db desktop.ini ~lock ~$a.docx b.mp4.part c.mp4.crdownload "
    "d.mov.tmp .hidden.mp4 ._a.mp4 list.csv a.mp4~ notes.md README a.xmp a.AAE a.unknown"
)


@pytest.fixture
def folder(tmp_path):
    """Two films, a picture, a film without an ending, and much that is none."""
    place = tmp_path / "clips"
    place.mkdir()
    film = write_media(place / "a.mp4", count_up(3)).read_bytes()
    (place / "B.MOV").write_text("no film, and to be complained of")
    (place / "film").write_bytes(film)
    cv2.imwrite(str(place / "face.PNG"), np.zeros((8, 8, 3), np.uint8))
    for name in SIDECARS.split():
        (place / name).write_text("1\n00:00:00,000 --> 00:00:01,000\nHello there\n")
    (place / "half.mp4.part").write_bytes(film)
    return place


@pytest.mark.slow
def test_a_folder_gives_its_clips_and_no_sidecars(folder):
    assert [p.name for p in clips_in(folder, stills=True, deep=False)] == ["B.MOV", "a.mp4", "face.PNG", "film"]
    assert [p.name for p in clips_in(folder.parent, stills=False, deep=True)] == ["B.MOV", "a.mp4", "film"]
    pairs = pairs_of(folder, folder / "a.wav", folder / "out")
    assert [out.name for _, _, out in pairs] == ["B.mp4", "a.mp4", "face.mp4", "film.mp4"]


def test_frames_of_one_film_are_told_from_portraits(tmp_path):
    for k in range(12):
        (tmp_path / f"frame_{k:04d}.png").touch()
    files = sorted(tmp_path.iterdir())
    assert frames_of_one(files) and not frames_of_one(files[:9]) and not frames_of_one(files[:5] + files[6:])
    assert not frames_of_one([*files, tmp_path / "anna.png"])
    with pytest.raises(InputError, match=r"12 pictures of .* look like the frames of one film: join them"):
        pairs_of(tmp_path, tmp_path / "v.wav", tmp_path / "out")


ROWS = "Video, Voice ,OUT\na.mp4,v.wav,sub/x.mp4\n\nb c.mp4,v.wav,\n,,\n,,\n"


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_lists_of_spreadsheets_are_read(tmp_path, separator, encoding, ends):
    text = ROWS.replace(",", separator).replace("b c", "b é").replace("\n", ends)
    (tmp_path / "list.csv").write_bytes(text.encode(encoding))
    rows = read_list(tmp_path / "list.csv", ("video", "voice"), "list")
    assert rows == [
        {"video": "a.mp4", "voice": "v.wav", "out": "sub/x.mp4"},
        {"video": "b é.mp4", "voice": "v.wav", "out": ""},
    ]


def test_a_list_that_names_its_separator_and_one_with_commas_in_names(tmp_path):
    (tmp_path / "a.csv").write_text('sep=;\r\nvideo;voice\r\n"a;b.mp4";v.wav\r\n')
    assert read_list(tmp_path / "a.csv", ("video", "voice"), "list") == [{"video": "a;b.mp4", "voice": "v.wav"}]
    (tmp_path / "b.csv").write_text("video;voice\na,b.mp4;v,w.wav\n")
    assert read_list(tmp_path / "b.csv", ("video", "voice"), "list") == [{"video": "a,b.mp4", "voice": "v,w.wav"}]


@pytest.mark.parametrize(
    "data, said",
    [
        (
            b"film|voice\na|b\n",
            "columns video and voice.*in UTF-8 with commas between columns, its header is film.voice",
        ),
        ("film;ton\na;b\n".encode("utf-16"), "in UTF-16 with semicolons between columns, its header is film, ton"),
        (b"video,voice\n,,\n", "and rows below it"),
        (b"", "its header is empty"),
        ("video,voice\né.mp4,v.wav\n".encode("cp1252"), "cannot be read: 'utf-8' .* Save it as CSV in UTF-8"),
    ],
)
def test_a_list_that_is_none_says_what_was_found(tmp_path, data, said):
    (tmp_path / "list.csv").write_bytes(data)
    with pytest.raises(InputError, match=said):
        read_list(tmp_path / "list.csv", ("video", "voice"), "list")


# Paths --------------------------------------------------------------------------------------------------------------


def links_to(path, folder):
    """The path itself, and others that lead to the same file."""
    os.link(path, folder / "hard.mp4")
    (folder / "soft.mp4").symlink_to(path)
    return [path, folder / ".." / folder.name / path.name, folder / "hard.mp4", folder / "soft.mp4"]


def test_what_is_read_is_not_written_by_whatever_name(tmp_path):
    (tmp_path / "clip.mp4").write_text("years of work")
    for path in links_to(tmp_path / "clip.mp4", tmp_path):
        assert identity(path) == identity(tmp_path / "clip.mp4")
        with pytest.raises(InputError, match="The report .* would overwrite .*clip.mp4, which is needed too"):
            refuse_overwriting([("report", path)], [tmp_path / "clip.mp4"])
    (tmp_path / "later.json").symlink_to(tmp_path / "o.mp4")  # to what will be written
    with pytest.raises(InputError, match="would overwrite"):
        refuse_overwriting([("result", tmp_path / "o.mp4"), ("report", tmp_path / "later.json")], [])
    refuse_overwriting([("result", tmp_path / "o.mp4"), ("report", tmp_path / "r.json")], [tmp_path / "clip.mp4"])


def test_a_report_over_its_sources_is_refused_before_any_work(tmp_path, capsys):
    clip, voice = tmp_path / "clip.mp4", tmp_path / "v.wav"
    for path in (clip, voice):
        path.write_text("years of work")
    out = tmp_path / "o.mp4"
    for report in [*links_to(clip, tmp_path), voice, out]:
        assert main(["sync", str(clip), str(voice), "--out", str(out), "--report", str(report)]) == 1
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and "would overwrite" in said
    voices = ["--voice", f"0={voice}", "--voice", f"1={tmp_path / 'w.wav'}"]
    assert main(["sync", str(clip), *voices, "--out", str(out), "--report", str(voice)]) == 1
    cv2.imwrite(str(tmp_path / "face.png"), np.zeros((8, 8, 3), np.uint8))
    assert main(["sync", str(tmp_path / "face.png"), "--preview", "0", "--out", str(tmp_path / "face.png")]) == 1
    assert clip.read_text() == voice.read_text() == "years of work"


@pytest.fixture
def made_up(monkeypatch):
    """Batches whose syncs write a word to their result and do nothing else."""

    class Done:
        frames_synced, frames, total_seconds = 1, 1, 1.0

        def save(self, path):
            path.write_text(json.dumps({"report": True}))

    def sync(video, voice, out, options, progress):
        out.write_text(video.name)
        return Done()

    monkeypatch.setattr(batch, "sync", sync)


def write_list(folder, *rows):
    (folder / "list.csv").write_text("\n".join(["video,voice,out", *rows]) + "\n")
    return str(folder / "list.csv")


def test_a_batch_overwrites_nothing_that_it_reads(tmp_path, made_up, capsys):
    for name in ("a.mp4", "b.mp4", "v.wav"):
        (tmp_path / name).write_text("years of work")
    over_next = write_list(tmp_path, "a.mp4,v.wav,b.mp4", "b.mp4,v.wav,c.mp4")
    assert main(["sync", over_next, "--out", str(tmp_path)]) == 1
    assert main(["sync", str(tmp_path), str(tmp_path / "v.wav"), "--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err.count("would overwrite") == 2
    for out in ("../x.mp4", str(tmp_path / "x.mp4"), "sub/../../x.mp4"):
        assert main(["sync", write_list(tmp_path, f"a.mp4,v.wav,{out}"), "--out", str(tmp_path / "out")]) == 1
        assert "would be written outside" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mp4", "b.mp4", "list.csv", "v.wav"]
    assert (tmp_path / "b.mp4").read_text() == "years of work"


def test_reports_of_results_of_one_name_lie_in_their_own_folders(tmp_path, made_up):
    for name in ("a.mp4", "v.wav"):
        (tmp_path / name).touch()
    pairs = write_list(tmp_path, "a.mp4,v.wav,sub/x.mp4", "a.mp4,v.wav,sub2/deep/x.mp4", "a.mp4,v.wav,")
    assert main(["sync", pairs, "--out", str(tmp_path / "out"), "--report", str(tmp_path / "rep")]) == 0
    found = sorted(str(p.relative_to(tmp_path / "rep")) for p in (tmp_path / "rep").rglob("*.json"))
    assert found == ["0002-a.json", "sub/x.json", "sub2/deep/x.json"]
    assert (tmp_path / "out" / "sub2" / "deep" / "x.mp4").is_file()
