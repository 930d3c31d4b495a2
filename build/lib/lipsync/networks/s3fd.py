"""S3FD, the face detector of the published scoring: network, priors, decoding, suppression, `detect`.

Source: Zhang et al., arXiv 1708.05237; arithmetic in protocol.md section 2. Names, shapes and order of all
tensors are those of the published `sfd_face.pth`, so that it loads strictly. One point differs from the
protocol's text: the published scoring turns the picture to BGR to subtract the mean and then back again, so the
network sees RGB.
"""

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

STRIDES_PX = (4, 8, 16, 32, 64, 128)  # of the six maps that faces are read from
SIDES_PX = (16, 32, 64, 128, 256, 512)  # of the one square prior in each of their cells
VARIANCES = (0.1, 0.2)  # of centre and size
MEAN_RGB = (123.0, 117.0, 104.0)
_VGG = (
    64,
    64,
    "pool",
    128,
    128,
    "pool",
    256,
    256,
    256,
    "ceil pool",
    512,
    512,
    512,
    "pool",
    512,
    512,
    512,
    "pool",
)


class L2Norm(nn.Module):
    """Each pixel's channels scaled to length 1, times a learnt scale per channel."""

    def __init__(self, channels: int, scale: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), float(scale)))

    def forward(self, x: Tensor) -> Tensor:
        length = x.square().sum(dim=1, keepdim=True).sqrt() + 1e-10
        return x / length * self.weight[:, None, None]


def _vgg() -> nn.ModuleList:
    """VGG-16 up to conv5_3 and its pooling, then the two fully connected layers as convolutions."""
    layers: list[nn.Module] = []
    inputs = 3
    for step in _VGG:
        if isinstance(step, str):
            layers.append(nn.MaxPool2d(2, ceil_mode=step == "ceil pool"))
        else:
            layers += [nn.Conv2d(inputs, step, 3, padding=1), nn.ReLU()]
            inputs = step
    layers += [nn.Conv2d(512, 1024, 3, padding=6, dilation=6), nn.ReLU(), nn.Conv2d(1024, 1024, 1), nn.ReLU()]
    return nn.ModuleList(layers)


class S3FD(nn.Module):
    """The detector; `detect` is what callers want."""

    def __init__(self) -> None:
        super().__init__()
        self.vgg = _vgg()
        self.L2Norm3_3 = L2Norm(256, 10)
        self.L2Norm4_3 = L2Norm(512, 8)
        self.L2Norm5_3 = L2Norm(512, 5)
        self.extras = nn.ModuleList(
            [
                nn.Conv2d(1024, 256, 1),
                nn.Conv2d(256, 512, 3, stride=2, padding=1),
                nn.Conv2d(512, 128, 1),
                nn.Conv2d(128, 256, 3, stride=2, padding=1),
            ]
        )
        widths = (256, 512, 512, 1024, 512, 256)
        self.loc = nn.ModuleList(nn.Conv2d(width, 4, 3, padding=1) for width in widths)
        # The finest map has three background scores, of which the largest counts: it sees most false alarms.
        self.conf = nn.ModuleList(nn.Conv2d(width, 2 if i else 4, 3, padding=1) for i, width in enumerate(widths))

    def _sources(self, x: Tensor) -> list[Tensor]:
        """The six maps that faces are read from, strides 4 to 128."""
        norms = {
            15: self.L2Norm3_3,
            22: self.L2Norm4_3,
            29: self.L2Norm5_3,
        }  # after the ReLU of conv3_3, 4_3, 5_3
        sources = []
        for i, layer in enumerate(self.vgg):
            x = layer(x)
            if i in norms:
                sources.append(norms[i](x))
        sources.append(x)
        for i, layer in enumerate(self.extras):
            x = functional.relu(layer(x))
            if i % 2:
                sources.append(x)
        return sources

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Score every prior.

        pictures  (B, 3, H, W) float32, RGB 0..255 minus MEAN_RGB
        returns   loc (B, P, 4) offsets to the priors; conf (B, P, 2) probabilities of background and face;
                  priors (P, 4), from `priors`
        """
        sources = self._sources(pictures)
        locs, confs = [], []
        for source, to_loc, to_conf in zip(sources, self.loc, self.conf, strict=True):
            conf = to_conf(source)
            if conf.shape[1] == 4:
                conf = torch.cat((conf[:, :3].amax(dim=1, keepdim=True), conf[:, 3:]), dim=1)
            locs.append(to_loc(source).permute(0, 2, 3, 1).flatten(1, 2))
            confs.append(conf.permute(0, 2, 3, 1).flatten(1, 2))
        height, width = pictures.shape[2:]
        shapes = [tuple(source.shape[2:]) for source in sources]
        return torch.cat(locs, dim=1), torch.cat(confs, dim=1).softmax(dim=-1), priors(height, width, shapes)

    @torch.inference_mode()
    def detect(self, frame: np.ndarray, scale: float = 0.25, confidence: float = 0.9) -> tuple[np.ndarray, np.ndarray]:
        """Find faces in one frame.

        frame       (H, W, 3) uint8, RGB
        scale       the picture is shrunk by this much first (0.25 is the published scoring's)
        confidence  0..1, faces below it are dropped
        returns     boxes (N, 4) float32, x0 y0 x1 y1 in pixels of `frame`, may reach beyond it, best first;
                    scores (N,) float32, confidence..1; none in a frame below 32 px after scaling
        """
        height, width = frame.shape[:2]
        size = max(1, round(width * scale)), max(1, round(height * scale))
        small = cv2.resize(frame, size, interpolation=cv2.INTER_LINEAR)
        centred = small.astype(np.float32) - np.float32(MEAN_RGB)
        picture = torch.from_numpy(centred.transpose(2, 0, 1).copy())[None].to(self.loc[0].weight.device)
        if min(picture.shape[2:]) < STRIDES_PX[3]:  # the poolings would leave nothing
            return np.zeros((0, 4), np.float32), np.zeros(0, np.float32)
        loc, conf, prior = self(picture)
        boxes, scores = suppress(decode(loc[0], prior).cpu().numpy(), conf[0, :, 1].cpu().numpy())
        sure = scores > confidence
        boxes, scores = boxes[sure] * np.float32([width, height, width, height]), scores[sure]
        keep = nms(boxes, scores, overlap=0.1)
        return boxes[keep], scores[keep]


def priors(height: int, width: int, shapes: list[tuple[int, int]]) -> Tensor:
    """One square prior in the middle of each cell of the six maps.

    height, width  of the network's input picture, pixels
    shapes         rows and columns of each map
    returns        (P, 4) float32: centre x, centre y, width, height, as fractions of the picture
    """
    rows = []
    for (n_rows, n_columns), stride, side in zip(shapes, STRIDES_PX, SIDES_PX, strict=True):
        y, x = np.mgrid[:n_rows, :n_columns] + 0.5
        size = np.full(y.size, side)
        rows.append(np.stack((x.ravel() * stride / width, y.ravel() * stride / height, size / width, size / height)))
    return torch.from_numpy(np.concatenate(rows, axis=1).T.astype(np.float32))


def decode(loc: Tensor, prior: Tensor) -> Tensor:
    """Boxes from offsets: loc (P, 4) and priors (P, 4) -> (P, 4) x0 y0 x1 y1, fractions of the picture."""
    prior = prior.to(loc.device)
    centre = prior[:, :2] + loc[:, :2] * VARIANCES[0] * prior[:, 2:]
    size = prior[:, 2:] * torch.exp(loc[:, 2:] * VARIANCES[1])
    corner = centre - size / 2
    return torch.cat((corner, corner + size), dim=1)


def nms(boxes: np.ndarray, scores: np.ndarray, overlap: float, floor: float = 0.0, most: int = 0) -> np.ndarray:
    """Non-maximum suppression: indices of the boxes to keep, best first.

    boxes (N, 4) x0 y0 x1 y1; scores (N,); overlap: largest intersection over union of two kept boxes, 0..1;
    floor: only scores above it; most: only so many of the best go in (0: all).
    """
    sizes = np.concatenate((boxes[:, :2], boxes[:, 2:] - boxes[:, :2]), axis=1, dtype=np.float64)
    keep = cv2.dnn.NMSBoxes(sizes, scores.astype(np.float32), floor, overlap, top_k=most)
    return np.asarray(keep, dtype=np.intp)


def suppress(boxes: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The published first pass: scores above 0.05, the best 5,000, overlap 0.3, at most 750 kept."""
    keep = nms(boxes, scores, overlap=0.3, floor=0.05, most=5000)[:750]
    return boxes[keep], scores[keep]
