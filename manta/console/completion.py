"""Shell completion that both commands have: their script, and files where files are meant."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem, get_completion_class

SHELLS = {
    "bash": ('eval "$({} completion bash)"', "in ~/.bashrc"),
    "zsh": ('eval "$({} completion zsh)"', "in ~/.zshrc"),
    "fish": ("{} completion fish | source", "in ~/.config/fish/config.fish"),
}


def completion_command(program: str) -> click.Command:
    """Makes the command `completion` of a program."""
    lines = [(shell, line.format(program), where) for shell, (line, where) in SHELLS.items()]
    width = max(len(line) for _, line, _ in lines) + 4
    how = "\n".join(f"{shell + ':':<6} {line:<{width}} {where}" for shell, line, where in lines)

    @click.command(help=f"Print the completion script for SHELL.\n\n\b\n{how}")
    @click.argument("shell", type=click.Choice(list(SHELLS)))
    @click.pass_context
    def completion(ctx: click.Context, shell: str) -> None:
        kind = get_completion_class(shell)
        assert kind is not None
        click.echo(kind(ctx.find_root().command, {}, program, variable(program)).source())

    return completion


def variable(program: str) -> str:
    """The variable by which a shell asks the program for completions."""
    return f"_{program.upper()}_COMPLETE"


def files(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Lets the shell complete the names of files."""
    return [CompletionItem(incomplete, type="file")]


def folders(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Lets the shell complete the names of folders."""
    return [CompletionItem(incomplete, type="dir")]
