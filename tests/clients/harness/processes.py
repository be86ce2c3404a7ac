"""Processes of a test: each line they print is kept with the moment it came, and every one of them is ended by its
pid, also when the test itself is killed."""

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from .ask import Http
from .requests import LOG_LEVEL

ROOT = Path(__file__).resolve().parents[3]
BUILD = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "clients"
SHARED = Path(os.environ.get("ROLLCALL_SHARED", ROOT.parent / "shared"))
ROLLCALL = Path(os.environ.get("ROLLCALL_BIN", BUILD.parent / "release" / "rollcall"))

_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


def _die_with_parent():
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Process:
    """A child on a host. `lines` holds (moment, text) of all it printed on either stream."""

    running = []

    def __init__(self, host, command, env=None, cwd=None, name=None, echo=False):
        self.name = name or Path(str(command[0])).name
        self.lines = []
        self._echo = echo
        self._news = threading.Condition()
        with host.inside():
            self.child = subprocess.Popen(
                [str(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, cwd=cwd, env={**os.environ, **(env or {})}, preexec_fn=_die_with_parent)
        self.started = time.monotonic()
        Process.running.append(self)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self):
        return self.child.pid

    def _read(self):
        for raw in self.child.stdout:
            moment = time.monotonic()
            text = raw.decode("utf-8", "replace").rstrip("\n")
            if self._echo:
                print(text, flush=True)
            with self._news:
                self.lines.append((moment, text))
                self._news.notify_all()
        with self._news:
            self._news.notify_all()

    def wait_line(self, part, timeout=10.0, after=0):
        """The moment of the first line, from line number `after` on, that holds `part`."""
        deadline = time.monotonic() + timeout
        with self._news:
            while True:
                for moment, text in self.lines[after:]:
                    if part in text:
                        return moment
                left = deadline - time.monotonic()
                if left <= 0 or (self.child.poll() is not None and not self._reader.is_alive()):
                    raise AssertionError(f"{self.name} never printed {part!r}; it printed: {self.tail()}")
                self._news.wait(min(left, 0.2))

    def tail(self, count=15):
        return "\n".join(text for _, text in self.lines[-count:])

    def kill(self, how=signal.SIGKILL):
        """Sends the signal, waits for the end, and gives the moment of sending."""
        moment = time.monotonic()
        if self.child.poll() is None:
            os.kill(self.pid, how)
        self.wait()
        return moment

    def state(self):
        """Its state by /proc: R, S, T (stopped), ..."""
        return Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()[0]

    def stop(self, timeout=5.0):
        """SIGSTOP; gives the state when it has come into force, T."""
        os.kill(self.pid, signal.SIGSTOP)
        deadline = time.monotonic() + timeout
        while self.state() != "T":
            if time.monotonic() > deadline:
                raise AssertionError(f"{self.name} is not stopped, but {self.state()}")
            time.sleep(0.005)
        return self.state()

    def wait(self, timeout=20.0):
        """The exit status, as subprocess gives it (negative: the signal)."""
        try:
            status = self.child.wait(timeout)
        except subprocess.TimeoutExpired:
            os.kill(self.pid, signal.SIGKILL)
            self.child.wait()
            raise AssertionError(f"{self.name} had not ended after {timeout} s; it printed: {self.tail()}") from None
        self._reader.join(2)
        if self in Process.running:
            Process.running.remove(self)
        return status

    @classmethod
    def end_all(cls):
        for process in list(cls.running):
            process.kill()


class Rollcall:
    """A real Rollcall on a host. The data folder outlives `kill` and `start`, so a restart finds its state."""

    def __init__(self, host, *args, config=None, http="127.0.0.1", own_etc=False, env=None, requests=False, ready=True):
        if not ROLLCALL.is_file():
            raise SystemExit(f"no server to test at {ROLLCALL}: cargo build --release")
        self.host = host
        self.folder = tempfile.TemporaryDirectory(prefix="rollcall-test-")
        self.env = {"HOME": self.folder.name, **(env or {})}
        data = Path(self.folder.name) / "data"
        self.command = [ROLLCALL, "serve", "--data-dir", data, *args]
        if config is not None:
            file = Path(self.folder.name) / "rollcall.toml"
            file.write_text(config)
            self.command += ["--config", file]
        if requests:
            # A later file's key replaces an earlier one's.
            file = Path(self.folder.name) / "requests.toml"
            file.write_text(f'[telemetry]\nlog_level = "{LOG_LEVEL}"\nlog_format = "json"\n')
            self.command += ["--config", file]
        if own_etc:
            self.command = host.with_etc(*self.command)
        self.http = Http(host, http)
        self.process = None
        self.processes = []
        self.start(ready)

    def start(self, ready=True):
        """Starts it and, unless told otherwise, waits until it says it is ready."""
        self.process = Process(self.host, self.command, env=self.env, name="rollcall")
        self.processes.append(self.process)
        deadline = time.monotonic() + 20
        while ready:
            try:
                if self.http.get("/ready").status == 200:
                    return
            except OSError:
                pass
            if self.process.child.poll() is not None:
                self.process.wait()
                raise AssertionError(f"rollcall ended at once: {self.process.tail(40)}")
            if time.monotonic() > deadline:
                raise AssertionError(f"rollcall was not ready after 20 s: {self.process.tail(40)}")
            time.sleep(0.005)

    def kill(self):
        return self.process.kill()

    def stop(self):
        """Ends it as an operator would; it must exit 0."""
        self.process.kill(signal.SIGTERM)
        return self.process.child.returncode

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if self.process.child.poll() is None:
            status = self.stop()
            if kind is None and status != 0:
                raise AssertionError(f"SIGTERM ended rollcall with {status}, not 0: {self.process.tail()}")
        if kind is not None:
            print("---- rollcall printed:\n" + self.process.tail(40), file=sys.stderr)
        self.folder.cleanup()


def build_go(package, name, source=None, module="guide"):
    """Builds a Go program with the versions that go.mod and go.sum beside that client's test pin: `package` is a folder
    of that module, or `source` a file from elsewhere that is copied in."""
    module = ROOT / "tests" / "clients" / module
    BUILD.mkdir(parents=True, exist_ok=True)
    out = BUILD / name
    if source is None:
        _run(["go", "build", "-mod=readonly", "-o", out, f"./{package}"], module)
        return out
    folder = BUILD / f"{name}-source"
    folder.mkdir(exist_ok=True)
    for file, text in (("go.mod", (module / "go.mod").read_bytes()), ("go.sum", (module / "go.sum").read_bytes()),
                       ("main.go", Path(source).read_bytes())):
        (folder / file).write_bytes(text)
    _run(["go", "build", "-mod=mod", "-o", out, "."], folder)
    return out


def build_tool(module, name, package, tags=""):
    """Builds a program that the go.mod beside a client's test names as its tool, with the versions pinned there. Without
    symbols, which only make it large."""
    out = BUILD / name
    BUILD.mkdir(parents=True, exist_ok=True)
    _run(["go", "build", "-mod=readonly", "-ldflags=-s -w", f"-tags={tags}", "-o", out, package],
         ROOT / "tests" / "clients" / module)
    return out


def install_npm(module):
    """Installs what the package-lock.json beside a client's test pins; gives the folder that has node_modules."""
    source, folder = ROOT / "tests" / "clients" / module, BUILD / f"{module}-packages"
    folder.mkdir(parents=True, exist_ok=True)
    wanted = (source / "package-lock.json").read_bytes()
    for name in ("package.json", "package-lock.json"):
        (folder / name).write_bytes((source / name).read_bytes())
    done = folder / "installed.json"
    if not done.is_file() or done.read_bytes() != wanted:
        _run(["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"], folder)
        done.write_bytes(wanted)
    return folder


def install_maven(module):
    """Fetches the libraries that the pom.xml beside a client's test pins, and theirs; gives the folder of their jars."""
    pom, folder = ROOT / "tests" / "clients" / module / "pom.xml", BUILD / f"{module}-jars"
    done = folder / "pom.xml"
    if not done.is_file() or done.read_bytes() != pom.read_bytes():
        folder.mkdir(parents=True, exist_ok=True)
        _run(["mvn", "-q", "-B", "-f", pom, "dependency:copy-dependencies", f"-DoutputDirectory={folder}",
              "-DincludeScope=runtime"], folder)
        done.write_bytes(pom.read_bytes())
    return folder


def _run(command, cwd):
    done = subprocess.run([str(word) for word in command], cwd=cwd, capture_output=True, text=True)
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, command))}: {done.stderr}")
