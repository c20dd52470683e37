# shellcheck shell=bash
# ./dev demo --cluster: three hosts, a live migration, the loss of a host and the recovery from it, told by the history.

LAB_NAME=${PVC_DEMO_LAB:-demo}
RECOVERY_S=60 # ten for the session, two for the fence, then the starts; six times that on a busy machine

run_cluster() {
    case "$*" in
        '' | --keep) ;;
        --down) lab_of_demo down; return ;;
        *) die_usage "demo --cluster does not know: $*" "./dev demo -h" ;;
    esac
    can_be_root || die "a cluster of hosts needs root, for their namespaces" "Run it as root, or with sudo."
    install_for python guest hypervisor fencing lab zookeeper
    step "Building the guest (a Debian kernel, a busybox)" build_guest || die "no guest, no demo"
    local began=$EPOCHREALTIME
    lab_of_demo down >/dev/null
    trap 'lab_of_demo down >/dev/null' EXIT
    trap 'exit 130' INT TERM
    tell "Three hosts on this machine, each with its own network, libvirt, ZooKeeper, PVC and BMC:"
    printf '\n'
    lab_of_demo up | sed '/^$/,$d' || die "the lab did not start" "./dev lab --name $LAB_NAME logs hv1"
    tell_cluster_story
    printf '\n%sFrom nothing to here: %s s.%s\n' "$BOLD" "$(seconds_since "$began")" "$PLAIN"
    if [[ ${1:-} == --keep ]]; then
        trap - EXIT
        printf '\nThe hosts stay up: ./dev lab --name %s status\nTo end them: ./dev demo --cluster --down\n' "$LAB_NAME"
    fi
}

tell_cluster_story() {
    local boot=(--memory 128 --vcpus 1 --kernel "$GUEST/vmlinuz" --initrd "$GUEST/initrd.img" --cmdline "console=ttyS0 quiet")
    on hv1 pvc cluster status
    tell "Two VMs on hv3:"
    on hv1 pvc vm define web01 --node hv3 "${boot[@]}"
    on hv1 pvc vm define db01 --node hv3 --priority 90 "${boot[@]}"
    on hv1 pvc vm start web01 --wait
    on hv1 pvc vm start db01 --wait
    tell "One of them goes to another host, while it runs:"
    on hv1 pvc vm migrate web01 --wait
    on hv1 pvc vm unmigrate web01 --wait
    tell "Now the power of hv3 fails. Its session ends, it is fenced by its BMC, and its VMs start elsewhere:"
    printf '\n%s$ ./dev lab kill hv3%s\n' "$BOLD" "$PLAIN"
    lab_of_demo kill hv3
    wait_for_recovery
    on hv1 pvc vm list
    on hv1 pvc history node hv3
    on hv1 pvc history vm db01
    tell "Its BMC has switched it on again. Back in service, it gets its VMs back:"
    wait_for_return
    on hv1 pvc node ready hv3 --wait
    on hv1 pvc vm list
    on hv1 pvc node list
}

# on HOST COMMAND...: what an admin types on that host.
on() {
    local host=$1 word line=""
    shift
    for word in "$@"; do
        [[ $word == *" "* ]] && word="\"$word\""
        line+=" $word"
    done
    printf '\n%s%s$%s%s\n' "$BOLD" "$host" "$line" "$PLAIN"
    lab_of_demo exec "$host" -- "$@" || die "this failed: $*" "./dev lab --name $LAB_NAME logs $host"
}

lab_of_demo() {
    as_root env PYTHONDONTWRITEBYTECODE=1 "$ROOT/$VENV/bin/python" -m pvc.lab --name "$LAB_NAME" "$@"
}

wait_for_recovery() {
    local began=$EPOCHREALTIME deadline=$((SECONDS + RECOVERY_S))
    until [[ $(running_elsewhere) -eq 2 ]]; do
        [[ $SECONDS -lt $deadline ]] || die "the VMs were not recovered" "./dev lab --name $LAB_NAME logs hv1"
        sleep 0.5
    done
    printf 'Both run again, %s s after the power failed.\n' "$(seconds_since "$began")"
}

running_elsewhere() {
    lab_of_demo exec hv1 -- pvc vm list --state running -o json 2>/dev/null | grep -cE '"node": "hv[12]"' || true
}

wait_for_return() {
    local deadline=$((SECONDS + RECOVERY_S))
    until lab_of_demo exec hv1 -- pvc node info hv3 -o json 2>/dev/null | grep -qE '"state": "ready"'; do
        [[ $SECONDS -lt $deadline ]] || die "hv3 did not come back" "./dev lab --name $LAB_NAME logs hv3"
        sleep 0.5
    done
}
