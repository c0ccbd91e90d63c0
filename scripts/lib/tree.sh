# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
# The kernel tree: a base of one commit, and the train on top by git am.

# Commits made here are the same on every machine.
export GIT_COMMITTER_NAME=p2pdma GIT_COMMITTER_EMAIL=p2pdma@localhost
# Trees may belong to somebody else than who runs this.
export GIT_CONFIG_COUNT=3 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0='*'
export GIT_CONFIG_KEY_1=gc.auto GIT_CONFIG_VALUE_1=0
export GIT_CONFIG_KEY_2=init.defaultBranch GIT_CONFIG_VALUE_2=main

# host_source: the kernel source to start from, a folder or a tarball.
host_source()
{
	local src

	src=${KDIR:-${LINUX_SRC:-}}
	if [ -z "$src" ]; then
		src=/usr/src/linux-source-7.3.tar.xz
		[ -f "$src" ] || return 1
	fi
	[ -e "$src" ] || die "no kernel source at $src"
	realpath "$src"
}

source_key()
{
	local src=$1

	if [ -f "$src" ]; then
		hash_text "$(stat -c '%s %Y' "$src")"
	elif git -C "$src" rev-parse -q --verify HEAD >/dev/null 2>&1; then
		hash_text "$(git -C "$src" rev-parse 'HEAD^{tree}')"
	else
		hash_text "$src $(stat -c %Y "$src") $(hash_of "$src/Makefile")"
	fi
}

# find_base: sets SOURCE and TREE, the git tree that holds it.
find_base()
{
	SOURCE=$(host_source) || die "no kernel source: give KDIR= (a kernel tree) or LINUX_SRC= (a folder or tarball of 7.3)"
	[ -d "$SOURCE" ] && [ ! -f "$SOURCE/Kbuild" ] && die "$SOURCE is no kernel tree"
	TREE=$CACHE/tree-$(source_key "$SOURCE")
}

commit_base()
{
	local tree=$1 version id

	version=$(awk -F'= *' '/^VERSION/ { v = $2 } /^PATCHLEVEL/ { p = $2 } /^SUBLEVEL/ { s = $2 }
		END { print v "." p "." s }' Makefile)
	id=$(GIT_AUTHOR_NAME=p2pdma GIT_AUTHOR_EMAIL=p2pdma@localhost \
		GIT_AUTHOR_DATE='2026-01-01T00:00:00Z' GIT_COMMITTER_DATE='2026-01-01T00:00:00Z' \
		git commit-tree "$tree" -m "Linux $version")
	git update-ref --no-deref HEAD "$id"
	git tag base "$id"
}

# import_base SOURCE DIR: a git tree whose one commit is the source.
import_base()
{
	local src=$1 dir=$2

	rm -rf "$dir"
	git init -q "$dir"
	cd "$dir"
	if [ -f "$src" ]; then
		echo "unpacking $src"
		tar -xf "$src" --strip-components=1
	elif git -C "$src" rev-parse -q --verify HEAD >/dev/null 2>&1; then
		echo "fetching HEAD of $src"
		git fetch -q --depth=1 "file://$src" HEAD
		git checkout -q --detach FETCH_HEAD
		commit_base 'HEAD^{tree}'
		return
	else
		echo "copying $src"
		tar -C "$src" --exclude-vcs --exclude='*.o' --exclude=./debian -cf - . | tar -xf -
	fi
	# The distribution ignores nearly everything in its own packaging tree.
	sed -i '/^# Debian packaging/,$d' .gitignore
	rm -rf debian
	echo "adding $(find . -path ./.git -prune -o -type f -print | wc -l) files to git"
	git -c core.fsync=none add -f -A .
	commit_base "$(git write-tree)"
}

# Needs find_base before it.
ensure_base()
{
	[ ! -d "$TREE" ] || return 0
	logged tree import_base "$SOURCE" "$TREE.new"
	mv "$TREE.new" "$TREE"
}

# all_patches: the whole train, in the order in which it applies.
all_patches()
{
	local name

	for name in $(series_names); do patches_of "$name"; done
}

# find_series: sets SERIES_KEY from the base, the patches and where series end.
find_series()
{
	local name list text

	text=$(git -C "$TREE" rev-parse base)
	for name in $(series_names); do
		mapfile -t list < <(patches_of "$name")
		text+=" $name $(hash_of "${list[@]}")"
	done
	SERIES_KEY=$(hash_text "$text")
}

# sparse_worktree DIR COMMIT: a work tree with only the files named on stdin.
# All of the kernel would take ten times as long as what is done with it.
sparse_worktree()
{
	git -C "$TREE" worktree add -q --no-checkout --detach "$1" "$2"
	git -C "$1" sparse-checkout set --no-cone --stdin
	git -C "$1" read-tree -mu HEAD
}

# paths_in PATCH...: the files that they touch.
paths_in()
{
	[ $# = 0 ] || sed -n 's,^\(---\|+++\) [ab]/\([^\t]*\).*,/\2,p' "$@" | sort -u
}

# git_am DIR PATCH...: exact context only, and no white space to warn of.
git_am()
{
	local dir=$1 out=$CACHE/tmp/am.$$
	shift

	CLEAN_PATHS+=("$out")
	git -C "$dir" am -q --no-3way --whitespace=warn --committer-date-is-author-date "$@" >"$out" 2>&1 ||
		{ cat "$out" >&2; return 1; }
	[ ! -s "$out" ] || { cat "$out" >&2; note "git am had something to say"; return 1; }
}

# am_part DIR SERIES REF: git am of one series in the work tree DIR; its end is REF.
am_part()
{
	local list

	mapfile -t list < <(patches_of "$2")
	[ ${#list[@]} = 0 ] || git_am "$1" "${list[@]}" || { note "patches/$2 does not apply"; return 1; }
	git -C "$TREE" update-ref "$3" "$(git -C "$1" rev-parse HEAD)"
}

# apply_series: git am of the whole train onto the base. The result is kept: the end
# of each series is refs/p2pdma/KEY/SERIES, and refs/p2pdma/KEY/head is the last of
# them. Needs find_series before it.
apply_series()
{
	local tmp list name ref=refs/p2pdma/$SERIES_KEY

	git -C "$TREE" rev-parse -q --verify "$ref/head" >/dev/null && return 0
	new_tmp tmp
	git -C "$TREE" worktree prune
	mapfile -t list < <(all_patches)
	paths_in "${list[@]}" | sparse_worktree "$tmp/wt" base
	for name in $(series_names); do
		am_part "$tmp/wt" "$name" "$ref/$name"
	done
	git -C "$TREE" update-ref "$ref/head" "$(git -C "$tmp/wt" rev-parse HEAD)"
	drop_worktree "$tmp/wt"
}

# without_key SERIES/N: the key of the train without that patch.
without_key()	{ echo "$SERIES_KEY-without-${1/\//-}"; }

# commits_with SERIES/N: commits that have that patch, in the order in which to try to
# take it back: the ends of the series from the head down to its own, then the
# commits of its own series down to itself.
commits_with()
{
	local name=${1%/*} count

	count=$(patches_of "$name" | wc -l)
	series_names | awk -v name="$name" -v ref="refs/p2pdma/$SERIES_KEY" 'above { print ref "/" $0 } $0 == name { above = 1 }' | tac
	git -C "$TREE" rev-list --max-count=$((count - ${1##*/} + 1)) "refs/p2pdma/$SERIES_KEY/$name"
}

# tree_without SERIES/N: the train with that patch taken back. If something on top
# stands on the patch, then without all that; within the series of the patch, with the
# kselftests as they are at its end. Needs apply_series before it.
tree_without()
{
	local tmp patch from key end=refs/p2pdma/$SERIES_KEY/${1%/*} id found=''

	key=$(without_key "$1")
	patch=$(patch_of "$1")
	[ -n "$patch" ] || { note "there is no patch $1"; return 1; }
	git -C "$TREE" rev-parse -q --verify "refs/p2pdma/$key/head" >/dev/null && return 0
	new_tmp tmp
	export GIT_INDEX_FILE=$tmp/index
	for from in $(commits_with "$1"); do
		git -C "$TREE" read-tree "$from"
		git -C "$TREE" apply -R --cached "$patch" 2>"$tmp/err" && found=1 && break
	done
	[ -n "$found" ] || { cat "$tmp/err" >&2; return 1; }
	if git -C "$TREE" merge-base --is-ancestor "$from" "$end"; then
		git -C "$TREE" diff --binary "$from" "$end" -- tools/testing/selftests |
			git -C "$TREE" apply --cached --allow-empty
	fi
	id=$(GIT_AUTHOR_NAME=p2pdma GIT_AUTHOR_EMAIL=p2pdma@localhost git -C "$TREE" commit-tree \
		-p "$from" -m "Without $(basename "$patch")" "$(git -C "$TREE" write-tree)")
	git -C "$TREE" update-ref "refs/p2pdma/$key/head" "$id"
	note "  $1 is taken back from: $(git -C "$TREE" log -1 --format=%s "$from")"
}

drop_worktree()
{
	rm -rf "$1"
	git -C "$TREE" worktree prune
}

# update_tree: put the tree's files at base + series. Only files that differ from
# what is there are written, so make rebuilds only what they touch. Runs under
# the lock "files", which every build holds: nobody else's build loses its source.
update_tree()
{
	stamped "$TREE/.git/p2pdma-at" "$SERIES_KEY" && return 0
	git -C "$TREE" checkout -q -f --detach "refs/p2pdma/$SERIES_KEY/head"
	stamp "$TREE/.git/p2pdma-at" "$SERIES_KEY"
}

# ensure_tree: the two steps that every build begins with.
ensure_tree()
{
	local n

	find_base
	if [ -d "$TREE" ]; then
		step "kernel source: $(git -C "$TREE" log -1 --format=%s base), reused"
	else
		step "kernel source: importing $SOURCE, some 90 s"
		locked tree ensure_base || return 1
	fi
	find_series
	n=$(all_patches | wc -l)
	step "series: git am of $n patches"
	locked tree apply_series || { note "the series does not apply"; return 1; }
	if [ -n "${P2PDMA_WITHOUT:-}" ]; then
		locked tree tree_without "$P2PDMA_WITHOUT" || { note "$P2PDMA_WITHOUT cannot be taken back"; return 1; }
		SERIES_KEY=$(without_key "$P2PDMA_WITHOUT")
	fi
	stamped "$TREE/.git/p2pdma-at" "$SERIES_KEY" || locked files update_tree || return 1
}

# own_tree DIR: a work tree of the kernel tree.
own_tree()
{
	! git -C "$1" rev-parse -q --verify HEAD >/dev/null 2>&1 || return 0
	rm -rf "$1"
	git -C "$TREE" worktree prune
	git -C "$TREE" worktree add -q --no-checkout --detach "$1" base
}

# series_files FILTER [REGEX]: files of the series, by git's diff filter.
series_files()
{
	git -C "$TREE" diff --name-only --diff-filter="$1" base "refs/p2pdma/$SERIES_KEY/head" | { grep -E "${2:-.}" || :; }
}
