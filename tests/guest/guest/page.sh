# Serves a page over the network, for as long as the machine is there.
ip addr add 10.89.0.2/24 dev eth0
ip link set eth0 up
mkdir -p /tmp/www
seq 1 4000 >/tmp/www/index.html
httpd -p 80 -h /tmp/www || echo "WRONG: no server"
echo "=== serving"
while :; do sleep 1000; done
