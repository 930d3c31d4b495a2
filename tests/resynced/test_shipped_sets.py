"""The sets that come with the program: what they promise is true of every pair."""

import csv
import json
from collections import Counter

import numpy as np
import pytest
import soundfile

from lipsync.media.reader import probe
from resynced.manifests import SHIPPED, load_set, sets
from resynced.records import BenchmarkSet, Pair


@pytest.fixture(scope="module")
def starter() -> BenchmarkSet:
    return load_set("starter")


def test_the_starter_set_is_what_it_says(starter):
    assert starter.sha256 == "117780a46b0c48c048a65688ed38bd8b5ce7d19bb20cb079d36876cf9941ccbb"  # of version 1
    assert starter.version == "1"
    assert min(Counter(p.category for p in starter.pairs).values()) >= 12 and len(starter.pairs) >= 36
    assert sum(p.stat().st_size for p in (SHIPPED / "starter").rglob("*")) < 12 << 20
    assert "Zenodo 3625687, changed" in starter.footer and any("127 to 173 pixels" in note for note in starter.notes)
    assert len({p.video.speaker for p in starter.pairs if p.video.licence == "CC BY 4.0"}) == 12
    languages = {p.voice.language for p in starter.pairs if p.category != "random"}
    assert languages >= {"en-us", "es", "fr", "it", "pt-br", "hi", "de", "ko"}
    for pair in starter.pairs:
        assert pair.video.consent and pair.video.licence and pair.video.source and pair.voice.licence
        assert pair.video.speaker != pair.voice.speaker
    assert all(p.voice.language.split("-")[0] != "en" for p in starter.pairs if p.category == "dubbed")
    assert len({p.voice.id for p in starter.pairs if p.category == "tts"}) == 14


def test_made_voices_have_their_words_and_exact_phoneme_times_beside_them(starter):
    timed, loud, shifts = 0, [], np.arange(-200, 201, 12.5) / 1000
    for pair in starter.pairs:
        if pair.category == "random":
            continue
        facts = json.loads(pair.voice.path.with_suffix(".json").read_text("utf-8"))
        waveform, rate = soundfile.read(pair.voice.path)
        assert facts["words"] and abs(len(waveform) / rate - facts["seconds"]) < 1e-3 and facts["seconds"] <= 3
        assert pair.voice.speaker == f"{facts['engine']}-{facts['voice']}"
        if facts["engine"] == "espeak-ng":
            continue
        timed += 1
        assert abs(facts["phonemes"][-1][2] - facts["seconds"]) < 1e-3
        # Vowels are loud: of all shifts of the times against the sound, the loudest is none.
        power = np.log(np.convolve(waveform**2, np.ones(rate // 80) / (rate // 80), "same") + 1e-6)
        middles = [(a + b) / 2 for s, a, b in facts["phonemes"] if s in "aeiouɑɔəɛɪʊʌæIAOW" and b > a]
        loud.append([power[np.clip(((np.array(middles) + s) * rate).astype(int), 0, len(power) - 1)] for s in shifts])
    means = np.concatenate([np.array(row) for row in loud], 1).mean(1)
    assert abs(shifts[means.argmax()]) < 0.03 and means.max() - np.median(means) > 1
    assert timed == 22


@pytest.mark.slow
def test_every_clip_of_the_starter_set_can_be_seen(starter):
    for path in {p.video.path for p in starter.pairs}:
        info = probe(path)
        assert info.frames == 75 and info.fps == 25 and not info.notes


def test_no_person_of_the_starter_set_is_in_a_training_split(starter, shared_data):
    with (shared_data / "manifest.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    trained = {r["speaker"] for r in rows if r["split"] in ("teach", "tune", "judge")}
    assert "s1" in trained and not trained & {m.speaker for p in starter.pairs for m in (p.video, p.voice)}
    known = {r["sha256"] for r in rows if r["group"] == "grid" and r["split"] == "val"}
    assert {p.video.sha256 for p in starter.pairs if p.video.speaker != "collins"} <= known


def test_the_lab_set_is_a_list_alone_and_complete_where_its_clips_are(shared_data, monkeypatch):
    monkeypatch.setenv("LIPSYNC_LAB_DATA", str(shared_data))
    assert sorted(p.name for p in (SHIPPED / "lab").iterdir()) == ["clips.csv", "pairs.csv", "set.toml"]
    pairs: tuple[Pair, ...] = load_set("lab").pairs
    assert len(pairs) >= 60 and len(Counter(p.category for p in pairs)) == 3
    assert {p.video.path.parent.name for p in pairs} == {"wild", "grid", "anchors"}
    assert len({p.video.id for p in pairs}) == len(pairs)


def test_the_lab_set_is_not_offered_without_its_clips(tmp_path, monkeypatch):
    monkeypatch.setenv("LIPSYNC_LAB_DATA", str(tmp_path))
    assert list(sets()) == ["starter"]
