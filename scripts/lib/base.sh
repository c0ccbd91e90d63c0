# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
# The release kernel without the train, in a tree of its own.

build_base()
{
	local frags

	mapfile -t frags < <(fragments release)
	P2PDMA_WITHOUT=all configure "$1" "${frags[@]}"
	build_all "$1" base
}

# ensure_base_kernel: a step. It sets TREE, so that vm_boot boots that kernel as
# "release". Needs ensure_tree before it.
ensure_base_kernel()
{
	local build key frags tree=$CACHE/base-${TREE##*tree-}

	locked base own_tree "$tree"
	TREE=$tree
	git -C "$TREE" checkout -q -f --detach base
	build=$(build_dir release)
	mapfile -t frags < <(fragments release)
	key=base-$(hash_of "${frags[@]}" "$TOP/scripts/lib/kernel.sh")
	if stamped "$build/.p2pdma-built" "$key"; then
		step "kernel without the train: reused"
		return 0
	fi
	step "kernel without the train: building"
	locked base logged build-base build_base "$build" || { note "the kernel without the train does not build"; return 1; }
	stamp "$build/.p2pdma-built" "$key"
}
