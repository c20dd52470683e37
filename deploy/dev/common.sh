# shellcheck shell=bash disable=SC2034 # names used by the files that source this one
# How ./dev speaks: steps with their time, errors with their remedy; and who may act as root.

LOGS=.cache/dev # the output of quiet steps, one file each
LOG_TAIL=25     # lines of it shown when a step fails: a pip or apt error fits, a screen is not flooded

if [[ -t 1 && -z ${NO_COLOR:-} && ${TERM:-dumb} != dumb ]]; then
    BOLD=$'\e[1m' DIM=$'\e[2m' RED=$'\e[31m' GREEN=$'\e[32m' YELLOW=$'\e[33m' PLAIN=$'\e[0m'
else
    BOLD='' DIM='' RED='' GREEN='' YELLOW='' PLAIN=''
fi

# step LABEL COMMAND...: runs the command quietly; one line with the time it took, or the end of what it said.
step() {
    local label=$1 log began=$EPOCHREALTIME status=0
    shift
    log=$(new_log_of "$label")
    printf '%s ... ' "$label"
    "$@" >"$log" 2>&1 </dev/null || status=$?
    outcome "$status" "$(seconds_since "$began")"
    [[ $status -eq 0 ]] || show_log "$log"
    return "$status"
}

outcome() {
    if [[ $1 -eq 0 ]]; then
        printf '%sok%s %s(%s s)%s\n' "$GREEN" "$PLAIN" "$DIM" "$2" "$PLAIN"
    else
        printf '%sfailed%s %s(%s s)%s\n' "$RED" "$PLAIN" "$DIM" "$2" "$PLAIN"
    fi
}

show_log() {
    sed 's/^/    /' <(tail -n "$LOG_TAIL" "$1")
    if [[ $(wc -l <"$1") -gt $LOG_TAIL ]]; then printf '    (the whole of it: %s)\n' "$1"; fi
}

# The place of a new log; an old one may be root's, from a run with sudo, and is in the way.
new_log_of() {
    mkdir -p "$LOGS"
    rm -f "$(log_of "$1")"
    log_of "$1"
}

log_of() { printf '%s/%s.log\n' "$LOGS" "${1//[^A-Za-z0-9]/-}"; }

seconds_since() {
    local microseconds=$((${EPOCHREALTIME/./} - ${1/./}))
    printf '%d.%d\n' $((microseconds / 1000000)) $((microseconds / 100000 % 10))
}

note() { printf '%s%s%s\n' "$YELLOW" "$1" "$PLAIN"; }

# die MESSAGE [REMEDY]: what went wrong, and what to do about it.
die() {
    printf '%serror:%s %s\n' "$RED" "$PLAIN" "$1" >&2
    [[ -z ${2:-} ]] || printf '  %s\n' "$2" >&2
    exit 1
}

die_usage() {
    (die "$@") || exit 2
}

is_root() { [[ $EUID -eq 0 ]]; }

# Root itself, or sudo that will not hang on a password nobody is there to type.
can_be_root() {
    is_root || { command -v sudo >/dev/null && { [[ -t 0 ]] || sudo -n true 2>/dev/null; }; }
}

as_root() {
    if is_root; then "$@"; else sudo -- "$@"; fi
}

# give_back PATH...: what root made in a person's clone becomes theirs, so that they can remove it.
give_back() {
    local owner=${SUDO_UID:-$UID} path
    for path in "$@"; do
        [[ -e $path && -n $(find "$path" ! -uid "$owner" -print -quit 2>/dev/null) ]] || continue
        as_root chown -R "$owner" "$path"
    done
}
