# Programs of Debian hold disks, cards and entropy to their word.
# Words of the kernel's command line say how much there is to do.
. /tests/debian
word() { sed -n "s/.*kedge.$1=\([^ ]*\).*/\1/p" /proc/cmdline; }
section() { echo "=== $1"; }
# Says what the host waits for, and waits until it has done its part.
await() {
    section "$1"
    read -r line
}
disks="vdb vdc vdd vde"

# A section of fio's for each disk, with a job on a CPU of its own for each of the disk's queues.
jobs() {
    cat <<END
[global]
ioengine=libaio
direct=1
rw=randwrite
bssplit=4k/50:20k/30:64k/20
iodepth=8
fsync=32
verify=crc32c
verify_fatal=1
end_fsync=1
cpus_allowed=0-$(($(nproc) - 1))
cpus_allowed_policy=split
group_reporting
END
    for disk in $disks; do
        queues=$(ls /sys/block/$disk/mq | wc -l)
        cat <<END
[$disk]
new_group
directory=/mnt/$disk
size=$(($(word each) / queues))k
numjobs=$queues
END
    done
}

section disks
for disk in $disks; do
    echo "$disk $(cat /sys/block/$disk/cache_type), $(ls /sys/block/$disk/mq | wc -l) queues"
    mkdir /mnt/$disk
    /usr/sbin/mke2fs -q -t ext4 /dev/$disk && mount -t ext4 /dev/$disk /mnt/$disk && echo "$disk mounted"
done
section fio
jobs >/tmp/jobs
fio --output-format=terse --terse-version=3 --output=/tmp/fio /tmp/jobs
echo "ended with status $?"
# What it is called, its error, and how many KiB it read and wrote.
awk -F ';' 'NF > 50 { print $3, "error", $5, "read", $6, "wrote", $47 }' /tmp/fio
sync
await full
for disk in $disks; do
    rm /mnt/$disk/vd*
    sync
    fstrim /mnt/$disk
    umount /mnt/$disk
done
await trimmed

# What iperf3 has sent and received over a card.
transfer() {
    what=$1 at=10.9$2.0.1
    shift 2
    iperf3 -c $at -n $(word bytes) -w 64K -J "$@" >/tmp/iperf || grep '"error"' /tmp/iperf
    for sum in sum_sent sum_received; do
        bytes=$(sed -n "/\"$sum\"/,/}/s/.*\"bytes\":[^0-9]*\([0-9]*\).*/\1/p" /tmp/iperf)
        echo "$what $sum $bytes"
    done
}
# Over the cards named, both ways.
transfers() {
    name=$1
    for card in $(word $name | tr ',' ' '); do
        case $card in
        one) number=0 streams=1 ;;
        eight) number=1 streams=8 ;;
        esac
        transfer "$name $card to-host" $number -P $streams
        transfer "$name $card to-guest" $number -P $streams -R
    done
}
for card in 0 1; do
    ip addr add 10.9$card.0.2/24 dev eth$card
    ip link set eth$card up
done
await iperf3
transfers with
await plain
for card in 0 1; do
    ethtool -K eth$card tx off tso off gso off gro off
done
transfers without
await sent

section rngtest
rngtest -c $(word blocks) </dev/hwrng 2>&1

section messages
dmesg | grep -E 'I/O error|EXT4-fs error|WARNING:|BUG:|Call trace|virtio.*(fail|error)'
section done
