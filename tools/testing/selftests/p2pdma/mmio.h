/* SPDX-License-Identifier: GPL-2.0 */
/* Read, write and compare memory behind BARs. */
#ifndef SELFTESTS_P2PDMA_MMIO_H
#define SELFTESTS_P2PDMA_MMIO_H

#include <stddef.h>
#include <stdint.h>

#define SZ_4K	0x1000ul
#define SZ_1M	0x100000ul
#define SZ_2M	0x200000ul
#define SZ_4M	0x400000ul
#define SZ_16M	0x1000000ul

/*
 * Each of these functions accesses MMIO exactly once and at its full width.
 * The atomic builtins keep the compiler from splitting, merging or repeating
 * the access.
 */
static inline uint32_t mmio_read32(const void *mem)
{
	return __atomic_load_n((const uint32_t *)mem, __ATOMIC_SEQ_CST);
}

static inline void mmio_write32(void *mem, uint32_t val)
{
	__atomic_store_n((uint32_t *)mem, val, __ATOMIC_RELEASE);
}

static inline uint64_t mmio_read64(const void *mem)
{
	return __atomic_load_n((const uint64_t *)mem, __ATOMIC_SEQ_CST);
}

static inline void mmio_write64(void *mem, uint64_t val)
{
	__atomic_store_n((uint64_t *)mem, val, __ATOMIC_RELEASE);
}

/* Empty the write-combining buffers, so that devices and other mappings see the writes. */
static inline void mmio_flush(void)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

/* Fill memory with words of 64 bits that depend on @seed; @len is a multiple of 8. */
void mmio_fill(void *mem, size_t len, uint64_t seed);
/*
 * Compare the bytes from @from up to @to with what mmio_fill() writes to @mem.
 * Return the offset of the first word that differs, or -1 if none does.
 */
long mmio_check_part(const void *mem, size_t from, size_t to, uint64_t seed);
static inline long mmio_check(const void *mem, size_t len, uint64_t seed)
{
	return mmio_check_part(mem, 0, len, seed);
}

uint64_t mmio_checksum(const void *mem, size_t len);
/* Count the words of 64 bits that are not 0. */
size_t mmio_count_nonzero(const void *mem, size_t len);

/*
 * Write one word to the start of each page; find the first page that does not
 * start with this word, -1 if there is none.
 */
void page_mark(void *mem, size_t len, uint64_t seed);
long page_check(const void *mem, size_t len, uint64_t seed);
/* Compare the pages from offset @from up to @to with what page_mark() writes to @mem. */
long page_check_part(const void *mem, size_t from, size_t to, uint64_t seed);

/* Access memory; return 0, or the number of the signal that the access raised. */
int try_read64(const void *mem, uint64_t *val);
int try_write64(void *mem, uint64_t val);

#endif
