# shellcheck shell=bash
# ./dev test: lint, then the fast tests on all processors, then those with real components, and beside them those with
# libvirt and in labs, and the simulations' many seeds, which are shown when all are done.

usage() {
    cat <<'TEXT'
Usage: ./dev test [--fast] [--no-lint] [pytest options and paths]

Runs lint, then the tests. As root (or with sudo) the integration tests start a ZooKeeper, a libvirtd and a Ceph of their
own, and a missing one is a failure; otherwise they are skipped and named.

  --fast      lint and the unit, contract and property tests only, those marked `unmeasured` (many seeds) left out
  --no-lint   the tests alone
  Paths replace the default set of tests; anything else goes to pytest as it is. With any of these there is one run,
  of one test after the other, and coverage is measured where you ask for it (--cov).

Example: ./dev test --no-lint tests/unit -k tags
TEXT
}

FAST=(tests/unit tests/contract tests/property)
REAL=(tests/integration tests/fuzz tests/lab) # with real components, ports, namespaces and deadlines: one after the other
LIBVIRT_COVERAGE=.coverage.libvirt
WORKERS=8 # at most: each collects all tests before the first one runs, so more of them gain little
PYTEST=(python -m pytest --durations=8 --durations-min=5)
[[ -z $BOLD ]] || PYTEST+=(--color=yes) # asked here: pytest may not see the terminal for the pipe

run() {
    local fast=no lint=yes paths=() options=() status=0 argument
    for argument in "$@"; do
        case $argument in
            --fast) fast=yes ;;
            --no-lint) lint=no ;;
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
        run_fast -p tests.coverage_summary || status=$?
    else
        run_all || status=$?
    fi
    exit "$status"
}

run_chosen() {
    if [[ ${#paths[@]} -eq 0 ]]; then paths=("${FAST[@]}"); [[ $fast == yes ]] || paths+=("${REAL[@]}"); fi
    if [[ $fast == yes ]]; then
        "${PYTEST[@]}" "${paths[@]}" "${options[@]}"
    else
        run_real "${paths[@]}" "${options[@]}"
    fi
}

run_all() {
    local status=0 fast_status=0 libvirt_status=0 seeds_status=0 libvirt seeds log libvirt_log seeds_log
    log=$(new_log_of "fast tests") libvirt_log=$(new_log_of "tests with libvirt") seeds_log=$(new_log_of "many seeds")
    run_fast | tee --ignore-interrupts "$log" || fast_status=$?
    # A failed test keeps no other from being run; but one who interrupts them does not want the others.
    [[ $fast_status -le 1 ]] || return "$fast_status"
    # They have nothing in common, and all but the seeds mostly wait: side by side they take half as long.
    nice "${PYTEST[@]}" -p no:cacheprovider -m unmeasured "${FAST[@]}" >"$seeds_log" 2>&1 &
    seeds=$!
    COVERAGE_FILE=$LIBVIRT_COVERAGE run_real -p no:cacheprovider -m "libvirt or lab" --cov --cov-report= "${REAL[@]}" \
        >"$libvirt_log" 2>&1 &
    libvirt=$!
    run_real -m "not libvirt and not lab" --cov --cov-append --cov-report= "${REAL[@]}" || status=$?
    wait "$libvirt" || libvirt_status=$?
    wait "$seeds" || seeds_status=$?
    printf '\n%sThe simulations of many seeds, meanwhile:%s\n' "$BOLD" "$PLAIN"
    cat "$seeds_log"
    printf '\n%sThe tests with libvirt and in labs, meanwhile:%s\n' "$BOLD" "$PLAIN"
    cat "$libvirt_log"
    sum_up_coverage
    printf '\n%sThe fast tests, above:%s\n' "$BOLD" "$PLAIN"
    summary_in "$log"
    return $((status | fast_status | libvirt_status | seeds_status))
}

# Some take a hundred times as long as others: who has nothing left to do takes over what others have not begun.
run_fast() {
    "${PYTEST[@]}" --numprocesses auto --maxprocesses "$WORKERS" --dist worksteal --cov --cov-report= -m "not unmeasured" \
        "$@" "${FAST[@]}"
}

# Real components are required, not skipped, wherever we may start them. Their tests need root for the namespaces.
run_real() {
    local status=0 command=("${PYTEST[@]}" "$@")
    if ! can_be_root; then
        "${command[@]}"
        return
    fi
    # Ctrl-C is for them too: the shell would have what it starts in the background ignore it.
    command=(env --default-signal=INT "COVERAGE_FILE=${COVERAGE_FILE-.coverage}" "PVC_TEST_REQUIRE=${PVC_TEST_REQUIRE-zookeeper,libvirt,fencing,lab,ceph,monitoring}" "${command[@]}")
    if is_root; then
        "${command[@]}"
        return
    fi
    as_root env "PATH=$PATH" PYTHONNOUSERSITE=1 PYTHONDONTWRITEBYTECODE=1 "${command[@]}" || status=$?
    give_back .cache .coverage "$LIBVIRT_COVERAGE" .hypothesis .pytest_cache
    return "$status"
}

# Coverage is worth a word, and no failure where it could not be measured.
sum_up_coverage() {
    [[ ! -e $LIBVIRT_COVERAGE ]] || python -m coverage combine --quiet --append "$LIBVIRT_COVERAGE" || true
    python -m tests.coverage_summary || true
}

# What failed and what was skipped, and how many passed: the end of pytest's output, from the summary on if it has one.
summary_in() {
    sed '1,/= short test summary info =/d' "$1" | grep . || tail -n 1 "$1"
}
