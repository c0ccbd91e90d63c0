#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Give QEMU's monitor a command, as a person would type it, and print the answer.

usage: qmp.py SOCKET COMMAND"""

import json
import socket
import sys


def main(path, command):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(30)
        sock.connect(path)
        stream = sock.makefile("rw")
        json.loads(stream.readline())
        for request in (
            {"execute": "qmp_capabilities"},
            {"execute": "human-monitor-command", "arguments": {"command-line": command}},
        ):
            stream.write(json.dumps(request) + "\n")
            stream.flush()
            answer = {}
            while not {"return", "error"} & answer.keys():
                answer = json.loads(stream.readline())
            if "error" in answer:
                sys.exit(answer["error"]["desc"])
        if answer["return"]:
            sys.exit(answer["return"].strip())


if len(sys.argv) != 3:
    sys.exit(__doc__)
main(*sys.argv[1:])
