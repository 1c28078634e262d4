"""Semi-supervised chest X-ray classification by noisy-student self-training."""

__version__ = "0.1.0"
