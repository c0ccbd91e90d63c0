# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
# What every script here shares: where things are, messages, progress, stamps
# and locks. Source it; it runs nothing but the settings.

set -Eeuo pipefail
umask 022
# In the shells of strict a status may be an answer; who asked tells of it.
[ -n "${P2PDMA_STRICT:-}" ] ||
	trap 'printf "error: stopped at %s line %s\n" "${BASH_SOURCE[0]##*/}" "$LINENO" >&2' ERR

TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
CACHE=${P2PDMA_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/p2pdma-rust}
mkdir -p "$CACHE/log" "$CACHE/tmp" || { echo "error: cannot write to the cache $CACHE" >&2; exit 2; }
CACHE=$(cd "$CACHE" && pwd -P)
LOGS=$CACHE/log
JOBS=${P2PDMA_JOBS:-$(nproc)}
# When the whole command began and how many of its steps are done: both survive
# the step into the root, where the script starts a second time.
: "${P2PDMA_T0:=$(date +%s)}" "${P2PDMA_STEP:=0}" "${P2PDMA_STEPS:=0}"
export P2PDMA_T0 P2PDMA_STEP P2PDMA_STEPS CCACHE_DIR=$CACHE/ccache
STARTED_IN=${P2PDMA_CWD:-$PWD}
# What strict takes along.
export TREE SOURCE SERIES_KEY STEP_TEXT HOST_WHY

# A user's or machine's git settings must not change what is made here.
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1

say()	{ printf '%s\n' "$*"; }
note()	{ printf '%s\n' "$*" >&2; }
die()	{ printf 'error: %s\n' "$*" >&2; exit 2; }

# usage_from FILE: the comment block under the SPDX line is the script's help.
usage_from()
{
	awk 'NR > 2 && !/^#/ { exit } NR > 2 { sub(/^# ?/, ""); print }' "$1"
}

elapsed()
{
	local s=$(($(date +%s) - ${1:-$P2PDMA_T0}))

	printf '%d:%02d' $((s / 60)) $((s % 60))
}

# On exit: end what this shell started, drop what was not finished.
CLEAN_PIDS=() CLEAN_PATHS=() HELD=''
clean_up()
{
	local p i

	for p in "${CLEAN_PIDS[@]}"; do kill -TERM -- "-$p" 2>/dev/null || kill -TERM "$p" 2>/dev/null || :; done
	# make ends by itself, then, and removes what it had not finished.
	[ -z "$HELD" ] || for ((i = 0; i < 100; i++)); do
		kill -0 -- "-$p" 2>/dev/null || { : >"$HELD"; break; }
		sleep 0.1
	done
	# What still runs there must not lose its folder.
	for p in "${CLEAN_PIDS[@]}"; do
		for ((i = 0; i < 50; i++)); do
			kill -0 "$p" 2>/dev/null || break
			sleep 0.1
		done
	done
	for p in "${CLEAN_PATHS[@]}"; do rm -rf -- "$p"; done
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# new_tmp VAR: an own folder in the cache, gone when the script ends.
new_tmp()
{
	local made

	made=$(mktemp -d "$CACHE/tmp/${0##*/}.XXXXXX")
	CLEAN_PATHS+=("$made")
	printf -v "$1" %s "$made"
}

# steps N: how many steps the command has; step TEXT starts the next one.
steps()	{ [ "$P2PDMA_STEPS" != 0 ] || P2PDMA_STEPS=$1; }

step()
{
	P2PDMA_STEP=$((P2PDMA_STEP + 1))
	STEP_TEXT="[$P2PDMA_STEP/$P2PDMA_STEPS] $1"
	[ "$P2PDMA_STEPS" != 0 ] || STEP_TEXT=$1
	note "$STEP_TEXT  ($(elapsed))"
}

# watch PID LOG: tell how long it has been and what the log says, until it ends.
watch()
{
	local pid=$1 log=$2 began last=0 now line i=0 width=${COLUMNS:-100}

	began=$(date +%s)
	while kill -0 "$pid" 2>/dev/null; do
		i=$((i + 1))
		sleep "$([ $i -lt 10 ] && echo 0.1 || echo 1)"
		now=$(($(date +%s) - began))
		if [ -t 2 ]; then
			[ $i -gt 10 ] || continue
		else
			[ $((now - last)) -ge 20 ] || continue
		fi
		last=$now
		line=$(tail -c 400 "$log" 2>/dev/null | tr '\r' '\n' | grep -v '^$' | tail -n 1 | tr -s ' \t' ' ' || :)
		line="  ${STEP_TEXT%% *} $(elapsed "$began")  $line"
		if [ -t 2 ]; then
			printf '\r\033[K%s' "${line:0:width-1}" >&2
		else
			note "${line:0:160}"
		fi
	done
	[ ! -t 2 ] || printf '\r\033[K' >&2
}

# strict FUNCTION [ARG...]: run one of our functions in a shell of its own. In
# this one, set -e does not hold in a function whose status is looked at.
# shellcheck disable=SC2016 # for that shell, not for this one
strict()	{ P2PDMA_STRICT=1 bash -c '. "$0"; "$@"' "$TOP/scripts/lib.sh" "$@"; }

# apart FUNCTION...: strict, in the background and in a process group of its own,
# so that a signal is heard at once and ends all of it. Its id is in PID.
apart()
{
	set -m
	( trap - ERR; strict "$@" ) </dev/null &
	PID=$!
	set +m
	CLEAN_PIDS+=("$PID")
}

# reap PID: the status of what ran apart.
reap()
{
	local rc=0

	wait "$1" || rc=$?
	unset 'CLEAN_PIDS[-1]'
	return $rc
}

# logged NAME FUNCTION...: run with output to a log of that name, showing progress.
logged()
{
	local log=$LOGS/$1.log PID rc=0
	shift

	note "  log: $log"
	apart "$@" >"$log" 2>&1
	watch "$PID" "$log"
	reap "$PID" || rc=$?
	[ $rc = 0 ] && return 0
	note "  failed (exit $rc); the end of $log:"
	tail -n 30 "$log" | sed 's/^/  | /' >&2
	return $rc
}

# hash_of FILE...: one short key for the names and contents of files.
hash_of()
{
	local f

	for f; do
		[ ! -f "$f" ] || { printf '%s\n' "${f##*/}"; cat "$f"; }
	done | sha256sum | cut -c1-16
}

hash_text()	{ printf '%s\n' "$*" | sha256sum | cut -c1-16; }

# stamped FILE KEY: was FILE's subject made from KEY? stamp FILE KEY: now it is.
stamped()	{ [ -f "$1" ] && [ "$(cat "$1")" = "$2" ]; }
stamp()		{ printf '%s\n' "$2" >"$1.new" && mv "$1.new" "$1"; }

# half_made NAME MARK: remove what builds under that lock have written since MARK.
# make removes a target that fails, but not when it is killed itself, and takes the
# half of a generated file for the whole.
half_made()
{
	local build

	for build in "$CACHE"/build-*; do
		case $1:${build##*/} in
		each:build-each-* | base:build-release-*)	;;
		files:build-each-*)	continue ;;
		files:*)	;;
		*)	continue ;;
		esac
		find "$build" -newer "$2" ! -type d -delete
		rm -f "$build/.p2pdma-built"
	done
}

# locked NAME FUNCTION...: one at a time on this machine. The lock's file has
# content while it is held; who finds some holds the lock after one that was killed.
locked()
{
	local fd name=$1 lock=$CACHE/tmp/$1.lock rc=0 PID
	shift

	exec {fd}>>"$lock"
	if ! flock -n "$fd"; then
		note "  waiting for another run ($name)"
		flock "$fd"
	fi
	if [ -s "$lock" ]; then
		note "  the last run ($name) was killed: removing what it had not finished"
		half_made "$name" "$lock"
	fi
	echo "held" >"$lock"
	HELD=$lock
	apart "$@" {fd}>&-
	reap "$PID" || rc=$?
	: >"$lock"
	HELD=''
	exec {fd}>&-
	return $rc
}

need()
{
	local tool

	for tool; do
		command -v "$tool" >/dev/null || die "$tool is missing"
	done
}

# series_names: the train's series in order, as b4.toml lists them, one name a line.
# By sed: who only applies the patches needs no Python.
series_names()	{ sed -n 's/^name = "\(.*\)"$/\1/p' "$TOP/b4.toml"; }

# patches_of SERIES: its patches in order, without the cover letter.
patches_of()
{
	[ ! -d "$TOP/patches/$1" ] || find "$TOP/patches/$1" -maxdepth 1 -name '[0-9]*.patch' ! -name '0000-*' | sort
}

# full_series: those that have patches.
full_series()
{
	local name

	for name in $(series_names); do
		[ -z "$(patches_of "$name")" ] || echo "$name"
	done
}

# patch_of SERIES/N: the file of the Nth patch of that series, or nothing.
patch_of()	{ patches_of "${1%/*}" | sed -n "${1##*/}p"; }

# fix_series: those that repair today's kernel; their names say so.
fix_series()	{ series_names | grep -E -- '-fix(es)?$' || :; }

# shellcheck source=scripts/lib/root.sh
. "$TOP/scripts/lib/root.sh"
# shellcheck source=scripts/lib/tree.sh
. "$TOP/scripts/lib/tree.sh"
# shellcheck source=scripts/lib/kernel.sh
. "$TOP/scripts/lib/kernel.sh"
# shellcheck source=scripts/lib/topologies.sh
. "$TOP/scripts/lib/topologies.sh"
# shellcheck source=scripts/lib/qemu-faults.sh
. "$TOP/scripts/lib/qemu-faults.sh"
# shellcheck source=scripts/lib/vm.sh
. "$TOP/scripts/lib/vm.sh"
# A suite's own functions, for strict.
# shellcheck source=/dev/null
[ -z "${P2PDMA_MORE:-}" ] || . "$P2PDMA_MORE"
