# Says how long requests to the second disk take, by the program that the first holds.
cat /dev/vda >/tmp/checker
chmod +x /tmp/checker
# Once for nothing: it finds cold caches.
/tmp/checker /dev/vdb rate
/tmp/checker /dev/vdb rate
