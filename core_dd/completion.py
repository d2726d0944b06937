"""Completion of `gendd` in a shell: a script for bash, which zsh takes, too, of every command's options and choices."""

import shlex
from dataclasses import fields

from core_dd.commands import COMMANDS, imported
from core_dd.options import mark
from core_dd.settings import packaged

SCRIPT = """\
# bash completion for gendd: eval "$(gendd --completion)". In zsh first: autoload -U bashcompinit && bashcompinit
_gendd() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} words=
    case $COMP_CWORD:${{COMP_WORDS[1]}}:$before in
        1:*) words={commands} ;;
{cases}
    esac
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o default -F _gendd gendd
"""


def script() -> str:
    """The script."""
    cases = [f"        *:*:--config) words={_quoted(sorted({name.split('/')[-1] for name in packaged()}))} ;;"]
    for name, command in COMMANDS.items():
        cls = imported(command.options)
        flags = ["--help", "--config", *(f"--{own.name}" for own in fields(cls))]
        for own in fields(cls):
            choices = [choice for choice in mark(cls, own.name, "choices") or () if ":" not in choice]
            if choices:
                cases.append(f"        *:{name}:--{own.name}) words={_quoted(choices)} ;;")
        cases.append(f"        *:{name}:*) [[ $word == -* ]] && words={_quoted(flags)} ;;")
    return SCRIPT.format(commands=_quoted([*COMMANDS, "--help", "--version", "--completion"]), cases="\n".join(cases))


def _quoted(words: list[str]) -> str:
    return shlex.quote(" ".join(words))
