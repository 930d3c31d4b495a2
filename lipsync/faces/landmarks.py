"""The points of a face: MediaPipe's numbering of its 468-point mesh, which of them are what, and the 29 that are kept.

Right and left are the person's own. Eye corners and the base of the nose do not move with speech.
"""

import numpy as np

COUNT = 468

# In the mesh.
RIGHT_EYE, LEFT_EYE = [33, 133], [263, 362]  # outer corner, inner corner
EYES = RIGHT_EYE + LEFT_EYE
NOSE = [2, 98, 327]  # base, right and left wing
_JAW = [93, 132, 58, 172, 136, 150, 149, 176, 148, 152, 377, 400, 378, 379, 365, 397, 288, 361, 323]
MOUTH_CORNERS, INNER_CORNERS = [61, 291], [78, 308]  # of the outer and of the inner contour: right, left
UPPER_LIP, LOWER_LIP = 13, 14  # middles of the inner contour
# Both contours from the right corner (left in the picture) along the lower lip.
OUTER_LIPS = [61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185]
INNER_CONTOUR = [78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191]

# What a track keeps of it, and places in that.
# 2 is the base of the nose, 4 its tip.
LANDMARK_IDS = _JAW + [2, 4] + MOUTH_CORNERS + [UPPER_LIP, LOWER_LIP] + EYES
JAW, NOSE_BASE, NOSE_TIP, CORNERS, INNER_LIPS = slice(0, 19), 19, 20, slice(21, 23), slice(23, 25)
EYE_CORNERS = slice(25, 29)
STEADY = [25, 26, 27, 28, 19, 20]  # of those kept, what does not move with speech: eye corners, nose


def lip_gap(landmarks: np.ndarray) -> np.ndarray:
    """Height of the open mouth of kept landmarks (..., 29, 2): (...), in their unit."""
    upper, lower = np.moveaxis(landmarks[..., INNER_LIPS, :], -2, 0)
    return np.linalg.norm(upper - lower, axis=-1)
