"""Files, folders and lists as clips with their references."""

from pathlib import Path

import pytest

from eval.inputs import Item, items, spread
from lipsync.errors import InputError


@pytest.fixture
def folder(tmp_path) -> Path:
    for name in ("b.mp4", "a.MP4", "deep/c.mov", "a.wav", "notes.txt", "face.png", ".hidden.mp4", "rows.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    return tmp_path


def names(found: list[Item]) -> list[str]:
    return [item.path.name for item in found]


def test_a_folder_gives_its_videos(folder):
    assert names(items([folder])) == ["a.MP4", "b.mp4", "c.mov"]


def test_files_in_the_order_given_also_those_not_there(folder):
    assert names(items([folder / "b.mp4", folder / "gone.mp4", folder / "a.MP4"])) == ["b.mp4", "gone.mp4", "a.MP4"]


def test_a_list_is_relative_to_itself(folder):
    path = folder / "list.csv"
    path.write_text("\ufefffile,reference,identity,system,pair\ndeep/c.mov,b.mp4,anna,ours,7\na.MP4,,,,\n", "utf-8")
    assert items([path]) == [
        Item(folder / "deep/c.mov", folder / "b.mp4", "anna", "ours", "7"),
        Item(folder / "a.MP4"),
    ]
    path.write_text("file\n/elsewhere/x.mp4\n")
    assert items([path]) == [Item(Path("/elsewhere/x.mp4"))]


@pytest.mark.parametrize("text", ["", "video\na.mp4\n", "file\n"])
def test_a_list_without_its_column(tmp_path, text):
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(InputError, match="needs a header with the column file"):
        items([tmp_path / "list.csv"])


def test_a_list_that_cannot_be_read(tmp_path):
    (tmp_path / "list.csv").write_bytes(b"file\n\xff\xfe\n")
    with pytest.raises(InputError, match="list.csv cannot be read"):
        items([tmp_path / "list.csv"])
    with pytest.raises(InputError, match="none.csv cannot be read"):
        items([tmp_path / "none.csv"])
    (tmp_path / "short.csv").write_text("reference,file\nonly.mp4\n")
    with pytest.raises(InputError, match="short.csv has a row that names no file"):
        items([tmp_path / "short.csv"])


def test_nothing_to_score(tmp_path):
    with pytest.raises(InputError, match="There is no video in"):
        items([tmp_path])


def test_references_have_the_name_of_their_clip(folder, tmp_path):
    truth = tmp_path / "truth"
    truth.mkdir()
    for name in ("a.json", "a.mkv", "b.png", "b.mp4", "unused.mp4"):
        (truth / name).write_text("")
    found = items([folder / "b.mp4", folder / "a.MP4"], [truth])
    assert [i.reference for i in found] == [truth / "b.mp4", truth / "a.mkv"]


def test_names_that_repeat_in_sub_folders_are_told_apart(tmp_path):
    """As in GRID, where every speaker says the same sentences."""
    for name in ("made/s1/x.mp4", "made/s2/x.mp4", "real/s2/x.mp4", "real/s1/x.mp4", "flat/x.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    pairs = [(i.path.parent.name, i.reference.parent.name) for i in items([tmp_path / "made"], [tmp_path / "real"])]
    assert pairs == [("s1", "s1"), ("s2", "s2")]
    with pytest.raises(InputError, match="x.mp4 has 2 references of its name"):
        items([tmp_path / "flat"], [tmp_path / "real"])
    assert {i.reference.parent.name for i in items([tmp_path / "made"], [tmp_path / "flat"])} == {"flat"}


def test_one_clip_and_one_reference_need_no_common_name(folder):
    (found,) = items([folder / "a.MP4"], [folder / "b.mp4"])
    assert found.reference == folder / "b.mp4"


def test_a_list_keeps_its_own_references(folder):
    (folder / "list.csv").write_text("file,reference,identity\na.MP4,deep/c.mov,anna\nb.mp4,,bob\n")
    found = items([folder / "list.csv"], [folder / "b.mp4"])
    assert [(i.reference.name, i.identity) for i in found] == [("c.mov", "anna"), ("b.mp4", "bob")]


def test_a_missing_reference_is_named(folder, tmp_path):
    with pytest.raises(InputError, match="no reference of the same name for a.MP4, c.mov"):
        items([folder], [folder / "b.mp4"])
    with pytest.raises(InputError, match="There is no reference .*gone"):
        items([folder], [tmp_path / "gone"])
    clips = [folder / f"{k}.mp4" for k in range(6)]
    with pytest.raises(InputError, match="0.mp4, 1.mp4, 2.mp4 and 3 more"):
        items(clips, [folder / "b.mp4", folder / "a.MP4"])


def test_a_spread_reaches_from_first_to_last():
    assert spread(range(100), 4) == [0, 33, 66, 99] and spread(range(3), 12) == [0, 1, 2]
    assert spread(range(5), 1) == [0] and spread([], 3) == []
