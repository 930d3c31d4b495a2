"""Voices: which one is taken, exact phoneme times, and no connection ever."""

import json
import socket

import numpy as np
import pytest
import soundfile

from lipsync import tts
from lipsync.errors import InputError

ESPEAK = tts.can_speak("ko")
KOKORO = any(v.engine == "kokoro" and tts._is_here(v) for v in tts.VOICES)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_):
        raise AssertionError("a voice must not connect")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.slow
def test_english_is_natural_by_default_and_tells_its_phoneme_times(tmp_path):
    voice = tts.best_voice("en-us", "high")
    assert (voice.engine, voice.robot) == ("hibari", False)
    said = tts.say("Bob, be my guest.  Pop!", voice, tmp_path / "a.wav")
    waveform, rate = soundfile.read(said.path)
    assert rate == 24_000 and len(waveform) / rate == said.seconds
    symbols, starts, stops = zip(*said.phonemes, strict=True)
    assert "".join(symbols).replace(" ", "").startswith("bˈɑb")
    assert np.allclose(starts[1:], stops[:-1], atol=2e-4) and starts[0] == 0 and abs(stops[-1] - said.seconds) < 1e-3
    # A b in the middle of speech is a closed mouth: little sound, just before the vowel's much.
    b = [k for k, symbol in enumerate(symbols) if symbol == "b"][1]
    loud = lambda k: np.abs(waveform[int(starts[k] * rate) : int(stops[k] * rate)]).mean()  # noqa: E731
    assert loud(b) < loud(b - 1)
    said.save_times(tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text())["phonemes"][1] == list(said.phonemes[1])


@pytest.mark.slow
def test_the_same_words_give_the_same_file(tmp_path):
    a, b = (tts.speak("Say it again.", "en-us", "high", tmp_path / f"{k}.wav", "hibari") for k in "ab")
    assert a.read_bytes() == b.read_bytes()


@pytest.mark.skipif(not ESPEAK, reason="espeak-ng is not installed")
def test_languages_without_a_natural_voice_are_spoken_by_a_robot_that_is_called_so(tmp_path):
    for language in ("ko", "de"):
        voice = tts.best_voice(language, "low")
        assert voice.robot and not tts.say("안녕 Hallo", voice, tmp_path / "a.wav").phonemes


@pytest.mark.skipif(not KOKORO, reason="Kokoro is not installed")
@pytest.mark.slow
def test_long_words_are_cut_for_kokoro_too(tmp_path, monkeypatch):
    monkeypatch.setattr(tts, "MOST_SYMBOLS", 12)
    said = tts.say("mamma mamma", next(v for v in tts.VOICES if v.name == "bm_george"), tmp_path / "a.wav", speed=2)
    assert [p[0] for p in said.phonemes].count("m") == 4 and abs(said.phonemes[-1][2] - said.seconds) < 1e-3


@pytest.mark.skipif(not (ESPEAK and KOKORO), reason="Kokoro or espeak-ng is not installed")
@pytest.mark.slow
def test_other_languages_are_natural_where_kokoro_is(tmp_path):
    for language, words in (("es", "¿Dónde está el baño?"), ("hi", "यह एक किताब है।"), ("en-gb", "A bottle of water.")):
        voice = tts.best_voice(language, "high")
        said = tts.say(words, voice, tmp_path / f"{language}.wav")
        waveform, rate = soundfile.read(said.path)
        assert voice.engine == "kokoro" and 0.5 < said.seconds < 4 and np.abs(waveform).max() > 0.1
        assert abs(said.phonemes[-1][2] - len(waveform) / rate) < 1e-3


def test_a_voice_that_is_not_here_is_named_with_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(tts, "_is_here", lambda voice: voice.engine == "hibari")
    assert tts.can_speak() and tts.can_speak("en-us") and not tts.can_speak("ko")
    assert tts.best_voice("en-us", "low").engine == "hibari"
    with pytest.raises(InputError, match="Nothing here speaks 'ko': install the system's package espeak-ng"):
        tts.speak("안녕", "ko", "high", tmp_path / "a.wav")
    with pytest.raises(InputError, match="ff_siwis is not here: install the extra `voices`"):
        tts.say("Bonjour", next(v for v in tts.VOICES if v.name == "ff_siwis"), tmp_path / "a.wav")


def test_words_that_no_english_voice_can_pronounce_are_said_so(tmp_path):
    with pytest.raises(InputError, match="nothing to pronounce"):
        tts.speak("﴾﴿", "en-us", "high", tmp_path / "a.wav", "hibari")
    assert not (tmp_path / "a.wav").exists()


def test_a_number_that_no_one_can_read_is_said_so(tmp_path):
    with pytest.raises(InputError, match="write long numbers"):
        tts.speak("9" * 600, "en-us", "high", tmp_path / "a.wav", "hibari")


@pytest.mark.slow
def test_long_words_are_cut_into_runs_that_the_networks_take(tmp_path):
    said = tts.say("mamma " * 100, tts.best_voice("en-us", "high"), tmp_path / "a.wav")
    assert said.seconds > 20 and abs(said.phonemes[-1][2] - said.seconds) < 1e-3
