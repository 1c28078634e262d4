"""Several processes on one run, as ``torchrun`` starts them: the first one leads, the others do their part.

The first process runs every stage as if it were alone. Before a network is trained, or asked of many films, it tells
the others which; they make the same task from the files of the run and share its steps, and go back to waiting. So
there is one place that decides and one that writes, and a run does not depend on how many processes work on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace

from noisy_student import launch, preparation, training
from noisy_student.config import Config
from noisy_student.errors import ConfigError, DivergedError, PeerError, StoppedError
from noisy_student.runs import Run
from noisy_student.workplace import Workplace


def check_batches(config: Config, size: int) -> None:
    """Check that every batch can be shared equally by ``size`` processes.

    Raises:
        ConfigError: a batch size is not a multiple of ``size``, or leaves a process a single film.
    """
    if size == 1:
        return
    sizes = [
        (f"generations.{number}" if number in config.generations else "student" if number else "teacher", phase.optim)
        for number in config.phases()
        for phase in config.networks(number)
    ]
    if config.pretrain.method != "none":
        sizes.append(("pretrain", config.pretrain.optim))
    for place, optim in sizes:
        count = optim.batch_size
        if count % size == 0 and count >= 2 * size:
            continue
        raise ConfigError(
            f"{place}.optim.batch_size: {count} films cannot be shared by {size} processes, two or more for each",
            f"Take a multiple of {size}, {2 * size} or more, or another number of processes.",
        )


@contextmanager
def leading(work: Workplace) -> Iterator[Workplace]:
    """Yield ``work`` for the first of several processes; a process that is alone gets it as it is.

    Raises:
        UsageError: there is no device for each of them.
    """
    if launch.processes() == 1:
        yield work
        return
    from noisy_student.learning import distributed

    group, device = distributed.join(work.device)
    try:
        group.send((work.run.path.resolve(), work.config))
        yield replace(work, group=group, device=device)
    finally:
        if not group.busy:  # else they have met the same error, or will find this process gone
            with suppress(PeerError):
                group.send(None)
        distributed.leave()


def follow(device: str, stopping: Callable[[], AbstractContextManager[Callable[[], bool]]]) -> int:
    """Do this process's part of what the first one does until that has ended; return the exit code.

    ``stopping`` turns SIGTERM into a wish to stop that training asks for. Until the first process is ready there is
    nothing to stop: it may have failed, and SIGTERM ends this one.

    Raises:
        PeerError: another process is gone.
    """
    from noisy_student.learning import distributed

    group, own = distributed.join(device)
    try:
        if (told := group.receive()) is None:
            return 0
        path, config = told
        with stopping() as stop:
            decoded = preparation.open_source(config.data).cache
            work = Workplace(Run(path), config, decoded, own, False, stop, group)
            while (job := group.receive()) is not None:
                training.assist(work, *job)
    except (StoppedError, DivergedError) as error:
        return error.exit_code  # the first process has met the same, and says so
    finally:
        distributed.leave()
    return 0
