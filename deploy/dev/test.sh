# shellcheck shell=bash
# ./dev test: lint, then one run of pytest, fast tests first, so that its summary covers everything and comes last.

usage() {
    cat <<'TEXT'
Usage: ./dev test [--fast] [--no-lint] [pytest options and paths]

Runs lint, then the tests. As root (or with sudo) the integration tests start a ZooKeeper and a libvirtd of their own,
and a missing one is a failure; otherwise they are skipped and named.

  --fast      lint and the unit, contract and property tests only
  --no-lint   the tests alone
  Paths replace the default set of tests; anything else goes to pytest as it is.

Example: ./dev test --no-lint tests/unit -k tags
TEXT
}

FAST=(tests/unit tests/contract tests/property)

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
    if [[ ${#paths[@]} -eq 0 ]]; then paths=("${FAST[@]}"); [[ $fast == yes ]] || paths+=(tests/integration tests/lab); fi
    if [[ $fast == yes ]]; then install_for python lint; else install_for python lint guest hypervisor fencing lab zookeeper; fi
    if [[ $lint == yes ]] && ! lint; then
        status=1
        note "lint failed (above); the tests run all the same"
    fi
    run_pytest "$fast" "${paths[@]}" "${options[@]}" || status=$?
    exit "$status"
}

# Real components are required, not skipped, wherever we may start them. Their tests need root for the namespaces.
run_pytest() {
    local fast=$1 status=0 command
    shift
    command=(python -m pytest --cov --cov-report= -p tests.coverage_summary --durations=8 --durations-min=5 "$@")
    if [[ $fast == yes ]] || ! can_be_root; then
        "${command[@]}"
        return
    fi
    command=(env "PVC_TEST_REQUIRE=${PVC_TEST_REQUIRE-zookeeper,libvirt,fencing,lab}" "${command[@]}")
    if is_root; then
        "${command[@]}"
        return
    fi
    as_root env "PATH=$PATH" PYTHONNOUSERSITE=1 PYTHONDONTWRITEBYTECODE=1 "${command[@]}" || status=$?
    give_back .cache .coverage .hypothesis .pytest_cache
    return "$status"
}
