# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
# about: each patch by itself builds without warnings, boots and passes KUnit; P2PDMA_FROM=N and P2PDMA_TO=N take a part
# needs:
# order: 70
# long: yes

# Going from patch to patch rebuilds only what depends on the files that the patch
# touches. For that, the patches have a work tree of their own: in the one that all
# other kernels are built from, each run would write every file of the series anew,
# and then again for the next build of those.

# own_tree DIR: a work tree of the kernel tree.
own_tree()
{
	! git -C "$1" rev-parse -q --verify HEAD >/dev/null 2>&1 || return 0
	rm -rf "$1"
	git -C "$TREE" worktree prune
	git -C "$TREE" worktree add -q --no-checkout --detach "$1" base
}

# passed_key COMMIT: on what its passing depends: the source, not the commit's text,
# its configuration, the toolchain, and how it is built and judged.
passed_key()
{
	local frags

	mapfile -t frags < <(fragments each)
	echo "$(git -C "$TREE" rev-parse "$1^{tree}") $(hash_of "${frags[@]}") $(toolchain_key) $(hash_of "$TOP"/scripts/{lib/kernel,lib/vm,suites/each-patch}.sh)"
}

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
	[ "$(failures)" != "$before" ] || stamp "$CACHE/each-patch/$(git -C "$TREE" rev-parse "$1^{tree}")" "$(passed_key "$1")"
}

suite()
{
	local from=${P2PDMA_FROM:-1} to=${P2PDMA_TO:-9999} n=0 took=0 commit name commits tree=$CACHE/each-tree-${TREE##*tree-}

	[[ $from$to =~ ^[0-9]+$ ]] || { fail each-patch "P2PDMA_FROM and P2PDMA_TO are numbers"; return; }
	mapfile -t commits < <(git -C "$TREE" rev-list --reverse "base..refs/p2pdma/$SERIES_KEY/head")
	locked each own_tree "$tree"
	local TREE=$tree
	mkdir -p "$CACHE/each-patch"
	note "  what has passed before is noted in $CACHE/each-patch; remove that to try it again"
	for commit in "${commits[@]}"; do
		n=$((n + 1))
		((from <= n && n <= to)) || continue
		took=$((took + 1))
		name=each-patch.$n.$(git -C "$TREE" log -1 --format=%f "$commit" | cut -c1-40)
		if stamped "$CACHE/each-patch/$(git -C "$TREE" rev-parse "$commit^{tree}")" "$(passed_key "$commit")"; then
			pass "$name: passed before"
		else
			try "$commit" "$name"
		fi
	done
	note "  patches $from to $((n < to ? n : to)) of $n"
	[ $took -gt 0 ] || fail each-patch "there is no patch from $from to $to"
}
