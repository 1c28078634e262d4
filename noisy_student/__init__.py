"""Semi-supervised chest X-ray classification by noisy-student self-training."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["evaluate", "iterate", "load", "predict"]

if TYPE_CHECKING:
    from noisy_student.api import evaluate, iterate, load, predict


def __getattr__(name: str) -> Any:
    """Return a function of :mod:`noisy_student.api`, which is imported when it is first asked for."""
    if name in __all__:
        from noisy_student import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
