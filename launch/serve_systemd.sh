#!/usr/bin/env bash
# Serve a run on this host as a systemd service, which starts again after a failure and at boot. The run's user is its own, without rights.
#
# serve_systemd.sh --name chat --keys keys.json -- serve runs/smollm2 --host 0.0.0.0 --tls-cert cert.pem --tls-key key.pem
#
#   --name NAME      of the service, which is then omnia-NAME
#   --keys FILE      of the keys that may ask (omnia serve RUN --keys FILE --new-key WHO makes one)
#   --memory SIZE    beyond which it is ended and started again, such as 48G (infinity)
#   --seconds N      that running texts have to end when it is stopped (30)
#   --remove         stop it, and remove the service
#   --dry-run        print the unit and the commands, and run none
#
# Follow it: journalctl --follow --unit=omnia-NAME
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/command_line.sh

name="" keys="" memory=infinity seconds=30 remove=false command=()
read_options "name keys memory seconds" "remove" "$@"
need_name
unit=/etc/systemd/system/omnia-$name.service
if [[ $remove == true ]]; then
    run sudo systemctl disable --now "omnia-$name.service"
    run sudo rm -f "$unit"
    run sudo systemctl daemon-reload
    exit
fi
need --keys
[[ $memory =~ ^([1-9][0-9]*[KMGT]?|infinity)$ ]] || mistake "--memory $memory" "Give a size such as 48G."
[[ $seconds =~ ^[1-9][0-9]*$ ]] || mistake "--seconds $seconds" "Give a whole number."
need_serve
omnia=$(command -v omnia || echo "$PWD/.venv/bin/omnia")

# A word of ExecStart: percent and dollar signs are systemd's own.
word() {
    local text=${1//\\/\\\\}
    text=${text//\"/\\\"}
    text=${text//%/%%}
    printf ' "%s"' "${text//\$/\$\$}"
}

# The service may read no file of yours but what systemd hands it, and write only where its state is.
words="" credentials="" option=""
for one in "${command[@]}"; do
    value=$one
    if [[ -z $option && $one == --@(tls-cert|tls-key|audit|review)* ]]; then
        option=${one%%=*} option=${option#--}
        [[ $one == *=* ]] || { words+=$(word "$one"); continue; }
        words+=$(word "--$option") value=${one#*=}
    fi
    case $option in
        tls-cert | tls-key)
            credentials+="LoadCredential=$option:$(realpath --canonicalize-missing "$value")"$'\n'
            words+=" %d/$option"
            ;;
        audit | review)
            [[ $value == "/var/lib/omnia-$name/"* ]] || mistake "--$option $value" "The service writes in /var/lib/omnia-$name/ alone."
            words+=$(word "$value")
            ;;
        *) words+=$(word "$value") ;;
    esac
    option=""
done
text="[Unit]
Description=omnia serve, $name
After=network-online.target
Wants=network-online.target
StartLimitIntervalSec=0

[Service]
ExecStart=$omnia$words --keys %d/keys --drain $seconds
WorkingDirectory=$PWD
LoadCredential=keys:$(realpath --canonicalize-missing "$keys")
${credentials}Restart=on-failure
RestartSec=2
RestartSteps=6
RestartMaxDelaySec=60
# A mistake in the command, or a port that is taken, would be there again.
RestartPreventExitStatus=2
TimeoutStopSec=$((seconds + 15))
KillMode=mixed
MemoryMax=$memory
DynamicUser=yes
CacheDirectory=omnia-$name
StateDirectory=omnia-$name
Environment=XDG_CACHE_HOME=%C/omnia-$name HOME=%C/omnia-$name
CapabilityBoundingSet=
NoNewPrivileges=yes
PrivateTmp=yes
ProtectSystem=strict
ProtectHome=read-only
ProtectKernelTunables=yes
ProtectControlGroups=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
LockPersonality=yes

[Install]
WantedBy=multi-user.target"

if [[ $dry_run == true ]]; then
    echo "# $unit"
    printf '%s\n' "$text"
else
    printf '%s\n' "$text" | sudo tee "$unit" >/dev/null
fi
run sudo systemctl daemon-reload
run sudo systemctl enable "omnia-$name.service"
run sudo systemctl restart "omnia-$name.service"
echo "# follow it: $(quoted journalctl --follow "--unit=omnia-$name")"
