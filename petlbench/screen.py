"""Tables and lines on a terminal: what they say is text, whoever wrote it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from petlbench.wording import visible

if TYPE_CHECKING:
    from rich.console import Console


def console(**options: Any) -> Console:
    """Of rich, where every character of a string is seen, and `:warning:` is no picture.

    `options` are those of its class. Markup in names is for the caller to escape.
    """
    from rich import console

    class Console(console.Console):
        def on_broken_pipe(self) -> None:  # `petlbench plan | head` ends quietly, see cli.main
            raise BrokenPipeError

        def render_str(self, text: str, **how: Any) -> Any:  # all strings go through it
            return super().render_str(visible(text), **how)

    return Console(emoji=False, **options)
