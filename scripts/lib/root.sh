# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
# The toolchain: this machine's own where it suits, else a Debian root made with
# mmdebstrap, in which the script that asked for it starts again.

SUITE=trixie
PACKAGES=(ca-certificates bash coreutils make clang-19 lld-19 llvm-19 libc6-dev
	flex bison bc libelf-dev libssl-dev python3 perl rsync kmod cpio xz-utils
	zstd ccache git rustc rust-src rustfmt rust-clippy bindgen sparse b4
	qemu-system-x86 qemu-utils nvme-cli fio shellcheck procps util-linux
	pciutils iproute2 python3-ply python3-git libcap-dev libnuma-dev codespell strace gcc
	"linux-source-7.3/$SUITE-backports")
# What has to be there to do without the root.
TOOLS=(make clang ld.lld llvm-ar flex bison bc git rsync python3 perl rustc bindgen
	ccache qemu-system-x86_64 qemu-img nvme fio lspci modprobe flock)

# A distribution's llvm comes first: LLVM=1 wants the tools' plain names.
TOOL_PATH=/usr/lib/llvm-19/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

root_dir()	{ echo "$CACHE/root-$(hash_text "$SUITE" "${PACKAGES[@]}")"; }

# missing_tools: names of TOOLS that this machine has not.
missing_tools()
{
	local t out=()

	for t in "${TOOLS[@]}"; do
		command -v "$t" >/dev/null || out+=("$t")
	done
	echo "${out[*]}"
}

# host_suits: can this machine's own tools build and boot the kernel? Says why not.
host_suits()
{
	local src out missing

	case ${P2PDMA_ROOT:-auto} in
	never)	return 0 ;;
	always)	return 1 ;;
	esac
	src=$(host_source) || { HOST_WHY="no kernel source on this machine (KDIR=, LINUX_SRC=)"; return 1; }
	missing=$(missing_tools)
	[ -z "$missing" ] || { HOST_WHY="not on this machine: $missing"; return 1; }
	if [ -f "$src" ]; then
		# A packed source has to be unpacked before it can be asked.
		find_base
		[ -d "$TREE" ] || locked tree ensure_base || return 1
		src=$TREE
	fi
	out=$CACHE/tmp/rustavailable
	mkdir -p "$out"
	make -s -C "$src" O="$out" LLVM=1 rustavailable >"$LOGS/rustavailable.log" 2>&1 && return 0
	HOST_WHY="make LLVM=1 rustavailable says no: $LOGS/rustavailable.log"
	return 1
}

# debian_mirror: the address of Debian's archive in this machine's apt configuration.
debian_mirror()
{
	need apt-get
	# shellcheck disable=SC2016 # apt's format, not the shell's
	apt-get indextargets --format '$(ORIGIN)|$(REPO_URI)|$(CODENAME)|$(COMPONENT)|$(IDENTIFIER)' |
		awk -F'|' '$1 == "Debian" && $4 == "main" && $5 == "Packages" &&
			$3 !~ /-(security|updates|backports)$/ { print $2; exit }'
}

make_root()
{
	local root=$1 mirror list repo lines=()

	[ "$(id -u)" = 0 ] || die "a Debian root can only be made by root; or give KDIR= and a toolchain that passes 'make LLVM=1 rustavailable' (${HOST_WHY:-})"
	need unshare
	mirror=$(debian_mirror)
	if [ -z "$mirror" ]; then
		apt-get update -qq || :
		mirror=$(debian_mirror)
	fi
	[ -n "$mirror" ] || die "no Debian mirror in this machine's apt configuration"
	# After an install the index is there; a bare machine may not have it yet.
	command -v mmdebstrap >/dev/null || {
		apt-get update -qq || :
		DEBIAN_FRONTEND=noninteractive apt-get install -qqy --no-install-recommends mmdebstrap
	}
	rm -rf --one-file-system "$root.new"
	list=$(IFS=,; echo "${PACKAGES[*]}")
	for repo in "$SUITE" "$SUITE-updates" "$SUITE-backports"; do lines+=("deb $mirror $repo main"); done
	mmdebstrap --mode=root --variant=minbase --include="$list" "$SUITE" "$root.new" "${lines[@]}"
	# So that the kernel source can be found when the package list is older.
	chroot "$root.new" /usr/lib/llvm-19/bin/clang --version
	test -f "$root.new/usr/src/linux-source-7.3.tar.xz"
	mv "$root.new" "$root"
}

ensure_root()
{
	local root

	root=$(root_dir)
	[ ! -d "$root" ] || return 0
	logged root make_root "$root"
}

# bind_in ROOT PATH: let PATH be seen in the root under the same name. A folder
# of the machine's top level comes whole, for the user's files lie anywhere in
# it; below the system's own folders only what the root has not.
bind_in()
{
	local root=$1 path=$2 top

	top=/$(cut -d/ -f2 <<<"$path")
	case $top in
	/ | /bin | /boot | /dev | /etc | /lib* | /proc | /run | /sbin | /sys | /usr | /var | /lost+found)
		[ "$path" != "$top" ] || return 0
		[ -f "$root$path" ] || [ -n "$(ls -A "$root$path" 2>/dev/null)" ] && return 0 ;;
	*)
		path=$top ;;
	esac
	[ -e "$path" ] && ! mountpoint -q "$root$path" || return 0
	if [ -d "$path" ]; then
		mkdir -p "$root$path"
	else
		mkdir -p "$root${path%/*}"
		[ -e "$root$path" ] || : >"$root$path"
	fi
	mount --rbind "$path" "$root$path"
}

# go_in ROOT COMMAND...: become COMMAND inside the root. Runs in a mount
# namespace of its own, so nothing has to be unmounted afterwards.
go_in()
{
	local root=$1 d var pass=()
	shift

	mount --make-rprivate /
	# The cache first: its part of the tree must not show the mounts below.
	for d in "$CACHE" "$TOP" "$STARTED_IN" "${KDIR:-}" "${LINUX_SRC:-}"; do
		[ -z "$d" ] || bind_in "$root" "$(realpath -m "$d")"
	done
	for d in /*/; do
		[ -L "${d%/}" ] || bind_in "$root" "${d%/}"
	done
	mount --rbind /dev "$root/dev"
	mount -t proc proc "$root/proc"
	mount -t sysfs sysfs "$root/sys"
	for var in TERM COLUMNS CI KDIR LINUX_SRC P2PDMA_T0 P2PDMA_STEP P2PDMA_STEPS P2PDMA_JOBS P2PDMA_ACCEL P2PDMA_FROM P2PDMA_TO P2PDMA_AGAIN; do
		[ -z "${!var:-}" ] || pass+=("$var=${!var}")
	done
	# shellcheck disable=SC2016 # for the shell inside
	exec chroot "$root" /usr/bin/env -i HOME="${HOME:-/root}" LANG=C.UTF-8 PATH="$TOOL_PATH" \
		P2PDMA_CACHE="$CACHE" P2PDMA_INSIDE="$root" P2PDMA_CWD="$STARTED_IN" "${pass[@]}" \
		bash -c 'cd "$1" 2>/dev/null || cd /; shift; exec "$@"' go_in "$STARTED_IN" "$@"
}

# enter ARGS...: from here on the script runs where the toolchain is.
# Call it first thing after the arguments were looked at, with all of them.
enter()
{
	[ -z "${P2PDMA_INSIDE:-}" ] || return 0
	if [ "${P2PDMA_ROOT:-auto}" != always ] && host_suits; then
		[ -n "${P2PDMA_QUIET:-}" ] || step "toolchain: this machine's own"
		export P2PDMA_INSIDE=/
		return 0
	fi
	if [ -d "$(root_dir)" ]; then
		[ -n "${P2PDMA_QUIET:-}" ] || step "toolchain: Debian $SUITE, reused"
	else
		step "toolchain: making a Debian $SUITE root, some 2 minutes (${HOST_WHY:-asked for})"
		locked root ensure_root || die "no root could be made"
	fi
	[ "$(id -u)" = 0 ] || die "working in the Debian root needs root"
	# shellcheck disable=SC2016 # for the shell in the name space
	exec unshare -m bash -c '. "$1/scripts/lib.sh"; shift; go_in "$@"' enter "$TOP" "$(root_dir)" "$TOP/scripts/${0##*/}" "$@"
}
