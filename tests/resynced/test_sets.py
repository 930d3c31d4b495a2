"""Sets: manifests with every kind of fault, published lists, pairs drawn and frozen, published rules."""

import hashlib
import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

from resynced import manifests
from resynced.manifests import load_list, load_set, sets
from resynced.pairs import draw, draw_set, freeze
from resynced.published_rules import capped, rescale, tts_frames
from resynced.records import BenchmarkError, Media

CLIPS = "id,file,sha256,category,language,speaker,consent,licence,source\n"
PAIRS = "id,category,video,voice,reference\n"


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def folder(tmp_path) -> Path:
    """A set of one pair; its files are no media, which a manifest does not open."""
    place = tmp_path / "set"
    (place / "media").mkdir(parents=True)
    (place / "media" / "a.mp4").write_bytes(b"video")
    (place / "media" / "b.wav").write_bytes(b"voice")
    (place / "set.toml").write_text('name = "small"\nversion = "1"\ntitle = "A small set"\nfooter = "Nobody."\n')
    (place / "clips.csv").write_text(
        f"{CLIPS}a,media/a.mp4,{sha(b'video')},,en,s1,given,CC0,made\nb,media/b.wav,{sha(b'voice')},tts,de,,,CC0,made\n"
    )
    (place / "pairs.csv").write_text(f"{PAIRS}tts-1,tts,a,b,\n")
    return place


def test_a_set_is_read_with_its_facts_and_files(folder):
    found = load_set(folder)
    (pair,) = found.pairs
    assert (found.name, found.version, found.footer) == ("small", "1", "Nobody.")
    assert (pair.id, pair.category, pair.video.speaker, pair.voice.language) == ("tts-1", "tts", "s1", "de")
    assert pair.video.path.read_bytes() == b"video" and pair.reference is None
    assert len(found.sha256) == 64 and found.sha256 == load_set(folder).sha256


def test_the_hash_follows_ids_categories_and_files(folder):
    before = load_set(folder).sha256
    path = folder / "pairs.csv"
    path.write_text(f"{PAIRS}tts-2,tts,a,b,\n")
    renamed = load_set(folder).sha256
    path.write_text(f"{PAIRS}tts-1,tts,a,b,a\n")
    assert len({before, renamed, load_set(folder).sha256}) == 3
    assert load_set(folder).pairs[0].reference == folder / "media" / "a.mp4"


def test_a_frozen_set_that_was_changed_is_refused(folder):
    total = load_set(folder).sha256
    facts = (folder / "set.toml").read_text()
    (folder / "set.toml").write_text(facts + f'sha256 = "{total}"\n')
    assert load_set(folder).sha256 == total
    (folder / "pairs.csv").write_text(f"{PAIRS}tts-2,tts,a,b,\n")
    with pytest.raises(BenchmarkError, match=r"set\.toml: the set was frozen as"):
        load_set(folder)


def test_what_spreadsheets_save_is_read(folder):
    for name in ("clips.csv", "pairs.csv"):
        path = folder / name
        text = path.read_text()
        path.write_bytes(b"\xef\xbb\xbf" + text.replace(",", ";").replace("\n", "\r\n").encode() + b";;;;\r\n\r\n")
    (folder / "set.toml").write_bytes(b"\xef\xbb\xbf" + (folder / "set.toml").read_bytes())
    assert load_set(folder).pairs[0].id == "tts-1"
    (folder / "pairs.csv").write_bytes(f"sep=;\n{PAIRS}tts-1,tts,a,b,\n".replace(",", ";").encode("utf-16"))
    assert load_set(folder).pairs[0].id == "tts-1"


FAULTS = [
    ("clips.csv", "media/a.mp4", "media/none.mp4", r"clips\.csv, line 2, column file: media/none\.mp4 is not there"),
    ("clips.csv", "media/a.mp4", "media", r"line 2, column file: media is no ordinary file"),
    ("clips.csv", "media/a.mp4", "../secret.mp4", r"line 2, column file: .* the path leads out of the folder"),
    ("clips.csv", "media/a.mp4", "/etc/passwd", r"line 2, column file: .* the path leads out of the folder"),
    ("clips.csv", "media/a.mp4", "media\\a.mp4", r"line 2, column file: .* with / between"),
    ("clips.csv", "media/a.mp4", "media/link.mp4", r"line 2, column file: .* over a link"),
    ("clips.csv", "media/a.mp4", "linked/a.mp4", r"line 2, column file: .* over a link"),
    ("clips.csv", "media/a.mp4", "media/b.wav", r"line 2, column sha256: media/b\.wav is another file than was listed"),
    ("clips.csv", sha(b"video"), "abc", r"line 2, column sha256: 'abc' is none"),
    ("clips.csv", "\nb,", "\nA,", r"line 3, column id: A stands on line 2 too"),
    ("clips.csv", "\na,", "\n../a,", r"line 2, column id: '\.\./a' is no id"),
    ("clips.csv", "\na,", "\nCON,", r"line 2, column id: 'CON' is no id"),
    ("clips.csv", ",tts,", ",spoken,", r"line 3, column category: there is no 'spoken'"),
    ("clips.csv", ",en,s1,given,CC0,made", ",en", r"clips\.csv, line 2: .* before the column speaker"),
    ("clips.csv", "sha256,", "", r"clips\.csv needs a header with the columns id and file and sha256"),
    ("pairs.csv", "tts,a", "spoken,a", r"pairs\.csv, line 2, column category: there is no 'spoken'"),
    ("pairs.csv", "tts,a", "dubbed,a", r"line 2, column category: the voice b was made for tts, not dubbed"),
    ("pairs.csv", "a,b", "c,b", r"line 2, column video: clips\.csv has no 'c'"),
    ("pairs.csv", "a,b,", "a,b,c", r"line 2, column reference: clips\.csv has no 'c'"),
    ("pairs.csv", "a,b,\n", "a,b,\ntts-1,tts,a,b,\n", r"line 3, column id: tts-1 stands on line 2 too"),
    ("pairs.csv", "tts-1,tts,a,b,\n", "", r"pairs\.csv needs a header .* and rows below it"),
    ("set.toml", 'version = "1"', "", r"set\.toml: it needs a version"),
    ("set.toml", '"small"', '"a/b"', r"set\.toml: the name 'a/b'"),
    ("set.toml", '"1"', "1", r"set\.toml: it needs a version, a text"),
    ("set.toml", "name =", "name", r"set\.toml is no TOML: .*line 1"),
    ("set.toml", "version", 'notes = "x"\nversion', r"notes must be a list"),
]


@pytest.mark.parametrize(("name", "old", "new", "said"), FAULTS, ids=[f[3][:40] for f in FAULTS])
def test_every_fault_has_its_sentence(folder, name, old, new, said):
    (folder.parent / "secret.mp4").write_bytes(b"video")
    (folder / "media" / "link.mp4").symlink_to(folder.parent / "secret.mp4")
    (folder / "linked").symlink_to(folder / "media")
    text = (folder / name).read_text()
    assert old in text
    (folder / name).write_text(text.replace(old, new, 1))
    with pytest.raises(BenchmarkError, match=said):
        load_set(folder)


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("clips.csv", b"", "needs a header"),
        ("clips.csv", CLIPS.encode() + b"\xff\xfa,\xe9", r"clips\.csv cannot be read: .*Save it as CSV in UTF-8"),
        ("clips.csv", b"id,file\n" + b"\0" * 9, "needs a header"),
        ("pairs.csv", b"\x89PNG\r\n\x1a\n\0\0\0\r", "cannot be read"),
        ("set.toml", b"\xff\xfe\0", r"set\.toml cannot be read: .*UTF-8"),
        ("set.toml", b"x = " + b"[" * 100_000, r"set\.toml is no TOML"),
        ("set.toml", b"#" * (2 << 20), r"set\.toml has 2 MB"),
    ],
)
def test_files_that_are_no_manifests(folder, name, data, said):
    (folder / name).write_bytes(data)
    with pytest.raises(BenchmarkError, match=said):
        load_set(folder)


def test_a_list_of_any_size_ends_in_a_sentence(folder, monkeypatch):
    with (folder / "clips.csv").open("r+b") as file:
        file.truncate(65 << 20)  # holes, no disk
    with pytest.raises(BenchmarkError, match=r"clips\.csv has 65 MB"):
        load_set(folder)
    monkeypatch.setattr(manifests, "MOST_PAIRS", 1)
    (folder / "clips.csv").write_text(CLIPS + "a,x,y,,,,,,\nb,x,y,,,,,,\n")
    with pytest.raises(BenchmarkError, match="has 2 rows"):
        load_set(folder)


def test_a_clip_is_never_given_its_own_voice(folder):
    text = (folder / "clips.csv").read_text()
    (folder / "clips.csv").write_text(text + f"c,media/a.mp4,{sha(b'video')},,en,s1,,,\n")
    (folder / "pairs.csv").write_text(f"{PAIRS}p,random,a,c,\n")
    with pytest.raises(BenchmarkError, match=r"line 2, column voice: c is the clip itself"):
        load_set(folder)


def test_a_folder_that_is_no_set(tmp_path):
    with pytest.raises(BenchmarkError, match="no file set.toml"):
        load_set(tmp_path)
    with pytest.raises(BenchmarkError, match="There is no set 'nothing': name a folder, or one of"):
        load_set("nothing")


# published lists


@pytest.fixture
def videos(tmp_path) -> Path:
    place = tmp_path / "videos"
    for name in ("one/00001.mp4", "two/00002.mp4", "two/00002.wav", "talk.mp4", "said.wav"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(name.encode())
    return place


def test_published_lists_are_read_in_their_own_order(videos, tmp_path):
    lrs = tmp_path / "lrs2.txt"
    lrs.write_text("two/00002 one/00001\none/00001 two/00002\n")
    first, second = load_list(lrs, videos).pairs
    assert (first.voice.path.name, first.video.path.name, first.category) == ("00002.wav", "00001.mp4", "random")
    assert (second.voice.path.name, second.video.path.name) == ("00001.mp4", "00002.mp4")
    ours = tmp_path / "tts_pairs.txt"
    ours.write_bytes(b"\xef\xbb\xbftalk.mp4 said.wav\r\n\r\n")
    (pair,) = load_list(ours, videos).pairs
    assert (pair.video.path.name, pair.voice.path.name, pair.category) == ("talk.mp4", "said.wav", "tts")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("lrs2.txt", "a", "line 1: there are 1 names"),
        ("lrs2.txt", "two/00002 none/1", r"line 1, column 2: there is no 1\.mp4 or 1\.avi"),
        ("lrs2.txt", "talk.mp4 said.wav", r"line 1, column 2: 'talk|line 1, column 2: 'said"),
        ("tts_pairs.txt", "talk said", "column 1: 'talk' does not look like the lists of tts_pairs"),
        ("tts_pairs.txt", "../../x.mp4 said.wav", r"line 1, column 1: .* leads out"),
        ("tts_pairs.txt", "talk.mp4 said.wav\ntalk.mp4 said.wav", "line 2: the pair talk.mp4 said.wav is listed twice"),
        ("tts_pairs.txt", "", "is empty"),
        ("mine.txt", "a b", "does not say which list it is"),
    ],
)
def test_faults_of_published_lists_name_line_and_column(videos, tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    with pytest.raises(BenchmarkError, match=said):
        load_list(tmp_path / name, videos)


# drawing


def people(count: int, kind: str, languages: str = "en") -> list[Media]:
    spoken = languages.split()
    return [
        Media(f"{kind}{k}", Path(f"{kind}{k}"), sha(f"{kind}{k}".encode()), spoken[k % len(spoken)], f"s{k % 5}")
        for k in range(count)
    ]


def test_draws_are_repeatable_balanced_and_never_join_a_speaker_with_itself():
    clips, voices = people(15, "clip"), people(12, "voice", "en de ko")
    pairs = draw(clips, voices, "random", 30, seed=7)
    assert pairs == draw(clips[::-1], voices, "random", 30, seed=7) != draw(clips, voices, "random", 30, seed=8)
    assert all(p.video.speaker != p.voice.speaker for p in pairs)
    assert len({(p.video.id, p.voice.id) for p in pairs}) == len({p.id for p in pairs}) == 30
    assert set(Counter(p.video.id for p in pairs).values()) == {2}
    assert set(Counter(p.video.speaker for p in pairs).values()) == {6}
    assert max(Counter(p.voice.language for p in pairs).values()) <= 12
    assert all(p.voice.language != "en" for p in draw(clips, voices, "dubbed", 10))


def test_too_many_pairs_are_refused_with_the_number_that_there_are():
    clips = people(2, "clip")
    with pytest.raises(BenchmarkError, match="Only 2 different random pairs"):
        draw(clips, clips, "random", 3)
    with pytest.raises(BenchmarkError, match="no category"):
        draw(clips, clips, "spoken", 1)


def test_a_frozen_draw_is_read_back_and_not_written_over(folder, tmp_path):
    made = load_set(folder)
    facts = {"name": "frozen", "version": "1", "title": 'With "quotes"', "notes": ["a", "b"]}
    target = tmp_path / "frozen"
    shutil.copytree(folder / "media", target / "media")
    total = freeze(target, facts, made.pairs, {"a": "media/a.mp4", "b": "media/b.wav"}, {"b": "tts"})
    found = load_set(target)
    assert (found.sha256, found.title, found.notes) == (total, 'With "quotes"', ("a", "b"))
    assert total == made.sha256
    with pytest.raises(BenchmarkError, match="holds a frozen set"):
        freeze(target, facts, made.pairs, {"a": "media/a.mp4", "b": "media/b.wav"})


def test_a_folder_with_clips_becomes_a_set_by_one_draw(tmp_path):
    rows = ""
    for k in range(6):
        (tmp_path / f"{k}.mp4").write_bytes(bytes([k]))
        (tmp_path / f"{k}.wav").write_bytes(bytes([k, 1]))
        rows += f"c{k},{k}.mp4,{sha(bytes([k]))},,en,s{k},,,\nv{k},{k}.wav,{sha(bytes([k, 1]))},tts,ko,,,,\n"
    (tmp_path / "clips.csv").write_text(CLIPS + rows)
    facts = {"name": "mine", "version": "1", "title": "Mine"}
    total = draw_set(tmp_path, facts, {"random": 6, "tts": 6}, seed=3)
    found = load_set(tmp_path)
    assert found.sha256 == total and Counter(p.category for p in found.pairs) == {"random": 6, "tts": 6}
    assert {p.voice.id[0] for p in found.pairs if p.category == "tts"} == {"v"}
    assert {p.voice.id[0] for p in found.pairs if p.category == "random"} == {"c"}
    with pytest.raises(BenchmarkError, match="holds a frozen set"):
        draw_set(tmp_path, facts, {"random": 6})
    (tmp_path / "set.toml").unlink()
    with pytest.raises(BenchmarkError, match="Only 0 different dubbed pairs"):
        draw_set(tmp_path, facts, {"dubbed": 1})


# published rules


def test_rescale_is_the_published_one(golden):
    for case in json.loads((golden / "rescale.json").read_text()):
        assert rescale(case["h"], case["w"], case["face"]) == case["factor"]
        assert rescale(*capped(case["h"], case["w"]), case["face"] * 720 // max(case["h"], 720)) == 1


def test_repeated_frames_are_the_published_ones_only_by_name(golden):
    for case in json.loads((golden / "tts_frames.json").read_text()):
        assert tts_frames(case["frames"], case["wanted"], "published") == case["indices"]
        even = tts_frames(case["frames"], case["wanted"])
        assert len(even) == case["wanted"] and even == sorted(even) and set(even) == set(range(case["frames"]))
        assert max(Counter(even).values()) - min(Counter(even).values()) <= 1
    assert tts_frames(5, 3) == tts_frames(5, 3, "published") == [0, 1, 2]
    with pytest.raises(ValueError, match="0 frames"):
        tts_frames(0, 3)


def test_known_sets_are_those_that_can_be_read():
    assert all((folder / "set.toml").is_file() for folder in sets().values())
