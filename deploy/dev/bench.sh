# shellcheck shell=bash
# ./dev bench: the speed table.

usage() {
    cat <<'TEXT'
Usage: ./dev bench [options of tests.bench]

Measures each figure beside its yardstick in the same run, and prints the ratios. Options are passed on: once
installed, `.venv/bin/python -m tests.bench -h` lists them.

The rows of real hosts need root, and are left out without it.

Example: ./dev bench --quick append follow
TEXT
}

run() {
    install_for python guest hypervisor fencing lab zookeeper
    "$VENV/bin/python" -c 'import eventsourcing' 2>/dev/null ||
        step "Installing what is only measured against" "$VENV/bin/python" -m pip install --quiet --editable '.[bench]' ||
        note "the rows that need it will say so"
    exec python -m tests.bench "$@"
}
