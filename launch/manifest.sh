# shellcheck shell=bash
# Sourced by gke.sh and serve_gke.sh: fills a manifest with JSON, and applies it with kubectl or, with --dry-run, prints it.

text() { # a JSON string
    local word=${1//\\/\\\\}
    word=${word//\"/\\\"}
    word=${word//$'\n'/\\n}
    printf '"%s"' "${word//$'\t'/\\t}"
}

texts() { # JSON strings, with commas between them
    local word words=""
    for word in "$@"; do words+="${words:+, }$(text "$word")"; done
    printf '%s' "$words"
}

read_manifest() { manifest=$(<"$1"); }

fill() { manifest=${manifest//"\${$1}"/"$2"}; }

# The volume `storage`: gs://BUCKET, or the name of a volume claim.
fill_storage() {
    local volume annotations='{}' options
    if [[ $1 == gs://* ]]; then
        # As in on_host.sh: hosts see each other's writes at once, and folders can be renamed.
        options=implicit-dirs,metadata-cache:ttl-secs:0,metadata-cache:negative-ttl-secs:0,file-system:rename-dir-limit:200000
        volume="\"csi\": {\"driver\": \"gcsfuse.csi.storage.gke.io\", \"volumeAttributes\": {\"bucketName\": $(text "${1#gs://}"), \"mountOptions\": \"$options\"}}"
        annotations='{"gke-gcsfuse/volumes": "true"}'
    else
        volume="\"persistentVolumeClaim\": {\"claimName\": $(text "$1")}"
    fi
    fill ANNOTATIONS "$annotations"
    fill VOLUME "{\"name\": \"storage\", $volume}"
}

apply_manifest() {
    if [[ ${dry_run:?} == true ]]; then
        echo "# kubectl apply --filename=-"
        printf '%s\n' "$manifest"
    else
        kubectl apply --filename=- <<<"$manifest"
    fi
}
