# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
# about: each patch by itself builds without warnings, boots and passes KUnit; P2PDMA_FROM=N and P2PDMA_TO=N take a part, P2PDMA_AGAIN=1 also what has passed
# needs:
# order: 70
# long: yes

# Going from patch to patch rebuilds only what depends on the files that the patch
# touches. For that, the patches have a work tree of their own: in the one that all
# other kernels are built from, each run would write every file of the series anew,
# and then again for the next build of those.

# What has passed is written to a file of the repository: all patches take hours, more
# than one sitting.
PASSED=$TOP/scripts/each-patch.passed

# passed_key COMMIT: on what its passing depends: the source, not the commit's text,
# its configuration, the toolchain, and how it is built.
passed_key()
{
	local frags

	mapfile -t frags < <(fragments each)
	echo "$(git -C "$TREE" rev-parse "$1^{tree}") $(hash_of "${frags[@]}") $(toolchain_key) $(hash_of "$TOP/scripts/lib/kernel.sh")"
}

# noted COMMIT: its key is in the file.
noted()		{ [ -f "$PASSED" ] && grep -qF "$(passed_key "$1") " "$PASSED"; }
has_passed()	{ [ -z "${P2PDMA_AGAIN:-}" ] && noted "$1"; }
note_pass()	{ noted "$1" || echo "$(passed_key "$1") $2" >>"$PASSED"; }

# build_at COMMIT BUILD: the whole kernel as of that patch, with errors for warnings,
# and without the options that later patches add.
build_at()
{
	local frags

	rm -f "$2/.p2pdma-built"
	git -C "$TREE" checkout -q -f --detach "$1"
	mapfile -t frags < <(fragments each)
	P2PDMA_WITHOUT=all configure "$2" "${frags[@]}"
	build_all "$2" each
	stamp "$2/.p2pdma-built" "$1"
}

# kunit_passed CONSOLE: there was KUnit, and nothing failed.
kunit_passed()
{
	grep -qE '(^|\] )[ #]*ok [0-9]' "$1" || { echo "no results of KUnit"; return 1; }
	! grep -E '(^|\] )[ #]*not ok ' "$1"
}

failures()	{ grep -c '^fail' "$REPORT/cases" || :; }

# try COMMIT NAME: build, boot and KUnit; notes it if all pass.
try()
{
	local build before

	build=$(build_dir each)
	before=$(failures)
	check "$2" locked each build_at "$1" "$build"
	stamped "$build/.p2pdma-built" "$1" || return 0
	VM_APPEND='kunit.enable=1' guest "$2" each switch 600 true
	check "$2.kunit" kunit_passed "$JOB/console"
	[ "$(failures)" != "$before" ] || note_pass "$1" "$2"
}

suite()
{
	local from=${P2PDMA_FROM:-1} to=${P2PDMA_TO:-9999} n=0 took=0 commit name commits tree=$CACHE/each-tree-${TREE##*tree-}

	[[ $from$to =~ ^[0-9]+$ ]] || { fail each-patch "P2PDMA_FROM and P2PDMA_TO are numbers"; return; }
	mapfile -t commits < <(git -C "$TREE" rev-list --reverse "base..refs/p2pdma/$SERIES_KEY/head")
	locked each own_tree "$tree"
	local TREE=$tree
	note "  what has passed is noted in ${PASSED#"$TOP/"}"
	for commit in "${commits[@]}"; do
		n=$((n + 1))
		((from <= n && n <= to)) || continue
		took=$((took + 1))
		name=each-patch.$n.$(git -C "$TREE" log -1 --format=%f "$commit" | cut -c1-40)
		if has_passed "$commit"; then
			pass "$name: passed before"
		else
			try "$commit" "$name"
		fi
	done
	note "  patches $from to $((n < to ? n : to)) of $n"
	[ $took -gt 0 ] || fail each-patch "there is no patch from $from to $to"
}
