# Uses a disk and a card that come, round after round until they go, and a disk that comes again. What it waits for
# and does not get, it says.
section() { echo "=== $1"; }
await() {
    for try in $(seq 1200); do
        eval "$1" && return
        sleep 0.05
    done
    echo "NEVER: $1"
}

section slots
ls /sys/bus/pci/slots
section waiting
await '[ -b /dev/vda ]'
await '[ -e /sys/class/net/eth0 ]'
mkdir /mnt/plugged
mount -t ext4 /dev/vda /mnt/plugged && echo mounted
ip addr add 10.92.0.2/24 dev eth0
ip link set dev eth0 up

round() {
    dd if=/dev/urandom of=/tmp/piece bs=4096 count=16 2>/dev/null
    cp /tmp/piece /mnt/plugged/var/piece && sync && echo 3 >/proc/sys/vm/drop_caches
    cmp /tmp/piece /mnt/plugged/var/piece && ping -c 1 -W 5 10.92.0.1 >/dev/null
}
while round 2>/dev/null; do
    echo "ROUND"
done
await '[ ! -e /sys/class/block/vda ]'
await '[ ! -e /sys/class/net/eth0 ]'
echo "GONE"
umount -l /mnt/plugged

await '[ -e /sys/class/block/vd? ]'
disk=$(ls -d /sys/class/block/vd?)
section again
cat $disk/size
dd if=/dev/urandom of=/tmp/piece bs=4096 count=16 2>/dev/null
dd if=/tmp/piece of=/dev/${disk##*/} conv=fsync 2>/dev/null && cmp -n 65536 /tmp/piece /dev/${disk##*/} && echo same
section done
