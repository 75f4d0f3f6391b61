# SPDX-License-Identifier: GPL-2.0-only
"""
What the benchmarks that run guests share: QEMUs, their monitors, and what the guest of
the demonstration (tools/demo) says on its console.
"""
import argparse
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import time

TOP = os.path.realpath(os.path.join(os.path.dirname(__file__), "../.."))
TIMEOUT = 120.0


class Failed(Exception):
    pass


def wait_for(condition, seconds, what):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise Failed(what)
        time.sleep(0.05)


class Qmp:
    """A monitor: commands, and events with their time stamps."""

    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX)
        wait_for(lambda: self.connects(path), 60, f"no monitor at {path}")
        self.lines = self.sock.makefile("r")
        self.events = []
        self.message()
        self.command("qmp_capabilities")

    def connects(self, path):
        try:
            self.sock.connect(path)
        except OSError:
            return False
        self.sock.settimeout(TIMEOUT)
        return True

    def message(self):
        line = self.lines.readline()
        if not line:
            raise Failed("QEMU has ended")
        return json.loads(line)

    def command(self, name, **arguments):
        text = json.dumps({"execute": name, "arguments": arguments})
        self.sock.sendall(text.encode() + b"\n")
        while True:
            reply = self.message()
            if "event" in reply:
                self.events.append(reply)
            elif "error" in reply:
                raise Failed(f"{name}: {reply['error']['desc']}")
            else:
                return reply["return"]

    def when(self, event):
        """When it happened last; waits until it has."""
        while True:
            for e in reversed(self.events):
                if e["event"] == event:
                    stamp = e["timestamp"]
                    return stamp["seconds"] + stamp["microseconds"] / 1e6
            self.events.append(self.message())

    def forget(self):
        self.command("query-name")
        self.events.clear()


class Guest:
    """A guest at one place: a process, its slot's name, its monitors and its console."""

    def __init__(self, directory, slot):
        self.dir = directory
        self.slot = slot
        os.mkdir(self.dir)
        self.out = open(self.path("out"), "w+")
        self.process = None
        self.qmp = None

    def path(self, name):
        return os.path.join(self.dir, name)

    def start(self, command, connect=True):
        """With a connection to the monitor that is nobody else's, unless not wanted."""
        self.process = subprocess.Popen(command, stdout=self.out,
                                        stderr=subprocess.STDOUT,
                                        stdin=subprocess.DEVNULL)
        try:
            if connect:
                self.qmp = Qmp(self.path("events"))
        except Failed as e:
            raise Failed(f"{e}: {self.said()}")

    def said(self):
        with open(self.path("out")) as f:
            return f.read().strip()

    def console(self):
        try:
            with open(self.path("console"), errors="replace") as f:
                return f.read()
        except FileNotFoundError:
            return ""

    def ticks(self):
        """A line each second: its number, pages written, and pages found damaged."""
        return [tuple(map(int, found)) for found in
                re.findall(r"^tick (\d+) pages (\d+) .* bad (\d+)\r?$", self.console(), re.M)]

    def wait_for_ticks(self, number, what):
        end = time.monotonic() + TIMEOUT
        while len(self.ticks()) < number:
            if self.process.poll() is not None or time.monotonic() > end:
                last = " / ".join(self.console().splitlines()[-3:])
                raise Failed(f"{what}: {self.said()} {last}")
            time.sleep(0.05)

    def boots(self):
        self.wait_for_ticks(2, "the guest does not boot")

    def is_well(self):
        """It ticks twice from now on, and its memory is what it was."""
        self.wait_for_ticks(len(self.ticks()) + 2, "the guest does not tick")
        if any(bad for _, _, bad in self.ticks()):
            raise Failed("the guest found its memory damaged")

    def end(self):
        if self.out.closed:
            return
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.out.close()


def machine(args, qemu, guest, memory, workload):
    """A QEMU's command line, whose guest has that memory backend, and does that."""
    cpu = "host" if args.accel == "kvm" else "max"
    return [qemu, "-accel", args.accel, "-cpu", cpu, "-nodefaults",
            "-display", "none", "-no-reboot",
            "-machine", "pc,memory-backend=ram", "-m", f"{args.memory}M",
            "-object", f"{memory},id=ram,size={args.memory}M",
            "-kernel", f"{args.guest}/vmlinux",
            "-initrd", f"{args.guest}/initrd.gz",
            "-append", f"console=ttyS0 panic=-1 quiet -- {workload}",
            "-serial", f"file:{guest.path('console')}",
            "-qmp", f"unix:{guest.path('qmp')},server=on,wait=off",
            "-qmp", f"unix:{guest.path('events')},server=on,wait=off"]


def in_slot(guest):
    """The memory backend."""
    return f"memory-backend-file,share=on,mem-path={{{guest.slot}}}"


def median(runs, key):
    return statistics.median(run[key] for run in runs)


def spread(values):
    """Half the range, in percent of the median."""
    return (max(values) - min(values)) / 2 / statistics.median(values) * 100


def arguments(description, memory):
    """A parser with the options that all have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--runs", type=int, default=3, help="of each, 3 unless given")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--output", metavar="FILE", help="write the JSON there, besides")
    parser.add_argument("--qemu", default="qemu-system-x86_64", help="the QEMU")
    parser.add_argument("--accel", default="kvm", help="of the guests, kvm unless given")
    parser.add_argument("--memory", type=int, default=memory, metavar="MIB",
                        help=f"of the guest, {memory} unless given")
    parser.add_argument("--guest", default=os.path.join(TOP, "build/demo"),
                        help="where tools/demo/build-guest left it")
    parser.add_argument("--dirtytrack", default=os.path.join(TOP, "build/tools/dirtytrack"))
    return parser


def parse(parser):
    # So that what was started is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    args = parser.parse_args()
    if args.runs < 1:
        parser.error("--runs: at least 1")
    return args


def named(args, command, there_are):
    """Those of the things that the command line names; all unless it names some."""
    known = [thing.name for thing in there_are]
    for name in args.names:
        if name not in known:
            sys.exit(f"{command}: no {name}; there are {', '.join(known)}")
    return [thing for thing in there_are if not args.names or thing.name in args.names]


def publish(args, document, lines):
    if args.output:
        with open(args.output, "w") as f:
            json.dump(document, f, indent=1)
            f.write("\n")
    if args.json:
        print(json.dumps(document))
    else:
        print("\n".join(lines))
