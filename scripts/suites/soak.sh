# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
# about: binding 100 times and 10 minutes of random calls, on the debug kernel, and no memory lost
# needs: debug
# order: 60
# long: yes

# In the guest: a kselftest's case, and how much memory the kernel has before and
# after it. The first round is for what is allocated once.
soak_command()
{
	cat <<-END
	cd "\$KSELFTEST/p2pdma" || exit
	kernel()	{ echo 3 >/proc/sys/vm/drop_caches; sleep 2; awk '/^(SUnreclaim|KernelStack|PageTables|Percpu):/ { n += \$2 } END { print n }' /proc/meminfo; }
	P2PDMA_ROUNDS=3 P2PDMA_FUZZ_SECONDS=5 ./$1 -t $2 >/dev/null
	before=\$(kernel)
	P2PDMA_ROUNDS=100 P2PDMA_FUZZ_SECONDS=600 ./$1 -t $2 2>&1
	after=\$(kernel)
	echo "# \$before kB before, \$after kB after"
	# Some of it is others', and comes and goes.
	[ \$((after - before)) -lt 8192 ] || { echo "# grown"; exit 1; }
	END
}

soak()
{
	guest "soak.$2" debug switch 3600 "$(soak_command "$1" "$2")"
	cases "$JOB/out" "soak.$2"
	if [ "$VM_STATUS" = 0 ]; then
		pass "soak.$2.growth"
	else
		fail "soak.$2.growth" "$(tail -n 2 "$JOB/out")"
	fi
}

suite()
{
	soak mmap rebind
	soak p2pbar fuzz
}
