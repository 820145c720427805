#!/usr/bin/env bash
# Run a command on a VM of Google Cloud, and send it SIGTERM when the metadata server says that the VM will be taken away.
#
# preemption_notice.sh [--dry-run] COMMAND ...
#
# omnia train then saves within the 30 seconds that are left, and ends with exit code 75. NOTICE_SECONDS (1) passes between two looks.
# A SIGTERM, SIGINT or SIGUSR1 to this script is handed on; SIGTERM at most once, since a second one ends omnia without saving.
# Exit code: that of the command.
set -euo pipefail
# shellcheck source=launch/command_line.sh
source "$(dirname "$0")/command_line.sh"

case ${1-} in
    -h | --help)
        help
        exit 0
        ;;
    --dry-run)
        dry_run=true
        shift
        ;;
esac
(($#)) || mistake "no command" "${0##*/} --help says how to give it."

metadata=(curl --fail --silent --max-time 5 --header "Metadata-Flavor: Google" --url)
address=http://metadata.google.internal/computeMetadata/v1/instance
if [[ $dry_run == true ]]; then
    run "$@"
    echo "# beside it, every ${NOTICE_SECONDS:-1} s:"
    run "${metadata[@]}" "$address/preempted"
    run "${metadata[@]}" "$address/maintenance-event"
    exit
fi

"$@" &
child=$!
asked=false
trap '[[ $asked == true ]] || kill -TERM "$child" || true; asked=true' TERM
trap 'kill -INT "$child" || true' INT
trap 'kill -USR1 "$child" || true' USR1

# The watcher tells this script, which knows whether the command was asked before.
(
    trap - TERM INT USR1
    until [[ $("${metadata[@]}" "$address/preempted" || true) == TRUE ]] ||
        [[ $("${metadata[@]}" "$address/maintenance-event" || true) == TERMINATE_ON_HOST_MAINTENANCE ]]; do
        sleep "${NOTICE_SECONDS:-1}"
    done
    echo "preemption_notice.sh: this VM will be taken away: SIGTERM to the run"
    kill -TERM $$
) &
watcher=$!

code=0
while true; do
    wait "$child" && code=0 || code=$?
    kill -0 "$child" 2>/dev/null || break # else a signal ended the wait, and not the command
done
kill "$watcher" 2>/dev/null || true
exit "$code"
