# Fish completion for hostctl. What may come is hostctl's to say: a candidate a line, with what it is behind a tab, and
# ":files" where names of files are wanted.
function __hostctl_complete
    set -l words (commandline --tokenize --cut-at-cursor --current-process)
    set -l current (commandline --current-token --cut-at-cursor)
    for line in ($words[1] --get-completions $words[2..] "$current" 2>/dev/null)
        if test "$line" = :files
            __fish_complete_path "$current"
        else
            echo $line
        end
    end
end
complete --command hostctl --no-files --keep-order --arguments '(__hostctl_complete)'
