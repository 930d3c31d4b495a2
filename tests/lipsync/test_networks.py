"""Networks against the golden vectors: tensor names, shapes and order, and what they compute."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.data import astronaut

from lipsync.checkpoints import registry
from lipsync.checkpoints.state_dict import read
from lipsync.networks import s3fd as sfd
from lipsync.networks.s3fd import S3FD
from lipsync.networks.syncnet import SyncNet
from lipsync.networks.wav2lip import Expert, Quality, Wav2Lip

WEIGHTS = Path(__file__).parents[2] / "lipsync" / "weights"
NETWORKS = {"wav2lip": Wav2Lip, "expert": Expert, "quality": Quality, "syncnet": SyncNet, "sfd": S3FD}


def generator(name: str) -> np.random.Generator:
    """The random numbers that belong to a name (protocol.md section 2)."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    return np.random.Generator(np.random.PCG64(seed))


def uniform(name: str, shape: tuple[int, ...], low: float, high: float) -> torch.Tensor:
    return torch.from_numpy(generator(name).uniform(low, high, shape).astype(np.float32))


def fill(name: str, key: str, tensor: torch.Tensor) -> torch.Tensor:
    """The rule's values for one tensor of a state dict."""
    rng, shape = generator(f"{name}/{key}"), tuple(tensor.shape)
    if key.endswith("num_batches_tracked"):
        return torch.zeros_like(tensor)
    if key.endswith("running_mean"):
        values = 0.1 * rng.standard_normal(shape)
    elif key.endswith("running_var"):
        values = rng.uniform(0.5, 1.5, shape)
    elif len(shape) >= 2:
        values = rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
    elif key.endswith("weight"):
        values = 1 + 0.1 * rng.standard_normal(shape)
    else:
        values = 0.02 * rng.standard_normal(shape)
    return torch.from_numpy(values.astype(np.float32))


def filled(name: str) -> torch.nn.Module:
    """A network whose weights come from the rule; S3FD keeps its three scales (10, 8, 5)."""
    network = NETWORKS[name]()
    state = network.state_dict()
    network.load_state_dict({key: value if "L2Norm" in key else fill(name, key, value) for key, value in state.items()})
    return network.eval()


def assert_close(result: torch.Tensor, reference: np.ndarray) -> None:
    assert tuple(result.shape) == reference.shape
    assert np.abs(result.numpy() - reference).max() <= 1e-5 * np.abs(reference).max()


@pytest.fixture(scope="module")
def vectors(golden: Path) -> dict[str, np.ndarray]:
    return dict(np.load(golden / "networks.npz"))


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_state_dict_is_the_published_one(golden: Path, name: str) -> None:
    expected = json.loads((golden / "state_dicts.json").read_text())[name]
    network = NETWORKS[name]()
    tensors = [
        [key, list(value.shape), str(value.dtype).removeprefix("torch.")] for key, value in network.state_dict().items()
    ]
    assert tensors == expected["tensors"]
    assert sum(parameter.numel() for parameter in network.parameters()) == expected["parameters"]
    check = expected["fill_check"]
    first = fill(name, check["tensor"], network.state_dict()[check["tensor"]]).flatten()[:4]
    np.testing.assert_allclose(first, check["first_four"], rtol=1e-6)


@pytest.mark.slow
@torch.inference_mode()
def test_wav2lip_computes_the_golden_faces(vectors: dict[str, np.ndarray]) -> None:
    mel, face = uniform("input/mel", (2, 1, 80, 16), -4, 4), uniform("input/face", (2, 6, 96, 96), 0, 1)
    assert_close(filled("wav2lip")(mel, face), vectors["wav2lip_out"])


@pytest.mark.slow
@torch.inference_mode()
def test_expert_computes_the_golden_embeddings(vectors: dict[str, np.ndarray]) -> None:
    mel, window = uniform("input/mel", (2, 1, 80, 16), -4, 4), uniform("input/window", (2, 15, 48, 96), 0, 1)
    audio, face = filled("expert")(mel, window)
    assert_close(audio, vectors["expert_audio"])
    assert_close(face, vectors["expert_face"])


@pytest.mark.slow
@torch.inference_mode()
def test_quality_computes_the_golden_verdicts(vectors: dict[str, np.ndarray]) -> None:
    faces, quality = uniform("input/faces5", (1, 3, 5, 96, 96), 0, 1), filled("quality")
    assert_close(quality(faces), vectors["quality_out"])
    assert_close(quality.features(faces), vectors["quality_features"])


@pytest.mark.slow
@torch.inference_mode()
def test_quality_rows_are_time_major() -> None:
    faces, quality = torch.rand(2, 3, 3, 96, 96), Quality().eval()
    row = quality.features(faces)[2 * 2 + 1]  # frame 2 of item 1
    torch.testing.assert_close(row, quality.features(faces[1:, :, 2:])[0])


@pytest.mark.slow
@torch.inference_mode()
def test_syncnet_computes_the_golden_embeddings(vectors: dict[str, np.ndarray]) -> None:
    lip, mfcc = (
        uniform("input/lip", (2, 3, 5, 224, 224), 0, 255),
        uniform("input/mfcc", (2, 1, 13, 20), -20, 20),
    )
    lips, sounds = filled("syncnet")(lip, mfcc)
    assert_close(lips, vectors["syncnet_lip"])
    assert_close(sounds, vectors["syncnet_aud"])


@torch.inference_mode()
def test_narrow_networks_keep_their_shapes() -> None:
    face = Wav2Lip(width=4).eval()(torch.zeros(1, 1, 80, 16), torch.zeros(1, 6, 96, 96))
    assert face.shape == (1, 3, 96, 96)
    lips, sounds = SyncNet(width=4).eval()(torch.zeros(1, 3, 5, 224, 224), torch.zeros(1, 1, 13, 20))
    assert lips.shape == sounds.shape == (1, 1024)


@pytest.mark.slow
@torch.inference_mode()
def test_shipped_weights_load_strictly_and_follow_the_sound() -> None:
    network = Wav2Lip(width=8).eval()
    network.load_state_dict(read(WEIGHTS / "wav2lip-lab.safetensors"), strict=True)
    face = uniform("input/face", (1, 6, 96, 96), 0, 1).repeat(2, 1, 1, 1)
    mel = torch.cat((torch.full((1, 1, 80, 16), -4.0), uniform("input/mel", (1, 1, 80, 16), -4, 4)))
    silent, loud = network(mel, face)
    assert silent.min() >= 0 and silent.max() <= 1
    assert (silent - loud).abs().max() > 0.05


@pytest.mark.slow
@torch.inference_mode()
def test_sfd_computes_the_golden_boxes(golden: Path) -> None:
    reference = dict(np.load(golden / "sfd.npz"))
    loc, conf, priors = filled("sfd")(uniform("input/sfd", (1, 3, 96, 128), -120, 140))
    assert_close(loc[0], reference["loc"])
    assert_close(conf[0], reference["conf"])
    assert_close(priors, reference["priors"])
    decoded = sfd.decode(loc[0], priors)
    assert_close(decoded, reference["decoded"])
    boxes, scores = sfd.suppress(decoded.numpy(), conf[0, :, 1].numpy())
    found = np.concatenate((scores[:, None], boxes), axis=1)[:50]
    assert_close(torch.from_numpy(found), reference["detections"])


@torch.inference_mode()
def test_detect_gives_boxes_in_pixels_of_the_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = np.empty((400, 800, 3), np.uint8)
    frame[:] = (123, 117, 104)  # the mean colour, so that the network sees zeros
    prior = sfd.priors(100, 200, [(25, 50), (13, 25), (7, 13), (4, 7), (2, 4), (1, 2)])
    hits = [5 * 50 + 7, 5 * 50 + 8, 20 * 50 + 40]  # the second overlaps the first: 12 of 20 px

    def forward(network: S3FD, picture: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        assert picture.shape == (1, 3, 100, 200) and not picture.any()
        conf = torch.zeros(1, len(prior), 2)
        conf[0, hits, 1] = torch.tensor([0.99, 0.95, 0.91])
        conf[0, 0, 1] = 0.9  # not above the confidence
        return torch.zeros(1, len(prior), 4), conf, prior

    monkeypatch.setattr(S3FD, "forward", forward)
    boxes, scores = S3FD().detect(frame)
    np.testing.assert_allclose(scores, [0.99, 0.91])
    np.testing.assert_allclose(boxes, [[88, 56, 152, 120], [616, 296, 680, 360]], rtol=1e-5)


def test_detect_finds_nothing_in_a_tiny_frame() -> None:
    boxes, scores = S3FD().eval().detect(np.zeros((40, 1, 3), np.uint8))
    assert boxes.shape == (0, 4) and scores.shape == (0,)


@pytest.mark.slow
@pytest.mark.parametrize("height, width", [(130, 97), (33, 61)])
@torch.inference_mode()
def test_sfd_priors_follow_odd_sizes(height: int, width: int) -> None:
    loc, conf, priors = S3FD().eval()(torch.zeros(1, 3, height, width))
    assert loc.shape == (1, len(priors), 4) and conf.shape == (1, len(priors), 2)


def test_the_face_network_gives_dlibs_numbers() -> None:
    """The first twelve of dlib 20.0.1 itself with its own file; ours is stored as int8."""
    face = np.ascontiguousarray(astronaut()[50:200, 150:300])
    network = registry.load("face-embedding")
    found = network.embed(np.stack([face, face[:, ::-1]]))
    assert found.shape == (2, 128) and found.dtype == np.float32
    dlibs = [-0.055, 0.0653, 0.0071, 0.0131, -0.1722, -0.009, -0.005, -0.1673, 0.0877, -0.0937, 0.1939, -0.1179]
    np.testing.assert_allclose(found[0, :12], dlibs, atol=0.006)
    assert found[0] @ found[1] / np.linalg.norm(found[0]) / np.linalg.norm(found[1]) > 0.9, "a face and its mirror"
    assert network.embed(np.zeros((0, 150, 150, 3), np.uint8)).shape == (0, 128)
