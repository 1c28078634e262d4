"""``python -m noisy_student`` is ``ns``."""

from noisy_student.cli import main

main()
