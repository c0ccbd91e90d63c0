#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Tell which functions the instructions belong to that one of two traces has more.

usage: profile.py KALLSYMS TRACE1 TRACE2 ROUNDS

A trace is what QEMU logs for "exec" with one instruction in each block. TRACE2 has
ROUNDS rounds more than TRACE1."""

import bisect
import collections
import subprocess
import sys


def functions(path):
    """The addresses of functions, sorted, and their names."""
    found = {}
    with open(path, encoding="ascii") as lines:
        for line in lines:
            addr, kind, name = line.split()[:3]
            if kind in "tTwW":
                found.setdefault(int(addr, 16), name)
    addrs = sorted(found)
    return addrs, [found[addr] for addr in addrs]


def count(path, addrs, names):
    """How many instructions of each function the trace has."""
    by_addr = collections.Counter()
    with open(path, encoding="ascii", errors="replace") as lines:
        for line in lines:
            if line.startswith("Trace "):
                by_addr[line.partition("/")[2][:16]] += 1
    by_name = collections.Counter()
    for text, number in by_addr.items():
        addr = int(text, 16)
        at = bisect.bisect_right(addrs, addr) - 1
        by_name[names[at] if addr >> 63 else "(program)"] += number
    return by_name


def main(kallsyms, few, many, rounds):
    addrs, names = functions(kallsyms)
    per_round = count(many, addrs, names)
    per_round.subtract(count(few, addrs, names))
    rows = [(number / int(rounds), name) for name, number in per_round.most_common()]
    # What is left of the shell that ran the program is noise.
    rows = [row for row in rows if row[0] >= 1]
    readable = subprocess.run(["llvm-cxxfilt"], input="\n".join(name for _, name in rows),
                              text=True, capture_output=True, check=True).stdout.splitlines()
    for (number, _), name in zip(rows, readable):
        print(f"{number:10,.0f}  {name}")
    print(f"{sum(number for number, _ in rows):10,.0f}  instructions a round")


if len(sys.argv) != 5:
    sys.exit(__doc__)
main(*sys.argv[1:])
