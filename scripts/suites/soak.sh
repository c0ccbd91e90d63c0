# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
# about: binding 100 times and 10 minutes of random calls, on the debug kernel, and no memory lost
# needs: debug
# order: 60
# long: yes

# In the guest: a kselftest's case, and what the kernel has allocated before and
# after it: all of it, and the pages or slab objects whose stack traces name the
# series, but for pages of slabs, which anybody's objects may keep, and what vmalloc()
# and KASAN keep of areas that have been freed. The first rounds are for what is
# allocated once.
soak_command()
{
	cat <<-END
	cd "\$KSELFTEST/p2pdma" || exit
	kernel()	{ awk '/^(SUnreclaim|KernelStack|PageTables|Percpu):/ { n += \$2 } END { print n }' /proc/meminfo; }
	ours()		{ awk -v RS= '/p2pdma|p2pbar|nvme_cmb/ && !/new_slab|kasan_populate_vmalloc/ { if (!sub(/.*nr_base_pages: /, "")) \$0 = \$1; n += \$0 } END { print n + 0 }'; }
	pages()		{ ours </sys/kernel/debug/page_owner_stacks/show_stacks; }
	objects()	{ find /sys/kernel/debug/slab -name alloc_traces ! -path '*/vmap_area/*' -exec awk 'FNR == 1 { print "" } 1' {} + | sed '/^No data/d' | ours; }
	count()
	{
		echo 3 >/proc/sys/vm/drop_caches
		sleep 3
		# What KASAN keeps of freed objects has to go, too.
		for file in /sys/kernel/slab/*/shrink; do
			echo 1 >"\$file"
		done
		echo "\$(kernel) kB, \$($3) $3"
	}
	P2PDMA_ROUNDS=3 P2PDMA_FUZZ_SECONDS=5 ./$1 -t $2 >/dev/null
	before=\$(count)
	P2PDMA_ROUNDS=100 P2PDMA_FUZZ_SECONDS=600 ./$1 -t $2 2>&1
	after=\$(count)
	echo "# all of the kernel's memory and what is of the series, before: \$before; after: \$after"
	read -r -a b <<<"\$before"
	read -r -a a <<<"\$after"
	[ "\${b[2]}" -gt 0 ] || { echo "# no $3 at all, what does this kernel lack?"; exit 1; }
	# Most of the first is others', and comes and goes.
	[ \$((a[0] - b[0])) -lt 4096 ] && [ \$((a[2] - b[2])) -lt 16 ] || { echo "# grown"; exit 1; }
	END
}

# soak PROGRAM CASE COUNT [PARAMETER]: these are counted, with a kernel parameter.
soak()
{
	VM_APPEND=${4:-} guest "soak.$2-$3" debug switch 3600 "$(soak_command "$1" "$2" "$3")"
	cases "$JOB/out" "soak.$2-$3"
	if [ "$VM_STATUS" = 0 ]; then
		pass "soak.$2-$3.growth"
	else
		fail "soak.$2-$3.growth" "$(tail -n 2 "$JOB/out")"
	fi
}

# Reading the objects' traces can deadlock while pages have theirs recorded.
suite()
{
	soak mmap_unbind rebind objects
	soak mmap_unbind rebind pages page_owner=on
	soak p2pbar_fuzz fuzz objects
}
