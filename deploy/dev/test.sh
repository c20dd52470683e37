# shellcheck shell=bash
# ./dev test: lint, then the fast tests, then those with real components, and beside them the simulations' many seeds,
# which are shown when all are done.

usage() {
    cat <<'TEXT'
Usage: ./dev test [--fast] [--no-lint] [--coverage] [pytest options and paths]

Runs lint, then the tests. As root (or with sudo) the integration tests start a ZooKeeper, a libvirtd and a Ceph of their
own, and a missing one is a failure; otherwise they are skipped and named.

  --fast      lint and the unit, contract and property tests only, those marked `many_seeds` left out
  --no-lint   the tests alone
  --coverage  say at the end how much of each package was run; takes twice as long
  Paths replace the default set of tests; anything else goes to pytest as it is. With any of these there is one run,
  of one test after the other.

Example: ./dev test --no-lint tests/unit -k tags
TEXT
}

FAST=(tests/unit tests/contract tests/property)
REAL=(tests/integration tests/fuzz tests/lab) # with real components, ports, namespaces and deadlines
WORKERS=3 # they wait for much besides the processor; each collects all tests first, so that more of them gain little
PYTEST=(python -m pytest --durations=8 --durations-min=5)
[[ -z $BOLD ]] || PYTEST+=(--color=yes) # asked here: pytest may not see the terminal for the pipe

run() {
    local fast=no lint=yes paths=() options=() measured=() status=0 argument
    for argument in "$@"; do
        case $argument in
            --fast) fast=yes ;;
            --no-lint) lint=no ;;
            --coverage) measured=(--cov --cov-report=) ;;
            -*) options+=("$argument") ;;
            *) if [[ -e ${argument%%::*} ]]; then paths+=("$argument"); else options+=("$argument"); fi ;;
        esac
    done
    # shellcheck source=deploy/dev/lint.sh
    source deploy/dev/lint.sh
    if [[ $fast == yes ]]; then
        install_for python lint terminal
    else
        install_for python lint terminal guest hypervisor fencing lab zookeeper ceph monitoring
    fi
    if [[ $lint == yes ]] && ! lint; then
        status=1
        note "lint failed (above); the tests run all the same"
    fi
    if [[ ${#paths[@]} -gt 0 || ${#options[@]} -gt 0 ]]; then
        run_chosen || status=$?
    elif [[ $fast == yes ]]; then
        run_fast || status=$?
    else
        run_all || status=$?
    fi
    [[ ${#measured[@]} -eq 0 ]] || python -m tests.coverage_summary
    exit "$status"
}

run_chosen() {
    if [[ ${#paths[@]} -eq 0 ]]; then paths=("${FAST[@]}"); [[ $fast == yes ]] || paths+=("${REAL[@]}"); fi
    if [[ $fast == yes ]]; then
        "${PYTEST[@]}" "${measured[@]}" "${paths[@]}" "${options[@]}"
    else
        run_real "${measured[@]}" "${paths[@]}" "${options[@]}"
    fi
}

run_all() {
    local status=0 fast_status=0 seeds_status=0 seeds log seeds_log
    log=$(new_log_of "fast tests") seeds_log=$(new_log_of "many seeds")
    run_fast | tee --ignore-interrupts "$log" || fast_status=$?
    # A failed test keeps no other from being run; but one who interrupts them does not want the others.
    [[ $fast_status -le 1 ]] || return "$fast_status"
    nice "${PYTEST[@]}" -p no:cacheprovider -m many_seeds "${FAST[@]}" >"$seeds_log" 2>&1 &
    seeds=$!
    [[ ${#measured[@]} -eq 0 ]] || measured+=(--cov-append)
    run_real --numprocesses "$WORKERS" --dist loadscope --no-loadscope-reorder -p tests.side_by_side "${measured[@]}" \
        "${REAL[@]}" || status=$?
    wait "$seeds" || seeds_status=$?
    printf '\n%sThe simulations of many seeds, meanwhile:%s\n' "$BOLD" "$PLAIN"
    cat "$seeds_log"
    printf '\n%sThe fast tests, above:%s\n' "$BOLD" "$PLAIN"
    summary_in "$log"
    return $((status | fast_status | seeds_status))
}

# Some take a hundred times as long as others: who has nothing left to do takes over what others have not begun.
run_fast() {
    "${PYTEST[@]}" --numprocesses "$WORKERS" --dist worksteal -m "not many_seeds" "${measured[@]}" "${FAST[@]}"
}

# Real components are required, not skipped, wherever we may start them. Their tests need root for the namespaces.
run_real() {
    local status=0 command=("${PYTEST[@]}" "$@")
    if ! can_be_root; then
        "${command[@]}"
        return
    fi
    # Whoever was started in the background ignores Ctrl-C, and so would the programs that they interrupt.
    command=(env --default-signal=INT "PVC_TEST_REQUIRE=${PVC_TEST_REQUIRE-zookeeper,libvirt,fencing,lab,ceph,monitoring}" "${command[@]}")
    if is_root; then
        "${command[@]}"
        return
    fi
    as_root env "PATH=$PATH" PYTHONNOUSERSITE=1 PYTHONDONTWRITEBYTECODE=1 "${command[@]}" || status=$?
    give_back .cache .coverage .hypothesis .pytest_cache
    return "$status"
}

# What failed and what was skipped, and how many passed: the end of pytest's output, from the summary on if it has one.
summary_in() {
    sed '1,/= short test summary info =/d' "$1" | grep . || tail -n 1 "$1"
}
