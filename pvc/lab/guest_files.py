"""What is inside the tiny guest's initramfs: its folders, kernel modules, init and the commands of its console.

The kernel command line steers it: `pvc.name=web01` names it, `pvc.deaf` makes it ignore the power button,
`pvc.poweroff=N` and `pvc.crash=N` make it power itself off, or panic, N seconds after its first heartbeat, and
`pvc.beat=N` makes its heart beat every N seconds instead of each, and name its boot with each beat.
"""

from __future__ import annotations

FOLDERS = ("bin", "dev", "etc", "etc/acpi", "etc/acpi/PWRF", "lib", "lib/modules", "proc", "run", "sys", "tmp")

MODULES = (
    "button",
    "evdev",
    "pvpanic_mmio",
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "virtio_rng",
)
"""Power button, what acpid reads it from, panic reports, disks, NICs, entropy; each with all it needs."""

_INIT = r"""#!/bin/busybox sh
# The first process: sets the machine up, then keeps a shell on the serial console.
export PATH=/bin HOME=/ ENV=/etc/shell
busybox mount -t proc proc /proc
busybox mount -t sysfs sysfs /sys
busybox mount -t devtmpfs dev /dev
busybox dmesg -n 1
for module in /lib/modules/*.ko; do busybox insmod "$module"; done

name=guest deaf= poweroff= crash= beat=
for word in $(busybox cat /proc/cmdline); do
    case $word in
        pvc.name=*) name=${word#*=} ;;
        pvc.deaf) deaf=1 ;;
        pvc.poweroff=*) poweroff=${word#*=} ;;
        pvc.crash=*) crash=${word#*=} ;;
        pvc.beat=*) beat=${word#*=} ;;
    esac
done
busybox hostname "$name"
echo 1 > /proc/sys/kernel/sysrq
exec </dev/ttyS0 >/dev/ttyS0 2>&1
if [ ! "$deaf" ]; then
    busybox acpid -f -l /dev/null &
    echo $! > /run/acpid
    # A button pressed before acpid listens is a button never pressed, so no heartbeat before.
    for try in 0 1 2 3 4 5 6 7 8 9; do
        case $(busybox ls -l /proc/$!/fd) in */input/*) break ;; esac
        busybox sleep 0.05
    done
fi
/bin/heartbeat "$beat" &
echo $! > /run/heartbeat
[ "$poweroff" ] && { busybox sleep "$poweroff"; /bin/poweroff; } &
[ "$crash" ] && { busybox sleep "$crash"; /bin/crash; } &
while :; do
    busybox setsid busybox cttyhack busybox sh -c 'exec busybox sh -i'
    busybox sleep 1
done
"""

_HEARTBEAT = r"""#!/bin/busybox sh
# $1: every so many seconds, each beat with this boot's own token, which tells two copies of one VM apart.
name=$(busybox hostname) n=0
read -r boot < /proc/sys/kernel/random/boot_id
boot=${1:+ boot ${boot%%-*}}
while :; do
    n=$((n + 1))
    read -r up rest < /proc/uptime
    [ -e /run/quiet ] || echo "$name heartbeat $n up ${up%%.*}s$boot"
    busybox sleep "${1:-1}"
done
"""

_COMMANDS = {
    "init": _INIT,
    # Debian's busybox prefers its applets to files of the same name; functions come before both.
    "etc/shell": "poweroff() { /bin/poweroff; }\nreboot() { /bin/reboot; }\n",
    "bin/heartbeat": _HEARTBEAT,
    # busybox acpid runs this when the power button is pressed.
    "etc/acpi/PWRF/00000080": "#!/bin/busybox sh\nexec /bin/poweroff\n",
    "bin/poweroff": '#!/bin/busybox sh\necho "$(busybox hostname) powers off" > /dev/ttyS0\nbusybox poweroff -f\n',
    "bin/reboot": "#!/bin/busybox sh\nexec busybox reboot -f\n",
    "bin/crash": "#!/bin/busybox sh\necho c > /proc/sysrq-trigger\n",
    "bin/quiet": "#!/bin/busybox sh\n: > /run/quiet\n",
    "bin/loud": "#!/bin/busybox sh\nbusybox rm -f /run/quiet\n",
    "bin/deaf": "#!/bin/busybox sh\nread -r pid < /run/acpid && kill $pid\n",
    "bin/hang": "#!/bin/busybox sh\n/bin/deaf\nread -r pid < /run/heartbeat && kill $pid\nbusybox sleep 999999999\n",
}


def files(modules: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    """(path, content) of every file but busybox; all are executable, which does a module no harm."""
    return [
        *((name, text.encode()) for name, text in _COMMANDS.items()),
        *((f"lib/modules/{name}", content) for name, content in modules),
    ]
