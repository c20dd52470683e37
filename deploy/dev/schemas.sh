# shellcheck shell=bash
# ./dev schemas: the files that are generated from the code.

usage() {
    cat <<'TEXT'
Usage: ./dev schemas [--check]

Writes the files that are generated from the code: schemas/ and docs/reference/. With --check it changes nothing and
fails when one of them is out of date.

Example: ./dev schemas --check
TEXT
}

run() {
    install_for python
    exec python -m pvc.schemas "$@"
}
