"""Reports from the files of a run: JSON for programs, one self-contained page for people."""

from noisy_student.reporting.report import table, write_generation, write_overall

__all__ = ["table", "write_generation", "write_overall"]
