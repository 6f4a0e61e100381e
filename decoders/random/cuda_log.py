"""The logarithm that a CUDA device's ``__logf`` gives, bit for bit, which torch's exponentials there are made of.

``__logf(x)`` is ``lg2.approx(x)`` times ln 2 in float32. The device takes that logarithm from a table of 64 pieces of
[1, 2), in each a parabola in whole numbers (Oberman and Siu 2005, "A high-performance area-efficient multifunction
interpolator"; how it rounds is known from envytools' description of the G80). The table below was fitted to all that
an H200 answers, and gives its answer for each of the 2**23 significands at the exponents −1 and 0 (but for 1 itself)
and at eight others down to −32. The pieces came out as the G80's, so that the devices between should answer alike.
"""

from __future__ import annotations

from functools import cache

import numpy as np

Array = np.ndarray
LN2 = np.float32(0.693147182)

# Of each piece: value (2**-26), slope, and curvature, which is negative.
PIECES = np.array(
    [
        (7, 47272, 727),
        (1501082, 46545, 705),
        (2979248, 45840, 685),
        (4435178, 45156, 665),
        (5869541, 44492, 646),
        (7282962, 43847, 627),
        (8676044, 43221, 610),
        (10049363, 42612, 592),
        (11403483, 42020, 576),
        (12738917, 41444, 559),
        (14056184, 40884, 544),
        (15355769, 40339, 530),
        (16638140, 39809, 518),
        (17903743, 39292, 504),
        (19153023, 38788, 491),
        (20386388, 38297, 479),
        (21604233, 37818, 466),
        (22806955, 37351, 455),
        (23994917, 36896, 445),
        (25168476, 36451, 433),
        (26327983, 36018, 425),
        (27473763, 35594, 414),
        (28606145, 35180, 404),
        (29725438, 34776, 396),
        (30831938, 34380, 385),
        (31925933, 33994, 377),
        (33007706, 33616, 368),
        (34077525, 33247, 361),
        (35135650, 32886, 354),
        (36182341, 32532, 346),
        (37217834, 32186, 339),
        (38242366, 31847, 331),
        (39256173, 31516, 326),
        (40259472, 31191, 319),
        (41252485, 30872, 311),
        (42235415, 30561, 307),
        (43208464, 30255, 300),
        (44171830, 29955, 293),
        (45125709, 29662, 289),
        (46070275, 29374, 283),
        (47005716, 29091, 276),
        (47932209, 28814, 271),
        (48849920, 28542, 266),
        (49759008, 28276, 262),
        (50659645, 28014, 257),
        (51551985, 27757, 253),
        (52436169, 27505, 249),
        (53312352, 27257, 244),
        (54180676, 27013, 238),
        (55041283, 26774, 234),
        (55894308, 26540, 232),
        (56739878, 26309, 227),
        (57578134, 26082, 223),
        (58409191, 25859, 219),
        (59233179, 25640, 216),
        (60050209, 25424, 211),
        (60860399, 25213, 209),
        (61663869, 25004, 204),
        (62460730, 24799, 201),
        (63251080, 24598, 199),
        (64035037, 24399, 195),
        (64812691, 24204, 192),
        (65584149, 24012, 189),
        (66349508, 23823, 186),
    ],
    np.int64,
)


def log(x: Array) -> Array:
    """``__logf`` of (n,) positive float32 numbers that are not subnormal, and not 1: (n,) float32."""
    bits = x.view(np.uint32).astype(np.int64)
    exponent, significand = (bits >> 23) - 127, bits & (2**23 - 1)
    value, slope, curvature = PIECES[significand >> 17].T
    rest = significand & (2**17 - 1)
    fixed = (value * 4096 + slope * rest - 2 * curvature * squares()[rest] + 0x345) >> 2
    fixed += exponent << 36
    negative = fixed < 0
    fixed = np.where(negative, ~fixed, fixed)
    # The bits below float32's are cut off, not rounded.
    cut = (fixed.astype(np.float64).view(np.int64) & -(2**29)).view(np.float64) * 2.0**-36
    return np.where(negative, -cut, cut).astype(np.float32) * LN2


@cache
def squares() -> Array:
    """The squares of the 17 bits within a piece, each row of the product cut off as the device does: (2**17,) int64."""
    x = np.arange(2**17, dtype=np.int64)
    return np.sum([(x >> bit & 1) * (x >> 18 - bit) for bit in range(17)], axis=0) >> 1
