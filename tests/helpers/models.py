"""CopyModel: a lip-sync model that gives back what it sees, for tests that are not about pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lipsync.checkpoints.registry import write_card
from lipsync.models import base
from lipsync.models.base import AudioWindow, LipSyncModel
from lipsync.models.speech2vid import MEAN_SHAPE
from tests.conftest import ROOT


class Copy(nn.Module):
    """The reference, its darkest value raised by how loud the sound is."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.zeros(1))

    def forward(self, mel: Tensor, face: Tensor) -> Tensor:
        return face + self.gain * mel.mean()


class CopyModel(LipSyncModel):
    """Gives the crop back; sees a mel like Wav2Lip's."""

    inputs = {"mel": (1, 80, 16), "face": (3, 96, 96)}
    audio = AudioWindow("mel", 16)

    @staticmethod
    def network() -> nn.Module:
        return Copy()

    def prepare(self, crops: np.ndarray, references: np.ndarray, windows: np.ndarray) -> dict[str, np.ndarray]:
        return {"mel": windows[:, None], "face": crops.transpose(0, 3, 1, 2).astype(np.float32) / 255}

    def finish(self, outputs: dict[str, np.ndarray], crops: np.ndarray, references: np.ndarray) -> np.ndarray:
        return (outputs["picture"].clip(0, 1) * 255 + 0.5).astype(np.uint8).transpose(0, 2, 3, 1)


def register_untrained(folder: Path, architecture: str, name: str, **config) -> str:
    """A checkpoint of random weights, seeded, in a folder (of LIPSYNC_WEIGHTS); returns its name."""
    torch.manual_seed(0)
    network = base.model_class(architecture).network(**config).eval()
    path = folder / f"{name}.safetensors"
    save_file({k: v.contiguous().clone() for k, v in network.state_dict().items()}, path)
    crop = json.loads((ROOT / "lipsync" / "weights" / "wav2lip-lab.json").read_text())["crop"]
    crop |= {"size_px": next(shape[-1] for shape in reversed(base.model_class(architecture).inputs.values()))}
    crop["landmarks"] = MEAN_SHAPE
    write_card(path, {"architecture": architecture, "config": config, "crop": crop, "licence": "none"})
    return name


@pytest.fixture()
def copy_model(tmp_path, monkeypatch) -> str:
    """The name of a registered CopyModel."""
    monkeypatch.setitem(base.MODELS, "copy", CopyModel)
    folder = tmp_path / "weights"
    folder.mkdir()
    monkeypatch.setenv("LIPSYNC_WEIGHTS", str(folder))
    return register_untrained(folder, "copy", "copy-test")
