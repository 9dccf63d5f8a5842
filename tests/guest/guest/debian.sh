# Has programs of Debian at hand, which the first disk holds: to be read by other scripts.
mkdir -p /debian
mount -t ext4 -o ro /dev/vda /debian
ln -s debian/usr /usr
ln -s usr/lib /lib
export PATH=$PATH:/usr/bin:/usr/sbin MKE2FS_CONFIG=/debian/etc/mke2fs.conf
