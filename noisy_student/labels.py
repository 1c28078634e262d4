"""The 14 CheXpert observations, the five competition labels, and the names other data sets use for them."""

from __future__ import annotations

from typing import Final

OBSERVATIONS: Final[tuple[str, ...]] = (
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)
"""The observations of CheXpert (Irvin et al. 2019) in the order of its table."""

COMPETITION: Final[tuple[str, ...]] = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Pleural Effusion",
)
"""The five labels over which the CheXpert competition averages AUROC."""

ALIASES: Final[dict[str, str]] = {
    "Airspace Opacity": "Lung Opacity",
    "Effusion": "Pleural Effusion",
    "Pleural_Thickening": "Pleural Other",
}
"""Names of other data sets -> our name, where they mean the same observation."""


def canonical(name: str) -> str:
    """Return the name we use for ``name``: spaces for underscores, aliases resolved, unknown names unchanged."""
    if name in ALIASES:
        return ALIASES[name]
    spaced = name.strip().replace("_", " ")
    by_lower = {known.lower(): known for known in OBSERVATIONS}
    return ALIASES.get(spaced, by_lower.get(spaced.lower(), name.strip()))
