#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Tell which functions the instructions of a trace belong to.

usage: profile.py KALLSYMS TRACE

The trace is what QEMU logs for "exec" with one instruction in each block, while
p2pdma_bench -r runs. Each of its rounds lies between two calls of getrusage()."""

import bisect
import collections
import re
import subprocess
import sys

MARK = "__x64_sys_getrusage"
USER_END = 1 << 63
# A function belongs to the first group whose pattern matches.
GROUPS = (
    ("the program", r"^\(program\)$"),
    ("Rust: the abstractions and the driver", r"kernel::|p2pbar|nvme_cmb|core::|rust_helper"),
    ("slab", r"kmalloc|kfree|kmem_cache|kvfree|kvmalloc|sheaf|slab|krealloc"),
    ("p2pmem/allocate and the pool", r"p2pmem|p2pdma|gen_pool|kernfs|sysfs|bitmap_"),
    ("pages: map, unmap and free them", r"zone_device|folio|rmap|set_pte|pte_|pmd_|zap|fault"),
)


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


def count(path, mark):
    """How many instructions at each address the rounds have, and how many rounds."""
    mark = f"{mark:016x}"
    counts, marks, inside = collections.Counter(), 0, False
    with open(path, encoding="ascii", errors="replace") as lines:
        for line in lines:
            if not line.startswith("Trace "):
                continue
            addr = line.partition("/")[2][:16]
            if addr == mark:
                marks += 1
                inside = False
            # A round begins when its first getrusage() returns to user space. Skip the first round.
            elif marks % 2 and marks > 1 and addr < f"{USER_END:016x}":
                inside = True
            if inside:
                counts[addr] += 1
    return counts, marks // 2 - 1


def group(name):
    """The group of a function, by its name."""
    for title, pattern in GROUPS:
        if re.search(pattern, name):
            return title
    return "mmap() and munmap() of any file, and the system calls"


def main(kallsyms, trace):
    addrs, names = functions(kallsyms)
    counts, rounds = count(trace, addrs[names.index(MARK)])
    if rounds < 1:
        sys.exit("error: the trace has fewer than two complete rounds")
    by_name = collections.Counter()
    for text, number in counts.items():
        addr = int(text, 16)
        at = bisect.bisect_right(addrs, addr) - 1
        by_name["(program)" if addr < USER_END else names[at]] += number
    rows = by_name.most_common()
    readable = subprocess.run(["llvm-cxxfilt"], input="\n".join(name for name, _ in rows),
                              text=True, capture_output=True, check=True).stdout.splitlines()
    for (_, number), name in zip(rows, readable):
        print(f"{number / rounds:10,.0f}  {name}")
    print(f"{by_name.total() / rounds:10,.0f}  instructions a round, of which:")
    groups = collections.Counter()
    for (_, number), name in zip(rows, readable):
        groups[group(name)] += number
    for name, number in groups.most_common():
        print(f"{number / rounds:10,.0f}  {name}")


if len(sys.argv) != 3:
    sys.exit(__doc__)
main(*sys.argv[1:])
