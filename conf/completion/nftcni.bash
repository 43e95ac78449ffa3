# bash completion for nftcni; made by conf/packaging/manual
_nftcni() {
    local current=${COMP_WORDS[COMP_CWORD]} command=${COMP_WORDS[1]} words=""
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        mapfile -t COMPREPLY < <(compgen -W 'list ports explain doctor repair check top metrics events graph gc forget convert migrate watch --help --version' -- "$current")
        return
    fi
    case $command in
        list) words='--port --json --help' ;;
        ports) words='--json --help' ;;
        explain) words='--from --live --json --help' ;;
        doctor) words='--json --help' ;;
        repair) words='--check --help' ;;
        check) words='--json --help' ;;
        top) words='--once --interval --json --help' ;;
        metrics) words='--output --http --help' ;;
        events) words='--since --follow --json --help' ;;
        graph) words='--svg --dot --output --help' ;;
        gc) words='--dry-run --help' ;;
        forget) words='--force --help' ;;
        convert) words='--all --back --help' ;;
        migrate) words='--dry-run --help' ;;
        watch) words='--help' ;;
    esac
    case $command in
        explain | list | repair | forget) words+=" $(nftcni list 2>/dev/null | cut -d ' ' -f 1 | cut -d / -f 1,2)" ;;
        check) mapfile -t COMPREPLY < <(compgen -f -- "$current") ;;
    esac
    mapfile -t -O ${#COMPREPLY[@]} COMPREPLY < <(compgen -W "$words" -- "$current")
}
complete -F _nftcni nftcni
