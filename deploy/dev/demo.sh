# shellcheck shell=bash
# ./dev demo: a cluster of one node, and a VM's whole life on it, with the commands a person would type.
# All of it lives in one directory under /tmp (a socket's path must be short); the clone keeps a link to it, by which
# --down, and the next demo after a crash, find what is to be ended.

LINK=.cache/demo
GUEST=$ROOT/.cache/guest # kept for the next time
PORT=7370         # the gateway's own; another is taken when something listens there
DAEMON_START_S=20 # under a second on an idle machine
HEARTBEAT_S=40    # the guest beats 2 s after its start; on a busy machine, emulated, it may take ten times that

usage() {
    cat <<'TEXT'
Usage: ./dev demo [--keep | --down] [--simulated]
       ./dev demo --cluster [--keep | --down]

Starts a cluster of one node in a directory of its own, then defines a VM, runs it through its life on real QEMU and
asks the history who did what. Everything is gone again at the end. Without root or libvirt it runs on the simulated
hypervisor, and says so.

  --keep        leave the cluster up, and say how to talk to it
  --down        end what --keep left up
  --simulated   use the simulated hypervisor even where a real one is possible
  --cluster     three hosts in namespaces instead: a live migration, the loss of a host, the recovery (as root or with sudo)

Example: ./dev demo --keep
TEXT
}

run() {
    local keep=no hypervisor=libvirt began dir
    if [[ ${1:-} == --cluster ]]; then
        # shellcheck source=deploy/dev/demo_cluster.sh
        source deploy/dev/demo_cluster.sh
        run_cluster "${@:2}"
        return
    fi
    case "$*" in
        '') ;;
        --keep) keep=yes ;;
        --simulated) hypervisor=simulated ;;
        '--keep --simulated' | '--simulated --keep') keep=yes hypervisor=simulated ;;
        --down) become_owner_of_the_last --down; take_down; echo "No demo is up."; return ;;
        *) die_usage "demo does not know: $*" "./dev demo -h" ;;
    esac
    become_owner_of_the_last "$@"
    install_and_choose_hypervisor "$@"
    began=$EPOCHREALTIME
    take_down
    trap take_down EXIT
    trap 'exit 130' INT TERM
    start_cluster
    tell_story
    printf '\n%sFrom nothing to here: %s s.%s\n' "$BOLD" "$(seconds_since "$began")" "$PLAIN"
    if [[ $keep == yes ]]; then
        trap - EXIT
        explain_how_to_go_on
    fi
}

# Sets `hypervisor`. A real one needs root for libvirtd's namespace: with sudo, the rest of the demo is root's.
install_and_choose_hypervisor() {
    if [[ $hypervisor == libvirt ]] && ! can_be_root; then
        note "Neither root nor sudo here: the demo runs on the simulated hypervisor, without QEMU."
        hypervisor=simulated
    fi
    if [[ $hypervisor == simulated ]]; then
        install_for python
        return
    fi
    install_for python guest hypervisor
    if ! command -v libvirtd >/dev/null || ! command -v qemu-system-x86_64 >/dev/null; then
        note "There is no libvirt or QEMU here: the demo runs on the simulated hypervisor."
        hypervisor=simulated
    elif ! is_root; then
        again_as_root "$@"
    fi
}

# Only root can end what a demo of root's left up.
become_owner_of_the_last() {
    if [[ -d $LINK/ && ! -O $LINK/ ]]; then again_as_root "$@"; fi
}

again_as_root() {
    exec sudo env PYTHONDONTWRITEBYTECODE=1 "$ROOT/dev" demo "$@"
}

start_cluster() {
    local uri=''
    dir=$(mktemp -d /tmp/pvc-demo.XXXXXX)
    ln -sfn "$dir" "$LINK"
    if [[ $hypervisor == libvirt ]]; then
        step "Building the guest (a Debian kernel, a busybox)" build_guest || die "no guest, no demo" "./dev demo --simulated does without"
        step "Starting a libvirtd of our own" start_libvirtd || die "libvirtd does not start" "./dev demo --simulated does without"
        uri=$(<"$dir/libvirt.uri")
    fi
    choose_port
    write_config "$uri"
    step "Starting the node daemon" start_daemon || die "the daemon does not start"
    # The environment of a person who sits at this node.
    export PVC_SOCKET=$dir/pvc.sock PVC_CONFIG_DIR=$dir
    unset PVC_URL PVC_CONNECTION PVC_TOKEN
}

# Old package lists name kernels the mirror no longer has: fetch new ones, once.
build_guest() {
    local build=(python -m pvc.lab.guest --out "$GUEST" --cache "$GUEST/cache")
    "${build[@]}" || { apt-get update && "${build[@]}"; }
}

start_libvirtd() {
    python -m pvc.lab.libvirt_host --dir "$dir/libvirt" up | tee "$dir/libvirt.uri"
}

choose_port() {
    listens "$PORT" || return 0
    PORT=$(python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    note "Something listens on port 7370 already; the gateway takes $PORT."
}

listens() {
    (: <>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

write_config() {
    cat >"$dir/pvc.toml" <<TOML
[node]
name = "hv1"
data_dir = "$dir/data"

[hypervisor]
kind = "$hypervisor"
uri = "$1"
accelerator = "tcg" # sure to work; see the manual before choosing "auto" or "kvm"

[log]
kind = "sqlite"

[gateway]
socket = "$dir/pvc.sock"
listen = "127.0.0.1:$PORT"
TOML
}

# In a session of its own, so that neither Ctrl-C nor a closed terminal reaches it: --keep means keep.
start_daemon() {
    setsid pvcd --config "$dir/pvc.toml" >"$dir/pvcd.log" 2>&1 </dev/null &
    echo $! >"$dir/pvcd.pid"
    local deadline=$((SECONDS + DAEMON_START_S))
    until [[ -S $dir/pvc.sock ]]; do
        if ! kill -0 "$(<"$dir/pvcd.pid")" 2>/dev/null || [[ $SECONDS -gt $deadline ]]; then
            cat "$dir/pvcd.log"
            return 1
        fi
        sleep 0.1
    done
}

tell_story() {
    local boot=() guest="the simulated guest"
    if [[ $hypervisor == libvirt ]]; then
        boot=(--kernel "$GUEST/vmlinuz" --initrd "$GUEST/initrd.img" --cmdline "console=ttyS0 quiet pvc.name=web01")
        guest="the tiny guest"
    fi
    tell "A new cluster; its first admin token is shown once."
    show pvc cluster init demo
    show pvc node list
    tell "A VM with 128 MiB, one processor, and $guest on it:"
    show pvc vm define web01 --memory 128 --vcpus 1 "${boot[@]}"
    show pvc vm start web01 --wait
    wait_for_heartbeat
    tell "What the guest itself says on its serial console:"
    show pvc vm log web01 --lines 3
    show pvc vm tag add web01 demo
    tell "An orderly shutdown: the guest gets an ACPI signal and powers itself off."
    show pvc vm shutdown web01 --wait
    show pvc vm start web01 --wait
    tell "And the hard way, as if pulling the plug:"
    show pvc vm stop web01 --yes --wait
    show pvc vm list
    tell "Who did what to it, when, and what came of it:"
    show pvc history vm web01
}

tell() { printf '\n%s# %s%s' "$DIM" "$1" "$PLAIN"; }

# What is shown can be typed: words with spaces stand in quotes, as a person would write them.
show() {
    local word line=""
    for word in "$@"; do
        [[ $word == *" "* ]] && word="\"$word\""
        line+=" $word"
    done
    printf '\n%s$%s%s\n' "$BOLD" "$line" "$PLAIN"
    "$@" || die_in_story "$*"
}

# A few beats, so that the last lines are beats and not the rest of the boot.
wait_for_heartbeat() {
    local deadline=$((SECONDS + HEARTBEAT_S))
    until [[ $(pvc vm log web01 --lines 50 2>/dev/null | grep -c heartbeat) -ge 4 ]]; do
        [[ $SECONDS -lt $deadline ]] || die_in_story "waiting for the guest's heartbeat"
        sleep 0.3
    done
}

die_in_story() {
    printf '\n%sThe end of the daemon'"'"'s log:%s\n' "$BOLD" "$PLAIN" >&2
    tail -n "$LOG_TAIL" "$dir/pvcd.log" >&2
    die "this failed: $1"
}

explain_how_to_go_on() {
    cat <<TEXT

The cluster stays up. To talk to it:

  export PATH=$ROOT/$VENV/bin:\$PATH PVC_SOCKET=$dir/pvc.sock
  pvc vm list

Its API listens on http://127.0.0.1:$PORT/api/v1/ (with the token above), its log is $dir/pvcd.log.
To end it all: ./dev demo --down
TEXT
}

# Ends what the link leads to, and nothing else: a demo that is up, or what a crashed one left.
take_down() {
    local old
    old=$(readlink "$LINK") || return 0
    if [[ -d $old ]]; then
        end_daemon "$old"
        if [[ -d $old/libvirt ]]; then
            install_for python
            step "Ending libvirtd and its VMs" python -m pvc.lab.libvirt_host --dir "$old/libvirt" down
        fi
        rm -rf "$old"
    fi
    rm -f "$LINK"
    give_back .cache
}

end_daemon() {
    local pid deadline=$((SECONDS + 5)) # it has nothing to finish: a VM outlives its daemon
    pid=$(cat "$1/pvcd.pid" 2>/dev/null) || return 0
    # The number may be another's by now; the directory in the command line is not.
    while [[ -r /proc/$pid/cmdline ]] && tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -qF "$1/pvc.toml"; do
        if [[ $SECONDS -lt $deadline ]]; then kill -TERM "$pid" 2>/dev/null || return 0; else kill -KILL "$pid" 2>/dev/null || return 0; fi
        sleep 0.1
    done
}
