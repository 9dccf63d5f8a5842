# One TCP connection for the guest's whole life: numbered lines go to the peer, which sends each back. All have to come
# back, in their order, whatever becomes of the machine meanwhile.
peer=$1 port=$2
mkfifo /tmp/lines
{
    number=0
    while [ ! -e /tmp/stop ]; do
        number=$((number + 1))
        echo $number
        sleep 0.02
    done
    echo end
} >/tmp/lines &
nc $peer $port </tmp/lines | {
    last=0
    while read -r line; do
        [ "$line" = end ] && break
        [ "$line" = $((last + 1)) ] || echo "WRONG in the stream: $line after $last"
        last=$line
    done
    [ "$line" = end ] || echo "WRONG in the stream: it ended after $last"
    echo "STREAM $last lines"
}
