# Works while its host comes to grief, in turns with it: disks whose host is full, whose file is cut short and whose
# device fails, beside one that is well, and a card whose other end is down. Meanwhile a program talks over vsock.
cat /dev/vda >/tmp/peer
chmod +x /tmp/peer
/tmp/peer &
# Says what the host waits for, and waits until it has done its part.
await() {
    echo "=== $1"
    read -r line
}
# Says of what it tries whether it is done, or what the kernel says of it.
try() {
    name=$1
    shift
    if "$@" >/dev/null 2>/tmp/fault; then
        echo "$name done"
    else
        echo "$name failed: $(sed -n '/^dd/s/.*: //p' /tmp/fault)"
    fi
}
get() { dd if=/dev/$1 of=/dev/null bs=64k count=$2 iflag=direct; }
put() { dd if=/dev/urandom of=/dev/$1 bs=64k count=$2 oflag=direct; }
reach() { ping -c 1 -W $1 10.93.0.1; }
all() {
    for disk in vdb vdc vdd vde; do
        try "$disk read" get $disk 16
    done
    try "vdb written" put vdb 16
    try "vde written" put vde 16
    try "host" reach $1
}
ip addr add 10.93.0.2/24 dev eth0
ip link set dev eth0 up
await begin
echo "=== before"
all 30
await break
echo "=== broken"
all 2
await mend
echo "=== mended"
all 30
dmesg | grep -E 'vde.*I/O error|WARNING:|BUG:|Call trace' | while read -r line; do echo "WRONG: $line"; done
echo "=== done"
