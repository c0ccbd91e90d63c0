// SPDX-License-Identifier: GPL-2.0
/*
 * Copy data by peer-to-peer DMA between a disk and memory that p2pmem/allocate
 * in sysfs allocates, and print the checksums of both.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "dma.h"
#include "mmio.h"
#include "pages.h"

static int print_usage(const char *name)
{
	fprintf(stderr,
		"usage: %s to-mem|from-mem DISK P2PMEM OFFSET LENGTH\n"
		"\n"
		"to-mem:   read LENGTH bytes at OFFSET of DISK into memory allocated from P2PMEM\n"
		"from-mem: fill memory allocated from P2PMEM, write it to DISK at OFFSET\n"
		"\n"
		"P2PMEM is a file like /sys/bus/pci/devices/0000:01:00.0/p2pmem/allocate.\n"
		"OFFSET and LENGTH are in bytes, and multiples of 4096.\n", name);
	return 2;
}

static bool parse(const char *arg, uint64_t *val)
{
	char *end;

	errno = 0;
	*val = strtoull(arg, &end, 0);
	return !errno && end != arg && !*end && !(*val % 4096);
}

static int fail(const char *what, int err)
{
	fprintf(stderr, "%s: %s\n", what, strerror(err));
	return 1;
}

int main(int argc, char **argv)
{
	uint64_t offset, len, seed = 0, disk_sum, mem_sum;
	struct timespec start, end;
	void *mem, *ram;
	int disk, p2pmem, ret;
	bool to_mem;

	if (argc != 6 || !parse(argv[4], &offset) || !parse(argv[5], &len) || !len)
		return print_usage(argv[0]);
	to_mem = !strcmp(argv[1], "to-mem");
	if (!to_mem && strcmp(argv[1], "from-mem"))
		return print_usage(argv[0]);

	disk = open(argv[2], O_RDWR | O_DIRECT | O_CLOEXEC);
	if (disk < 0)
		return fail(argv[2], errno);
	p2pmem = open(argv[3], O_RDWR | O_CLOEXEC);
	if (p2pmem < 0)
		return fail(argv[3], errno);
	mem = map_file(p2pmem, len, 0);
	if (!mem)
		return fail("mmap", errno);
	ram = ram_map(len);
	if (!ram)
		return fail("mmap", errno);
	if (getrandom(&seed, sizeof(seed), 0) != sizeof(seed))
		return fail("getrandom", errno);

	/* The memory must not hold the expected data before the transfer. */
	mmio_fill(mem, len, seed);
	mmio_flush();
	clock_gettime(CLOCK_MONOTONIC, &start);
	if (to_mem)
		ret = pread_all(disk, mem, len, offset);
	else
		ret = pwrite_all(disk, mem, len, offset);
	clock_gettime(CLOCK_MONOTONIC, &end);
	if (ret)
		return fail("DMA", -ret);

	/* Read the data on the disk into ordinary memory. */
	ret = pread_all(disk, ram, len, offset);
	if (ret)
		return fail("reading the disk", -ret);
	disk_sum = mmio_checksum(ram, len);
	mem_sum = mmio_checksum(mem, len);

	printf("%s %llu bytes in %.1f ms, checksum at the disk %016llx, in memory %016llx: %s\n",
	       to_mem ? "disk -> memory" : "memory -> disk", (unsigned long long)len,
	       (end.tv_sec - start.tv_sec) * 1e3 + (end.tv_nsec - start.tv_nsec) / 1e6,
	       (unsigned long long)disk_sum, (unsigned long long)mem_sum,
	       disk_sum == mem_sum ? "equal" : "DIFFERENT");
	return disk_sum != mem_sum;
}
