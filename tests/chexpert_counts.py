"""What CheXpert's train.csv holds, counted from the official table (223,414 rows)."""

from __future__ import annotations

TRAIN: dict[str, tuple[int, int, int]] = {
    "No Finding": (22381, 0, 0),
    "Enlarged Cardiomediastinum": (10798, 12403, 21638),
    "Cardiomegaly": (27000, 8087, 11116),
    "Lung Opacity": (105581, 5598, 6599),
    "Lung Lesion": (9186, 1488, 1270),
    "Edema": (52246, 12984, 20726),
    "Consolidation": (14783, 27742, 28097),
    "Pneumonia": (6039, 18770, 2799),
    "Atelectasis": (33376, 33739, 1328),
    "Pneumothorax": (19448, 3145, 56341),
    "Pleural Effusion": (86187, 11628, 35396),
    "Pleural Other": (3523, 2653, 316),
    "Fracture": (9040, 642, 2512),
    "Support Devices": (116001, 1079, 6137),
}
"""Positive, uncertain and negative films of each label."""

ROWS, STUDIES, PATIENTS = 223_414, 187_641, 64_540
