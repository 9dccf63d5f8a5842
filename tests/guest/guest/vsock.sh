# Talks over vsock, by the program that the first disk holds.
cat /dev/vda >/tmp/peer
chmod +x /tmp/peer
/tmp/peer
