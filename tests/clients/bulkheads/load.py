"""A load that somebody puts on one part of a server until it is ended: `load.py KIND HOST PORT ...`. It can be stopped and continued by
signals. Prints `loading` when it has begun. It gives way to everything else: in life it comes from other machines.

    reads HOST PORT CONNECTIONS PATH   GETs, sixteen under way on each connection
    writes HOST PORT CONNECTIONS       registrations, each of which changes something, sixteen under way on each connection
    waits HOST PORT COUNT PATH         blocking reads, each on a connection of its own, that nothing ever wakes
    questions HOST PORT A_SECOND       questions over UDP that have to be asked elsewhere
    silence HOST PORT COUNT            takes connections at COUNT ports from PORT on, and says nothing
    wakes HOST PORT                    takes what nobody else wants of the processor
    spins HOST PORT                    asks for nothing but the processor, before all others
"""

import itertools
import os
import selectors
import socket
import struct
import sys
import time

AT_ONCE = 16


def get(path):
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


def put(path, body):
    return f"PUT {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


def loading():
    print("loading", flush=True)


def pipelined(host, port, connections, request):
    """Keeps `AT_ONCE` requests under way on each connection; an answer is known by its first line."""
    loop = selectors.DefaultSelector()
    for _ in range(connections):
        stream = socket.create_connection((host, port))
        stream.sendall(b"".join(request() for _ in range(AT_ONCE)))
        loop.register(stream, selectors.EVENT_READ)
    loading()
    while True:
        for key, _ in loop.select():
            got = key.fileobj.recv(1 << 20)
            if not got:
                sys.exit("the server ended a connection")
            # Answers have no such line in their bodies; one that is split over two pieces costs a request under way.
            answered = got.count(b"HTTP/1.1 ")
            if answered:
                key.fileobj.sendall(b"".join(request() for _ in range(answered)))


def reads(host, port, connections, path):
    request = get(path)
    pipelined(host, port, int(connections), lambda: request)


def writes(host, port, connections):
    ports = itertools.cycle(range(1, 60_000))
    ids = itertools.cycle(range(1000))

    def request():
        number = next(ids)
        return put("/v1/agent/service/register", f'{{"Name": "written", "ID": "w{number}", "Port": {next(ports)}}}')
    pipelined(host, port, int(connections), request)


def waits(host, port, count, path):
    streams = []
    for _ in range(int(count)):
        stream = socket.create_connection((host, port))
        stream.sendall(get(path))
        streams.append(stream)
    loading()
    while True:
        time.sleep(3600)


def questions(host, port, a_second):
    link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    link.connect((host, port))
    link.setblocking(False)
    loading()
    pause = 10 / int(a_second)
    for number in itertools.count():
        name = b"".join(bytes([len(label)]) + label for label in (b"n%d" % number, b"elsewhere", b"test")) + b"\0"
        try:
            link.send(struct.pack(">HHHHHH", number & 0xFFFF, 0x0100, 1, 0, 0, 0) + name + b"\0\1\0\1")
            while link.recv(4096):
                pass
        except BlockingIOError:
            pass
        if number % 10 == 9:
            time.sleep(pause)


def silence(host, port, count):
    listeners = []
    for number in range(int(count)):
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port + number))
        listener.listen(1024)
        listeners.append(listener)
    loading()
    while True:
        time.sleep(3600)


def wakes(_host, _port):
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    loading()
    while True:
        pass


def spins(_host, _port):
    os.setpriority(os.PRIO_PROCESS, 0, -19)
    loading()
    while True:
        pass


if __name__ == "__main__":
    os.nice(19)
    kind, host, port, *more = sys.argv[1:]
    {run.__name__: run for run in (reads, writes, waits, questions, silence, wakes, spins)}[kind](host, int(port), *more)
