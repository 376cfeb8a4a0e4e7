"""`sidestage completion SHELL` prints a script for the shell; its functions ask `sidestage __complete` for what may come next.

The script is small and never changes: all decisions are in complete.py. Behind `--` the command's own completion goes on.
"""

from __future__ import annotations

from sidestage.cli.errors import UserError

BASH = """\
# sidestage: source <(sidestage completion bash)
_sidestage() {
    local at cur=${COMP_WORDS[COMP_CWORD]}
    for ((at = 1; at < COMP_CWORD; at++)); do
        if [[ ${COMP_WORDS[at]} == -- ]]; then
            if declare -F _command_offset >/dev/null; then
                _command_offset $((at + 1))
            elif ((at + 1 == COMP_CWORD)); then
                mapfile -t COMPREPLY < <(compgen -c -- "$cur" | sort -u)
            fi
            return
        fi
    done
    mapfile -t COMPREPLY < <(sidestage __complete "${COMP_LINE:0:COMP_POINT}" 2>/dev/null | cut -f1)
    [[ $cur != -* ]] && COMPREPLY=("${COMPREPLY[@]#--*=}")
    [[ ${COMPREPLY[0]} == */ ]] && compopt -o nospace 2>/dev/null
}
complete -o default -F _sidestage sidestage
"""

ZSH = """\
#compdef sidestage
# sidestage: source <(sidestage completion zsh), or write it to a file _sidestage in $fpath
_sidestage() {
    local at=${words[(i)--]} each tab=$'\\t'
    if (( at < CURRENT )); then
        shift $at words
        (( CURRENT -= at ))
        _normal
        return
    fi
    local -a open whole open_text whole_text
    for each in "${(@f)$(sidestage __complete "${words[1,CURRENT-1]} $PREFIX" 2>/dev/null)}"; do
        [[ -n $each ]] || continue
        if [[ ${each%%$tab*} == */ ]]; then
            open+=("${each%%$tab*}") open_text+=("${each//$tab/  }")
        else
            whole+=("${each%%$tab*}") whole_text+=("${each//$tab/  }")
        fi
    done
    (( $#open )) && compadd -l -S '' -d open_text -a open
    (( $#whole )) && compadd -l -d whole_text -a whole
    (( $#open + $#whole )) || _files
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then _sidestage "$@"; else compdef _sidestage sidestage; fi
"""

FISH = """\
# sidestage: sidestage completion fish | source
function __sidestage_command
    string match -q -r -- ' -- ' (commandline -cp)
end
function __sidestage_next
    set -l found (sidestage __complete (commandline -cp | string collect) 2>/dev/null)
    if test (count $found) -gt 0
        printf '%s\\n' $found
    else
        __fish_complete_path (commandline -ct)
    end
end
complete -c sidestage -f
complete -c sidestage -n 'not __sidestage_command' -a '(__sidestage_next)'
complete -c sidestage -n __sidestage_command -a '(complete -C (string replace -r "^.*? -- " "" -- (commandline -cp)))'
"""

SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}


def main(argv: list[str]) -> int:
    """Raises UserError."""
    if len(argv) != 1 or argv[0] not in SCRIPTS:
        cure = "write into ~/.bashrc, or with zsh into ~/.zshrc: source <(sidestage completion bash)"
        raise UserError(f"completion is for {', '.join(SCRIPTS)}", cure, 2)
    print(SCRIPTS[argv[0]], end="")
    return 0
