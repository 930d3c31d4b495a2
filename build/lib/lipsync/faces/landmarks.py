"""The 25 points of a face that are kept of mediapipe's 468, and which of them are what."""

_JAW = [93, 132, 58, 172, 136, 150, 149, 176, 148, 152, 377, 400, 378, 379, 365, 397, 288, 361, 323]
_LIPS = [61, 291, 13, 14]  # corners, inner upper, inner lower
KEPT = _JAW + [2, 4] + _LIPS
JAW, NOSE_BASE, NOSE_TIP, CORNERS, INNER_LIPS = slice(0, 19), 19, 20, slice(21, 23), slice(23, 25)
