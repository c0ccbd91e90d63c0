/* SPDX-License-Identifier: GPL-2.0 */
/* Map memory, and ask the kernel how it is mapped. */
#ifndef SELFTESTS_P2PDMA_PAGES_H
#define SELFTESTS_P2PDMA_PAGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Map a file MAP_SHARED for reading and writing; NULL with errno set on error. */
void *map_file(int fd, size_t len, uint64_t offset);
/* Map anonymous memory, MAP_PRIVATE or MAP_SHARED; NULL with errno set on error. */
void *ram_map(size_t len);
void *ram_map_shared(size_t len);

/* The physical address that @mem is mapped to, 0 if it is not mapped. */
uint64_t phys_addr(const void *mem);

/* Whether the kernel tells which pages were written to. */
bool has_soft_dirty(void);

/* How many bytes of @mem are mapped by huge pages, -1 if the kernel cannot tell. */
ssize_t huge_bytes(const void *mem, size_t len);

/*
 * The cache modes by the names that x86 uses in debugfs. NULL stands for
 * "unknown": it takes x86 and CONFIG_PTDUMP_DEBUGFS to read the page table, and
 * x86 with debugfs to read the memory types.
 */
#define MODE_UC		"uncached-minus"
#define MODE_WC		"write-combining"
#define MODE_WB		"write-back"
/* The mode that the page table of this process has for @mem, which is mapped. */
const char *page_table_mode(const void *mem);
/* The mode in which the kernel has mapped @phys, and in which others may map it. */
const char *memory_type(uint64_t phys);

#endif
