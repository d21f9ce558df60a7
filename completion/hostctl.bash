# shellcheck shell=bash
# Bash completion for hostctl, loaded by bash-completion. What may come is hostctl's to say: a candidate a line, with
# what it is behind a tab, and ":files" where names of files are wanted.
_hostctl() {
    local cur words cword line lines
    _get_comp_words_by_ref -n := cur words cword
    mapfile -t lines < <("${words[0]}" --get-completions "${words[@]:1:cword}" 2>/dev/null)
    COMPREPLY=()
    for line in "${lines[@]}"; do
        if [[ $line == :files ]]; then
            compopt -o filenames
            mapfile -O "${#COMPREPLY[@]}" -t COMPREPLY < <(compgen -f -- "$cur")
        else
            COMPREPLY+=("${line%%$'\t'*}")
        fi
    done
    # What ends so goes on.
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[:/] ]]; then compopt -o nospace; fi
    __ltrim_colon_completions "$cur"
}
complete -F _hostctl hostctl
