"""Silence for packages that talk to their makers."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet(*loggers: str, native: bool = False) -> Iterator[None]:
    """Nothing of what packages print, log or warn of; errors are still raised.

    Args:
        loggers: Names of those that log more than errors.
        native: Also what C++ writes to the process's standard error, of every thread.
    """
    talkative = [logging.getLogger(name) for name in loggers]
    before = [logger.level for logger in talkative]
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        if native:
            stack.enter_context(_no_native_stderr())
        warnings.simplefilter("ignore")
        for logger in talkative:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(talkative, before, strict=True):
                logger.setLevel(level)


@contextlib.contextmanager
def _no_native_stderr() -> Iterator[None]:
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
