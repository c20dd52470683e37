# shellcheck shell=bash
# ./dev bench: the speed table.

usage() {
    cat <<'TEXT'
Usage: ./dev bench [options of tests.bench]

Measures each figure beside its yardstick in the same run, and prints the ratios. Options are passed on: once
installed, `.venv/bin/python -m tests.bench -h` lists them.

Example: ./dev bench
TEXT
}

run() {
    install_for python zookeeper
    exec python -m tests.bench "$@"
}
