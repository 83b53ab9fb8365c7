"""Running, batching and publishing notebooks; what a notebook imports from here is in `vgmr.notebook.lesson`."""

from __future__ import annotations

from typing import Any

LESSON = ("check_parameters", "claim", "explore", "record", "setup")


def __getattr__(name: str) -> Any:
    if name in LESSON:
        from vgmr.notebook import lesson

        return getattr(lesson, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
