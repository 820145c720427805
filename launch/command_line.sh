# shellcheck shell=bash
# Sourced by the other scripts: parses options, reports mistakes, and with --dry-run prints commands instead of running them.

dry_run=false

mistake() { # what is wrong, how to fix it
    printf '%s: %s\n       %s\n' "${0##*/}" "$1" "$2" >&2
    exit 2
}

# The comment at the top of a script is its help.
help() { sed -n '2,/^[^#]/{/^#/s/^# \{0,1\}//p;}' "$0"; }

# Words for a shell, quoted only where they have to be.
quoted() {
    local word line=""
    for word in "$@"; do
        [[ $word =~ ^[A-Za-z0-9_./:=,@%+-]+$ ]] || word="'${word//\'/\'\\\'\'}'"
        line+="${line:+ }$word"
    done
    printf '%s\n' "$line"
}

# Run a command; with --dry-run only print it.
run() {
    if [[ $dry_run == true ]]; then quoted "$@"; else "$@"; fi
}

# read_options "option ..." "switch ..." WORDS: for each option sets the variable of its name (max_restarts for --max-restarts) to the word
# after it, for each switch to true. The words after -- become the array `command`.
read_options() {
    local options=" $1 " switches=" $2 dry-run " flag
    shift 2
    command=()
    while (($#)); do
        flag=${1#--}
        if [[ $1 == -h || $1 == --help ]]; then
            help
            exit 0
        elif [[ $1 == -- ]]; then
            shift
            command=("$@")
            return
        elif [[ $1 == --* && $switches == *" $flag "* ]]; then
            printf -v "${flag//-/_}" true
            shift
        elif [[ $1 == --* && $options == *" $flag "* ]]; then
            (($# > 1)) || mistake "$1 needs a value" "${0##*/} --help lists the options."
            printf -v "${flag//-/_}" %s "$2"
            shift 2
        else
            mistake "no option $1" "${0##*/} --help lists the options; what Omnia runs follows after --."
        fi
    done
}

# need --zone: exits with code 2 unless it was given.
need() {
    local flag variable
    for flag in "$@"; do
        variable=${flag#--}
        variable=${variable//-/_}
        [[ -n ${!variable} ]] || mistake "$flag is missing" "${0##*/} --help lists the options."
    done
}

# A name that Google Cloud and Kubernetes accept.
need_name() {
    need --name
    [[ ${name:?} =~ ^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$ ]] || mistake "--name $name" "Take at most 40 lower-case letters, digits and dashes, a letter first."
}

# The command after -- must be `serve RUN ...`, as for omnia.
need_serve() {
    [[ ${command[0]-} == serve && -n ${command[1]-} ]] || mistake "which run?" "Give it after --, as in: ${0##*/} ... -- serve runs/first"
}

# The command after -- must be `train ... --run-dir DIR`, as for omnia; sets run_dir.
need_train() {
    local index
    run_dir=""
    for index in "${!command[@]}"; do
        case ${command[index]} in
            --run-dir) run_dir=${command[index + 1]-} ;;
            --run-dir=*) run_dir=${command[index]#--run-dir=} ;;
        esac
    done
    [[ ${command[0]-} == train && -n $run_dir ]] ||
        mistake "what should be trained?" "Give it after --, as in: ${0##*/} ... -- train CONFIG.py --run-dir DIR --data.shards DIR"
}
