"""Input noise for films: drawn per film, applied to a whole batch at once.

What a film gets is a pure function of (seed, generation, position in the sample sequence, image id): on the CPU, bit
for bit, whatever else is in the batch. Kornia's random transforms draw per batch, so the draws are ours
(:mod:`draws`). All geometry is one warp per film (:mod:`geometry`), all point operations are one table of 256 levels
(:mod:`tone`); filters touch the films that drew them (:mod:`filters`), and the rest is in :mod:`texture`. Mixing two
films is apart (:mod:`mixing`), because it also mixes targets.
"""

from __future__ import annotations

from noisy_student.learning.augment.draws import Draws, draw
from noisy_student.learning.augment.mixing import Mixing, draw_mixing, mix, mixes
from noisy_student.learning.augment.pipeline import Augment
from noisy_student.learning.augment.sheets import contact_sheet, preview
from noisy_student.learning.augment.tone import to_float

__all__ = ["Augment", "Draws", "Mixing", "contact_sheet", "draw", "draw_mixing", "mix", "mixes", "preview", "to_float"]
