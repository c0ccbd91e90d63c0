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

# export_all TREE BASE FIXES_END HEAD OUT: OUT/fixes and OUT/p2pdma.
export_all()
{
	export_one "$1" "$2..$3" fixes "$5/fixes"
	export_one "$1" "$3..$4" p2pdma "$5/p2pdma"
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
