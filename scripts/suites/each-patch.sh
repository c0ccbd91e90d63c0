# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
# about: each patch by itself builds without warnings, boots and passes KUnit; P2PDMA_FROM=N starts at the Nth
# needs:
# order: 70
# long: yes

# build_at COMMIT BUILD: the whole kernel as of that patch, with errors for warnings,
# and without the options that later patches add. Runs under the lock "files".
build_at()
{
	local frags

	rm -f "$TREE/.git/p2pdma-at" "$2/.p2pdma-built"
	git -C "$TREE" checkout -q -f --detach "$1"
	mapfile -t frags < <(fragments each)
	WITHOUT_FIX=all configure "$2" "${frags[@]}"
	build_all "$2" each
	stamp "$2/.p2pdma-built" "$1"
}

# kunit_passed CONSOLE: there was KUnit, and nothing failed.
kunit_passed()
{
	grep -qE '(^|\] )[ #]*ok [0-9]' "$1" || { echo "no results of KUnit"; return 1; }
	! grep -E '(^|\] )[ #]*not ok ' "$1"
}

suite()
{
	local build n=0 tested=0 commit name

	build=$(build_dir each)
	for commit in $(git -C "$TREE" rev-list --reverse "base..refs/p2pdma/$SERIES_KEY/head"); do
		n=$((n + 1))
		[ $n -ge "${P2PDMA_FROM:-1}" ] || continue
		tested=$((tested + 1))
		name=each-patch.$n.$(git -C "$TREE" log -1 --format=%f "$commit" | cut -c1-40)
		check "$name" locked files build_at "$commit" "$build"
		stamped "$build/.p2pdma-built" "$commit" || continue
		VM_APPEND='kunit.enable=1' guest "$name" each switch 600 true
		check "$name.kunit" kunit_passed "$JOB/console"
	done
	[ $tested -gt 0 ] || fail each-patch "there is no patch from ${P2PDMA_FROM:-1} on"
	locked files update_tree
}
