"""Rules of the published ReSyncED inference (protocol.md section 7): how far frames are made smaller, which repeat."""

from __future__ import annotations

CAP_PX, LEAST_PX, FACE_PX = 720, 480, 180


def rescale(height: int, width: int, face: int) -> int:
    """The integer factor by which frames are made smaller before inference.

    height, width, face  pixels of the frame and of its face's side, before or after the cap of 720 pixels; after it the
                         factor is 1
    """
    shorter, factor = min(height, width), 1
    while shorter // (factor + 1) >= LEAST_PX and abs(face // (factor + 1) - FACE_PX) < abs(face - FACE_PX):
        factor += 1
    return factor


def capped(height: int, width: int) -> tuple[int, int]:
    """(height, width) after the shorter side was brought down to 720 pixels, where it is longer."""
    shorter = min(height, width)
    return (height, width) if shorter <= CAP_PX else (height * CAP_PX // shorter, width * CAP_PX // shorter)


def tts_frames(frames: int, wanted: int, rule: str = "even") -> list[int]:
    """Which frame of a clip that is too short for a voice is shown when: `wanted` indices in 0 .. frames - 1.

    rule  "even" repeats frames evenly; "published" holds the first one until the rest is just long enough
    Raises ValueError where there are no frames or no such rule. A clip that is long enough is cut.
    """
    if frames < 1 or wanted < 0 or rule not in ("even", "published"):
        raise ValueError(f"{frames} frames, {wanted} wanted, rule {rule!r}")
    extra = max(wanted - frames, 0)
    if rule == "published":
        return [max(i - extra, 0) for i in range(wanted)]
    return [i * frames // wanted for i in range(wanted)] if extra else list(range(wanted))
