# shellcheck shell=bash disable=SC2154  # name, zone, project, storage and command are the options of the script that sources this
# Sourced by tpu_vm.sh and tpu_slice.sh: what both do on TPU hosts.

# By default the zone and project that gcloud is configured for.
where=()
[[ -z $zone ]] || where+=(--zone="$zone")
[[ -z $project ]] || where+=(--project="$project")

storage_words=()
if [[ -n $storage ]]; then
    [[ $storage =~ ^(gs://[a-z0-9][-_.a-z0-9]+|[^/:]+:/.+)$ ]] || mistake "--storage $storage" "Give gs://BUCKET, or HOST:/SHARE for Filestore and other NFS."
    storage_words=(--storage "$storage")
fi

on_all_hosts() { run gcloud compute tpus tpu-vm ssh "$name" "${where[@]}" --worker=all --command="$1"; }

# Copy this checkout, with uncommitted work but without what git ignores, and install it. Hosts with a live run are left alone.
install_on_hosts() {
    run mkdir -p .cache &&
        run bash -c 'git ls-files -z --cached --others --exclude-standard -- . ":(exclude).cache" | tar --null -T - -czf .cache/omnia.tar.gz' &&
        run gcloud compute tpus tpu-vm scp .cache/omnia.tar.gz "$name:" "${where[@]}" --worker=all &&
        on_all_hosts "systemctl is-active --quiet omnia || { mkdir -p omnia && tar -xzf omnia.tar.gz -C omnia && $(quoted omnia/launch/install_on_host.sh "${storage_words[@]}"); }"
}

# Start the run, or follow a live one; returns its exit code. gcloud retries this by itself when a connection breaks.
train_on_hosts() { on_all_hosts "cd omnia && $(quoted launch/on_host.sh "${storage_words[@]}" -- "${command[@]}")"; }
