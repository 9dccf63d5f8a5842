# Makes tap interfaces in a network namespace of its own, and becomes the program that it is given, which ends with the
# process that has started it.
import ctypes
import fcntl
import os
import signal
import struct
import sys

TUNSETIFF = 0x400454CA
TUNSETPERSIST = 0x400454CB
IFF_TAP_NO_PI = 0x1002
PR_SET_PDEATHSIG = 1

for number in range(4):
    tap = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", b"tap%d" % number, IFF_TAP_NO_PI))
    fcntl.ioctl(tap, TUNSETPERSIST, 1)
    os.close(tap)
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
os.execvp(sys.argv[1], sys.argv[1:])
