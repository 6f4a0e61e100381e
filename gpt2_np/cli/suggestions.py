"""Suggestions after a mistake: the nearest command, and how to pass a text that begins with a dash."""

from __future__ import annotations

import click


class Suggesting(click.Group):
    """Commands of which an unknown one is answered with the nearest."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does it, with a suggestion."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib

            near = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1, cutoff=0.6)
            if not near or "Did you mean" in error.message:
                raise
            raise click.UsageError(f"{error.message} Did you mean {near[0]!r}?", ctx) from None


def hint(error: click.ClickException) -> str:
    """Return a further hint about an option that does not exist: it may have been meant as a text."""
    if isinstance(error, click.NoSuchOption) and error.ctx is not None and error.ctx.command.name in TAKE_TEXT:
        return f" (a text that begins with - goes after --: {error.ctx.command_path} -- '-…')"
    return ""


TAKE_TEXT = (
    "generate",
    "logits",
    "score",
    "choose",
    "inspect",
    "lens",
    "attention",
    "ablate",
    "patch",
    "path",
    "steer",
)
