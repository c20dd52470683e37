# shellcheck shell=bash disable=SC2034 # the package groups are used by their computed names
# What a command needs on this machine: Debian packages and the virtual environment. Installs only what is missing, and
# starts no service: the packages are chosen so that none brings one (libvirt-daemon, not libvirt-daemon-system).

PYTHON=/usr/bin/python3 # Debian's own, by its full name: another python3 may come first on PATH
VENV=.venv
PACKAGES_PYTHON=(
    python3-venv # makes .venv
    python3-dev gcc libc6-dev pkg-config libvirt-dev # libvirt-python is compiled against libvirt's headers
)
PACKAGES_LINT=(
    shellcheck # reads ./dev and what stands behind it
)
PACKAGES_TERMINAL=(
    mandoc groff-base # read the manual pages, and are stricter than man
    zsh fish          # beside bash, the shells that complete pvc
)
PACKAGES_GUEST=(
    busybox-static # the tiny guest's whole userland; its kernel is downloaded, not installed
)
PACKAGES_HYPERVISOR=(
    libvirt-daemon             # libvirtd and virtlogd, without the units that would start them
    libvirt-clients            # virsh, to look in by hand
    qemu-system-x86 qemu-utils # the VMs, and their disk images
    ipxe-qemu                  # option ROMs: without them QEMU refuses a network card
    util-linux mount           # unshare, nsenter and mount: the private namespace libvirtd runs in
)
PACKAGES_FENCING=(
    fence-agents # cut the power of a lost node
    ipmitool     # what fence_ipmilan calls
    openipmi     # ipmi_sim, a BMC for machines that have none
)
PACKAGES_LAB=(
    iproute2     # the hosts' network
    nftables     # what cuts it
    iputils-ping # to see that it is cut
)
PACKAGES_ZOOKEEPER=(
    libzookeeper-java       # the server itself; the package `zookeeper` adds only scripts and a desktop Java
    openjdk-17-jre-headless # runs it
)
PACKAGES_CEPH=(
    python3-rados     # how the archive writes to Ceph; on no Python index
    ceph-mon ceph-osd # one of each makes a Ceph for the tests; neither starts before it is configured
    ceph-common       # the commands that configure them
)

PACKAGES_MONITORING=() # Prometheus is unpacked, not installed: see unpack_prometheus

# install_for GROUP...: packages of the groups (python lint terminal guest hypervisor fencing lab zookeeper ceph
# monitoring), then the environment.
# Every command that runs Python needs `python`; a group that cannot be installed for want of root is left out with a note.
install_for() {
    mkdir -p "$LOGS"
    # Two terminals, one clone: the second waits. The lock is the subshell's, so that no daemon started later holds it.
    (flock 9 && install_packages "$@" && make_qemu_user "$@" && unpack_prometheus "$@" && install_environment) 9>"$LOGS/lock"
    export PATH=$ROOT/$VENV/bin:$PATH
    export PYTHONNOUSERSITE=1 # --system-site-packages would let ~/.local in as well
    unset PYTHONHOME PYTHONPATH
}

install_packages() {
    local group wanted=() missing=()
    for group in "$@"; do
        local -n packages=PACKAGES_${group^^}
        wanted+=("${packages[@]}")
    done
    if ! command -v dpkg-query >/dev/null; then
        note "This is not Debian: what these packages bring must be here already: ${wanted[*]}"
        return
    fi
    mapfile -t missing < <(missing_of "${wanted[@]}")
    [[ ${#missing[@]} -gt 0 ]] || return 0
    if ! can_be_root; then
        note "Not root and no sudo: going on without these Debian packages: ${missing[*]}"
        return
    fi
    if lists_lack "${missing[@]}"; then
        step "apt-get update" as_root apt-get update ||
            die "apt-get could not fetch the package lists" "Is the Debian mirror in /etc/apt/sources.list* reachable?"
    fi
    step "Installing ${#missing[@]} Debian packages" apt_install "${missing[@]}" ||
        die "apt-get could not install: ${missing[*]}" "Is the Debian mirror reachable? Try: apt-get update"
}

# libvirtd refuses to start where it does not know this user, even when told to run VMs as root. Debian makes it in the
# package that would also start libvirtd; made here as there, so that that package finds it as its own.
make_qemu_user() {
    if [[ " $* " != *" hypervisor "* ]] || getent passwd libvirt-qemu >/dev/null || ! can_be_root; then return 0; fi
    step "Making the user libvirt-qemu" add_qemu_user || die "could not make the user libvirt-qemu"
}

add_qemu_user() {
    as_root groupadd --system --force kvm &&
        as_root groupadd --system --force --gid 64055 libvirt-qemu &&
        as_root useradd --system --uid 64055 --gid kvm --groups libvirt-qemu --home-dir /var/lib/libvirt \
            --no-create-home --shell /usr/sbin/nologin --comment "Libvirt Qemu" libvirt-qemu
}

# The package would run a server from each start of the machine on. Its two programs need nothing else that it brings.
PROMETHEUS=.cache/prometheus
unpack_prometheus() {
    if [[ " $* " != *" monitoring "* || -x $PROMETHEUS/promtool ]] || ! command -v dpkg-deb >/dev/null; then return 0; fi
    if lists_lack prometheus && can_be_root; then
        step "apt-get update" as_root apt-get update || die "apt-get could not fetch the package lists"
    fi
    step "Unpacking Prometheus" fetch_prometheus ||
        note "Going on without Prometheus: what it judges is judged elsewhere"
}

fetch_prometheus() {
    local place status=0
    place=$(mktemp -d)
    (cd "$place" && apt-get -o APT::Sandbox::User=root download prometheus && dpkg-deb -x prometheus_*.deb unpacked) &&
        mkdir -p "$PROMETHEUS" &&
        mv "$place/unpacked/usr/bin/prometheus" "$PROMETHEUS/prometheus" &&
        mv "$place/unpacked/usr/bin/promtool" "$PROMETHEUS/promtool" || status=$?
    rm -rf "$place"
    return "$status"
}

missing_of() {
    comm -23 <(printf '%s\n' "$@" | sort -u) \
        <(dpkg-query -W -f '${db:Status-Status} ${Package}\n' "$@" 2>/dev/null | sed -n 's/^installed //p' | sort -u)
}

lists_lack() {
    ! apt-cache show --no-all-versions "$@" >/dev/null 2>&1
}

apt_install() {
    local install=(env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends
        -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "$@")
    # Stale lists name versions the mirror no longer has; fresh ones settle it.
    as_root "${install[@]}" || { as_root apt-get update && as_root "${install[@]}"; }
}

# The stamp holds all that the environment was made from: while it agrees, there is nothing to do.
install_environment() {
    local stamp
    check_python
    stamp="$ROOT $("$PYTHON" --version) libvirt=$(has_libvirt_headers && echo yes || echo no) $(sha256sum <pyproject.toml)"
    if [[ -x $VENV/bin/python && $(cat "$VENV/dev-stamp" 2>/dev/null) == "$stamp" ]]; then return; fi
    if ! environment_works; then
        step "Making $VENV" "$PYTHON" -m venv --clear --system-site-packages "$VENV" ||
            die "could not make $VENV" "Debian's venv module is in: apt-get install python3-venv"
    fi
    step "Installing Python packages" pip_install ||
        die "pip could not install the dependencies" "Is its package index reachable? \`$VENV/bin/pip config list\` shows it."
    step "Checking where they come from" check_origins ||
        die "$VENV uses packages of the system where it needs its own" "Remove $VENV and run this again."
    printf '%s\n' "$stamp" >"$VENV/dev-stamp"
}

check_python() {
    [[ -x $PYTHON ]] || die "there is no $PYTHON" "As root: apt-get install python3-venv"
    "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        die "$PYTHON is $("$PYTHON" --version); PVC needs 3.11 or later" "Debian 12 and later have it."
}

has_libvirt_headers() {
    pkg-config --exists libvirt 2>/dev/null
}

# Usable, and made here: the scripts of an environment that was moved or copied point at the old place.
environment_works() {
    [[ -f $VENV/bin/pip && $(head -n 1 "$VENV/bin/pip") == "#!$ROOT/$VENV/bin/python"* ]] &&
        "$VENV/bin/python" -m pip --version >/dev/null 2>&1
}

pip_install() {
    local pip=("$VENV/bin/python" -m pip install --disable-pip-version-check --progress-bar off)
    export PYTHONNOUSERSITE=1
    if has_libvirt_headers; then
        "${pip[@]}" --editable '.[dev]'
    else # The simulated hypervisor does without libvirt, so everything else must still install.
        mapfile -t requirements < <("$PYTHON" deploy/dev/requirements.py --without libvirt-python)
        "${pip[@]}" "${requirements[@]}" && "${pip[@]}" --no-deps --editable .
    fi
}

# --system-site-packages is there for `rados` and `rbd`, which no index has. It must not let in an old Debian kazoo.
check_origins() {
    PYTHONNOUSERSITE=1 "$VENV/bin/python" - <<'PYTHON_CODE'
import sys, kazoo, msgspec
strays = [module.__file__ for module in (kazoo, msgspec) if not str(module.__file__).startswith(sys.prefix)]
sys.exit("not from the virtual environment: " + ", ".join(strays) if strays else 0)
PYTHON_CODE
}
