"""Makes resynced/sets/starter: GRID's val speakers and a moving portrait, with other people's and made voices.

    python scripts/make_starter_set.py [--out FOLDER]

Needs ../shared/data, espeak-ng and the extra `voices`. Encoders and Kokoro do not give the same bytes on each machine,
so a set that was made is frozen and never made over: a new one gets a new folder and VERSION.
"""

import argparse
import csv
import shutil
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import soundfile
from skimage.data import astronaut

from lipsync import tts
from lipsync.checkpoints.download import file_sha256
from lipsync.media.reader import VideoWriter, read_waveform
from resynced.manifests import SHIPPED, lab_data
from resynced.pairs import draw, freeze
from resynced.records import Media

VERSION, SEED = "1", 22
PAIRS = 14  # a category: each clip once
SECONDS = 3.0  # of every clip
LONGEST_S = 2.96  # of a made voice: a longer one is spoken faster
FACTS = {
    "name": "starter",
    "version": VERSION,
    "title": "ReSyncED starter set",
    "licence": "CC BY 4.0; portrait and made voices: public domain and CC0",
    "footer": "Clips and human voices: GRID audiovisual sentence corpus (M. Cooke, J. Barker, S. Cunningham, X. Shao), "
    "CC BY 4.0, Zenodo 3625687, changed: re-encoded, sound cut out and levelled. Portrait: NASA, public domain. Made "
    "voices: hibari-tts, Kokoro, espeak-ng.",
    "notes": [
        "Faces are 127 to 173 pixels wide as our finder sees them: this set cannot show how sharp a system is.",
        "People sit still in front of a plain wall and speak sentences of six words: no test of the real world.",
        "No person of this set is in a training split of this project.",
    ],
}
GRID = {"consent": "volunteer of the GRID corpus", "licence": "CC BY 4.0"}
NASA = {"consent": "official portrait, published by NASA", "licence": "public domain"}
MADE = {"consent": "synthetic, nobody's voice", "licence": "CC0"}
# Voice of lipsync.tts, words: of one clip's length, rich in closed lips.
TTS = [
    ("heart", "My brother bought a big blue boat in the summer."),
    ("heart", "Please put the paper bag by the map."),
    ("heart", "Both babies were happy to be home before dinner."),
    ("heart", "The museum opens at half past nine tomorrow."),
    ("heart", "People put up the maps above the beds."),
    ("heart", "Maybe Peter moved the piano before the party."),
    ("am_michael", "We keep a spare battery beside the lamp."),
    ("bf_emma", "Mum made pepper soup with brown bread."),
    ("bm_george", "A number of ships passed the bay by morning."),
    ("em_alex", "Mi hermano compró un barco azul en verano."),
    ("im_nicola", "Il museo apre domani mattina alle nove e mezza."),
    ("pm_alex", "Ponha a bolsa de papel perto do mapa, por favor."),
    ("de", "Das Museum öffnet morgen früh um halb zehn."),
    ("ko", "내 동생이 여름에 파란 배를 샀어요."),
]
# Translations of the sentences above.
DUBBED = [
    ("ef_dora", "Por favor, pon la bolsa de papel junto al mapa."),
    ("em_alex", "Quizá Pedro movió el piano antes de la fiesta."),
    ("ff_siwis", "Mon frère a acheté un bateau bleu cet été."),
    ("ff_siwis", "Le musée ouvre demain matin à neuf heures et demie."),
    ("if_sara", "Mio fratello ha comprato una barca blu d'estate."),
    ("im_nicola", "Per favore, metti la borsa di carta vicino alla mappa."),
    ("pf_dora", "Meu irmão comprou um barco azul no verão."),
    ("pm_alex", "O museu abre amanhã de manhã às nove e meia."),
    ("hf_alpha", "कृपया कागज़ का थैला नक्शे के पास रखें।"),
    ("hm_omega", "मेरे भाई ने गर्मी में नीली नाव खरीदी।"),
    ("de+f3", "Mein Bruder hat im Sommer ein blaues Boot gekauft."),
    ("de", "Bitte leg die Papiertüte neben die Karte."),
    ("ko+f3", "지도 옆에 종이 가방을 놓아 주세요."),
    ("ko", "박물관은 내일 아침 아홉 시 반에 문을 열어요."),
]


def grid_clips(data: Path) -> list[dict[str, str]]:
    """One clip of each val speaker. No person of another split may be among them."""
    with (data / "manifest.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["group"] == "grid"]
    trained = {row["speaker"] for row in rows if row["split"] != "val"}
    chosen: dict[str, dict[str, str]] = {}
    for row in sorted(rows, key=lambda r: r["file"]):
        if row["split"] == "val" and "CC BY 4.0" in row["terms"]:
            chosen[row["speaker"]] = row
    assert len(chosen) == 12 and not trained & set(chosen), sorted(chosen)
    return list(chosen.values())


def portrait(path: Path, zoom: tuple[float, float], sway: float) -> Path:
    """The public-domain astronaut seen by a camera that zooms and sways: 75 frames of 480 x 480."""
    picture, frames = astronaut(), round(SECONDS * 25)
    with VideoWriter(path, 480, 480, Fraction(25), crf=20, preset="slow", threads=1) as writer:
        for k in range(frames):
            t = k / (frames - 1)
            scale = zoom[0] + (zoom[1] - zoom[0]) * (3 * t**2 - 2 * t**3)
            angle = sway * 3 * np.sin(2 * np.pi * t)  # degrees
            move = cv2.getRotationMatrix2D((226, 150), angle, scale)  # about the face
            centre = np.array([240, min(240, 150 * scale - 24)])  # nothing above the picture's upper edge is seen
            move[:, 2] += centre - np.array([226, 150]) + sway * np.array([14 * np.sin(5 * t), 8 * np.cos(7 * t)])
            writer.write(
                cv2.warpAffine(picture, move, (480, 480), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
            )
    return path


def made(folder: Path, name: str, voice_name: str, words: str) -> Media:
    """A voice of at most a clip's length, with a JSON of its words and phoneme times beside it."""
    voice = next(v for v in tts.VOICES if v.name == voice_name)
    wav = folder / f"{name}.wav"
    speed = 1.0
    while (speech := tts.say(words, voice, wav, speed)).seconds > LONGEST_S:
        speed *= max(speech.seconds / LONGEST_S, 1.03)
    assert speech.seconds > 1.5 and speed < 1.5, (words, speech.seconds, speed)
    waveform, rate = soundfile.read(wav)
    wav.unlink()
    flac = folder / f"{name}.flac"
    soundfile.write(flac, 0.9 * waveform / np.abs(waveform).max(), rate, subtype="PCM_16")
    speech.save_times(flac.with_suffix(".json"))
    print(f"{name}: {voice.engine} {voice.name}, {speech.seconds:.2f} s, {words}")
    speaker = f"{voice.engine}-{voice.name}"
    return Media(name, flac, file_sha256(flac), voice.language, speaker, source=f"{voice.engine}, this script", **MADE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=SHIPPED / "starter", help="folder, not there yet")
    out = parser.parse_args().out
    data = lab_data()
    if data is None:
        raise SystemExit("../shared/data is not here: name it by LIPSYNC_LAB_DATA.")
    for folder in ("clips", "voices"):
        (out / folder).mkdir(parents=True)
    clips, human = [], []
    for row in grid_clips(data):
        speaker, name = row["speaker"], f"grid-{row['speaker']}"
        clip = Path(shutil.copyfile(data / row["file"], out / "clips" / f"{name}.mp4"))
        source = f"GRID {row['speaker']}, Zenodo 3625687, through {row['source']}"
        clips.append(Media(name, clip, file_sha256(clip), "en", speaker, source=source, **GRID))
        waveform = read_waveform(clip)
        voice = out / "voices" / f"{name}-voice.flac"
        soundfile.write(voice, 0.9 * waveform / np.abs(waveform).max(), 16_000, subtype="PCM_16")
        human.append(Media(voice.stem, voice, file_sha256(voice), "en", speaker, source=source, **GRID))
    for name, zoom, sway in (("portrait-zoom", (1.25, 1.9), 0.25), ("portrait-sway", (1.5, 1.6), 1.0)):
        clip = portrait(out / "clips" / f"{name}.mp4", zoom, sway)
        source = "Eileen Collins, NASA; scikit-image, moved by this script"
        clips.append(Media(name, clip, file_sha256(clip), "en", "collins", source=source, **NASA))
    pairs = draw(clips, human, "random", PAIRS, SEED)
    for category, words in (("dubbed", DUBBED), ("tts", TTS)):
        voices = {
            name: made(out / "voices", name, voice, said)
            for name, voice, said in (
                (f"{category}-{k:02d}-{voice.replace('+', '-').replace('_', '-')}", voice, said)
                for k, (voice, said) in enumerate(words, 1)
            )
        }
        nobody = [replace(v, speaker="") for v in voices.values()]  # a balance of made speakers would repeat sentences
        drawn = draw(clips, nobody, category, PAIRS, SEED)
        pairs += [replace(p, voice=voices[p.voice.id]) for p in drawn]
    files = {m.id: str(m.path.relative_to(out)) for p in pairs for m in (p.video, p.voice)}
    categories = {p.voice.id: p.category for p in pairs}
    total = freeze(out, FACTS, pairs, files, categories)
    size = sum(p.stat().st_size for p in out.rglob("*") if p.is_file())
    print(f"{len(pairs)} pairs, {size / 2**20:.2f} MB, {total}")


if __name__ == "__main__":
    main()
