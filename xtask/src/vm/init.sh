#!/bin/busybox sh
# The guest's first program: this machine's root filesystem, read-only, under a tmpfs that takes every write; all
# modules of the kernel that runs; then the command, with its outputs and its exit status on consoles of the emulator.
B=/bin/busybox
$B --install -s /bin
export PATH=/bin
fail() { echo "guest: $*" >&2; sync; reboot -f; }

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
for m in $(cat /modules/list); do
    insmod "/modules/$m.ko" || echo "guest: module $m cannot be loaded" >&2
done

options=trans=virtio,version=9p2000.L,msize=512000,access=any,cache=loose
mount -t 9p -o "ro,$options" hostroot /lower || fail "the host's files cannot be mounted"
mount -t tmpfs -o mode=755 tmpfs /overlay
mkdir /overlay/upper /overlay/work
mount -t overlay -o lowerdir=/lower,upperdir=/overlay/upper,workdir=/overlay/work,xino=off overlay /new ||
    fail "no overlay over the host's files"
cd /new || fail "no new root"
mkdir -p lib/modules
mount -t 9p -o "ro,$options" modules lib/modules || fail "the modules cannot be mounted"
mount --move /proc proc
mount --move /sys sys
mount --move /dev dev
mkdir -p dev/pts dev/shm
mount -t devpts -o mode=620,ptmxmode=666 devpts dev/pts
mount -t tmpfs tmpfs dev/shm
ln -sf /proc/self/fd dev/fd
ln -sf /proc/self/fd/0 dev/stdin
ln -sf /proc/self/fd/1 dev/stdout
ln -sf /proc/self/fd/2 dev/stderr
# What the host's daemons left there is not of this machine.
for d in run var/lib/docker; do
    [ -d "$d" ] && mount -t tmpfs -o mode=755 tmpfs "$d"
done
mkdir -p run/guest run/lock run/netns
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t bpf bpf sys/fs/bpf
mount -t tracefs tracefs sys/kernel/tracing
mount -t debugfs debugfs sys/kernel/debug
cp /command run/guest/command
for port in /new/sys/class/virtio-ports/*; do
    [ -r "$port/name" ] && ln -s "/dev/${port##*/}" "run/guest/$(cat "$port/name")"
done
ip link set lo up
hostname guest

cat >run/guest/start <<'START'
#!/bin/sh
cd /run/guest || exit
mkfifo stdout stderr
cat stdout >out & out=$!
cat stderr >err & err=$!
exec 3>status
echo begun >&3
setsid bash /run/guest/command </dev/null >stdout 2>stderr 3>&-
echo $? >&3
# A process that the command left behind may hold its outputs open.
( sleep 2; kill $out $err ) 2>/dev/null &
wait $out $err 2>/dev/null
sync
echo b >/proc/sysrq-trigger
sleep 9
START
chmod +x run/guest/start
exec switch_root /new /run/guest/start
