# shellcheck shell=bash disable=SC2154  # name, zone, project, storage and command are the options of the script that sources this
# Sourced by tpu_vm.sh and tpu_slice.sh: what both do on the hosts of a TPU.

# The zone and project that gcloud is configured for, unless others were given.
where=()
[[ -z $zone ]] || where+=(--zone="$zone")
[[ -z $project ]] || where+=(--project="$project")

storage_words=()
if [[ -n $storage ]]; then
    [[ $storage =~ ^(gs://[a-z0-9][-_.a-z0-9]+|[^/:]+:/.+)$ ]] || mistake "--storage $storage" "Give gs://BUCKET, or HOST:/SHARE for Filestore and other NFS."
    storage_words=(--storage "$storage")
fi

on_all_hosts() { run gcloud compute tpus tpu-vm ssh "$name" "${where[@]}" --worker=all --command="$1"; }

# This checkout as it is, uncommitted work included and what git ignores left out, with its packages. A run that goes on is left alone.
install_on_hosts() {
    run mkdir -p .cache &&
        run bash -c 'git ls-files -z --cached --others --exclude-standard -- . ":(exclude).cache" | tar --null -T - -czf .cache/omnia.tar.gz' &&
        run gcloud compute tpus tpu-vm scp .cache/omnia.tar.gz "$name:" "${where[@]}" --worker=all &&
        on_all_hosts "systemctl is-active --quiet omnia || { mkdir -p omnia && tar -xzf omnia.tar.gz -C omnia && $(quoted omnia/launch/install_on_host.sh "${storage_words[@]}"); }"
}

# Start the run, or follow one that goes on; returns its exit code. gcloud repeats this by itself where a connection breaks.
train_on_hosts() { on_all_hosts "cd omnia && $(quoted launch/on_host.sh "${storage_words[@]}" -- "${command[@]}")"; }
