# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
# Counting and telling: what the suites call.

report_begin()
{
	new_tmp REPORT
	export REPORT
	: >"$REPORT/cases"
}

pass()	{ echo "pass $1" >>"$REPORT/cases"; say "ok      $1"; }
skip()	{ echo "skip $1" >>"$REPORT/cases"; say "skip    $1: $2"; }

# fail NAME WHY [LOG]: the end of the log is shown too.
fail()
{
	echo "fail $1" >>"$REPORT/cases"
	say "FAILED  $1: $2"
	[ -z "${3:-}" ] || [ ! -s "$3" ] || { tail -n 40 "$3" | sed 's/^/  | /'; say "  log: $3"; }
}

# check NAME FUNCTION...: passes if the command does. It runs in a shell of its
# own (see strict); a status of 4 is a skip and its last line says why.
check()
{
	local name=$1 log=$LOGS/test-${1//[^A-Za-z0-9._-]/-}.log rc=0 PID
	shift

	# shellcheck disable=SC2034 # watch shows it
	STEP_TEXT="[$P2PDMA_STEP/$P2PDMA_STEPS] $name"
	apart "$@" >"$log" 2>&1
	watch "$PID" "$log"
	reap "$PID" || rc=$?
	case $rc in
	0)	pass "$name" ;;
	4)	skip "$name" "$(tail -n 1 "$log")" ;;
	*)	fail "$name" "exit status $rc" "$log" ;;
	esac
}

# cases FILE PREFIX: count each KTAP case in FILE. Passes are told as one line.
cases()
{
	local kind name text n=0 log=$LOGS/test-$2.log

	"$TOP/scripts/lib/ktap.py" "$1" "$2" >"$REPORT/ktap" || { fail "$2" "no KTAP could be read"; return 0; }
	cp "$1" "$log"
	while IFS='|' read -r kind name text; do
		case $kind in
		pass)	n=$((n + 1)); echo "pass $name" >>"$REPORT/cases" ;;
		skip)	skip "$name" "$text" ;;
		fail)	fail "$name" "$(tr '\t' '\n' <<<"$text" | sed '2,$s/^/  | /')"; say "  log: $log" ;;
		esac
	done <"$REPORT/ktap"
	[ -s "$REPORT/ktap" ] || fail "$2" "no test case was run" "$1"
	[ $n = 0 ] || say "ok      $2: $n cases"
}

# guest NAME CONFIG TOPOLOGY TIMEOUT COMMAND [FILE...]: boot, run the command with
# copies of the files; one case for how the guest itself fared. Sets JOB.
guest()
{
	local name=$1 config=$2 topology=$3 limit=$4 log=$LOGS/test-$1.console verdict
	new_job JOB
	printf '%s\n' "$5" >"$JOB/command"
	shift 5

	[ $# = 0 ] || cp -a -- "$@" "$JOB/work/"
	vm_boot "$JOB" "$config" "$topology" "$limit"
	cp "$JOB/console" "$log"
	verdict=$(vm_verdict "$JOB")
	if [ -n "$verdict" ]; then
		printf '%s\n' "$verdict" >"$REPORT/verdict"
		fail "$name.guest" "the guest was not well" "$REPORT/verdict"
		say "  console: $log"
	else
		pass "$name.guest"
	fi
}

report_end()
{
	local passed failed skipped

	passed=$(grep -c '^pass' "$REPORT/cases" || :)
	failed=$(grep -c '^fail' "$REPORT/cases" || :)
	skipped=$(grep -c '^skip' "$REPORT/cases" || :)
	note "all done in $(elapsed)"
	if [ "$failed" != 0 ]; then
		say "failed:"
		sed -n 's/^fail /  /p' "$REPORT/cases"
	fi
	say "$passed passed, $failed failed, $skipped skipped"
	[ "$failed" = 0 ] || exit 1
	[ "$passed" != 0 ] || exit 1
	exit 0
}
