# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
# The parts of scripts/series check, each a function that prints what is wrong. They
# find the ends of the series under ENDS, and may write to the folder SCRATCH.

check_space()	{ git -C "$TREE" diff --check base "$ENDS/head"; }
check_signoff()	{ ! grep -rnE '^\+?Signed-off-by:' "$TOP/patches" --include='*.patch'; }

# b4.toml, the folders and README.md agree, and what the list asks of a series holds.
check_train()
{
	manifest names >"$SCRATCH/names" || return 1
	# The shell and Python read the manifest each in their own way.
	diff <(series_names) "$SCRATCH/names" || { echo "b4.toml: write name = \"...\" at the start of a line"; return 1; }
	manifest check
}

check_mirror()
{
	local out

	mirror_to "$TREE" base "$ENDS/head" "$SCRATCH/mirror"
	out=$(mirror_diff "$TREE" base "$SCRATCH/mirror")
	[ -z "$out" ] || { echo "$out"; return 1; }
}

check_export()
{
	local name same=0

	export_all "$TREE" "$ENDS" "$SCRATCH/patches"
	for name in $(series_names); do
		mkdir -p "$SCRATCH/patches/$name" "$SCRATCH/none"
		diff -r -x cover.txt "$SCRATCH/patches/$name" "$(patches_folder "$name")" || same=1
	done
	return $same
}

# patches_folder SERIES: where its patches are; an empty folder if it has none.
patches_folder()	{ [ -d "$TOP/patches/$1" ] && echo "$TOP/patches/$1" || echo "$SCRATCH/none"; }

# b4 takes the mailbox of each series, and what it makes of it applies to the
# same tree.
check_b4()
{
	local name list=() from=base

	for name in $(full_series); do
		mapfile -t list < <(patches_of "$name")
		manifest mbox "$name" "$SCRATCH/$name.mbox"
		(cd "$TREE" && b4 --offline-mode am -C -m "$SCRATCH/$name.mbox" -o "$SCRATCH/b4" -n "$name") >"$SCRATCH/b4.log" 2>&1 ||
			{ cat "$SCRATCH/b4.log"; return 1; }
		paths_in "${list[@]}" | sparse_worktree "$SCRATCH/$name-wt" "$from"
		git_am "$SCRATCH/$name-wt" "$SCRATCH/b4/$name.mbx" || return 1
		git -C "$TREE" diff --quiet "$ENDS/$name" "$(git -C "$SCRATCH/$name-wt" rev-parse HEAD)" ||
			{ echo "b4's $name is another tree than git am's"; return 1; }
		drop_worktree "$SCRATCH/$name-wt"
		from=$ENDS/$name
	done
}
