#!/usr/bin/env bash
# Run a command on a Google Cloud VM, and send it SIGTERM when the metadata server announces a preemption.
#
# preemption_notice.sh [--dry-run] COMMAND ...
#
# omnia train then saves within the 30 seconds that are left and exits with code 75. The server is polled every NOTICE_SECONDS (1).
# SIGTERM, SIGINT and SIGUSR1 to this script are passed on; SIGTERM at most once, since a second one ends omnia without saving.
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

# The watcher signals this script, which knows whether it has already passed a SIGTERM on.
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
    kill -0 "$child" 2>/dev/null || break # else a signal ended the wait, not the command
done
kill "$watcher" 2>/dev/null || true
exit "$code"
