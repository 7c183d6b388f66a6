"""`iga fuzz merge`: folders of campaigns of one target joined into one, nothing counted twice."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from iga.cli.terminal import Context, check_names, check_outputs, finish, misuse, say

__all__ = ["SearchOrMerge", "merge"]


def merge(
    context: Context,
    folders: Annotated[
        list[Path], typer.Argument(metavar="DIR", help="Folders of campaigns: what --out of iga fuzz named.")
    ],
    out: Annotated[Path, typer.Option(help="The folder that is made: a new name, or an empty one.")],
    json: Annotated[Path | None, typer.Option(help="Write the report to this file too.")] = None,
) -> None:
    """Join folders of campaigns of one target: shards of several machines, or several seeds.

    Counts add up, each stream once; what was found and where it has been is united; what was joined of one campaign
    goes on in the new folder. Ends 0 if nothing was found, 1 if something was or nothing was judged, 2 on misuse.
    """
    check_names(out=[str(out)])
    check_outputs(json=json)
    from iga.fuzz.merge import merge as joined
    from iga.report.fuzz import blocks

    with misuse():
        made = joined(folders, out, context.obj, on_news=lambda line: say(f"… {line}"))
    finish(made, blocks(made), json)


class SearchOrMerge(TyperCommand):
    """The command `iga fuzz TARGET`, and `iga fuzz merge`, since no target has a name without a colon."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        if args[:1] != ["merge"]:
            return super().make_context(info_name, args, parent, **extra)
        app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
        app.command()(merge)
        return typer.main.get_command(app).make_context(f"{info_name} merge", args[1:], parent, **extra)
