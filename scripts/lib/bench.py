#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Compare what p2pdma_bench has printed in the guests without and with the train.

usage: bench.py WITHOUT WITH [--json FILE] [--plot FILE] [--write]
"""

import json
import math
import pathlib
import sys

TOP = pathlib.Path(__file__).resolve().parents[2]
README = TOP / "README.md"
BEGIN, END = "<!-- scripts/bench table -->\n", "<!-- end of the table -->\n"
NODES = ("allocate", "nvme_cmb", "p2pbar", "p2pbar-keyed")
# What the table shows, and in which order. The first is the sum of three.
OPS = ("map_touch_unmap", "map_touch_unmap_no_THP", "map_unmap", "alloc_free", "pin", "unpin", "fork",
       "direct_read", "first", "closed", "unbind", "slab", "memory")


def parse(path):
    """The results of one guest: {node: {(op, bytes): value}}."""
    results, node = {}, None
    for line in pathlib.Path(path).read_text().splitlines():
        words = line.split()
        if words[:1] == ["@"]:
            node = results.setdefault(" ".join(words[1:]), {})
        elif node is not None and len(words) == 3:
            node[words[0], int(words[1])] = int(words[2])
    for node in results.values():
        for size in sorted({size for op, size in node if op == "map"}):
            node["map_touch_unmap", size] = sum(node[op, size] for op in ("map", "touch", "unmap"))
    # Without huge pages, only this is told.
    for name in [name for name in results if name.endswith(" no_THP")]:
        for (op, size), value in results.pop(name).items():
            if op == "map_touch_unmap":
                results[name.split()[0]][f"{op}_no_THP", size] = value
    return results


def conditions(results):
    """Exit with an error if there were more page faults than expected."""
    for name in NODES:
        for (op, size), value in results[name].items():
            # mmap() maps all of a node. A fault on p2pmem/allocate maps up to 33 folios,
            # but its own only in one page table. Mappings below 2 MiB can lie in two.
            most = 0 if name != "allocate" else 1 + (4096 < size < 2 << 20) + size // (33 << 21)
            if op == "faults" and value > most:
                sys.exit(f"error: {name}: {value} faults for {size} bytes, at most {most} are expected")


def rows(base, results):
    """The rows of the JSON file."""
    for op in OPS:
        # What C does not have, or what has no equal there, is compared with nothing.
        like = "map_touch_unmap" if op == "map_touch_unmap_no_THP" else op
        for size in sorted({size for name in NODES for o, size in results[name] if o == op}):
            for name in NODES:
                if (op, size) in results[name]:
                    yield {"op": op, "node": name, "bytes": size, "base": base.get((like, size)),
                           "value": results[name][op, size],
                           "unit": "bytes" if op in ("slab", "memory") else "instructions"}


def human(size):
    """4096 as 4 KiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            return f"{size} {unit}"
        size //= 1024


def table(data):
    """The rows as a Markdown table, by operation and size."""
    yield "| operation | size | C, 7.3 | " + " | ".join(NODES) + " |\n"
    yield "| --- | ---: | ---: |" + " ---: |" * len(NODES) + "\n"
    cells = {}
    for row in data:
        cells.setdefault((row["op"], row["bytes"]), {})[row["node"]] = row
    for (op, size), by_node in cells.items():
        base = next(iter(by_node.values()))["base"]
        title = op.replace("_no_THP", ", no THP")
        title = title.replace("_", " + ") if op.startswith("map") else title.replace("_", " ")
        line = [title, human(size), f"{base:,}" if base is not None else ""]
        for name in NODES:
            row = by_node.get(name)
            ratio = f" ({row['value'] / base:.3g})" if row and base else ""
            line.append(f"{row['value']:,}{ratio}" if row and base != 0 else "")
        yield "| " + " | ".join(line) + " |\n"


def write(text):
    """Put the table into README.md."""
    before, _, rest = README.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        sys.exit(f"error: README.md lacks the lines {BEGIN.strip()} and {END.strip()}")
    README.write_text(before + BEGIN + text + END + after)


def plot(data, path):
    """Map + touch + unmap over size, both axes logarithmic, as an SVG."""
    series = {"C, 7.3": {}}
    for row in data:
        if row["op"] == "map_touch_unmap":
            series["C, 7.3"][row["bytes"]] = row["base"]
            series.setdefault(row["node"], {})[row["bytes"]] = row["value"]
    points = [p for line in series.values() for p in line.items()]
    xs, ys = [math.log2(x) for x, _ in points], [math.log10(y) for _, y in points]
    x0, x1, y0, y1 = min(xs), max(max(xs), min(xs) + 1), math.floor(min(ys)), math.ceil(max(ys))
    left, top, wide, high = 90, 20, 520, 320

    def at(x, y):
        return (left + (math.log2(x) - x0) / (x1 - x0) * wide,
                top + high - (math.log10(y) - y0) / (y1 - y0) * high)

    out = ['<svg xmlns="http://www.w3.org/2000/svg" width="760" height="400" font-family="sans-serif" font-size="12">',
           '<rect width="760" height="400" fill="white"/>']
    for y in range(y0, y1 + 1):
        _, v = at(points[0][0], 10 ** y)
        out += [f'<path d="M{left} {v:.1f}h{wide}" stroke="#ddd"/>',
                f'<text x="{left - 8}" y="{v + 4:.1f}" text-anchor="end">{10 ** y:,}</text>']
    for x in sorted({x for x, _ in points}):
        u, _ = at(x, 10 ** y0)
        out += [f'<path d="M{u:.1f} {top}v{high}" stroke="#eee"/>',
                f'<text x="{u:.1f}" y="{top + high + 18}" text-anchor="middle">{human(x)}</text>']
    out.append(f'<text x="{left + wide / 2}" y="{top + high + 40}" text-anchor="middle">'
               'instructions to map, touch and unmap, over size</text>')
    for n, (name, line) in enumerate(series.items()):
        color = ("#000", "#d62728", "#1f77b4", "#2ca02c", "#9467bd")[n % 5]
        path_ = " ".join(f"{u:.1f},{v:.1f}" for u, v in (at(*p) for p in sorted(line.items())))
        out += [f'<polyline points="{path_}" fill="none" stroke="{color}" stroke-width="2"/>',
                f'<text x="{left + wide + 12}" y="{top + 14 + 18 * n}" fill="{color}">{name}</text>']
    pathlib.Path(path).write_text("\n".join(out) + "\n</svg>\n")


def main(without, with_, *options):
    base, results = parse(without)["base"], parse(with_)
    conditions(results)
    data = list(rows(base, results))
    text = "".join(table(data))
    print(text, end="")
    todo = list(options)
    while todo:
        option = todo.pop(0)
        if option == "--json":
            pathlib.Path(todo.pop(0)).write_text(json.dumps({"rows": data}, indent=1) + "\n")
        elif option == "--plot":
            plot(data, todo.pop(0))
        elif option == "--write":
            write(text)


main(*sys.argv[1:])
