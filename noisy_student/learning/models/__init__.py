"""The network: films in [0, 1] -> normalisation -> backbone -> head -> logits.

Every backbone loses its own last layer and its own dropout, so the head, its dropout and the features before it are in
one place whatever the architecture.
"""

from noisy_student.learning.models.backbones import SMALL_RESNET, small_resnet
from noisy_student.learning.models.building import build
from noisy_student.learning.models.compiled import Compiled
from noisy_student.learning.models.network import Network, Normalisation, parameter_count
from noisy_student.learning.models.weights import check_weights, load_weights

__all__ = [
    "SMALL_RESNET",
    "Compiled",
    "Network",
    "Normalisation",
    "build",
    "check_weights",
    "load_weights",
    "parameter_count",
    "small_resnet",
]
