# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
# about: KUnit and the Rust doctests, in both kernels
# needs: release debug
# order: 30

# ran_ours CONFIG: the series' own doctests were among those that ran.
ran_ours()
{
	local file name

	[ -n "$(series_files A '^rust/kernel/.*\.rs$')" ] || { echo "the series adds no Rust file yet"; return 4; }
	for file in $(series_files A '^rust/kernel/.*\.rs$'); do
		grep -q '```' "$TOP/$file" || continue
		name=rust_doctest_kernel_$(sed 's,^rust/kernel/,,; s,[/.],_,g' <<<"$file")_
		grep -q "^pass|.*$name" "$2" || { echo "no doctest of $file ran ($1)"; return 1; }
	done
}

suite()
{
	local config

	for config in release debug; do
		VM_APPEND='kunit.enable=1' guest "kunit.$config" $config switch 600 true
		cases "$JOB/console" "kunit.$config"
		check "kunit.$config.own-doctests" ran_ours $config "$REPORT/ktap"
	done
}
