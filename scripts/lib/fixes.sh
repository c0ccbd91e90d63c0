# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
# Which kselftest shows which fix.

# test_of SERIES/N: what fails without that patch: "PROGRAM CASE PLACE" of the
# kselftests, where PLACE is a topology, or TOPOLOGY:PARAMETER with a parameter for the
# kernel; or "model". "none" if it changes documentation or tests only,
# "untested" if its changelog says why nothing shows it. Nothing if it is not known
# here.
test_of()
{
	case $(basename "$(patch_of "$1")") in
	*-selftests-*)			echo none ;;
	*-devm-action-*)		echo core add_resource_fails switch ;;
	*-page-count-*)			echo core mmap_fails switch ;;
	*-end-of-the-list*)		echo core acs_list switch ;;
	*-readers-of-providers-*)	echo core unbind_without_pool switch ;;
	*-Free-pagemaps-after-*)	echo core alloc_while_released switch ;;
	*-readers-of-the-root-bus-*)	echo untested ;;
	*-allocate-from-*)		echo core alloc_without_pool switch ;;
	*-Set-the-pool-when-*)		echo untested ;;
	*-Warn-of-the-host-bridge-*)	echo untested ;;
	*-memory-decrypted*)		echo core decrypted switch ;;
	*-pgprot_decrypted-*)		echo model ;;
	*-mm-gup-*)			echo core populate switch ;;
	*-correct-two-comments-*)	echo none ;;
	*-kernfs-*)			echo write_fault after_mprotect switch ;;
	*-dma-direct-do-not-WARN-*)	echo core scatterlist_mask bridge:iommu=soft ;;
	*-dma-direct-map-scatterlists-*) echo core scatterlist bridge:swiotlb=force ;;
	*-md-raid1-*)			echo raid write_refused refused ;;
	*-block-fail-requests-*)	echo core direct_io bridge:swiotlb=force ;;
	esac
}

# fix_patches: each of their patches as SERIES/N.
fix_patches()
{
	local name

	for name in $(fix_series); do patches_of "$name" | awk -v name="$name" '{ print name "/" NR }'; done
}

# all_tests: the kselftests that test_of knows for the patches.
all_tests()
{
	local patch

	for patch in $(fix_patches); do test_of "$patch"; done | grep ' ' | sort -u
}

# fix_programs: the programs of these.
fix_programs()	{ all_tests | cut -d' ' -f1 | sort -u; }
