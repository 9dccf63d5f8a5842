# Works with the disk, the network and the timers of its machine, round after round, until a line is typed, and says at
# once what is wrong. With kedge.stream=PORT on the command line it holds a connection to that port of its peer, too. Another host, another kernel of it, hours in a file: nothing of that may be noticed here.
peer=10.88.0.1
complain() { echo "WRONG in round $round: $*"; }

# Both clocks, in hundredths of seconds and seconds. No step here takes long, but for those of a guest whose four CPUs
# share two that are emulated and that others are at, too: less than any file is on its way to another host.
look() {
    read -r up rest </proc/uptime
    up=${up%.*}${up#*.}
    now=$(date +%s)
}
clocks() {
    last_up=$up last_now=$now
    look
    step=$((up - last_up)) jump=$((now - last_now))
    if [ $step -lt 0 ] || [ $step -gt 4500 ]; then complain "the uptime went from $last_up to $up in $1"; fi
    if [ $jump -lt 0 ] || [ $jump -gt 46 ]; then complain "the time went from $last_now to $now in $1"; fi
}

# How often the timer of a CPU has interrupted it.
ticks() { awk -v field=$(($1 + 2)) '/arch_timer/ { sum += $field } END { print sum }' /proc/interrupts; }
timers() {
    for cpu in $cpus; do
        before=$(ticks $cpu)
        taskset -c $cpu sleep 0.05
        [ $(ticks $cpu) -gt $before ] || complain "no timer interrupts CPU $cpu"
        clocks "the timer of CPU $cpu"
    done
}

# Four files, of which a round writes the next; all are read again from the disk itself.
disk() {
    piece=/mnt/root/var/piece.$((round % 4))
    head -c 65536 /dev/urandom >/tmp/piece
    md5sum </tmp/piece | sed "s|-|$piece|" >/tmp/sum.$((round % 4))
    cp /tmp/piece $piece || complain "cannot write $piece"
    sync
    echo 3 >/proc/sys/vm/drop_caches
    cat /tmp/sum.* | md5sum -c -s || complain "the disk has lost something"
    clocks "the work with the disk"
}

# What is under way when the machine moves may be lost, but nothing after that.
network() {
    for try in 1 2 3; do
        ping -q -c 1 -W 2 $peer >/dev/null
        answer=$?
        clocks "a ping"
        [ $answer = 0 ] && return
    done
    complain "$peer does not answer"
}

round=0
cpus=$(seq 0 $(($(nproc) - 1)))
mkdir -p /mnt/root
mount -t ext4 -o rw /dev/vda /mnt/root || complain "no disk"
ip addr add 10.88.0.2/24 dev eth0
ip link set eth0 up
exec 3<&0
{
    read -r line <&3
    : >/tmp/stop
} &
port=$(sed -n 's/.*kedge.stream=\([0-9]*\).*/\1/p' /proc/cmdline)
[ -z "$port" ] || sh /tests/stream $peer $port &
stream=$!
look
while [ ! -e /tmp/stop ]; do
    round=$((round + 1))
    timers
    disk
    network
    echo "ROUND $round at $up"
done
[ -z "$port" ] || wait $stream
sync
umount /mnt/root || complain "the disk is busy"
trouble='I/O error|EXT4-fs error|stalls?|lockup|Oops|BUG:|WARNING:|hung'
dmesg | grep -E "$trouble" | while read -r line; do complain "the kernel says: $line"; done
echo "=== done"
