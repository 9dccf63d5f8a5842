# Asks the metadata service over each of its cards, whatever it is told to: a line of input is a request.
#   ASK CARD METHOD PATH [HEADER...]    a request with these headers, underscores for spaces
#   TOKEN CARD SECONDS                  asks for a token, which stands for @ in headers
#   FETCH CARD PATH                     by a client that has nothing to do with these tests
#   RUN COMMAND...                      by a command of a shell, which may be curl where the machine has Debian's
# Each answer stands between two marks.
for card in eth0 eth1; do
    ip link set $card up
    ip addr add 10.90.${card#eth}.2/24 dev $card
done
[ ! -e /dev/vda ] || . /tests/debian
token=none
over() {
    ip route replace 169.254.169.254 dev "$1"
}
ask() {
    local card="$1" method="$2" path="$3" text
    shift 3
    over "$card"
    text="$method $path HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    for header; do text="$text$(echo "$header" | sed "s|_| |g; s|@|$token|")\r\n"; done
    printf "$text\r\n" | nc 169.254.169.254 80 | tr -d '\r'
}
number=0
echo "=== serving"
while read -r word card rest; do
    number=$((number + 1))
    echo "=== answer $number"
    case $word in
        ASK) ask "$card" $rest ;;
        TOKEN)
            token=$(ask "$card" PUT /latest/api/token "X-metadata-token-ttl-seconds:_$rest" | tail -n 1)
            echo "${#token}"
            ;;
        RUN) eval "$card $rest" ;;
        FETCH) over "$card"; wget -q -O - "http://169.254.169.254$rest" || echo "wget: $?" ;;
    esac
    echo
    echo "=== end $number"
done
