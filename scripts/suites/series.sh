# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
# about: patches and mirror agree, git am and b4 take them, drivers stay safe Rust
# order: 10

# Drivers leave unsafe code and raw bindings to the abstractions.
safe_drivers()
{
	local hits

	[ -d "$TOP/drivers" ] || { echo "there are no drivers"; return 1; }
	[ -d "$TOP/samples" ] || { echo "there are no samples"; return 1; }
	hits=$(grep -rnE '\bunsafe\b|\bbindings::' "$TOP/drivers" "$TOP/samples" --include='*.rs' |
		grep -vE '^[^:]*:[0-9]+:[[:space:]]*//' || :)
	[ -z "$hits" ] || { echo "$hits"; return 1; }
}

# Which mirror packages come from is this machine's affair.
no_mirror_names()
{
	local hosts

	hosts=$(grep -rhoE 'https?://[^/ ]+' /etc/apt/sources.list /etc/apt/sources.list.d 2>/dev/null |
		sed 's,.*//,,; s/\./\\./g' | sort -u | paste -sd'|' || :)
	[ -n "$hosts" ] || { echo "no apt configuration to tell a mirror's name"; return 4; }
	! grep -rnIE --exclude-dir=.git "$hosts" "$TOP"
}

no_todo()
{
	local d dirs=() status=0

	for d in rust drivers samples; do [ ! -d "$TOP/$d" ] || dirs+=("$TOP/$d"); done
	[ ${#dirs[@]} -gt 0 ] || { echo "there is no code yet"; return 4; }
	# The kernel's macro dev_dbg!() is allowed, unlike Rust's dbg!(). grep exits with 1 if no line
	# matches, and with 2 if it fails.
	grep -rnP 'todo!\(|unimplemented!\(|\.unwrap\(\)|(?<!\bdev_)dbg!\(|FIXME|XXX' "${dirs[@]}" --include='*.rs' || status=$?
	[ $status = 1 ] || return 1
	# Nor does a patch add such a note to a file that the mirror does not have.
	status=0
	grep -nE '^\+.*\b(FIXME|XXX)\b' "$TOP"/patches/*/*.patch || status=$?
	[ $status = 1 ]
}

# The README says the same of the guest's environment as scripts/vm --help.
guest_variables()
{
	# shellcheck disable=SC2016 # awk's
	local block='/^ *P2PDMA_CMB / { on = 1 } on && !/^ / { exit } on { sub(/^ +/, ""); print }'

	diff <("$TOP/scripts/vm" --help | awk "$block") <(awk "$block" "$TOP/README.md")
}

short_scripts()
{
	local long

	long=$(find "$TOP/scripts" "$TOP/.ci" -type f -exec awk 'END { if (NR > 300) print FILENAME ": " NR " lines" }' {} \;)
	[ -z "$long" ] || { echo "$long"; return 1; }
}

suite()
{
	local line name

	"$TOP/scripts/series" check >"$LOGS/test-series.log" 2>&1 || :
	while read -r line; do
		name=series.$(sed -E 's/^(not )?ok [0-9]+ //; s/ takes .*//; s/ /-/g' <<<"$line")
		case $line in
		ok\ *)		pass "$name" ;;
		not\ ok\ *)	fail "$name" "scripts/series check" "$LOGS/test-series.log" ;;
		esac
	done < <(grep -E '^(not )?ok ' "$LOGS/test-series.log")
	grep -qE '^(not )?ok ' "$LOGS/test-series.log" || fail series "scripts/series check did not run" "$LOGS/test-series.log"
	check series.safe-drivers safe_drivers
	check series.no-mirror-names no_mirror_names
	check series.no-todo no_todo
	check series.guest-variables guest_variables
	check series.short-scripts short_scripts
}
