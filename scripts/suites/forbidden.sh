# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
# about: what the types do not allow does not compile
# needs: release
# order: 25

# rustc_for FILE: compile it as the series' own drivers are, with its messages on
# stdout as JSON.
rustc_for()
{
	local build cmd flags

	build=$(build_dir release)
	cmd=$build/drivers/misc/p2pbar/.p2pbar.o.cmd
	flags=$(sed -n 's/^savedcmd_[^:]*:= //p' "$cmd" | sed 's/;.*//; s/^.* \(--edition=\)/\1/; s/--out-dir .*//; s/-[WAD]clippy::[^ ]*//g')
	( cd "$build" && eval "RUSTC_BOOTSTRAP=1 RUST_MODFILE=forbidden rustc $flags --crate-name forbidden --error-format=json --out-dir $REPORT/forbidden --emit=metadata $1" ) 2>&1
}

# refused FILE: it fails with the one kind of error that it names, or compiles for
# "none". Errors about lifetimes have several codes, or none.
refused()
{
	local want got

	want=$(sed -n 's,^// error: ,,p' "$1")
	mkdir -p "$REPORT/forbidden"
	got=$({ rustc_for "$1" || :; } | python3 -c '
import json, sys
codes = set()
for line in sys.stdin:
    if not line.startswith("{"):
        print(line, file=sys.stderr)
        codes.add("?")
        continue
    message = json.loads(line)
    if message.get("level") != "error" or message["message"].startswith("aborting"):
        continue
    print(message["rendered"], file=sys.stderr)
    code = message["code"]["code"] if message["code"] else ""
    lifetime = code in ("E0477", "E0478", "E0495", "E0521") or "lifetime" in message["message"]
    if code or lifetime:
        codes.add("lifetime" if lifetime else code)
print(" ".join(sorted(codes)) or "none")')
	echo "wanted $want, got $got"
	[ "$got" = "$want" ]
}

suite()
{
	local file

	for file in "$TOP"/scripts/forbidden/*.rs; do
		check "forbidden.$(basename "$file" .rs)" refused "$file"
	done
}
