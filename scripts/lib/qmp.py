#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Give QEMU's monitor commands, as a person would type them, and print the answers.

usage: qmp.py SOCKET COMMAND..."""

import json
import socket
import sys


def main(path, commands):
    requests = [{"execute": "qmp_capabilities"}]
    requests += [
        {"execute": "human-monitor-command", "arguments": {"command-line": command}}
        for command in commands
    ]
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(30)
        sock.connect(path)
        stream = sock.makefile("rw")
        json.loads(stream.readline())
        for request in requests:
            stream.write(json.dumps(request) + "\n")
            stream.flush()
            answer = {}
            while not {"return", "error"} & answer.keys():
                answer = json.loads(stream.readline())
            if "error" in answer:
                sys.exit(answer["error"]["desc"])
            if answer["return"]:
                print(answer["return"].strip())


if len(sys.argv) < 3:
    sys.exit(__doc__)
main(sys.argv[1], sys.argv[2:])
