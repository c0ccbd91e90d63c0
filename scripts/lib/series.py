#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""What the shell cannot do well with the train: read and check b4.toml, write cover
letters, mailboxes and README.md's table, and sort recipients."""

import pathlib
import re
import subprocess
import sys
import tomllib

TOP = pathlib.Path(__file__).resolve().parents[2]
MANIFEST = TOP / "b4.toml"
README = TOP / "README.md"
# The table in README.md lies between these lines.
BEGIN, END = "<!-- scripts/series table -->\n", "<!-- end of the table -->\n"
MOST_PATCHES = 10


def train():
    """The manifest's tables of all series, in order."""
    try:
        return tomllib.loads(MANIFEST.read_text())["series"]
    except (tomllib.TOMLDecodeError, KeyError) as error:
        sys.exit(f"error: b4.toml: {error}")


def series(name):
    """The manifest's table of one series."""
    for entry in train():
        if entry["name"] == name:
            return entry
    sys.exit(f"error: b4.toml knows no series '{name}'")


def names():
    """Print the names of all series, in order."""
    for entry in train():
        print(entry["name"])


def patches(name):
    """The series' patches, without the cover letter."""
    files = sorted((TOP / "patches" / name).glob("[0-9]*.patch"))
    return [f for f in files if not f.name.startswith("0000-")]


def rows():
    """The train as a Markdown table; a series without patches is not in it."""
    yield "| series | tree | patches | what it gives alone |\n"
    yield "| ------ | ---- | ------- | ------------------- |\n"
    for entry in train():
        count = len(patches(entry["name"]))
        if count:
            cells = [f"`{entry['name']}`", entry.get("tree", ""), str(count), entry.get("gives", "")]
            yield "| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |\n"


def table(write=""):
    """Print the table; with --write, put it into README.md."""
    text = "".join(rows())
    if write:
        before, _, rest = README.read_text().partition(BEGIN)
        _, end, after = rest.partition(END)
        if not end:
            sys.exit(f"error: README.md lacks the lines {BEGIN.strip()} and {END.strip()}")
        README.write_text(before + BEGIN + text + END + after)
    else:
        print(text, end="")


def wrong_with(entry):
    """What a series lacks, or has too much of; one line each."""
    name, count = entry["name"], len(patches(entry["name"]))
    for key in ("subject", "tree", "gives"):
        if not str(entry.get(key, "")).strip() or "\n" in entry[key]:
            yield f"b4.toml: {name} needs one line for '{key}'"
    if not count:
        return
    if count > MOST_PATCHES:
        yield f"patches/{name}: {count} patches; the list takes {MOST_PATCHES} a series"
    if not entry.get("to"):
        yield f"b4.toml: {name} is sent to nobody: scripts/series recipients --write"
    text = TOP / "patches" / name / "cover.txt"
    if not text.exists() or not text.read_text().strip():
        yield f"patches/{name}: no cover.txt, so no cover letter"
    elif not (text.parent / "0000-cover-letter.patch").exists():
        yield f"patches/{name}: no cover letter: scripts/series export"


def wrong():
    """All that b4.toml, the folders and README.md disagree about."""
    entries, here = train(), []
    for entry in entries:
        here.append(entry["name"])
        if not re.fullmatch(r"\d\d-[a-z0-9-]+", entry["name"]):
            yield f"b4.toml: '{entry['name']}' is no name: two digits, a dash and words"
    # git am patches/*/*.patch goes by name.
    if [n[:2] for n in here] != sorted({n[:2] for n in here}):
        yield "b4.toml: the names' digits do not ascend, one number a series"
    for folder in sorted((TOP / "patches").iterdir()):
        if folder.name not in here:
            yield f"patches/{folder.name}: b4.toml has no such series"
            continue
        for file in sorted(folder.iterdir()):
            if not re.fullmatch(r"\d{4}-.*\.patch|cover\.txt", file.name):
                yield f"patches/{folder.name}: {file.name} is neither a patch nor cover.txt"
    for entry in entries:
        yield from wrong_with(entry)
    if BEGIN + "".join(rows()) + END not in README.read_text():
        yield "README.md: the table of the train is stale: scripts/series table --write"


def check():
    """Print what is wrong, and fail if anything is."""
    found = list(wrong())
    for line in found:
        print(line)
    sys.exit(1 if found else 0)


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
    files = patches(name)
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


def recipients(tree, write=""):
    """Print To and Cc of all series; with write, put them into b4.toml."""
    text = MANIFEST.read_text()
    for name in [entry["name"] for entry in train()]:
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


COMMANDS = {"names": names, "get": get, "cover": cover, "letter": letter, "mbox": mbox,
            "table": table, "check": check, "recipients": recipients}
COMMANDS[sys.argv[1]](*sys.argv[2:])
