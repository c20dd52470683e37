# shellcheck shell=bash
# ./dev lint: independent checks, side by side, told in order.

usage() {
    cat <<'TEXT'
Usage: ./dev lint

Runs ruff, mypy, import-linter, shellcheck and the check of the generated files side by side, one line each, then
what the failed ones said.

Example: ./dev lint
TEXT
}

run() {
    [[ $# -eq 0 ]] || die_usage "lint takes no arguments: $*" "./dev lint -h"
    install_for python lint
    lint
}

# The longest first, as they share two processors. Sets the exit status to 1 if any fails, after all have run.
lint() {
    local label checks=(types imports style format generated shell) failed=()
    declare -A pid
    for label in "${checks[@]}"; do
        timed "$label" "check_$label" &
        pid[$label]=$!
    done
    for label in "${checks[@]}"; do
        wait "${pid[$label]}" || failed+=("$label")
        printf 'lint: %-9s %s\n' "$label" "$(<"$LOGS/lint-$label.outcome")"
    done
    for label in "${failed[@]}"; do
        printf '\n%s%s%s\n' "$BOLD" "$label" "$PLAIN"
        LOG_TAIL=60 show_log "$(log_of "lint-$label")"
    done
    [[ ${#failed[@]} -eq 0 ]]
}

timed() {
    local log began=$EPOCHREALTIME status=0
    log=$(new_log_of "lint-$1")
    "$2" >"$log" 2>&1 </dev/null || status=$?
    outcome "$status" "$(seconds_since "$began")" >"${log%.log}.outcome"
    return "$status"
}

check_types() { mypy --strict; }

check_imports() { lint-imports; }

check_style() { ruff check .; }

check_format() { ruff format --check .; }

check_generated() { python -m pvc.schemas --check && python -m pvc.schemas --compatible; }

check_shell() { shellcheck --external-sources dev .ci/run deploy/dev/*.sh; }
