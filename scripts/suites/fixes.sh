# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
# about: what the series of fixes mend stays mended; --without SERIES/N shows that a test would tell
# needs: debug
# order: 35

# shellcheck source=scripts/lib/fixes.sh
. "$TOP/scripts/lib/fixes.sh"

SELFTESTS=tools/testing/selftests/p2pdma

# Each patch is known to test_of, and what it names is there.
each_has_a_test()
{
	local patch test program case bad=0

	for patch in $(fix_patches); do
		test=$(test_of "$patch")
		read -r program case _ <<<"$test"
		case $test in
		'')	echo "$patch: test_of does not know $(basename "$(patch_of "$patch")")"; bad=1 ;;
		*' '*)	grep -qE "^TEST_F(_TIMEOUT)?\($program, ${case}[,)]" "$TREE/$SELFTESTS/$program.c" ||
				{ echo "$patch: no case $case in $SELFTESTS/$program.c"; bad=1; } ;;
		esac
	done
	return $bad
}

# The generic pgprot_modify() is not x86's: compile it here, with a model of page
# protections, whose low two bits are the cache mode and the third "decrypted".
pgprot_model()
{
	local dir=$REPORT/model

	mkdir -p "$dir"
	awk '/^static inline pgprot_t pgprot_modify\(/ { on = 1 } on { print } on && /^}/ { exit }' \
		"$TREE/include/linux/pgtable.h" >"$dir/pgprot_modify.h"
	cat >"$dir/model.c" <<-'END'
	#include <stdio.h>
	typedef struct { unsigned long v; } pgprot_t;
	#define __pgprot(x) ((pgprot_t) { (x) })
	#define pgprot_val(p) ((p).v)
	#define mode(p, m) __pgprot((pgprot_val(p) & ~3ul) | (m))
	#define pgprot_noncached(p) mode(p, 1)
	#define pgprot_writecombine(p) mode(p, 2)
	#define pgprot_device(p) mode(p, 3)
	#define pgprot_decrypted(p) __pgprot(pgprot_val(p) | 4)
	#include "pgprot_modify.h"
	int main(void)
	{
		unsigned long was, want, bits;
		int bad = 0;

		/* Bits above are access rights: they come from the new one. */
		for (bits = 0; bits < 8; bits++) {
			was = pgprot_val(pgprot_modify(__pgprot(bits | 8), __pgprot(16)));
			want = bits | 16;
			if (was != want) {
				printf("mode %lu: %#lx instead of %#lx\n", bits, was, want);
				bad = 1;
			}
		}
		return bad;
	}
	END
	clang -Wall -Werror -o "$dir/model" "$dir/model.c"
	"$dir/model"
}

# run_on PLACE: the guest's command: on switch all of the programs, elsewhere the cases
# that need it. topology_of and append_for tell the parts of PLACE.
run_on()
{
	local program list

	cat <<-'END'
	cd "$KSELFTEST/p2pdma" || exit
	run()
	{
		echo "@@ start $1"
		"./$@" 2>&1
		rc=$?
		printf '\n@@ end %s %s\n' "$1" $rc
	}
	END
	for program in $(fix_programs); do
		mapfile -t list < <(all_tests | awk -v p="$program" -v t="$1" '$1 == p && $3 == t { print $2 }')
		[ ${#list[@]} -gt 0 ] || continue
		[ "$1" != switch ] || list=()
		echo "run $program ${list[*]/#/-t }"
	done
}

topology_of()	{ echo "${1%%:*}"; }
append_for()	{ [ "${1#*:}" = "$1" ] || echo "${1#*:}"; }

# evidence JOB: why the case did not pass there; nothing if it did.
evidence()
{
	grep -m 1 -qE '^ok 1 ' "$1/out" || grep -m 3 -E '^# *[a-z_]+\.c:[0-9]+:|^not ok' "$1/out" || :
	vm_verdict "$1" | head -n 12
}

without_fix()
{
	local name=fixes.without-${1/\//-} file program case place why

	file=$(basename "$(patch_of "$1")")
	read -r program case place <<<"$(test_of "$1")"
	case $program in
	'')		fail "$name" "test_of in scripts/suites/fixes.sh does not know $file"; return ;;
	none)		skip "$name" "$file changes documentation or tests only"; return ;;
	untested)	skip "$name" "$file says why no test shows it"; return ;;
	model)
		case=$program
		strict pgprot_model >"$REPORT/why" 2>&1 && : >"$REPORT/why" ;;
	*)
		new_job JOB
		echo "cd \$KSELFTEST/p2pdma && ./$program -t $case 2>&1" >"$JOB/command"
		VM_APPEND=$(append_for "$place") vm_boot "$JOB" debug "$(topology_of "$place")" 900
		cp "$JOB/console" "$LOGS/test-$name.console"
		grep -q "Starting 1 tests" "$JOB/out" || { fail "$name" "$case did not even begin" "$JOB/out"; return; }
		evidence "$JOB" >"$REPORT/why" ;;
	esac
	why=$(sed 's/^/  | /' "$REPORT/why")
	if [ -n "$why" ]; then
		pass "$name"
		say "without it, $case fails:"
		say "$why"
	else
		fail "$name" "$case passes without it"
	fi
}

suite()
{
	local place name

	[ -n "$(fix_patches)" ] || { skip fixes "there are none"; return; }
	if [ -n "${P2PDMA_WITHOUT:-}" ]; then
		without_fix "$P2PDMA_WITHOUT"
		return
	fi
	check fixes.each-has-a-test each_has_a_test
	check fixes.pgprot-modify pgprot_model
	for place in $(all_tests | cut -d' ' -f3 | sort -ru); do
		name=fixes.${place//[:=]/-}
		VM_APPEND=$(append_for "$place") guest "$name" debug "$(topology_of "$place")" 900 "$(run_on "$place")"
		cases "$JOB/out" "$name"
	done
}
