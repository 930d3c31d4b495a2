"""Feature networks: FID's Inception by its layers, the lab encoder by what it sees; sets of videos by their cache."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from skimage.data import astronaut

from eval import encoders
from eval.encoders import Encoder, open_encoder, pictures_of, set_statistics
from eval.metrics.base import MeasureError
from eval.metrics.frechet import sample_distance
from lipsync.checkpoints import registry as checkpoints
from lipsync.checkpoints.download import SOURCES
from lipsync.errors import ModelError, NoFaceError
from lipsync.geometry import box_alignment, crop_face
from lipsync.networks import inception
from lipsync.networks.inception import BlockA, BlockC, BlockE, Inception
from lipsync.networks.wav2lip import Wav2Lip
from tests.conftest import make_clip
from tests.helpers.made import flash_clip
from tests.helpers.media_maker import write_media


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of the user's own weights; nothing fetched."""
    folder = tmp_path / "weights"
    folder.mkdir()
    monkeypatch.setenv("LIPSYNC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LIPSYNC_WEIGHTS", str(folder))
    monkeypatch.delenv("LIPSYNC_SOURCES", raising=False)
    return folder


def views(n: int, seed: int) -> np.ndarray:
    """n crops of one face, moved and stretched: (n, 224, 224, 3) uint8 RGB."""
    rng, picture, found = np.random.default_rng(seed), astronaut(), []
    for _ in range(n):
        x, y = rng.uniform(214, 234), rng.uniform(100, 124)
        w, h = rng.uniform(75, 100, 2)
        found.append(crop_face(picture, box_alignment(x - w, y - h, x + w, y + h), 224))
    return np.stack(found)


def blurred(pictures: np.ndarray, sigma: float) -> np.ndarray:
    return np.stack([cv2.GaussianBlur(picture, (0, 0), sigma) for picture in pictures])


# Inception


def filled(seed: int = 0) -> dict[str, torch.Tensor]:
    """Weights by a rule that keeps values of all layers near 1."""
    rng = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        shapes = {key: value.shape for key, value in Inception().state_dict().items()}
    state = {}
    for key, shape in shapes.items():
        if len(shape) > 1:
            state[key] = torch.randn(shape, generator=rng) * (2 / shape[1:].numel()) ** 0.5
        else:
            state[key] = torch.zeros(shape) if key.endswith(("bias", "mean", "tracked")) else torch.ones(shape)
    return state


@pytest.mark.slow
def test_inception_has_the_published_tensors() -> None:
    with torch.device("meta"):
        network = Inception()
    state = network.state_dict()
    assert len(state) == 566 and len({key.rsplit(".", 2)[0] for key in state if ".conv." in key}) == 94
    assert sum(p.numel() for p in network.parameters()) == 23_850_960
    size = 4 * sum(v.numel() for v in state.values())
    assert 0 < SOURCES["inception"].bytes - size < 200 * len(state)  # the rest is names and alignment
    expected = {
        "Conv2d_1a_3x3.conv.weight": (32, 3, 3, 3),
        "Conv2d_4a_3x3.bn.running_var": (192,),
        "Mixed_5b.branch1x1.conv.weight": (64, 192, 1, 1),
        "Mixed_5b.branch5x5_2.conv.weight": (64, 48, 5, 5),
        "Mixed_5b.branch_pool.conv.weight": (32, 192, 1, 1),
        "Mixed_6a.branch3x3.conv.weight": (384, 288, 3, 3),
        "Mixed_6b.branch7x7_2.conv.weight": (128, 128, 1, 7),
        "Mixed_6c.branch7x7dbl_2.conv.weight": (160, 160, 7, 1),
        "Mixed_6e.branch7x7dbl_5.conv.weight": (192, 192, 1, 7),
        "Mixed_7a.branch7x7x3_4.conv.weight": (192, 192, 3, 3),
        "Mixed_7b.branch3x3dbl_3b.conv.weight": (384, 384, 3, 1),
        "Mixed_7c.branch3x3_2a.conv.weight": (384, 384, 1, 3),
        "Mixed_7c.branch_pool.conv.weight": (192, 2048, 1, 1),
        "fc.weight": (1008, 2048),
        "fc.bias": (1008,),
    }
    assert {key: tuple(state[key].shape) for key in expected} == expected
    assert {m.eps for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)} == {1e-3}
    assert not any("Aux" in key or key.endswith("conv.bias") for key in state)


@pytest.mark.slow
@torch.inference_mode()
def test_inception_gives_2048_features_a_picture() -> None:
    network = Inception().eval()
    network.load_state_dict(filled())
    pictures = torch.from_numpy(views(2, 0)).permute(0, 3, 1, 2).float()
    both = network.features(pictures)
    assert both.shape == (2, 2048) and bool(both.isfinite().all()) and bool((both >= 0).all()) and both.std() > 1e-3
    torch.testing.assert_close(network.features(pictures[1:]), both[1:], rtol=1e-3, atol=1e-4)
    assert network(pictures).shape == (2, 1008)


@torch.inference_mode()
def test_inception_takes_bytes_to_minus_one_to_one_at_299(monkeypatch: pytest.MonkeyPatch) -> None:
    class Seen(Exception):
        pass

    def look(_: torch.nn.Module, x: torch.Tensor) -> None:
        raise Seen(x)

    with torch.device("meta"):
        network = Inception()
    monkeypatch.setattr(inception.Conv, "forward", look)
    row = torch.tensor([0.0, 255.0]).repeat(1, 3, 2, 1)
    with pytest.raises(Seen) as caught:
        network.features(row)
    seen = caught.value.args[0]
    assert seen.shape == (1, 3, 299, 299)
    assert float(seen[0, 0, 0, 0]) == -1 and float(seen[0, 0, 0, -1]) == 1
    assert float(seen[0, 0, 5, 149]) == pytest.approx(0, abs=1e-6)  # the middle of an odd row
    assert float(seen[0, 0, 0, 74]) == -1 and float(seen[0, 0, 0, 75]) > -1  # flat up to the first pixel's centre


@pytest.mark.parametrize("block", [lambda: BlockA(2, pooled=1), lambda: BlockC(1, inputs=2), lambda: BlockE(2, False)])
@torch.inference_mode()
def test_the_averages_do_not_count_the_padding(block: Callable[[], torch.nn.Module]) -> None:
    network = block().eval()
    torch.nn.init.ones_(network.branch_pool.conv.weight)
    pooled = network(torch.ones(1, 2, 5, 5))[0, -1]
    torch.testing.assert_close(pooled, torch.full((5, 5), 2 / (1 + 1e-3) ** 0.5))  # counted, a corner would have 4/9


@torch.inference_mode()
def test_the_last_block_takes_the_maximum() -> None:
    peak = torch.zeros(1, 1, 3, 3)
    peak[..., 1, 1] = 9
    average, largest = inception.average(peak)[0, 0], inception.largest(peak)[0, 0]
    assert average.tolist() == [[9 / 4, 9 / 6, 9 / 4], [9 / 6, 1, 9 / 6], [9 / 4, 9 / 6, 9 / 4]]
    assert largest.tolist() == [[9] * 3] * 3
    with torch.device("meta"):
        network = Inception()
    assert network.Mixed_7c.pool is inception.largest and network.Mixed_7b.pool is inception.average


# Encoders


def test_inception_that_is_not_here_says_how_to_fetch_it(weights: Path) -> None:
    with pytest.raises(ModelError, match="inception is not here yet: run `python -m lipsync fetch inception`"):
        open_encoder("inception")
    assert open_encoder().name == "lab"
    with pytest.raises(MeasureError, match="no encoder named 'vgg': choose one of auto, inception, lab"):
        open_encoder("vgg")


@pytest.mark.slow
def test_inception_opens_and_is_fid_only_with_the_published_weights(weights: Path) -> None:
    save_file(filled(), weights / "inception.safetensors")
    card = {"architecture": "inception"}
    checkpoints.write_card(weights / "inception.safetensors", card)
    encoder = open_encoder()
    assert (encoder.name, encoder.title) == ("inception", "Fréchet (another Inception)")
    assert encoder.sha256 == checkpoints.sha256("inception")
    features = encoder.features(np.zeros((1, 60, 50, 3), np.uint8))
    assert features.shape == (1, 2048) and features.dtype == np.float32
    card["published"] = {"sha256": SOURCES["inception"].sha256}
    checkpoints.write_card(weights / "inception.safetensors", card)
    assert open_encoder("inception").title == "FID"


def test_another_network_under_its_name_is_refused(weights: Path) -> None:
    save_file(Wav2Lip(2).state_dict(), weights / "inception.safetensors")
    checkpoints.write_card(weights / "inception.safetensors", {"architecture": "wav2lip", "config": {"width": 2}})
    with pytest.raises(ModelError, match="inception holds Wav2Lip, where Inception is needed"):
        open_encoder()
    checkpoints.write_card(weights / "inception.safetensors", {"architecture": "inception"})
    with pytest.raises(ModelError, match="belongs to another network than inception"):
        open_encoder()


def test_the_lab_encoder_keeps_its_promises() -> None:
    encoder, pictures = open_encoder("lab"), views(3, 0)
    assert encoder.sha256 == checkpoints.sha256("syncnet-lab") and "FID" not in encoder.title
    features = encoder.features(pictures)
    assert features.shape == (3, 256) and features.dtype == np.float32 and np.isfinite(features).all()
    np.testing.assert_array_equal(encoder.features(pictures), features)
    np.testing.assert_allclose(encoder.features(pictures[1:2]), features[1:2], atol=1e-5)
    assert np.abs(encoder.features(pictures[..., ::-1]) - features).max() > 0.01  # it knows red from blue
    for wrong in (pictures.astype(np.float32), pictures[0], pictures[..., :2], pictures[:0]):
        with pytest.raises(MeasureError, match="takes pictures .* not (uint8|float32) "):
            encoder.features(wrong)


@pytest.mark.slow
def test_lab_distances_rise_with_blur() -> None:
    encoder = open_encoder("lab")
    sharp, others = encoder.features(views(36, 0)), views(36, 1)
    same = [sample_distance(sharp, encoder.features(blurred(views(36, 0), s))) for s in (0.5, 1, 2, 4)]
    other = [sample_distance(sharp, encoder.features(others))]
    other += [sample_distance(sharp, encoder.features(blurred(others, s))) for s in (0.5, 1, 2, 4)]
    for rising in (same, other):
        assert all(a < b for a, b in zip(rising, rising[1:], strict=False)), rising
    assert same[3] > 10 * same[1] and other[3] > 5 * other[0]


# Pictures and sets


def means() -> tuple[Encoder, list[tuple[int, ...]]]:
    """A stand-in: the mean colours of four quarters; and the shapes that it was given."""
    seen: list[tuple[int, ...]] = []

    def features(pictures: np.ndarray) -> np.ndarray:
        seen.append(pictures.shape)
        small = [cv2.resize(picture, (2, 2), interpolation=cv2.INTER_AREA).ravel() for picture in pictures]
        return np.array(small, np.float32)

    return Encoder("means", "ab" * 32, "Fréchet (means)", features), seen


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two clips of noise, 40 and 7 frames, of different sizes."""
    folder, rng = tmp_path_factory.mktemp("videos"), np.random.default_rng(0)
    shapes = {"long.mp4": (40, 64, 96), "short.mp4": (7, 128, 64)}
    return [
        write_media(folder / name, list(rng.integers(0, 255, (*shape, 3), np.uint8))) for name, shape in shapes.items()
    ]


def test_whole_frames_stream_at_299(videos: list[Path]) -> None:
    pictures = list(pictures_of(videos[0], "whole"))
    assert len(pictures) == 40 and {(p.shape, p.dtype.name) for p in pictures} == {((299, 299, 3), "uint8")}
    few = list(pictures_of(videos[0], "whole", every=15))
    assert len(few) == 3
    np.testing.assert_array_equal(few[1], pictures[15])


@pytest.mark.slow
def test_faces_are_cut_around_the_track(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "astronaut.mp4", frames=12)
    pictures = list(pictures_of(clip, "faces", every=2))
    assert len(pictures) == 6 and {p.shape for p in pictures} == {(224, 224, 3)}
    skin = np.stack(pictures)[:, 60:160, 70:150].mean((0, 1, 2))
    assert skin[0] > skin[1] > skin[2]
    grey = np.stack(pictures).std(3).mean()
    assert grey > 10  # the ground is grey


@pytest.mark.slow
def test_a_set_is_gathered_across_its_files_and_cached(videos: list[Path], tmp_path: Path) -> None:
    encoder, seen = means()
    found = set_statistics(videos, encoder, "whole", tmp_path / "cache" / "sets")
    assert seen == [(32, 299, 299, 3), (15, 299, 299, 3)]  # batches do not end with a file
    assert (found.n, found.encoder, found.sha256, found.notes) == (47, "means", "ab" * 32, ())
    assert found.crop == encoders.VARIANTS["whole"]
    again = set_statistics([str(p) for p in videos], encoder, "whole", tmp_path / "cache" / "sets")
    assert len(seen) == 2
    np.testing.assert_array_equal(again.covariance, found.covariance)
    for changed, variant, every in (
        (Encoder("means", "cd" * 32, "", encoder.features), "whole", 1),
        (encoder, "whole", 20),
    ):
        before = len(seen)
        set_statistics(videos, changed, variant, tmp_path / "cache" / "sets", every)
        assert len(seen) > before
    assert len(list((tmp_path / "cache" / "sets").iterdir())) == 3
    plain = set_statistics(videos[::-1], encoder, "whole", None)
    assert plain.mean == pytest.approx(found.mean)


@pytest.mark.slow
def test_a_file_without_a_face_is_left_out_and_told(videos: list[Path], tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "astronaut.mp4", frames=6)
    with pytest.raises(NoFaceError, match="No face was found in any of the 7 frames of short.mp4"):
        list(pictures_of(videos[1], "faces"))
    encoder, _ = means()
    found = set_statistics([videos[1], clip], encoder, "faces", tmp_path)
    assert found.n == 6 and found.notes == ("No face was found in any of the 7 frames of short.mp4. It was left out.",)
    assert set_statistics([videos[1], clip], encoder, "faces", tmp_path).notes == found.notes
    with pytest.raises(MeasureError, match="no picture in the set"):
        set_statistics([videos[1]], encoder, "faces", None)


def test_a_file_cut_short_is_told(tmp_path: Path) -> None:
    whole, part = flash_clip(tmp_path / "whole.mp4"), tmp_path / "part.mp4"
    part.write_bytes(whole.read_bytes()[: int(0.6 * whole.stat().st_size)])  # its index, at the front, is whole
    found = set_statistics([part], means()[0], "whole", None)
    assert 5 < found.n < 100 and f"{100 - found.n} of 100 frames are missing" in " ".join(found.notes)


@pytest.mark.slow
def test_what_cannot_be_read_is_a_sentence(videos: list[Path], tmp_path: Path) -> None:
    encoder, _ = means()
    with pytest.raises(MeasureError, match="no variant 'mouths' of a frame: choose one of whole, faces"):
        pictures_of(videos[0], "mouths")
    with pytest.raises(MeasureError, match="Every 0 frames cannot be taken"):
        set_statistics(videos, encoder, "whole", None, every=0)
    with pytest.raises(MeasureError, match=r"cannot be read: .*nowhere\.mp4"):
        set_statistics([*videos, tmp_path / "nowhere.mp4"], encoder, "whole", None)
    (tmp_path / "text.mp4").write_text("not a video")
    whole = set_statistics(videos, encoder, "whole", None)
    found = set_statistics([videos[0], tmp_path / "text.mp4", videos[1]], encoder, "whole", None)
    assert found.n == whole.n and len(found.notes) == 1 and "text.mp4" in found.notes[0]
