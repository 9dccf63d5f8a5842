# Says how long requests to the second disk take, by the program that the first holds, and how long the host takes to
# answer a ping.
cat /dev/vda >/tmp/checker
chmod +x /tmp/checker
ip addr add 10.88.0.2/24 dev eth0
ip link set eth0 up
# busybox says it in milliseconds with three places.
ping_rate() {
    ping -A -q -c 500 10.88.0.1 | sed -n 's|^round-trip.* = [0-9.]*/\([0-9]*\)\.\([0-9]*\)/.*|RATE ping \1\2|p'
}
rates() {
    /tmp/checker /dev/vdb rate
    ping_rate
}
# Once for nothing: it finds cold caches.
rates
rates
