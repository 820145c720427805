#!/usr/bin/env bash
# On one TPU host: mount the storage and train as a service, which survives a broken connection; or follow a run that is going on.
#
# on_host.sh [--storage SOURCE] [--foreground] [--dry-run] -- train CONFIG.py --run-dir DIR ...
# on_host.sh --stop
#
#   --storage SOURCE   gs://BUCKET or HOST:/SHARE, mounted at /mnt/omnia
#   --foreground       run in the foreground, for schedulers that supervise the process themselves
#   --stop             ask the run to save and stop, and wait until it has
#   --dry-run          print the commands and run none
#
# Exit code: that of omnia train. Its output is in ~/omnia.log. NAME=VALUE lines in ~/omnia.env are added to the service's environment.
# The service is polled every POLL_SECONDS (2).
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/command_line.sh

storage="" foreground=false stop=false command=()
read_options "storage" "foreground stop" "$@"
if [[ $stop == true ]]; then
    run sudo systemctl stop omnia
    exit
fi
need_train

show() { systemctl show omnia --property="$1" --value; }
going_on() { [[ $(show ActiveState) =~ ^(active|activating|deactivating|reloading)$ ]]; }

mount_storage() {
    [[ -n $storage ]] || return 0
    [[ $dry_run == true ]] || ! mountpoint --quiet /mnt/omnia || return 0
    run sudo mkdir -p /mnt/omnia
    run sudo chown "$(id -u):$(id -g)" /mnt/omnia
    case $storage in
        # No metadata cache: each host must see at once what another one wrote. A finished checkpoint is a folder that is renamed, which
        # gcsfuse refuses by default in a bucket without a hierarchical namespace.
        gs://*)
            run gcsfuse --implicit-dirs --metadata-cache-ttl-secs=0 --metadata-cache-negative-ttl-secs=0 --rename-dir-limit=200000 \
                "${storage#gs://}" /mnt/omnia
            ;;
        *:/*) run sudo mount -t nfs -o hard,noatime "$storage" /mnt/omnia ;;
        *) mistake "--storage $storage" "Give gs://BUCKET, or HOST:/SHARE for Filestore and other NFS." ;;
    esac
}

attribute() {
    curl --fail --silent --show-error --header "Metadata-Flavor: Google" \
        "http://metadata.google.internal/computeMetadata/v1/instance/attributes/$1"
}

# Find the other processes of the slice: the number of this host and the addresses of all, from the metadata server.
find_processes() {
    local hosts=() number address
    if [[ $dry_run == true ]]; then
        environment=(OMNIA_PROCESS=WORKER OMNIA_PROCESSES=HOSTS OMNIA_COORDINATOR=HOST_0:8476 OMNIA_JOIN_SECONDS=900)
        return
    fi
    number=$(attribute agent-worker-number)
    address=$(attribute worker-network-endpoints) # names, or name:id:address, with commas between
    IFS=, read -ra hosts <<<"$address"
    environment=("OMNIA_PROCESS=$number" "OMNIA_PROCESSES=${#hosts[@]}" "OMNIA_COORDINATOR=${hosts[0]##*:}:8476" OMNIA_JOIN_SECONDS=900)
}

train=(launch/preemption_notice.sh .venv/bin/omnia "${command[@]}")
if [[ $foreground == true ]]; then
    mount_storage
    find_processes
    run exec env "${environment[@]}" "${train[@]}"
    exit
fi

log=$HOME/omnia.log
first=1 # first new line of the log
if [[ $dry_run == true ]] || ! going_on; then
    mount_storage
    find_processes
    [[ $dry_run == true || ! -f $log ]] || first=$(($(wc -l <"$log") + 1))
    run sudo bash -c 'systemctl reset-failed omnia 2>/dev/null || true'
    # mixed: a shutdown sends SIGTERM to the first process only, which passes it on once; a second one makes omnia exit without saving.
    run sudo systemd-run --quiet --unit=omnia --uid="$(id -u)" --gid="$(id -g)" --working-directory="$PWD" \
        --property=KillMode=mixed --property=TimeoutStopSec=120 --property=After=network-online.target --property=RequiresMountsFor=/mnt/omnia \
        --property=StandardOutput=append:"$log" --property=StandardError=append:"$log" \
        --property=EnvironmentFile="-$HOME/omnia.env" "${environment[@]/#/--setenv=}" "$PWD/${train[0]}" "$PWD/${train[1]}" "${train[@]:2}"
else
    first=$(($(wc -l <"$log") + 1))
    echo "a run goes on here: following it"
fi
if [[ $dry_run == true ]]; then
    quoted tail --lines=+1 --follow "$log"
    exit
fi

while going_on; do sleep "${POLL_SECONDS:-2}"; done &
tail --pid=$! --lines=+"$first" --sleep-interval="${POLL_SECONDS:-2}" --follow "$log"
code=$(show ExecMainStatus) # 0 for a service that succeeded, which systemd has forgotten
exit "$code"
