// SPDX-License-Identifier: GPL-2.0
/*
 * Measure how long it takes to map peer-to-peer DMA memory, to write to each
 * page of it, and to unmap it. The unit is the nanosecond of CLOCK_MONOTONIC,
 * which is the instruction under "qemu -icount". The result is the minimum of
 * the rounds after the first one.
 *
 * usage: p2pdma_bench FILE SIZE...
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "mmio.h"
#include "pages.h"

#define ROUNDS	5

static uint64_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ull + ts.tv_nsec;
}

static uint64_t min_ns(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* The first round is reported separately: it may clear memory that others have used. */
static int bench(int fd, const char *name, size_t size)
{
	uint64_t map = -1, touch = -1, unmap = -1, first = 0, t[4];
	size_t page = sysconf(_SC_PAGESIZE), i;
	void *mem;
	int round;

	for (round = 0; round < ROUNDS; round++) {
		t[0] = now();
		mem = map_file(fd, size, 0);
		if (!mem) {
			fprintf(stderr, "%s: %zu bytes: %s\n", name, size, strerror(errno));
			return 1;
		}
		t[1] = now();
		for (i = 0; i < size; i += page)
			mmio_write64(mem + i, 1);
		t[2] = now();
		munmap(mem, size);
		t[3] = now();
		if (!round) {
			first = t[3] - t[0];
			continue;
		}
		map = min_ns(map, t[1] - t[0]);
		touch = min_ns(touch, t[2] - t[1]);
		unmap = min_ns(unmap, t[3] - t[2]);
	}
	printf("%s %zu first %llu map %llu touch %llu unmap %llu\n", name, size,
	       (unsigned long long)first, (unsigned long long)map,
	       (unsigned long long)touch, (unsigned long long)unmap);
	return 0;
}

int main(int argc, char **argv)
{
	int fd, i, ret = 0;

	if (argc < 3) {
		fprintf(stderr, "usage: %s FILE SIZE...\n", argv[0]);
		return 2;
	}
	fd = open(argv[1], O_RDWR | O_CLOEXEC);
	if (fd < 0) {
		perror(argv[1]);
		return 1;
	}
	for (i = 2; i < argc; i++)
		ret |= bench(fd, argv[1], strtoull(argv[i], NULL, 0));
	close(fd);
	return ret;
}
