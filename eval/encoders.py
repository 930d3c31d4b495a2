"""Networks that turn pictures into features, and sets of videos into statistics of them.

Only features of the published Inception give a FID (protocol.md section 6); what any other network gives has a title of
its own. Two crops of each frame can be looked at (VARIANTS): whole frames, as the published recipe has it, and faces.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from lipsync.checkpoints import registry
from lipsync.checkpoints.download import SOURCES, file_sha256
from lipsync.errors import Cancelled, LipsyncError, ModelError, NoFaceError
from lipsync.faces.selection import choose
from lipsync.geometry import CropRule, crop_face
from lipsync.media.reader import FrameReader, probe
from lipsync.networks.inception import SIZE_PX, Inception
from lipsync.networks.syncnet import SyncNet
from lipsync.pipeline import find

from .clips import lacks
from .metrics.base import MeasureError
from .metrics.frechet import Accumulator, Statistics

BATCH = 32
RECIPE = 1  # to be raised with any change to what the networks are fed or what is read from them: old caches end
LAB = "syncnet-lab"
LAB_PX = 224  # what the evaluator sees
LAB_LEVELS = (6, 16)  # of SyncNet.netcnnlip: ReLU after the second convolution (26 x 26) and before the 6 x 6 one (13)
FACE_PX = 224  # not the generator's 96, which would hide how soft its faces look in the frame
FACE = CropRule()
VARIANTS = {  # name: what is seen of a frame; kept with the statistics
    "whole": f"whole frames, {SIZE_PX} px",
    "faces": f"faces, {FACE.left:g} {FACE.top:g} {FACE.right:g} {FACE.bottom:g} of the box, {FACE_PX} px",
}
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Encoder:
    """A network of features.

    name, sha256  its name here and the sum of its weights
    title         what a Fréchet distance of its features is called in tables
    features      pictures (B, H, W, 3) uint8 RGB, of any size, B >= 1 -> (B, D) float32; the same every time
    """

    name: str
    sha256: str
    title: str
    features: Callable[[np.ndarray], np.ndarray]


def open_encoder(name: str = "auto") -> Encoder:
    """The encoder `inception` or `lab`; auto: inception where its file is here, else lab.

    Raises MeasureError for another name, ModelError where the file is missing, damaged, or another network's.
    """
    makers = {"inception": _inception, "lab": _lab}
    if name == "auto":
        name = "inception" if registry.cards()["inception"].path else "lab"
    if name not in makers:
        raise MeasureError(f"There is no encoder named {name!r}: choose one of auto, {', '.join(makers)}.")
    return makers[name]()


def _inception() -> Encoder:
    """Features of the FID. The title is FID only where the card says that the file was the published one."""
    checksum, network = registry.sha256("inception"), _network("inception", Inception)
    origin = registry.cards()["inception"].facts.get("published", {}).get("sha256")
    title = "FID" if origin == SOURCES["inception"].sha256 else "Fréchet (another Inception)"
    return Encoder("inception", checksum, title, _in_batches(network.features))


def _lab() -> Encoder:
    """The shipped evaluator's lip tower as a stand-in that needs no download; never a FID.

    Pictures are brought to 224 px (bilinear) and stand still for its five frames. Mean and deviation over space
    of its maps at two levels, (64 + 64) x 2 = 256 features: the first sees texture, the second parts of faces.
    Distances measured with syncnet-lab 80cbc70e, from 48 moved and stretched crops of one face (224 px) to the same
    blurred by a Gaussian of sigma 0.5, 1, 2, 4 px: 0.008, 0.131, 0.964, 4.01 (either level alone rises too); to 48
    others: 0.054, and blurred 0.067, 0.204, 1.06, 4.12. To themselves as JPEG of quality 60, 30, 10: 0.002, 0.007,
    0.041; with noise of 4, 8, 16 grey levels: 0.001, 0.005, 0.038.
    """
    checksum, network = registry.sha256(LAB), _network(LAB, SyncNet)

    def features(pictures: Tensor) -> Tensor:
        x = nn.functional.interpolate(pictures, (LAB_PX, LAB_PX), mode="bilinear", align_corners=False)
        x = x.flip(1)[:, :, None].expand(-1, -1, 5, -1, -1)  # B 3 5 224 224, BGR
        found = []
        for place, layer in enumerate(network.netcnnlip[: max(LAB_LEVELS) + 1]):
            x = layer(x)
            if place in LAB_LEVELS:
                found += [x.mean((2, 3, 4)), x.std((2, 3, 4), correction=0)]
        return torch.cat(found, 1)

    return Encoder("lab", checksum, "Fréchet (lab encoder)", _in_batches(features))


def _network(checkpoint: str, kind: type[nn.Module]) -> nn.Module:
    network = registry.load(checkpoint)
    if not isinstance(network, kind):
        raise ModelError(
            f"The checkpoint {checkpoint} holds {type(network).__name__}, where {kind.__name__} is needed."
        )
    return network


def _in_batches(features: Callable[[Tensor], Tensor]) -> Callable[[np.ndarray], np.ndarray]:
    """`Encoder.features` of a function (B, 3, H, W) float32 RGB 0..255 -> (B, D), 32 pictures at a time."""

    def encode(pictures: np.ndarray) -> np.ndarray:
        if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[3] != 3 or not pictures.size:
            raise MeasureError(
                f"An encoder takes pictures (B, H, W, 3) uint8 RGB, one or more, not {pictures.dtype} {pictures.shape}."
            )
        found = []
        with torch.inference_mode():
            for first in range(0, len(pictures), BATCH):
                part = torch.from_numpy(np.ascontiguousarray(pictures[first : first + BATCH]))
                found.append(features(part.permute(0, 3, 1, 2).float()).numpy())
        return np.concatenate(found)

    return encode


def pictures_of(path: Path, variant: str, every: int = 1, notes: list[str] | None = None) -> Iterator[np.ndarray]:
    """What an encoder sees of a video, frame by frame; no more than one frame is held.

    variant  whole: every frame, resized to 299 x 299 (bilinear, proportions lost, as the published recipe does it)
             faces: the largest face of each shot (`faces.selection`), 224 x 224, only of frames where it was seen
    every    2 takes frames 0, 2, 4 ...; neighbours are alike
    notes    takes sentences about what was missing from the file
    yields   (S, S, 3) uint8 RGB
    Raises MeasureError at once for a wrong variant or `every`; while reading, InputError for a file that cannot be
    used, NoFaceError for one without a face.
    """
    if variant not in VARIANTS:
        raise MeasureError(f"There is no variant {variant!r} of a frame: choose one of {', '.join(VARIANTS)}.")
    if every < 1:
        raise MeasureError(f"Every {every} frames cannot be taken: give 1 or more.")
    return (_whole if variant == "whole" else _faces)(Path(path), every, [] if notes is None else notes)


def _whole(path: Path, every: int, notes: list[str]) -> Iterator[np.ndarray]:
    info = probe(path)
    with FrameReader(info) as reader:
        for index, frame in enumerate(reader):
            if index % every == 0:
                yield cv2.resize(frame, (SIZE_PX, SIZE_PX), interpolation=cv2.INTER_LINEAR)
    notes += [f"{path.name}: {said}" for said in lacks(reader, info)]


def _faces(path: Path, every: int, notes: list[str]) -> Iterator[np.ndarray]:
    info, faces = probe(path), find(path).faces
    tracks = choose(faces, "largest", None, info.fps)
    if not tracks:
        raise NoFaceError(f"No face was found in any of the {faces.frames} frames of {path.name}.")
    with FrameReader(info) as reader:
        for index, frame in enumerate(reader):
            for track in tracks if index % every == 0 else ():
                if track.has(index):
                    yield crop_face(frame, FACE.alignment(track.boxes[index - track.start]), FACE_PX)
    notes += [f"{path.name}: {said}" for said in lacks(reader, info)]


def set_statistics(
    paths: Iterable[Path], encoder: Encoder, variant: str, cache: Path | None, every: int = 1
) -> Statistics:
    """Statistics of all videos (or pictures) of a set; paired sets (frechet.evaluate) name theirs in the same order.

    variant, every  as in `pictures_of`
    cache           folder for results, made where it is not; found there by the sums of the files in their order, the
                    encoder's sum, the crop and `every`. None: none
    A file that cannot be read to its end, or in which no face is found, is left out from there on, with a sentence in
    the notes; a cache that is damaged or takes no files costs time alone. MeasureError: a file that is not there, a set
    without a picture.
    """
    pictures_of(Path(), variant, every)  # complains before anything is read
    try:
        files = [(file_sha256(path), path) for path in map(Path, paths)]
    except OSError as error:
        raise MeasureError(f"A file of the set cannot be read: {error}.") from error
    kind = (encoder.name, encoder.sha256, VARIANTS[variant])
    key = json.dumps([RECIPE, *kind, every, [checksum for checksum, _ in files]])
    kept = cache / f"{encoder.name}-{variant}-{hashlib.sha256(key.encode()).hexdigest()[:20]}.npz" if cache else None
    if kept and kept.is_file():
        try:
            return Statistics.load(kept, *kind)
        except MeasureError as error:
            _log.warning("%s They are gathered again.", error)
    gathered, notes = Accumulator(*kind), []
    pictures = _all_pictures([path for _, path in files], variant, every, notes)
    while batch := list(islice(pictures, BATCH)):
        gathered.add(encoder.features(np.stack(batch)))
    statistics = gathered.finish(tuple(notes))
    if kept:
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            statistics.save(kept)
        except OSError as error:  # the numbers are known
            _log.warning("The statistics could not be kept in %s (%s).", cache, error.strerror)
    return statistics


def _all_pictures(paths: list[Path], variant: str, every: int, notes: list[str]) -> Iterator[np.ndarray]:
    """The pictures of all files, one after the other; a sentence is added to `notes` for each that gave out."""
    for path in paths:
        try:
            yield from pictures_of(path, variant, every, notes)
        except Cancelled:
            raise
        except LipsyncError as error:
            notes.append(f"{error} It was left out.")
