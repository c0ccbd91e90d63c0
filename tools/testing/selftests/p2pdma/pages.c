// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../kselftest.h"
#include "mmio.h"
#include "p2pdma.h"
#include "pages.h"

static void *map_rw(int fd, size_t len, int flags, uint64_t offset)
{
	void *mem = mmap(NULL, len, PROT_READ | PROT_WRITE, flags, fd, offset);

	return mem == MAP_FAILED ? NULL : mem;
}

void *map_file(int fd, size_t len, uint64_t offset)
{
	return map_rw(fd, len, MAP_SHARED, offset);
}

void *ram_map(size_t len)
{
	return map_rw(-1, len, MAP_PRIVATE | MAP_ANONYMOUS, 0);
}

void *ram_map_shared(size_t len)
{
	return map_rw(-1, len, MAP_SHARED | MAP_ANONYMOUS, 0);
}

uint64_t phys_addr(const void *mem)
{
	size_t page = sysconf(_SC_PAGESIZE);
	uint64_t entry = 0;
	int fd;

	fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	if (pread(fd, &entry, sizeof(entry), (uintptr_t)mem / page * sizeof(entry)) !=
	    sizeof(entry))
		entry = 0;
	close(fd);
	/* Bit 63 tells that the page is present, bits 54 to 0 are its frame number. */
	if (!(entry >> 63))
		return 0;
	return (entry & ((1ull << 55) - 1)) * page + (uintptr_t)mem % page;
}

bool has_soft_dirty(void)
{
	static char page[2 * SZ_4K];
	uintptr_t addr = (uintptr_t)page / SZ_4K * SZ_4K + SZ_4K;
	uint64_t entry = 0;
	int fd;

	mmio_write64((void *)addr, 1);
	fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	if (pread(fd, &entry, sizeof(entry), addr / SZ_4K * sizeof(entry)) != sizeof(entry))
		entry = 0;
	close(fd);
	return entry >> 55 & 1;
}

ssize_t huge_bytes(const void *mem, size_t len)
{
	struct page_region regions[64];
	struct pm_scan_arg arg = {
		.size = sizeof(arg),
		.start = (uintptr_t)mem,
		.end = (uintptr_t)mem + len,
		.vec = (uintptr_t)regions,
		.vec_len = ARRAY_SIZE(regions),
		.category_mask = PAGE_IS_HUGE | PAGE_IS_PRESENT,
		.return_mask = PAGE_IS_HUGE,
	};
	ssize_t bytes = 0;
	int fd, n, i;

	fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	do {
		n = ioctl(fd, PAGEMAP_SCAN, &arg);
		for (i = 0; i < n; i++)
			bytes += regions[i].end - regions[i].start;
		arg.start = arg.walk_end;
	} while (n >= 0 && arg.walk_end < arg.end);
	close(fd);
	return n < 0 ? -1 : bytes;
}

const char *page_table_mode(const void *mem)
{
	char line[512];

	if (page_table_line(mem, line, sizeof(line)))
		return NULL;
	/* The kernel has programmed the PAT so that these bits choose the mode. */
	return strstr(line, " PCD") ? MODE_UC : strstr(line, " PWT") ? MODE_WC : MODE_WB;
}

const char *memory_type(uint64_t phys)
{
	static const char * const modes[] = { MODE_UC, MODE_WC, MODE_WB };
	unsigned long long start, end;
	const char *mode = NULL;
	char line[128], name[32];
	size_t i;
	FILE *f;

	f = fopen("/sys/kernel/debug/x86/pat_memtype_list", "re");
	if (!f)
		return NULL;
	while (!mode && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "PAT: [mem %llx-%llx] %31s", &start, &end, name) != 3 ||
		    phys < start || phys >= end)
			continue;
		for (i = 0; i < ARRAY_SIZE(modes); i++) {
			if (!strcmp(name, modes[i]))
				mode = modes[i];
		}
	}
	fclose(f);
	return mode;
}
