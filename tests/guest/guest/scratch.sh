# Writes to the first disk, which begins with a word, and reads back what is there.
echo "SCRATCH begins with $(head -c 5 /dev/vda)"
head -c 1048576 /dev/urandom >/tmp/random
dd if=/tmp/random of=/dev/vda bs=64k seek=1 conv=fsync 2>/dev/null
echo 3 >/proc/sys/vm/drop_caches
dd if=/dev/vda bs=64k skip=1 count=16 2>/dev/null | cmp - /tmp/random && echo "SCRATCH has what was written"
echo "SCRATCH begins with $(head -c 5 /dev/vda)"
dmesg | grep -E 'I/O error|WARNING:|BUG:' | while read -r line; do echo "WRONG: $line"; done
echo "=== done"
