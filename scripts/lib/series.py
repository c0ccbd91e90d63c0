#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""What the shell cannot do well with the series: read b4.toml, write cover
letters and mailboxes, and sort recipients."""

import pathlib
import re
import subprocess
import sys
import tomllib

TOP = pathlib.Path(__file__).resolve().parents[2]
MANIFEST = TOP / "b4.toml"


def series(name):
    """The manifest's table of one series."""
    for entry in tomllib.loads(MANIFEST.read_text())["series"]:
        if entry["name"] == name:
            return entry
    sys.exit(f"error: b4.toml knows no series '{name}'")


def prefix(name):
    """The subject prefix without number: 'RFC PATCH v2'."""
    entry = series(name)
    words = [*entry.get("prefixes", []), "PATCH"]
    if entry.get("version", 1) > 1:
        words.append(f"v{entry['version']}")
    return " ".join(words)


def get(name, field):
    """Print a field of the manifest, lists one item a line."""
    value = prefix(name) if field == "prefix" else series(name).get(field, "")
    for item in value if isinstance(value, list) else [value]:
        print(item)


def cover(name, letter):
    """Fill git's template of a cover letter from b4.toml and cover.txt."""
    letter = pathlib.Path(letter)
    body = (TOP / "patches" / name / "cover.txt").read_text().rstrip("\n")
    text = letter.read_text()
    text = text.replace("*** SUBJECT HERE ***", series(name)["subject"], 1)
    text = text.replace("*** BLURB HERE ***", body, 1)
    letter.write_text(text)


def letter(name):
    """Print subject, text and recipients the way that b4 keeps a cover letter."""
    entry = series(name)
    text = TOP / "patches" / name / "cover.txt"
    print(f"{entry['subject']}\n")
    print(text.read_text() if text.exists() else "(no cover.txt)\n")
    for kind in ("to", "cc"):
        for item in entry.get(kind, []):
            print(f"{kind.capitalize()}: {item}")


def mbox(name, out):
    """One mailbox of the series as the list would see it, with made-up ids."""
    files = sorted((TOP / "patches" / name).glob("[0-9]*.patch"))
    first = None
    with open(out, "w") as box:
        for number, file in enumerate(files):
            ident = f"<{name}-{number}@p2pdma.invalid>"
            lines = file.read_text().split("\n")
            head = [f"Message-ID: {ident}", "To: list@p2pdma.invalid"]
            if first:
                head += [f"In-Reply-To: {first}", f"References: {first}"]
            first = first or ident
            # A line of the text that looks like the next mail's start.
            body = [re.sub(r"^(>*From )", r">\1", line) for line in lines[1:]]
            box.write("\n".join([lines[0], *head, *body]) + "\n")


def toml_list(key, items):
    """A TOML array with an item a line."""
    if not items:
        return f"{key} = []\n"
    quoted = "".join('\t"%s",\n' % i.replace("\\", "\\\\").replace('"', '\\"') for i in items)
    return f"{key} = [\n{quoted}]\n"


def maintainers(name, tree):
    """What get_maintainer.pl says of the series: people and lists."""
    files = sorted((TOP / "patches" / name).glob("[0-9]*.patch"))
    files = [f for f in files if not f.name.startswith("0000-")]
    if not files:
        return [], []
    out = subprocess.run(
        [f"{tree}/scripts/get_maintainer.pl", "--no-git", "--no-git-fallback", "--rolestats", *map(str, files)],
        cwd=tree, check=True, capture_output=True, text=True).stdout
    people, lists = [], []
    for line in out.splitlines():
        address, _, role = line.partition(" (")
        target = people if re.search(r"\b(maintainer|supporter)\b", role) else lists
        if address not in people + lists:
            target.append(address)
    return people, lists


def recipients(tree, write):
    """Print To and Cc of both series; with write, put them into b4.toml."""
    text = MANIFEST.read_text()
    for name in ("fixes", "p2pdma"):
        people, lists = maintainers(name, tree)
        if not people and not lists:
            continue
        print(f"{name}:")
        for kind, items in (("To", people), ("Cc", lists)):
            for item in items:
                print(f"  {kind}: {item}")
        start = text.index(f'name = "{name}"')
        end = text.find("[[series]]", start)
        end = len(text) if end < 0 else end
        part = text[start:end]
        for key, items in (("to", people), ("cc", lists)):
            part = re.sub(rf"^{key} = \[[^\]]*\]\n", lambda _: toml_list(key, items), part, flags=re.M)
        text = text[:start] + part + text[end:]
    if write:
        tomllib.loads(text)
        MANIFEST.write_text(text)


def main():
    commands = {"get": get, "cover": cover, "letter": letter, "mbox": mbox}
    command, *args = sys.argv[1:]
    if command == "recipients":
        recipients(args[0], "--write" in args)
    else:
        commands[command](*args)


main()
