# shellcheck shell=bash
# ./dev schemas: the files that are generated from the code.

usage() {
    cat <<'TEXT'
Usage: ./dev schemas [--check | --compatible | --release]

Writes the files that are generated from the code: schemas/ and docs/reference/. With --check it changes nothing and
fails when one of them is out of date. --compatible compares them with those of the last release, and fails when records
or clients of it would be left out. --release keeps them, with the corpus of records, as those of this version.

Example: ./dev schemas --check
TEXT
}

run() {
    install_for python
    exec python -m pvc.schemas "$@"
}
