# Sends over a card whose frames a program of the host carries, before its machine is saved and after it is loaded
# beside another such program.
. /tests/debian
bytes=$(sed -n "s/.*kedge.bytes=\([^ ]*\).*/\1/p" /proc/cmdline)
# Says what the host waits for, and waits until it has done its part.
await() {
    echo "=== $1"
    read -r line
}
# What iperf3 has sent and received.
transfer() {
    what=$1
    shift
    iperf3 -c 10.93.0.1 -n $bytes -J "$@" >/tmp/iperf || grep '"error"' /tmp/iperf
    for sum in sum_sent sum_received; do
        echo "$what $sum $(sed -n "/\"$sum\"/,/}/s/.*\"bytes\":[^0-9]*\([0-9]*\).*/\1/p" /tmp/iperf)"
    done
}
transfers() {
    transfer "$1 to-host"
    transfer "$1 to-guest" -R
    echo "$1 page $(curl --silent --max-time 60 http://10.93.0.1:8093/page | md5sum)"
}
echo "CARD $(cat /sys/class/net/eth0/address) mtu $(cat /sys/class/net/eth0/mtu)"
ip addr add 10.93.0.2/24 dev eth0
ip link set eth0 up
await ready
transfers before
await saving
transfers after
dmesg | grep -E 'WARNING:|BUG:|Call trace|virtio.*(fail|error)' | while read -r line; do echo "WRONG: $line"; done
echo "=== done"
