// SPDX-License-Identifier: GPL-2.0
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <unistd.h>

#include "mmio.h"

/* The word that belongs at @offset. SplitMix64 makes each word differ from the others. */
static uint64_t pattern(uint64_t seed, size_t offset)
{
	uint64_t z = seed + (offset / sizeof(z) + 1) * 0x9e3779b97f4a7c15ull;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

static void write_pattern(void *mem, size_t len, size_t step, uint64_t seed)
{
	size_t i;

	for (i = 0; i < len; i += step)
		mmio_write64(mem + i, pattern(seed, i));
}

static long check_pattern(const void *mem, size_t from, size_t to, size_t step, uint64_t seed)
{
	size_t i;

	for (i = from; i < to; i += step) {
		if (mmio_read64(mem + i) != pattern(seed, i))
			return i;
	}
	return -1;
}

void mmio_fill(void *mem, size_t len, uint64_t seed)
{
	write_pattern(mem, len, sizeof(uint64_t), seed);
}

long mmio_check_part(const void *mem, size_t from, size_t to, uint64_t seed)
{
	return check_pattern(mem, from, to, sizeof(uint64_t), seed);
}

void page_mark(void *mem, size_t len, uint64_t seed)
{
	write_pattern(mem, len, sysconf(_SC_PAGESIZE), seed);
}

long page_check_part(const void *mem, size_t from, size_t to, uint64_t seed)
{
	return check_pattern(mem, from, to, sysconf(_SC_PAGESIZE), seed);
}

long page_check(const void *mem, size_t len, uint64_t seed)
{
	return page_check_part(mem, 0, len, seed);
}

/* FNV-1a over words of 64 bits. */
uint64_t mmio_checksum(const void *mem, size_t len)
{
	uint64_t sum = 0xcbf29ce484222325ull;
	size_t i;

	for (i = 0; i < len; i += sizeof(uint64_t))
		sum = (sum ^ mmio_read64(mem + i)) * 0x100000001b3ull;
	return sum;
}

size_t mmio_count_nonzero(const void *mem, size_t len)
{
	size_t i, count = 0;

	for (i = 0; i < len; i += sizeof(uint64_t))
		count += !!mmio_read64(mem + i);
	return count;
}

static __thread sigjmp_buf fault_env;
static __thread bool fault_expected;

static void on_fault(int sig)
{
	if (__atomic_load_n(&fault_expected, __ATOMIC_SEQ_CST))
		siglongjmp(fault_env, sig);
	/* The access is repeated when this handler returns, and the signal then kills. */
	signal(sig, SIG_DFL);
}

static int try_access(void *mem, uint64_t *val, bool write)
{
	struct sigaction sa = { .sa_handler = on_fault };
	int sig;

	sigaction(SIGBUS, &sa, NULL);
	sigaction(SIGSEGV, &sa, NULL);
	sig = sigsetjmp(fault_env, 1);
	if (!sig) {
		__atomic_store_n(&fault_expected, true, __ATOMIC_SEQ_CST);
		if (write)
			mmio_write64(mem, *val);
		else
			*val = mmio_read64(mem);
	}
	__atomic_store_n(&fault_expected, false, __ATOMIC_SEQ_CST);
	return sig;
}

int try_read64(const void *mem, uint64_t *val)
{
	return try_access((void *)mem, val, false);
}

int try_write64(void *mem, uint64_t val)
{
	return try_access(mem, &val, true);
}
