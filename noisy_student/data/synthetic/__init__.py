"""Chest X-ray phantoms in CheXpert layout: the data set that needs no download, licence or patient."""

from __future__ import annotations

from noisy_student.data.synthetic.dataset import VERSION, write_dataset
from noisy_student.data.synthetic.render import render
from noisy_student.data.synthetic.sheet import contact_sheet, findings_sheet

__all__ = ["VERSION", "contact_sheet", "findings_sheet", "render", "write_dataset"]
