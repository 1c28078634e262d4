"""Labels by name: the 14 CheXpert observations, what other data sets call theirs, and which finding contains which.

A label has one name in this package, whatever the data set writes. So a model trained on one set can be measured on
another over the labels that both know.
"""

from __future__ import annotations

from collections.abc import Iterable
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
"""The observations of CheXpert (Irvin et al. 2019) in the order of its table; MIMIC-CXR-JPG has the same."""

COMPETITION: Final[tuple[str, ...]] = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Pleural Effusion",
)
"""The five labels over which the CheXpert competition averages AUROC."""

NIH: Final[tuple[str, ...]] = (
    "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion", "Emphysema", "Fibrosis", "Hernia",
    "Infiltration", "Mass", "Nodule", "Pleural Thickening", "Pneumonia", "Pneumothorax",
)  # fmt: skip
"""The 14 findings of NIH ChestX-ray14 (Wang et al. 2017) by our names; its table also has ``No Finding``."""

VINDR: Final[tuple[str, ...]] = (
    "Aortic Enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Clavicle Fracture", "Consolidation", "Edema",
    "Emphysema", "Enlarged PA", "ILD", "Infiltration", "Lung Opacity", "Lung Cavity", "Lung Cyst", "Mediastinal Shift",
    "Lung Lesion", "Pleural Effusion", "Pleural Thickening", "Pneumothorax", "Fibrosis", "Rib Fracture", "Other Lesion",
    "COPD", "Lung Tumor", "Pneumonia", "Tuberculosis", "Other Disease", "No Finding",
)  # fmt: skip
"""The findings of VinDr-CXR (Nguyen et al. 2022) by our names, in the order of its table."""

_DEVICES: Final = (
    "pacemaker", "dual chamber device", "single chamber device", "electrical device", "NSG tube", "endotracheal tube",
    "tracheostomy tube", "gastrostomy tube", "chest drain tube", "ventriculoperitoneal drain tube", "catheter",
    "central venous catheter", "central venous catheter via jugular vein",
    "central venous catheter via subclavian vein", "central venous catheter via umbilical vein",
    "reservoir central venous catheter", "artificial heart valve", "artificial mitral heart valve",
    "artificial aortic heart valve", "aortic endoprosthesis",
)  # fmt: skip

PADCHEST: Final[dict[str, tuple[str, ...]]] = {
    "No Finding": ("normal",),
    "Cardiomegaly": ("cardiomegaly",),
    "Edema": ("pulmonary edema",),
    "Consolidation": ("consolidation", "air bronchogram"),
    "Pneumonia": ("pneumonia", "atypical pneumonia"),
    "Atelectasis": (
        "atelectasis", "laminar atelectasis", "lobar atelectasis", "segmental atelectasis", "round atelectasis",
        "total atelectasis", "atelectasis basal",
    ),
    "Pneumothorax": ("pneumothorax", "hydropneumothorax"),
    "Pleural Effusion": (
        "pleural effusion", "loculated pleural effusion", "loculated fissural effusion", "hydropneumothorax", "empyema",
    ),
    "Pleural Thickening": ("pleural thickening", "apical pleural thickening", "calcified pleural thickening"),
    "Fracture": (
        "fracture", "rib fracture", "callus rib fracture", "clavicle fracture", "humeral fracture",
        "vertebral fracture",
    ),
    "Support Devices": _DEVICES,
    "Emphysema": ("emphysema",),
    "Fibrosis": ("pulmonary fibrosis",),
    "Hernia": ("hiatal hernia",),
    "Infiltration": ("infiltrates",),
    "Mass": ("pulmonary mass", "mass"),
    "Nodule": ("nodule", "multiple nodules"),
    "Tuberculosis": ("tuberculosis",),
}  # fmt: skip
"""Our label -> the terms of PadChest's reports (Bustos et al. 2020) that make it positive. Any of its terms can be a
label by its own name as well."""

UNIONS: Final[dict[str, tuple[str, ...]]] = {"Lung Lesion": ("Nodule", "Mass")}
"""Our label -> labels that together mean it, for a data set that has only those."""

PARENTS: Final[dict[str, tuple[str, ...]]] = {
    "Enlarged Cardiomediastinum": ("Cardiomegaly",),
    "Lung Opacity": ("Lung Lesion", "Edema", "Consolidation", "Pneumonia", "Atelectasis"),
}
"""Finding -> the findings it contains (Irvin et al. 2019, figure 1)."""

ALIASES: Final[dict[str, str]] = {
    # NIH and torchxrayvision (which also writes Pleural_Thickening, Lung Opacity, Enlarged Cardiomediastinum)
    "Effusion": "Pleural Effusion",
    "Airspace Opacity": "Lung Opacity",
    # VinDr-CXR, whose test table has another name for one column
    "Nodule/Mass": "Lung Lesion",
    "Pulmonary Fibrosis": "Fibrosis",
    "Other Diseases": "Other Disease",
    # PadChest
    "Normal": "No Finding",
    "Pulmonary Edema": "Edema",
    "Infiltrates": "Infiltration",
    "Hiatal Hernia": "Hernia",
    "Pulmonary Mass": "Mass",
    # British spelling
    "Oedema": "Edema",
    "Pulmonary Oedema": "Edema",
}
"""Names of other data sets -> our name, where they mean the same; case and underscores do not matter."""

_NIH_NAMES: Final[dict[str, str]] = {"Pleural Effusion": "Effusion", "Pleural Thickening": "Pleural_Thickening"}
_VINDR_NAMES: Final[dict[str, str]] = {"Lung Lesion": "Nodule/Mass", "Fibrosis": "Pulmonary fibrosis"}
SPELLINGS: Final[dict[str, dict[str, str]]] = {
    "nih": {name: _NIH_NAMES.get(name, name) for name in (*NIH, "No Finding")},
    "torchxrayvision": {
        name: _NIH_NAMES.get(name, name)
        for name in (*NIH, "Lung Lesion", "Fracture", "Lung Opacity", "Enlarged Cardiomediastinum")
    },
    "vindr": {
        name: _VINDR_NAMES.get(name, name if name.isupper() or name == "Lung Opacity" else name.capitalize())
        for name in VINDR
    } | {"Enlarged PA": "Enlarged PA", "Other Disease": "Other diseases"},
    "mimic": {name: name for name in OBSERVATIONS},
    "padchest": {name: terms[0] for name, terms in PADCHEST.items() if name != "Support Devices"},
}  # fmt: skip
"""Data set -> our name -> the name in its files (of PadChest, the main term); :func:`canonical` goes back."""


def _key(name: str) -> str:
    return " ".join(name.replace("_", " ").split()).lower()


_CANONICAL: Final[dict[str, str]] = {
    **{_key(name): name for name in (*PADCHEST, *VINDR, *NIH, *OBSERVATIONS)},
    **{_key(theirs): ours for theirs, ours in ALIASES.items()},
}


def canonical(name: str) -> str:
    """Return our name for ``name``: aliases resolved, case and underscores aside; an unknown name only stripped."""
    return _CANONICAL.get(_key(name), name.strip())


def is_known(name: str) -> bool:
    """Return whether ``name`` is a finding of this package or a name of one."""
    return _key(name) in _CANONICAL


def shared(first: Iterable[str], second: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Return the pairs (name in ``first``, name in ``second``) that mean the same label, in the order of ``first``."""
    theirs = {canonical(name): name for name in second}
    return tuple((name, theirs[canonical(name)]) for name in first if canonical(name) in theirs)
