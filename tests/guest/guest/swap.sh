# Says what the first disk is and begins with, whenever its size changes, until a line is typed.
exec 3<&0
{
    read -r line <&3
    : >/tmp/stop
} &
before=
while [ ! -e /tmp/stop ]; do
    size=$(cat /sys/block/vda/size)
    if [ "$size" != "$before" ]; then
        echo 3 >/proc/sys/vm/drop_caches
        echo "DISK of $size begins with $(dd if=/dev/vda bs=512 count=1 2>/dev/null | head -c 6)"
    fi
    before=$size
    sleep 0.1
done
dmesg | grep -E 'I/O error|WARNING:|BUG:' | while read -r line; do echo "WRONG: $line"; done
echo "=== done"
