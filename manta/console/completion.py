"""Shell completion that both commands have: their script, and files where files are meant."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from itertools import pairwise

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ZshComplete,
    add_completion_class,
    get_completion_class,
    split_arg_string,
)

SHELLS = {
    "bash": ('eval "$({} completion bash)"', "in ~/.bashrc"),
    "zsh": ('eval "$({} completion zsh)"', "in ~/.zshrc"),
    "fish": ("{} completion fish | source", "in ~/.config/fish/config.fish"),
}


_READ = "while IFS= read -r completion; do"
_SPECIAL = re.compile(r"[^\w@%+=:,./-]")
"""What may mean something to bash in a word."""


class Bash(BashComplete):
    """Joins what bash takes apart: `--option=value` and `NAME=PATH` are a word each.

    Bash puts a completion on the command line as it is, and click's script even expands `*` in it:
    a name is quoted, so that nothing that others named is ever run.
    """

    name = "bash"
    source_template = (
        BashComplete.source_template.replace("for completion in $response; do", _READ)
        .replace("    done\n", '    done <<< "$response"\n')
        .replace("read type value", "read -r type value")
        .replace("COMPREPLY+=($value)", 'COMPREPLY+=("$value")')
    )

    def format_completion(self, item: CompletionItem) -> str:
        value = _SPECIAL.sub(r"\\\g<0>", item.value) if item.type == "plain" else item.value
        return f"{item.type},{value}"

    def get_completion_args(self) -> tuple[list[str], str]:
        at = int(os.environ["COMP_CWORD"])
        there = split_arg_string(os.environ["COMP_WORDS"])[: at + 1]
        words = joined([*there, *[""] * (at + 1 - len(there))])
        return words[1:-1], words[-1]


class Zsh(ZshComplete):
    """Completes what is behind the `=` of `--option=value` and `NAME=PATH`; click's script would
    replace the whole word, or find no such file."""

    name = "zsh"
    source_template = (
        ZshComplete.source_template.replace("    for type", "    compset -P '--*='\n    for type")
        .replace("_path_files", """[[ "$key" != "$PREFIX" ]] && compset -P '*='; _path_files""")
        .replace("descriptions -U", 'descriptions -U -i "$IPREFIX"')
        .replace("compadd -U", 'compadd -U -i "$IPREFIX"')
    )


class Fish(FishComplete):
    """Does the same: fish takes whole words."""

    name = "fish"
    source_template = """\
function %(complete_func)s;
    set -l word (commandline -t);
    set -l option (string match --regex '^--[^=]*=' -- "$word");
    set -l response (env %(complete_var)s=fish_complete COMP_WORDS=(commandline -cp) \
COMP_CWORD="$word" %(prog_name)s);

    for completion in $response;
        set -l metadata (string split --max 1 "," -- $completion);
        set -l before (string match --regex '^.*=' -- "$word");
        test "$metadata[2]" = "$word"; and set before "";

        if test $metadata[1] = "dir";
            for path in (__fish_complete_directories $metadata[2]); echo "$before$path"; end;
        else if test $metadata[1] = "file";
            for path in (__fish_complete_path $metadata[2]); echo "$before$path"; end;
        else if test $metadata[1] = "plain";
            echo "$option$metadata[2]";
        end;
    end;
end;

complete --no-files --command %(prog_name)s --arguments "(%(complete_func)s)";

"""


for _kind in (Bash, Zsh, Fish):
    add_completion_class(_kind)


def joined(words: Iterable[str]) -> list[str]:
    """Returns the words, of which those around a `=` are one."""
    found: list[str] = []
    for before, word in pairwise(["", *words]):
        if found and "=" in (before, word):
            found[-1] += word
        else:
            found.append(word)
    return found


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


def mapped(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Lets the shell complete the path of NAME=PATH."""
    is_mapped, path = incomplete.partition("=")[1:]
    return [CompletionItem(path, type="file")] if is_mapped else []


def folders(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Lets the shell complete the names of folders."""
    return [CompletionItem(incomplete, type="dir")]
