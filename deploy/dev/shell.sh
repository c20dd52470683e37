# shellcheck shell=bash
# ./dev shell: the project's environment on PATH.

usage() {
    cat <<'TEXT'
Usage: ./dev shell [COMMAND [ARGUMENT...]]

Opens a shell in which `pvc`, `pytest` and `python` are the project's own; with a COMMAND it runs that instead.

Example: ./dev shell pvc --version
TEXT
}

run() {
    install_for python
    export VIRTUAL_ENV=$ROOT/$VENV
    if [[ $# -gt 0 ]]; then exec "$@"; fi
    note "The environment of $ROOT is active; leave it with exit."
    exec "${SHELL:-bash}"
}
