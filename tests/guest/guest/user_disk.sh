# Checks a disk that another program has before, while and after its machine is saved and loaded; then the program of
# the next disk is killed while it is written to, and the last disk goes on.
cat /dev/vda >/tmp/checker
chmod +x /tmp/checker
# Says what the host waits for, and waits until it has done its part.
await() {
    echo "=== $1"
    read -r line
}
written() { awk '{ print $5 }' /sys/block/$1/stat; }
for disk in vdb vdc; do
    queue=/sys/block/$disk/queue
    echo "DISK $disk $(cat /sys/block/$disk/cache_type), $(ls /sys/block/$disk/mq | wc -l) queues," \
        "discards $(cat $queue/discard_max_bytes), zeroes $(cat $queue/write_zeroes_max_bytes)"
done
echo "BEFORE $(/tmp/checker /dev/vdb 7)"
before=$(md5sum </dev/vdb)
(echo "WHILE $(/tmp/checker /dev/vdb 8)") &
checker=$!
await saving
wait $checker
echo "AFTER $(/tmp/checker /dev/vdb 9)"
[ "$before" != "$(md5sum </dev/vdb)" ] || echo "WRONG: nothing was written"

(while dd if=/dev/zero of=/dev/vdc bs=64k count=16 oflag=direct 2>/tmp/error; do :; done; echo "LOST $(cat /tmp/error)") &
until [ "$(written vdc)" -gt 0 ]; do usleep 10000; done
await writing
written=$(written vdc)
echo "BESIDE $(/tmp/checker /dev/vdb 10)"
echo "BESIDE $(/tmp/checker /dev/vdd 11)"
echo "STUCK $(($(written vdc) - written))"
await beside
dmesg | grep -E 'vd[bd].*I/O error|WARNING:|BUG:' | while read -r line; do echo "WRONG: $line"; done
echo "=== done"
