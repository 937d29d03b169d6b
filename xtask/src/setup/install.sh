# Installs the Debian packages given as arguments, as root, and lets none of their services start.
# In the environment: POLICY, the path of policy-rc.d, and LOCK, of the lock file.
set -eu
mark='# made by cargo xtask setup'

# Two at once would take away each other's policy. The lock is not for apt's children (9>&-).
exec 9>"$LOCK"
flock 9

cleanup() {
    if [ -f "$POLICY" ] && grep -qxF "$mark" "$POLICY"; then rm -f "$POLICY"; fi
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# invoke-rc.d and deb-systemd-invoke ask this program; 101 means: do not start it. A machine's own stays.
if [ ! -e "$POLICY" ]; then
    printf '#!/bin/sh\n%s\nexit 101\n' "$mark" >"$POLICY"
    chmod 755 "$POLICY"
fi

# noninteractive: tshark asks whether everybody may capture, and its default is no.
export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 LC_ALL=C
apt() {
    apt-get -q -o DPkg::Lock::Timeout=120 -o Dpkg::Use-Pty=0 -o Dpkg::Options::=--force-confold "$@" \
        </dev/null 9>&-
}

# A broken source of the user's must not stop us: what it takes from us, install says below.
apt update || echo "apt-get update failed; going on with the lists there are" >&2

known=
for package in "$@"; do
    if apt-cache show --no-all-versions "$package" >/dev/null 2>&1; then
        known="$known $package"
    else
        echo "apt knows no package $package here" >&2
    fi
done
[ -n "$known" ] || exit 0

# shellcheck disable=SC2086 # one word per package
plan=$(apt -s install -y --no-install-recommends $known)
# busybox-static is busybox too and takes its place; anything else that would go is the user's to decide.
removed=$(printf '%s\n' "$plan" | sed -n 's/^Remv \([^ ]*\).*/\1/p' | grep -vx busybox | tr '\n' ' ' || true)
if [ -n "$removed" ]; then
    echo "installing$known would remove $removed- nothing was installed" >&2
    exit 4
fi

# shellcheck disable=SC2086
apt install -y --no-install-recommends $known

# Where there is systemd, installing also enables; what we brought shall not come up at the next boot.
if command -v systemctl >/dev/null 2>&1; then
    for package in $known; do
        case $package in
        docker.io) units="docker.service docker.socket" ;;
        containerd) units="containerd.service" ;;
        etcd-server) units="etcd.service" ;;
        openvswitch-switch) units="openvswitch-switch.service ovs-vswitchd.service ovsdb-server.service" ;;
        *) continue ;;
        esac
        for unit in $units; do
            if [ -d /run/systemd/system ]; then systemctl --quiet stop "$unit" || true; fi
            systemctl --quiet disable "$unit" 2>/dev/null || true
        done
        echo "$package is installed; its service is stopped and disabled" >&2
    done
fi
