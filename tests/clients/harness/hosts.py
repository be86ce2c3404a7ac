"""Hosts for the tests: network namespaces on one bridge, so that every test has ports 53, 8080, 8500 and 8600 to
itself and nothing on the machine is in the way. All addresses are of the documentation ranges (RFC 5737, RFC 3849)
and no packet leaves the bridge.

Linux gives each thread its own network namespace: a socket or a child made while this thread is inside one stays
there for good, and this thread goes back."""

import ctypes
import os
import subprocess
from contextlib import contextmanager
from pathlib import Path

_LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x4000_0000
_HOME = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def ip(*words):
    """Runs `ip` with these words; its complaint is in the error."""
    done = subprocess.run(["ip", *map(str, words)], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"ip {' '.join(map(str, words))}: {done.stderr.strip()}")


def _setns(fd):
    if _LIBC.setns(fd, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns: " + os.strerror(ctypes.get_errno()))


class Host:
    """One host: `addresses` are its own, the first IPv4 one is `address`."""

    def __init__(self, namespace, addresses):
        self.namespace = namespace
        self.addresses = addresses
        self.address = addresses[0]

    @contextmanager
    def inside(self):
        """What is made in this block (sockets, children) lives on this host."""
        fd = os.open(f"/run/netns/{self.namespace}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _setns(fd)
            yield
        finally:
            _setns(_HOME)
            os.close(fd)

    def etc(self, name, text):
        """Puts a file over /etc/NAME for the programs that `ip netns exec` starts on this host from now on; those
        that run keep the file that they were started with."""
        folder = Path("/etc/netns") / self.namespace
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).unlink(missing_ok=True)
        (folder / name).write_text(text)

    def with_etc(self, *command):
        """The command line that runs `command` with this host's files over /etc."""
        return ["ip", "netns", "exec", self.namespace, *command]


class Network:
    """A bridge and the hosts on it; leaving the block deletes them all."""

    def __enter__(self):
        self._prefix = f"rc{os.getpid()}"
        self._switch = self._prefix + "sw"
        self._made = []
        self._add(self._switch)
        ip("-n", self._switch, "link", "add", "br0", "type", "bridge")
        for address in ("192.0.2.254/24", "2001:db8::fe/64"):
            ip("-n", self._switch, "addr", "add", address, "dev", "br0", *(["nodad"] if ":" in address else []))
        ip("-n", self._switch, "link", "set", "br0", "up")
        return self

    def __exit__(self, *_):
        for namespace in self._made:
            subprocess.run(["ip", "netns", "del", namespace], capture_output=True)
            folder = Path("/etc/netns") / namespace
            if folder.is_dir():
                for file in folder.iterdir():
                    file.unlink()
                folder.rmdir()

    def unplugged(self, host):
        """Takes a host off the bridge. The namespace of the bridge, and the interface there that leads to the host: whoever plugs
        something in between joins the two again."""
        wire = f"v{self._made.index(host.namespace)}"
        ip("-n", self._switch, "link", "set", wire, "nomaster")
        return Host(self._switch, ["192.0.2.254"]), wire

    def _add(self, namespace):
        ip("netns", "add", namespace)
        self._made.append(namespace)
        ip("-n", namespace, "link", "set", "lo", "up")

    def host(self, name, *addresses):
        """A host with these addresses (default: the next free pair) and default routes, without which a program
        that asks the kernel for its own address learns none."""
        number = len(self._made)
        addresses = addresses or (f"192.0.2.{number}", f"2001:db8::{number:x}")
        namespace = f"{self._prefix}{name}"
        self._add(namespace)
        wire = f"v{number}"
        ip("link", "add", "eth0", "netns", namespace, "type", "veth", "peer", "name", wire, "netns", self._switch)
        ip("-n", self._switch, "link", "set", wire, "master", "br0", "up")
        for address in addresses:
            bits, flags = ("64", ["nodad"]) if ":" in address else ("24", [])
            ip("-n", namespace, "addr", "add", f"{address}/{bits}", "dev", "eth0", *flags)
        ip("-n", namespace, "link", "set", "eth0", "up")
        ip("-n", namespace, "route", "add", "default", "via", "192.0.2.254")
        if any(":" in address for address in addresses):
            ip("-n", namespace, "-6", "route", "add", "default", "via", "2001:db8::fe")
        return Host(namespace, addresses)
