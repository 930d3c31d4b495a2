"""Sound as the networks hear it: mel and its windows, two kinds of MFCC, and where the voice speaks.

Conventions: mono at 16 kHz, float32 in -1..1, except for the two MFCCs, which were defined on the int16 scale.
Source: protocol.md section 1; tests/data/golden/audio.npz and mel_windows.json prove it.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

import numpy as np
import scipy.fft
import scipy.signal
from scipy.ndimage import binary_dilation, binary_erosion, binary_opening

SAMPLE_RATE = 16000
N_MELS = 80
MEL_HOP = 200  # samples between columns
MEL_RATE = SAMPLE_RATE // MEL_HOP  # columns a second: 80
MEL_WINDOW = 16  # columns that the generator hears with a frame: 200 ms
SILENCE = -4.0  # mel value of digital silence
SILENT_PEAK = 1e-3  # a voice that never rises above it is silent
SPEECH_DB = -15.0  # dBFS of speech; of the training clips: median -13.5, 5 % below -27.5
MOST_GAIN_DB = 50.0
VOICE_RANGE_DB = 12.0  # speech rises and falls by more, in hundredths of a second; hiss and hum do not
_MEL_LENGTH = 800  # samples that a column hears
_MFCC_LENGTH, _MFCC_HOP, _MFCC_FFT = 400, 160, 512  # both MFCCs: 25 ms every 10 ms
_BLOCK = 2048  # spectra computed at once; keeps ten minutes of sound within a few MB of scratch


def mel(waveform: np.ndarray) -> np.ndarray:
    """The mel spectrogram that Wav2Lip's generator and expert hear.

    waveform  (S,) float32, mono, 16 kHz, -1..1; any length: an empty one gives one column of silence
    returns   (80, 1 + S // 200) float32, -4..4, 80 columns a second; column j is centred on sample 200 j
    """
    assert waveform.ndim == 1 and np.issubdtype(waveform.dtype, np.floating), "mel wants mono float samples"
    if not len(waveform):
        return np.full((N_MELS, 1), SILENCE, np.float32)
    signal = _pre_emphasis(waveform.astype(np.float32, copy=False))
    signal = np.pad(signal, _MEL_LENGTH // 2, mode="reflect")  # librosa's default until 0.9; it pads zeros now
    taper = scipy.signal.get_window("hann", _MEL_LENGTH).astype(np.float32)
    spectra = _magnitudes(signal, taper, MEL_HOP, _MEL_LENGTH)
    bands = np.concatenate([spectrum @ _mel_bands() for spectrum in spectra]).T
    level_db = 20 * np.log10(np.maximum(1e-5, bands)) - 20
    return np.clip(8 * (level_db + 100) / 100 - 4, -4, 4)


@dataclass(frozen=True)
class AudioFeature:
    """A kind of audio feature that models see.

    rate     columns a second
    size     values a column
    lead     columns before the first sample: silence that was put in front
    extract  waveform (S,) float32, 16 kHz, -1..1 -> (size, T) float32
    silence  what columns outside hold; None: what the first column holds
    """

    rate: int
    size: int
    lead: int
    extract: Callable[[np.ndarray], np.ndarray]
    silence: float | None = None


def feature_windows(kind: str, features: np.ndarray, starts: Sequence[int], width: int) -> np.ndarray:
    """Cut windows of columns; columns outside the voice are silence.

    kind      a key of FEATURES
    features  (C, T) float32, from its `extract`
    starts    N first columns, counted from the first sample; may be negative or beyond the end
    returns   (N, C, width) float32
    """
    feature = FEATURES[kind]
    columns = np.asarray(starts, dtype=np.intp).reshape(-1, 1) + feature.lead + np.arange(width)  # (N, width)
    columns[(columns < 0) | (columns >= features.shape[1])] = features.shape[1]
    if feature.silence is None:
        outside = features[:, :1]
    else:
        outside = np.full((len(features), 1), feature.silence, features.dtype)
    with_silence = np.concatenate((features, outside), axis=1)
    return with_silence[np.arange(len(features))[:, None], columns[:, None]]


def frame_columns(
    kind: str, first: int, count: int, fps: Fraction | float, start_frames: int = 0, start_columns: float = 0
) -> list[int]:
    """First column of the window of each of `count` frames from frame `first` on: the one function for this in
    training, inference and scoring.

    start_frames, start_columns  where a window starts, from the frame itself, in frames and in columns: of the card
    """
    rate = FEATURES[kind].rate
    return [
        math.floor(Fraction((i + start_frames) * rate) / Fraction(fps) + Fraction(start_columns))
        for i in range(first, first + count)
    ]


def mel_window_starts(n_mel: int, fps: Fraction | float, inference: bool) -> list[int]:
    """First mel column of each frame's window, as the published code counts frames.

    n_mel      columns of the mel spectrogram
    fps        frames a second of the video
    inference  True: after the last whole window comes one more over the last 16 columns (column 0 on where there
               are fewer); False (evaluation): whole windows only
    returns    ascending columns, one for each frame: int(i * 80 / fps)
    """
    starts = []
    while (start := _column(len(starts), fps)) + MEL_WINDOW <= n_mel:
        starts.append(start)
    return starts + [max(0, n_mel - MEL_WINDOW)] if inference else starts


def mel_windows(mel: np.ndarray, starts: Sequence[int]) -> np.ndarray:
    """`feature_windows` of a mel spectrogram: (80, T) -> (N, 80, 16) float32."""
    return feature_windows("mel", mel, starts, MEL_WINDOW)


def mfcc_syncnet(pcm: np.ndarray) -> np.ndarray:
    """The MFCC that SyncNet hears: the arithmetic of python_speech_features with its defaults.

    pcm      (S,) any number type, mono, 16 kHz, on the int16 scale (-32768..32767)
    returns  (T, 13) float64, 100 rows a second, T = 1 + ceil((S - 400) / 160), at least 1: the end is padded with
             zeros. The first coefficient is the log of the frame's energy
    """
    return np.concatenate(list(mfcc_syncnet_blocks([pcm])))


def mfcc_syncnet_blocks(chunks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The same for sound that comes in chunks of any length: yields blocks (T, 13) float64 of at least one row each."""
    left, last, rows = np.zeros(0), np.zeros(0), 0
    for chunk in chunks:
        signal = np.concatenate((last, chunk.astype(np.float64)))
        left = np.concatenate((left, _pre_emphasis(signal)[len(last) :]))
        last = signal[-1:]
        whole = (len(left) - _MFCC_LENGTH) // _MFCC_HOP + 1
        if whole > 0:
            yield _syncnet_rows(left[: (whole - 1) * _MFCC_HOP + _MFCC_LENGTH])
            left, rows = left[whole * _MFCC_HOP :], rows + whole
    if not rows or len(left) > _MFCC_LENGTH - _MFCC_HOP:
        yield _syncnet_rows(np.pad(left, (0, _MFCC_LENGTH - len(left))))


def _syncnet_rows(signal: np.ndarray) -> np.ndarray:
    """(T, 13) of all whole windows of an emphasised signal."""
    tiny = np.finfo(float).eps  # stands for 0 before a logarithm
    rows = []
    for spectrum in _magnitudes(signal, np.ones(_MFCC_LENGTH), _MFCC_HOP, _MFCC_FFT):
        power = spectrum**2 / _MFCC_FFT
        cepstrum = _cepstrum(np.maximum(power @ _syncnet_bands(), tiny))
        cepstrum[:, 0] = np.log(np.maximum(power.sum(axis=1), tiny))
        rows.append(cepstrum)
    return np.concatenate(rows)


def mfcc12(pcm: np.ndarray) -> np.ndarray:
    """The MFCC that LipGAN and Speech2Vid hear.

    pcm      (S,) any number type, mono, 16 kHz, on the int16 scale (-32768..32767)
    returns  (12, T) float64, 100 columns a second, T = 1 + (S - 400) // 160 whole windows; (12, 0) below 400 samples
    """
    signal = _pre_emphasis(pcm.astype(np.float64))
    if len(signal) < _MFCC_LENGTH:
        return np.zeros((12, 0))
    spectra = _magnitudes(signal, np.hamming(_MFCC_LENGTH), _MFCC_HOP, _MFCC_FFT)
    rows = [_cepstrum(np.maximum(spectrum @ _mfcc12_bands(), 1e-6)) for spectrum in spectra]
    return np.concatenate(rows)[:, 1:].T


def _mfcc12_of(waveform: np.ndarray) -> np.ndarray:
    """MFCC with a second of silence on both sides, as Speech2Vid hears it (protocol.md section 2)."""
    pad = np.zeros(SAMPLE_RATE, np.float32)
    return mfcc12(np.concatenate([pad, waveform, pad]) * 32768).astype(np.float32)


FEATURES: dict[str, AudioFeature] = {
    "mel": AudioFeature(MEL_RATE, N_MELS, 0, mel, SILENCE),
    "mfcc12": AudioFeature(SAMPLE_RATE // _MFCC_HOP, 12, SAMPLE_RATE // _MFCC_HOP, _mfcc12_of),
}


def is_silent(waveform: np.ndarray) -> bool:
    """Is there nothing to hear in (S,) float32, -1..1? The one limit under which a voice is not made louder."""
    return not len(waveform) or float(np.abs(waveform).max()) < SILENT_PEAK


def levelled(waveform: np.ndarray) -> np.ndarray:
    """A voice at the level of the voices that networks here were trained on: (S,) float32 -> (S,) float32.

    Its speech, what lies within 25 dB of its loudest half percent, is brought to SPEECH_DB, so that a quiet recording
    moves the mouth as far as a loud one. Silence stays as it is, and so do hiss and hum, which would become a voice.
    """
    level_db = levels_db(waveform)
    if is_silent(waveform) or not len(level_db):
        return waveform
    quiet_db, loud_db = np.percentile(level_db, (10, 99.5))
    if loud_db - quiet_db < VOICE_RANGE_DB:
        return waveform
    speech_db = 10 * np.log10(np.mean(10 ** (level_db[level_db > loud_db - 25] / 10)))
    gain_db = np.clip(SPEECH_DB - speech_db, -MOST_GAIN_DB, MOST_GAIN_DB)
    return waveform * np.float32(10 ** (gain_db / 20))


def loud_frames(waveform: np.ndarray, fps: Fraction | float, n_frames: int) -> np.ndarray:
    """Which video frames have speech-level sound, so that the mouth can rest in the others.

    Loud is what lies above -60 dBFS, within 35 dB of the voice's own loud parts, and 6 dB above its own quiet parts
    (a steady background; but never less than 12 dB below the loud parts is asked, for a voice that never pauses).
    Clicks under 30 ms do not count; 80 ms before and after sound do, and pauses under 280 ms, so that a mouth opens
    in time and does not flap shut between syllables.

    waveform  (S,) float32, mono, 16 kHz, -1..1; any length
    fps       frames a second of the video
    n_frames  frames asked about; those after the voice are silent
    returns   (n_frames,) bool
    """
    return loud_by_levels(levels_db(waveform), fps, n_frames)


def levels_db(waveform: np.ndarray) -> np.ndarray:
    """Level of each whole 10 ms: (S,) float32, mono, 16 kHz, -1..1 -> (S // 160,) float32 dBFS, -120 at the lowest.

    Of sound in chunks of whole hundredths of a second, the chunks' levels one after the other are the whole's.
    """
    cell = SAMPLE_RATE // 100
    cells = waveform[: len(waveform) // cell * cell].reshape(-1, cell)
    # The variance, not the mean square: an offset (DC) and slow rumble are no sound.
    return 10 * np.log10(np.maximum(cells.var(axis=1), 1e-12))


def loud_by_levels(level_db: np.ndarray, fps: Fraction | float, n_frames: int) -> np.ndarray:
    """`loud_frames` from levels (N,) of `levels_db`: sound of any length need never be in memory at once."""
    frames = np.zeros(n_frames, dtype=bool)
    if not (level_db > -60).any():
        return frames
    quiet_db, loud_db = np.percentile(level_db, (10, 95))
    threshold_db = max(-60.0, loud_db - 35, min(quiet_db + 6, loud_db - 12))
    loud = binary_opening(level_db > threshold_db)
    loud = binary_erosion(binary_dilation(loud, iterations=14), iterations=6, border_value=1)
    for i in range(n_frames):
        first, stop = _column(i, fps, 100), _column(i + 1, fps, 100)
        frames[i] = loud[first : max(stop, first + 1)].any()
    return frames


def _column(frame: int, fps: Fraction | float, rate: int = MEL_RATE) -> int:
    """Column (of `rate` a second) at which a frame starts, exact where floats would round to the one before."""
    return int(Fraction(frame * rate) / Fraction(fps))


def _pre_emphasis(signal: np.ndarray) -> np.ndarray:
    """y[n] = x[n] - 0.97 x[n-1], the first sample kept; dtype kept."""
    return np.concatenate((signal[:1], signal[1:] - signal.dtype.type(0.97) * signal[:-1]))


def _magnitudes(signal: np.ndarray, taper: np.ndarray, hop: int, n_fft: int) -> Iterator[np.ndarray]:
    """Magnitude spectra (up to _BLOCK, n_fft // 2 + 1) of all whole windows, block by block."""
    windows = np.lib.stride_tricks.sliding_window_view(signal, len(taper))[::hop]
    for first in range(0, len(windows), _BLOCK):
        yield np.abs(scipy.fft.rfft(windows[first : first + _BLOCK] * taper, n_fft))


def _cepstrum(bands: np.ndarray) -> np.ndarray:
    """13 liftered cepstral coefficients (T, 13) of band energies (T, B)."""
    coefficients = scipy.fft.dct(np.log(bands), norm="ortho")[:, :13]
    return coefficients * (1 + 11 * np.sin(np.pi * np.arange(13) / 22))


@cache
def _mel_bands() -> np.ndarray:
    """(401, 80) float32: Slaney's area-normalised bands, 55 to 7600 Hz."""
    import librosa  # here: those who only cut windows, trainers among them, may not have it

    return librosa.filters.mel(sr=SAMPLE_RATE, n_fft=_MEL_LENGTH, n_mels=N_MELS, fmin=55, fmax=7600).T


@cache
def _mfcc12_bands() -> np.ndarray:
    """(257, 40) float64: unit-height triangles of HTK's mel scale, 300 to 3700 Hz."""
    import librosa

    corners = librosa.mel_to_hz(np.linspace(*librosa.hz_to_mel([300, 3700], htk=True), 40 + 2), htk=True)
    bins = np.fft.rfftfreq(_MFCC_FFT, 1 / SAMPLE_RATE)
    return np.stack([np.interp(bins, corners[i : i + 3], (0, 1, 0), 0, 0) for i in range(40)], axis=1)


@cache
def _syncnet_bands() -> np.ndarray:
    """(257, 26) float64: unit-height triangles whose corners lie on whole bins, unlike librosa's."""
    import librosa

    hertz = librosa.mel_to_hz(np.linspace(0, librosa.hz_to_mel(SAMPLE_RATE / 2, htk=True), 26 + 2), htk=True)
    corners = np.floor((_MFCC_FFT + 1) * hertz / SAMPLE_RATE)
    bins = np.arange(_MFCC_FFT // 2 + 1)
    return np.stack([np.interp(bins, corners[i : i + 3], (0, 1, 0)) for i in range(26)], axis=1)
