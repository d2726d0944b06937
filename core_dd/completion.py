"""Completion of `gendd` in a shell: a script for bash, which zsh takes, too, of every command's options and choices."""

import shlex
from dataclasses import fields

from core_dd.commands import COMMANDS, imported
from core_dd.options import hidden, mark
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
    cases = []
    for name, command in COMMANDS.items():
        cls = imported(command.options)
        own_configs = [*packaged(cls.HOME)] if cls.HOME else []
        cases.append(f"        *:{name}:--config) words={_quoted(own_configs)} ;;")
        shown = {
            own.name: mark(cls, own.name, "flag") or own.name for own in fields(cls) if own.name not in hidden(cls)
        }
        flags = ["--help", "--config", *(f"--{flag}" for flag in shown.values())]
        for own, flag in shown.items():
            choices = [choice for choice in mark(cls, own, "choices") or () if ":" not in choice]
            if choices:
                cases.append(f"        *:{name}:--{flag}) words={_quoted(choices)} ;;")
        flagged = f"[[ $word == -* ]] && words={_quoted(flags)}"
        if name in ("compare", "rank-networks"):  # whose first argument is one
            cases.append(f"        2:{name}:*) {flagged} || words={_quoted([*packaged('compare')])} ;;")
        cases.append(f"        *:{name}:*) {flagged} ;;")
    return SCRIPT.format(commands=_quoted([*COMMANDS, "--help", "--version", "--completion"]), cases="\n".join(cases))


def _quoted(words: list[str]) -> str:
    return shlex.quote(" ".join(words))
