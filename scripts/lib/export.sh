# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
# From commits to patches/ and the mirror of new files, and back to compare.

manifest()	{ "$TOP/scripts/lib/series.py" "$@"; }

# export_one TREE RANGE NAME OUT: the series as git format-patch writes it, the
# same bytes on every machine.
export_one()
{
	local tree=$1 range=$2 name=$3 out=$4 who when

	[ "$(git -C "$tree" rev-list --count "$range")" != 0 ] || return 0
	mkdir -p "$out"
	# The cover letter is from whoever wrote the last patch, at that time.
	who=$(git -C "$tree" log -1 --format='%an|%ae' "${range#*..}")
	when=$(git -C "$tree" log -1 --format=%aI "${range#*..}")
	GIT_COMMITTER_NAME=${who%|*} GIT_COMMITTER_EMAIL=${who#*|} GIT_COMMITTER_DATE=$when \
		git -C "$tree" format-patch -q -o "$out" --numbered --cover-letter --cover-from-description=none \
		--subject-prefix="$(manifest get "$name" prefix)" --zero-commit --abbrev=12 --no-signature \
		--no-base --no-thread --no-notes --no-encode-email-headers --src-prefix=a/ --dst-prefix=b/ -M "$range"
	if [ -f "$TOP/patches/$name/cover.txt" ]; then
		manifest cover "$name" "$out/0000-cover-letter.patch"
	else
		rm "$out/0000-cover-letter.patch"
	fi
}

# export_all TREE REFS OUT: OUT/SERIES for each series of the train, from the base
# on. TREE has the end of each series as REFS/SERIES; one without has no patches.
export_all()
{
	local name below=base

	for name in $(series_names); do
		git -C "$1" rev-parse -q --verify "$2/$name" >/dev/null || continue
		export_one "$1" "$below..$2/$name" "$name" "$3/$name"
		below=$2/$name
	done
}

# was_rebased TREE BRANCH: the commit of the train with the subject of that
# branch's last one, if it is another.
was_rebased()
{
	git -C "$1" log --format='%h %s' base..HEAD |
		awk -v want="$(git -C "$1" log -1 --format=%s "refs/heads/$2")" '{ id = $1; sub(/^[^ ]* /, "") } $0 == want { print id }' |
		head -n 1
}

# branches_stack TREE: dies unless the branches named after the series lie one upon
# the other in the order of b4.toml, from base to HEAD. Without a branch, a series
# that has had no patches stays without.
branches_stack()
{
	local name end moved below=base tree=$1

	for name in $(series_names); do
		end=refs/heads/$name
		if ! git -C "$tree" rev-parse -q --verify "$end" >/dev/null; then
			[ -n "$(patches_of "$name")" ] || { note "note: no branch '$name', so that series has no patches"; continue; }
			die "$tree has no branch '$name'. Make it at the last patch of that series, or at the end of the one before if it is to have none: git branch $name COMMIT"
		fi
		if ! git -C "$tree" merge-base --is-ancestor "$end" HEAD; then
			! git -C "$tree" merge-base --is-ancestor HEAD "$end" ||
				die "branch '$name' goes on above HEAD: check out the last series' branch, or put $name where it ends: git branch -f $name HEAD"
			moved=$(was_rebased "$tree" "$name")
			die "branch '$name' is not below HEAD. After a rebase without --update-refs, put it at the series' last patch: git branch -f $name ${moved:-COMMIT}"
		fi
		git -C "$tree" merge-base --is-ancestor "$below" "$end" ||
			die "branch '$name' is not on top of '${below##*/}', which comes before it in b4.toml"
		below=$end
	done
	[ "$(git -C "$tree" rev-parse "$below")" = "$(git -C "$tree" rev-parse HEAD)" ] ||
		die "HEAD is not the end of the last series: $(git -C "$tree" rev-list --count "$below..HEAD") patches on top of branch '${below##*/}' are in no series. Check out that branch, or add a series"
	[ -z "$(git -C "$tree" rev-list --merges base..HEAD)" ] || die "$tree has merges on top of base; a series is a row of commits"
}

# new_files TREE BASE HEAD: "mode path" of each file that the series add.
new_files()
{
	git -C "$1" diff --no-renames --raw --diff-filter=A "$2" "$3" | sed -E 's/^:[0-9]+ ([0-9]+) [^\t]*\t/\1 /'
}

# mirror_folders TREE BASE: the kernel's top folders, where the mirror lies.
# This project's own scripts has the same name as one of them.
mirror_folders()
{
	git -C "$1" ls-tree -d --name-only "$2" | grep -vxE 'scripts|\..*'
}

# mirror_to TREE BASE HEAD DIR: the new files, as they stand at HEAD.
mirror_to()
{
	local mode path

	new_files "$1" "$2" "$3" | while read -r mode path; do
		case $path in
		scripts/* | .*)	die "the mirror has no place for $path" ;;
		esac
		mkdir -p "$4/$(dirname "$path")"
		git -C "$1" cat-file blob "$3:$path" >"$4/$path"
		[ "$mode" != 100755 ] || chmod +x "$4/$path"
	done
}

# mirror_diff TREE BASE DIR: what differs between the mirror in DIR and ours.
mirror_diff()
{
	local folder a b

	for folder in $(mirror_folders "$1" "$2"); do
		a=$3/$folder b=$TOP/$folder
		[ -d "$a" ] || [ -d "$b" ] || continue
		mkdir -p "$a"
		[ -d "$b" ] || { echo "missing: $folder/"; continue; }
		diff -rq "$a" "$b" | sed "s,$3,series:,g; s,$TOP/,,g" || :
		diff <(cd "$a" && find . -type f -perm -u+x | sort) <(cd "$b" && find . -type f -perm -u+x | sort) |
			sed -n "s,^[<>] \./,executable on one side only: $folder/,p"
	done
}
