"""beanstalkd with plain sockets: `PORT push COUNT` prints the seconds, `PORT work` reserves and deletes for ever."""

import socket
import sys
import time

sock = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
if sys.argv[2] == "push":
    began = time.perf_counter()
    for _ in range(int(sys.argv[3])):
        sock.sendall(b"put 1 0 60 100\r\n" + b"x" * 100 + b"\r\n")
        sock.recv(100)
    print(time.perf_counter() - began)
else:
    while True:
        sock.sendall(b"reserve\r\n")
        job = sock.recv(300).split()[1]
        sock.sendall(b"delete %b\r\n" % job)
        sock.recv(100)
