# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
# about: what patches/fixes mends stays mended; --without-fix N shows that a test would tell
# needs: debug
# order: 35

# test_of N: the case of the kselftest core, or "model", that fails without patch
# N of patches/fixes; nothing if it changes documentation or tests only.
test_of()
{
	case $(patches_of fixes | sed -n "$1s,.*/,,p") in
	*-devm-action-*)	echo add_resource_fails ;;
	*-page-count-*)		echo mmap_fails ;;
	*-end-of-the-list*)	echo acs_list ;;
	*-readers-of-*)		echo unbind_without_pool ;;
	*-allocate-from-*)	echo alloc_without_pool ;;
	*-memory-decrypted*)	echo decrypted ;;
	*-pgprot_decrypted-*)	echo model ;;
	*-mm-gup-*)		echo populate ;;
	*-dma-direct-*)		echo scatterlist ;;
	esac
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

# core_command [CASE]: the guest's command. append_for TOPOLOGY: its kernel's
# parameters; what goes through the host bridge must not use the bounce buffer.
# shellcheck disable=SC2016 # for the guest's shell
core_command()	{ printf 'cd "$KSELFTEST/p2pdma" && ./core %s 2>&1\n' "${1:+-t $1}"; }
append_for()	{ [ "$1" != bridge ] || echo swiotlb=force; }

# evidence JOB: why the case did not pass there; nothing if it did.
evidence()
{
	grep -m 1 -qE '^ok 1 ' "$1/out" || grep -m 3 -E 'core\.c:[0-9]+:|^not ok' "$1/out" || :
	vm_verdict "$1" | head -n 12
}

without_fix()
{
	local name=fixes.without-$1 case topology=switch why

	case=$(test_of "$1")
	case $case in
	'')	skip "$name" "$(basename "$(patches_of fixes | sed -n "$1p")") changes no behaviour"; return ;;
	model)
		strict pgprot_model >"$REPORT/why" 2>&1 && : >"$REPORT/why" ;;
	*)
		[ "$case" != scatterlist ] || topology=bridge
		new_job JOB
		core_command "$case" >"$JOB/command"
		VM_APPEND=$(append_for "$topology") vm_boot "$JOB" debug "$topology" 900
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
	[ -n "$(patches_of fixes)" ] || { skip fixes "there are none"; return; }
	if [ -n "${WITHOUT_FIX:-}" ]; then
		without_fix "$WITHOUT_FIX"
		return
	fi
	check fixes.pgprot-modify pgprot_model
	guest fixes.switch debug switch 900 "$(core_command)"
	cases "$JOB/out" fixes.switch
	VM_APPEND=$(append_for bridge) guest fixes.bridge debug bridge 900 "$(core_command scatterlist)"
	cases "$JOB/out" fixes.bridge
}
