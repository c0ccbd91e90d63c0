#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Read KTAP (KUnit's from a console log, kselftests' from a guest's output) and
print one line for each test case: pass|name, skip|name|why or fail|name|what it
said, the lines joined by a tab.

A case that has sub-tests stands for them and is not counted itself, unless it
failed and none of them did. Too few results for a plan, a program that ended
with an error or not at all, and no result where one was due are failures too.

A guest's output has a line '@@ start NAME' before and '@@ end NAME STATUS' after
each program's own.

usage: ktap.py FILE [NAME-PREFIX]"""

import re
import sys

STAMP = re.compile(r"^\[ *\d+\.\d+\]( ?\[ *[TC]\d+\])? ?")
RESULT = re.compile(r"^(not )?ok (\d+)(?: - | )?(.*?)(?: ?# ?(SKIP|XFAIL|TODO)\b:? ?(.*))?$")
PLAN = re.compile(r"^1\.\.(\d+)(?: # ?SKIP\b:? ?(.*))?$")
SUBTEST = re.compile(r"^# Subtest: (\S+)")


class Level:
    """The results seen so far at one depth, below one parent."""

    def __init__(self, name=""):
        self.name = name
        self.plan = None
        self.ran = 0
        self.failed = 0


class Parser:
    def __init__(self, prefix):
        self.prefix = prefix
        self.levels = [Level()]
        self.said = []
        self.program = None
        self.cases = 0
        self.failures = 0

    def emit(self, kind, name, text=""):
        self.cases += 1
        self.failures += kind == "fail"
        parts = [p for p in (self.prefix, self.program, name) if p]
        print("|".join([kind, ".".join(parts).replace("|", "/"), *([text] if text else [])]))

    def close(self, depth):
        """End the levels deeper than depth; say what failed in them."""
        failed = ran = 0
        while len(self.levels) > depth + 1:
            level = self.levels.pop()
            if level.plan is not None and level.ran < level.plan:
                self.emit("fail", level.name or "plan", f"{level.ran} of {level.plan} planned tests ran")
                level.failed += 1
            failed += level.failed
            ran += level.ran
        return ran, failed

    def result(self, depth, match):
        bad, _, name, directive, why = match.groups()
        nested = len(self.levels) > depth + 1
        ran, failed = self.close(depth)
        while len(self.levels) <= depth:
            self.levels.append(Level())
        level = self.levels[depth]
        level.ran += 1
        path = ".".join(p for p in [*(lv.name for lv in self.levels[: depth + 1]), name.strip()] if p)
        if directive == "SKIP":
            if not ran:
                self.emit("skip", path, why or "says no reason")
        elif bad and directive is None:
            level.failed += 1
            if not failed:
                self.emit("fail", path, "\t".join(self.said[-20:]))
        elif not nested or not ran:
            self.emit("pass", path)
        level.failed += 1 if failed and not bad else 0
        self.said = []

    def line(self, raw):
        text = STAMP.sub("", raw.rstrip("\r\n"))
        bare = text.lstrip(" ")
        depth = (len(text) - len(bare)) // 4
        if match := RESULT.match(bare):
            self.result(depth, match)
        elif match := PLAN.match(bare):
            while len(self.levels) <= depth:
                self.levels.append(Level())
            if match[1] == "0":
                self.emit("skip", "", match[2] or "says no reason")
            else:
                self.levels[depth].plan = int(match[1])
        elif match := SUBTEST.match(bare):
            self.close(depth - 1 if depth else 0)
            while len(self.levels) <= depth:
                self.levels.append(Level())
            self.levels[depth].name = match[1]
        elif bare:
            self.said.append(text)

    def end_program(self, status):
        """What the program's status adds to what it said."""
        self.close(0)
        top = self.levels[0]
        if top.plan is not None and top.ran < top.plan:
            self.emit("fail", "plan", f"{top.ran} of {top.plan} planned tests ran")
        said = "\t".join(self.said[-20:])
        if status is None:
            self.emit("fail", "", "the guest ended in the middle of it\t" + said)
        elif status == 124:
            self.emit("fail", "", "took too long\t" + said)
        elif not self.cases and status == 4:
            self.emit("skip", "", said or "says no reason")
        elif not self.cases and status == 0:
            self.emit("pass", "")
        elif status not in (0, 4) and not self.failures:
            self.emit("fail", "", f"exit status {status}\t" + said)

    def start_program(self, name):
        self.__init__(self.prefix)
        self.program = name

    def run(self, lines):
        for raw in lines:
            if raw.startswith("@@ start "):
                if self.program:
                    self.end_program(None)
                self.start_program(raw.split()[2])
            elif raw.startswith("@@ end "):
                self.end_program(int(raw.split()[3]))
                self.program = None
            else:
                self.line(raw)
        if self.program:
            self.end_program(None)
        elif self.levels[0].plan is not None and self.levels[0].ran < self.levels[0].plan:
            self.close(0)
            self.emit("fail", "plan", f"{self.levels[0].ran} of {self.levels[0].plan} planned tests ran")


if len(sys.argv) not in (2, 3):
    sys.exit(__doc__)
with open(sys.argv[1], errors="replace") as file:
    Parser(sys.argv[2] if len(sys.argv) > 2 else "").run(file)
