# shellcheck shell=bash
# ./dev chaos: breaks a lab of real hosts in many ways while clients work with it; all that it needs is installed first.

usage() {
    cat <<'TEXT'
Usage: ./dev chaos [--minutes M] [--seed S] [--nodes 3] [--vms 6] [--only FAULT] [--no-overlaps]

Starts a lab of its own, has clients work with the cluster, kills, freezes, cuts off and fills up its hosts by a seeded
schedule, heals them, and checks what must hold all the same: no VM ever ran twice, nothing acknowledged was lost, all
nodes agree, everything that should run runs again. Then the lab is gone. Needs root or sudo. docs/chaos.md tells more.

Example: ./dev chaos --minutes 3 --seed 7
TEXT
}

run() {
    install_for python guest hypervisor fencing lab zookeeper
    can_be_root || die "a lab needs root, for its namespaces" "Run it as root, or with sudo."
    local command=(env PYTHONDONTWRITEBYTECODE=1 "$ROOT/$VENV/bin/python" -m pvc.lab.chaos "$@")
    if is_root; then exec "${command[@]}"; fi
    exec sudo -- "${command[@]}"
}
