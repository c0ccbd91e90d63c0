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
	local name=$1 config=$2 topology=$3 limit=$4
	shift 4

	guest_job "$@"
	vm_boot "$JOB" "$config" "$topology" "$limit"
	guest_fared "$name"
}

# guest_job COMMAND [FILE...]: make a job for vm_boot. Sets JOB.
guest_job()
{
	new_job JOB
	printf '%s\n' "$1" >"$JOB/command"
	shift
	[ $# = 0 ] || cp -a -- "$@" "$JOB/work/"
}

# guest_fared NAME: tell how the guest of JOB fared, from what vm_boot has set.
guest_fared()
{
	local log=$LOGS/test-$1.console verdict

	cp "$JOB/console" "$log"
	verdict=$(vm_verdict "$JOB")
	if [ -n "$verdict" ]; then
		printf '%s\n' "$verdict" >"$REPORT/verdict"
		fail "$1.guest" "the guest was not well" "$REPORT/verdict"
		say "  console: $log"
	else
		pass "$1.guest"
	fi
}

# guests_begin TIMEOUT [CONFIG TOPOLOGY JOB]...: boot all guests, two at a time, in the
# background.
guests_begin()
{
	local limit=$1 lane
	shift

	BESIDE=()
	# shellcheck disable=SC2034 # only a number
	for lane in 1 2; do
		(
			# shellcheck disable=SC2030,SC2034 # clean_up reads them
			CLEAN_PIDS=() CLEAN_PATHS=() HELD=''
			trap clean_up EXIT
			trap 'exit 143' TERM HUP
			while [ $# -gt 0 ] && kill -0 $$ 2>/dev/null; do
				# Skip a job that the other lane has taken.
				if mkdir "$3/lane" 2>/dev/null; then
					vm_boot "$3" "$1" "$2" "$limit"
					echo "$VM_STATUS $VM_SECONDS" >"$3/lane/status"
					mv "$3/lane/status" "$3/booted"
				fi
				shift 3
			done
		) &
		BESIDE+=("$!")
		# shellcheck disable=SC2031 # this one is not
		CLEAN_PIDS+=("$!")
	done
}

# guest_end NAME JOB: wait for one of these guests, and tell how it fared. Sets JOB.
guest_end()
{
	JOB=$2
	while [ ! -e "$JOB/booted" ] && kill -0 "${BESIDE[@]}" 2>/dev/null; do sleep 0.5; done
	VM_STATUS=125 VM_SECONDS=0
	# shellcheck disable=SC2034 # vm_verdict reads them
	! grep -qxE '[0-9]+ [0-9]+' "$JOB/booted" 2>/dev/null || read -r VM_STATUS VM_SECONDS <"$JOB/booted"
	guest_fared "$1"
}

# guests_end: call this after the last guest_end.
guests_end()
{
	wait "${BESIDE[@]}" 2>/dev/null || :
	CLEAN_PIDS=()
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
