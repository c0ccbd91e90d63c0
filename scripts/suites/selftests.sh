# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
# about: the series' kselftests on every topology; in the debug kernel on one, or all with --all
# needs: release debug
# order: 40

# shellcheck source=scripts/lib/fixes.sh
. "$TOP/scripts/lib/fixes.sh"

# In the guest: each program of the target, with a mark before and after it. The nodes of
# sample drivers and of nvme's child do what other nodes do: unless all is wanted, the
# tests of mappings run with them in one guest only. The others also repeat what they
# repeat half as often.
run_all()
{
	printf 'fixes="%s" all="%s"\n' "$(fix_programs | paste -sd' ')" "$all"
	cat <<-'END'
	cd "$KSELFTEST" || exit
	limit=600
	if [ "$P2PDMA_KERNEL.$P2PDMA_TOPOLOGY" != release.switch ] && [ -z "$all" ]; then
		export P2PDMA_ROUNDS=10 P2PDMA_FUZZ_SECONDS=10
	fi
	[ "$P2PDMA_KERNEL" = release ] || limit=1200
	sed -n 's/^p2pdma://p' kselftest-list.txt | while read -r name; do
		# In the debug kernel the suite fixes runs these.
		[ "$P2PDMA_KERNEL" = release ] || [[ " $fixes " != *" $name "* ]] || continue
		less=
		if [ "$P2PDMA_KERNEL.$P2PDMA_TOPOLOGY" != release.switch ] && [ -z "$all" ] &&
			[[ $name == mmap* ]]; then
			less="-V sample -V child -V nvme_child"
		fi
		echo "@@ start $name $(cut -d' ' -f1 /proc/uptime)"
		(cd p2pdma && timeout $limit "./$name" $less) </dev/null 2>&1
		rc=$?
		# On a line of its own, whatever the program's last one lacked.
		printf '\n@@ end %s %s\n' "$name" $rc
	done
	END
}

# Two guests run at a time: they wait most of the time, for hot-plug and for disks.
suite()
{
	local config topology list jobs=()
	declare -A job=()

	# Start the debug guest first: it takes longest.
	for config in debug release; do
		list=$(build_dir $config)/guest/opt/kselftest/kselftest-list.txt
		if ! grep -q '^p2pdma:' "$list" 2>/dev/null; then
			skip "selftests.$config" "the series has no kselftests yet"
			continue
		fi
		for topology in $(topologies); do
			# The debug kernel takes minutes for one topology without KVM.
			if [ "$config" = debug ] && [ "$topology" != switch ] && [ -z "$all" ]; then
				skip "selftests.$config.$topology" "only with --all"
				continue
			fi
			guest_job "$(run_all)"
			job[$config.$topology]=$JOB
			jobs+=("$config" "$topology" "$JOB")
		done
	done
	guests_begin 3000 "${jobs[@]}"
	for config in release debug; do
		for topology in $(topologies); do
			[ -n "${job[$config.$topology]:-}" ] || continue
			guest_end "selftests.$config.$topology" "${job[$config.$topology]}"
			cases "$JOB/out" "selftests.$config.$topology"
		done
	done
	guests_end
}
