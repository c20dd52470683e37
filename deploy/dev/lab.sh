# shellcheck shell=bash
# ./dev lab: a real cluster of namespaced hosts on this machine; `pvc lab` with all that it needs.

usage() {
    cat <<'TEXT'
Usage: ./dev lab COMMAND [options]

Starts hosts on this machine, each with its own network, processes, files, libvirtd, pvcd and BMC, and makes a cluster
of them: up, status, exec, shell, logs, down. Then they can be broken: kill, power, freeze, partition, daemon. Needs root
or sudo. `./dev lab COMMAND -h` tells more, and docs/lab.md has a tour.

Example: ./dev lab up
TEXT
}

run() {
    if [[ $# -eq 0 ]]; then usage >&2; exit 2; fi
    install_for python guest hypervisor fencing lab zookeeper
    # By name, as sudo would leave them behind.
    local command=(env "PVC_LAB_NAME=${PVC_LAB_NAME:-}" "PVC_LAB_DIR=${PVC_LAB_DIR:-}" PVC_LAB_CALLED="./dev lab" PYTHONDONTWRITEBYTECODE=1 "$ROOT/$VENV/bin/python" -m pvc.lab "$@")
    if is_root || [[ $# -le 2 && ${*: -1} == -h ]]; then exec "${command[@]}"; fi
    can_be_root || die "a lab needs root, for its namespaces" "Run it as root, or with sudo."
    exec sudo -- "${command[@]}"
}
