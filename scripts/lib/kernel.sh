# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
# Configuring and building the kernel, its modules and what the guest runs.

# fragments CONFIG: the configuration's fragments, in the order of merging.
fragments()
{
	local dir=$TOP/scripts/configs

	echo "$dir/release.config"
	[ "$1" = release ] || echo "$dir/$1.config"
}

toolchain_key()
{
	hash_text "$(clang --version | head -n 1) $(rustc --version) $(bindgen --version)"
}

# build_dir CONFIG: where that kernel is built.
build_dir()	{ echo "$CACHE/build-$1-$(hash_text "$TREE $(toolchain_key)")"; }

# kmake BUILD ARGS...: the kernel's make, always with the same settings.
kmake()
{
	local build=$1
	shift

	# No date, user or git description in the image: only the source counts.
	KBUILD_BUILD_TIMESTAMP='Thu Jan  1 00:00:00 UTC 2026' KBUILD_BUILD_USER=p2pdma KBUILD_BUILD_HOST=p2pdma \
		make -C "$TREE" O="$build" -j"$JOBS" LLVM=1 CC='ccache clang' LOCALVERSION= "$@"
}

# dropped BUILD FRAGMENT...: wanted options that Kconfig did not take.
dropped()
{
	local config=$1/.config
	shift

	awk '
	function symbol(line) { sub(/^# /, "", line); sub(/[= ].*/, "", line); return line }
	FILENAME != ARGV[ARGC - 1] { if (/^(# )?CONFIG_/) want[symbol($0)] = $0; next }
	/^(# )?CONFIG_/ { have[symbol($0)] = $0 }
	END {
		for (s in want)
			if (s in have ? have[s] != want[s] : want[s] !~ /is not set$/)
				print want[s]
	}' "$@" "$config" | known_options
}

# known_options: of options on stdin, those to miss. A tree without a patch may lack
# what is on top of it, too, and its options.
known_options()
{
	local option name

	while read -r option; do
		name=${option%%=*}
		name=${name#\# }
		name=${name% is not set}
		if [ -z "${P2PDMA_WITHOUT:-}" ] || git -C "$TREE" grep -qE "^(menu)?config ${name#CONFIG_}\$" HEAD -- '*Kconfig*'; then
			echo "$option"
		fi
	done
}

configure()
{
	local build=$1 missing
	shift

	mkdir -p "$build"
	kmake "$build" -s tinyconfig
	( cd "$build" && KCONFIG_CONFIG=.config "$TREE/scripts/kconfig/merge_config.sh" -m .config "$@" )
	kmake "$build" -s olddefconfig
	missing=$(dropped "$build" "$@")
	[ -z "$missing" ] || { echo "options that Kconfig dropped:"; echo "$missing"; return 1; }
}

# ensure_config CONFIG BUILD: configured from today's fragments and source.
ensure_config()
{
	local build=$2 key frag

	mapfile -t frag < <(fragments "$1")
	# Of the series only what it does to Kconfig matters here.
	key=$(hash_of "${frag[@]}")-$(git -C "$TREE" diff base HEAD -- '*Kconfig*' | sha256sum | cut -c1-16)
	stamped "$build/.p2pdma-config" "$key" && return 0
	logged "config-$1" configure "$build" "${frag[@]}"
	stamp "$build/.p2pdma-config" "$key"
}

# warnings_of_ours LOG: the warnings and errors in it that are about files of the
# series. Today's kernel is not free of them with each version of the tools.
warnings_of_ours()
{
	local files

	mapfile -t files < <(series_files AM '^(rust|drivers)/.*\.rs$')
	grep -A3 -E '^(warning|error)' "$1" | grep -- '-->' | grep -F -- "$(printf -- '%s\n' "${files[@]}")"
}

# The series' own drivers.
drivers()	{ series_files A '^drivers/.*/Makefile$' | sed 's,/Makefile$,/,'; }

# clippy_arg CONFIG: the release kernel is built with clippy in the compiler's
# place: every make in its folder has to agree, or it compiles all again.
clippy_arg()	{ [ "$1" != release ] || ! command -v clippy-driver >/dev/null || echo CLIPPY=1; }

# build_objects BUILD [ARG...]: image and modules; our warnings are kept beside
# them. A warning comes only when a file is compiled, so what had one is compiled
# again.
build_objects()
{
	local build=$1 out=$1/.p2pdma-make places
	shift

	if [ -s "$build/.p2pdma-warnings" ]; then
		mapfile -t places < <(drivers | sed "s,^,$build/,")
		find "$build/rust" "${places[@]}" -name '*.o' -delete
	fi
	kmake "$build" "$@" bzImage modules 2>&1 | tee "$out"
	warnings_of_ours "$out" >"$build/.p2pdma-warnings" || :
}

build_all()
{
	local config=$2 build=$1 guest=$1/guest.new inc=$1/usr/include tests=$TREE/tools/testing/selftests clippy

	mapfile -t clippy < <(clippy_arg "$config")
	build_objects "$build" "${clippy[@]}"
	echo "installing modules and tests"
	rm -rf "$guest"
	mkdir -p "$guest/opt/kselftest" "$guest/usr/local/bin"
	kmake "$build" -s INSTALL_MOD_PATH="$guest/usr" INSTALL_MOD_STRIP=1 modules_install
	kmake "$build" -s headers
	clang -O2 -w -I"$TREE" -I"$tests" -I"$TREE/tools/include/uapi" -I"$inc" \
		-o "$guest/usr/local/bin/gup_test" "$tests"/mm/{gup_test,vm_util,hugepage_settings}.c -pthread
	if [ -d "$tests/p2pdma" ]; then
		# The test module's objects lie in the source: they are another kernel's.
		git -C "$TREE" clean -fdxq tools/testing/selftests/p2pdma
		make -C "$tests" O="$build" KDIR="$build" LLVM=1 TARGETS=p2pdma FORCE_TARGETS=1 \
			KHDR_INCLUDES="-isystem $inc" INSTALL_PATH="$guest/opt/kselftest" install
		git -C "$TREE" clean -fdxq tools/testing/selftests/p2pdma
	fi
	rm -rf "$build/guest"
	mv "$guest" "$build/guest"
}

# kernel_key CONFIG: what the built kernel depends on.
kernel_key()
{
	local frag

	mapfile -t frag < <(fragments "$1")
	echo "$SERIES_KEY-$(hash_of "${frag[@]}" "$TOP/scripts/lib/kernel.sh")"
}

build_kernel()
{
	local config=$1 build=$2

	update_tree
	ensure_config "$config" "$build"
	logged "build-$config" build_all "$build" "$config"
	stamp "$build/.p2pdma-built" "$(kernel_key "$config")"
}

# ensure_kernel CONFIG: a step; sets BUILD. Needs ensure_tree before it.
ensure_kernel()
{
	BUILD=$(build_dir "$1")
	if stamped "$BUILD/.p2pdma-built" "$(kernel_key "$1")"; then
		step "$1 kernel: reused"
		return 0
	fi
	step "$1 kernel: building (from nothing 15 to 25 minutes on 2 cores)"
	locked files build_kernel "$1" "$BUILD" || { note "the $1 kernel does not build"; return 1; }
}
