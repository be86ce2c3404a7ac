"""A wire with faults between a host and the switch: it loses, delays or cuts, and counts what it did. Made of two packet sockets
and a thread, since not every kernel has netem.

Frames are taken with the kernel's own note on checksums and segments (PACKET_VNET_HDR) and given back with it: checksums that were left
to the device stay left to it."""

import heapq
import random
import select
import socket
import threading
import time

from harness.hosts import ip

_ALL = 3  # ETH_P_ALL
_SOL_PACKET, _VNET_HDR, _IGNORE_OUTGOING = 263, 15, 23


class Wire(threading.Thread):
    """Between `host` and its port of the network's switch. Out is from the host, in is to it. `dropped` and `delayed` count frames."""

    def __init__(self, network, host):
        super().__init__(daemon=True)
        switch, port = network.unplugged(host)
        here, there = f"{port}a", f"{port}b"
        ip("-n", switch.namespace, "link", "add", here, "up", "type", "veth", "peer", "name", there)
        ip("-n", switch.namespace, "link", "set", there, "master", "br0", "up")
        with switch.inside():
            self.ends = [self._end(port), self._end(here)]
        self.random = random.Random(port)
        self.over = False
        self.heal()
        self.passed = self.dropped = self.delayed = 0
        self.start()

    @staticmethod
    def _end(interface):
        end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL))
        end.setsockopt(_SOL_PACKET, _VNET_HDR, 1)
        end.setsockopt(_SOL_PACKET, _IGNORE_OUTGOING, 1)
        end.bind((interface, _ALL))
        return end

    def heal(self):
        self.loss, self.delay, self.jitter, self.cut = 0.0, 0.0, 0.0, set()

    def run(self):
        waiting, number = [], 0
        while not self.over:
            pause = max(0.0, waiting[0][0] - time.monotonic()) if waiting else 0.1
            ready, _, _ = select.select(self.ends, [], [], min(pause, 0.1))
            for end in ready:
                frame = end.recv(1 << 17)
                way = "out" if end is self.ends[0] else "in"
                other = self.ends[1] if way == "out" else self.ends[0]
                if way in self.cut or self.random.random() < self.loss:
                    self.dropped += 1
                    continue
                wait = self.delay + self.random.random() * self.jitter
                self.delayed += wait > 0
                number += 1
                heapq.heappush(waiting, (time.monotonic() + wait, number, other, frame))
            while waiting and waiting[0][0] <= time.monotonic():
                _, _, other, frame = heapq.heappop(waiting)
                try:
                    other.send(frame)
                    self.passed += 1
                except OSError:
                    self.dropped += 1

    def close(self):
        self.over = True
        self.join()
        for end in self.ends:
            end.close()
