# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
# about: shellcheck, checkpatch, rustfmt, clippy, sparse, docs, builds without P2PDMA and PCI
# needs: release
# order: 20

REF=refs/p2pdma/${SERIES_KEY:-}

shells()
{
	local files

	mapfile -t files < <(find "$TOP/scripts" "$TOP/.ci" -type f \( -name '*.sh' -o -exec sh -c 'head -n 1 "$1" | grep -q "^#!/bin/bash"' _ {} \; \) -print)
	cd "$TOP"
	shellcheck -x "${files[@]}"
}

series_shells()
{
	local file files=()

	for file in $(series_files A); do
		case $(git -C "$TREE" cat-file blob "$REF/head:$file" 2>/dev/null | head -c 30 | head -n 1 | tr -d '\0') in
		'#!'*sh*)	files+=("$TREE/$file") ;;
		esac
	done
	[ ${#files[@]} -gt 0 ] || { echo "the series adds no shell script"; return 4; }
	shellcheck -e SC1091 "${files[@]}"
}

spelling()
{
	# git cuts off the name of the function in the headers of hunks.
	codespell -L filp,sme --ignore-regex '^@@ .*' "$TOP/scripts" "$TOP/.ci" "$TOP/patches" "$TOP/README.md"
}

# The base is one commit, without history. Who maintains new files is asked below. The
# flags of md are in CamelCase.
checkpatch()
{
	"$TREE/scripts/checkpatch.pl" --root "$TREE" --strict --no-signoff --show-types --color=never \
		--ignore UNKNOWN_COMMIT_ID,MISSING_FIXES_TAG,FILE_PATH_CHANGES${2:+,$2} "$1"
}

# Each new file is that of somebody by MAINTAINERS.
maintained()
{
	local file bad=0

	cd "$TREE"
	while read -r file; do
		./scripts/get_maintainer.pl --no-git --no-git-fallback --rolestats -f "$file" |
			grep -E '\((maintainer|supporter)' | grep -qv 'THE REST' || { echo "nobody has $file"; bad=1; }
	done < <(series_files A)
	return $bad
}

rust_format()
{
	local files

	mapfile -t files < <(series_files AM '\.rs$')
	[ ${#files[@]} -gt 0 ] || { echo "the series touches no Rust file"; return 4; }
	cd "$TREE"
	rustfmt --check --color never --edition 2021 "${files[@]}"
}

# more_of CONFIG TARGET...: make in that configuration's folder.
more_of()
{
	local build clippy config=$1
	shift

	build=$(build_dir "$config")
	update_tree
	ensure_config "$config" "$build"
	mapfile -t clippy < <(clippy_arg "$config")
	kmake "$build" "${clippy[@]}" "$@"
}

# objects: the objects of the C files that the series touches. Two others include
# raid1-10.c.
objects()	{ series_files AM '^(drivers|mm|kernel|block|lib)/.*\.c$' | grep -v '^drivers/md/raid1-10\.c$' | sed 's/\.c$/.o/'; }

# What clippy said when the release kernel was built.
clippy()
{
	command -v clippy-driver >/dev/null || { echo "no clippy-driver here"; return 4; }
	cat "$(build_dir release)/.p2pdma-warnings"
	[ ! -s "$(build_dir release)/.p2pdma-warnings" ]
}

# added FILE LINE: the series has added that line.
added()
{
	git -C "$TREE" diff -U0 base HEAD -- "$1" | awk -v line="$2" '
		/^@@/ {
			n = split(substr($3, 2), at, ",") > 1 ? at[2] : 1
			if (line + 0 >= at[1] + 0 && line + 0 < at[1] + n)
				found = 1
		}
		END { exit !found }'
}

sparse_check()
{
	local what file line text bad=0

	mapfile -t what < <(objects)
	[ ${#what[@]} -gt 0 ] || { echo "the series touches no C file"; return 4; }
	# Sparse warns of today's code too: only lines that the base has not count. The
	# distribution's does not know __typeof_unqual__ yet, and kbuild would do without
	# it. Neither does it take the strings of MODULE_INFO for constants.
	more_of release W=1 C=2 CHECK='sparse -D__typeof_unqual__=__typeof__' "${what[@]}" 2>&1 | tee "$REPORT/sparse"
	grep -q '^  CHECK ' "$REPORT/sparse" || { echo "sparse did not run"; return 1; }
	while IFS=: read -r file line text; do
		# The base's mm/memory.c has one of these.
		[[ $text != *'incompatible types in conditional expression'* ]] || added "${file#"$TREE/"}" "$line" || continue
		echo "$file:$line:$text"
		bad=1
	done < <(grep -E "($(printf '%s|' "${what[@]%.o}" | sed 's/|$//'))\.c:[0-9:]+ (warning|error)" "$REPORT/sparse" |
		grep -vE 'different lock contexts|bad constant expression')
	return $bad
}

rust_doc()
{
	local out=$REPORT/rustdoc

	more_of release rustdoc 2>&1 | tee "$out"
	! warnings_of_ours "$out"
}

# Of the files that the series adds.
kernel_doc()
{
	local files

	mapfile -t files < <(series_files A '^(drivers|mm|include)/.*\.[ch]$')
	cd "$TREE"
	./scripts/kernel-doc -none -Wall "${files[@]}" 2>&1 | tee "$REPORT/kernel-doc"
	! grep -E '^(Warning|Error|WARNING|ERROR)' "$REPORT/kernel-doc"
}

without_p2pdma()
{
	local what

	mapfile -t what < <(objects | { grep -v p2pdma || :; })
	# The crates of rust/ are part of prepare. No clippy: a warning is an error
	# here, and today's kernel is not free of clippy's.
	more_of nop2p prepare
	[ ${#what[@]} = 0 ] || more_of nop2p "${what[@]}"
}

# The kernel crate, and the C that it calls.
without_pci()
{
	more_of nopci prepare
	more_of nopci mm/gup.o
}

suite()
{
	local patch

	check lint.shellcheck shells
	check lint.series-shellcheck series_shells
	check lint.codespell spelling
	for patch in $(all_patches); do
		check "lint.checkpatch.$(basename "$(dirname "$patch")").$(basename "$patch" .patch | cut -c1-40)" checkpatch "$patch" "$([[ $patch != *-md-* ]] || echo CAMELCASE)"
	done
	check lint.maintainers maintained
	check lint.rustfmt rust_format
	check lint.clippy clippy
	check lint.sparse locked files sparse_check
	check lint.kernel-doc kernel_doc
	check lint.rustdoc locked files rust_doc
	check lint.without-p2pdma locked files without_p2pdma
	check lint.without-pci locked files without_pci
}
