// SPDX-License-Identifier: GPL-2.0
/*
 * Measure what programs do with mappings of peer-to-peer DMA memory.
 *
 * usage: p2pdma_bench [-kn] [-d DISK] [-m FUNCTION] [-u FUNCTION] [-r ROUNDS] FILE SIZE...
 *
 *   -k       map objects of p2pbar, by its ioctls, instead of memory at offset 0
 *   -n       without transparent huge pages in this process
 *   -d DISK  also read 1 MiB and 16 MiB by O_DIRECT from this disk, to a mapping of at
 *            least 2 MiB
 *   -m FUNCTION
 *            first unbind and bind the driver of this PCI function, the one with the
 *            memory
 *   -u FUNCTION
 *            at the end unbind this PCI function, the one with the memory
 *   -r ROUNDS
 *            only map, touch and unmap ROUNDS times, or with -d only read, and print
 *            nothing: a profile can count what runs between two calls of getrusage()
 *
 * Prints a line "OPERATION BYTES VALUE" for each result. A value is the minimum of
 * the rounds after the first one, in nanoseconds, unless noted below. Under "qemu
 * -icount" a nanosecond is an instruction. Each operation maps memory anew in each round.
 *
 *   first        map, touch and unmap memory that another open file has used, as long as
 *                that is open
 *   closed       the same some time after that has been closed
 *   map, touch, unmap
 *                map, write to each page, and unmap
 *   faults       number of page faults of the round
 *   map_unmap    map and unmap without touching
 *   alloc_free   allocate and free an object without mapping it
 *   pin, unpin   pin all pages by pin_user_pages_fast(), and unpin them
 *   fork         of a process that has touched the mapping
 *   direct_read  CPU time of an O_DIRECT read into a part of a mapping
 *   slab         bytes of slab memory that the kernel needs for a mapping, measured once
 *   memory       bytes that the kernel needs for 1 GiB of the device's memory, measured once
 *                by what is free before and after the driver is bound
 *   unbind       unbind the driver while there are 1,000 mappings, measured once
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/p2pbar.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../../../../mm/gup_test.h"
#include "mmio.h"
#include "node.h"
#include "p2pdma.h"
#include "pages.h"

#define ROUNDS			5
#define FOLL_WRITE		0x1
#define FOLL_PCI_P2PDMA		0x400

/*
 * MANY small mappings first fill free memory of the slabs, and stay for "unbind".
 * MANY_MORE are counted for "slab".
 */
#define MANY			1000
#define MANY_MORE		5000
#define MANY_SIZE		SZ_4K

enum op {
	FIRST, CLOSED, MAP, TOUCH, UNMAP, FAULTS, MAP_UNMAP, ALLOC_FREE, PIN, UNPIN, FORK,
	DIRECT_READ, SLAB, MEMORY, UNBIND, NR_OPS
};

static const char * const names[NR_OPS] = {
	"first", "closed", "map", "touch", "unmap", "faults", "map_unmap", "alloc_free", "pin",
	"unpin", "fork", "direct_read", "slab", "memory", "unbind",
};

static struct {
	const char *file, *function;
	bool keyed;
	enum op sole;		/* the only one to record, unless NR_OPS */
	int fd, disk, gup, rounds;
	uint64_t least[NR_OPS];
} bench = { .disk = -1, .sole = NR_OPS };

static uint64_t now(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return ts.tv_sec * 1000000000ull + ts.tv_nsec;
}

static void die(const char *what)
{
	fprintf(stderr, "%s: %s: %s\n", bench.file, what, strerror(errno));
	exit(1);
}

static void record(enum op op, uint64_t value)
{
	if (bench.sole != NR_OPS && bench.sole != op)
		return;
	if (value < bench.least[op])
		bench.least[op] = value;
}

struct mapping {
	void *mem;
	size_t size;
	uint64_t offset;
};

static uint64_t alloc_object(size_t size)
{
	struct p2pmem_alloc alloc = { .size = size, .type = P2PBAR_MEM };

	if (ioctl(bench.fd, P2PMEM_IOC_ALLOC, &alloc))
		die("P2PMEM_IOC_ALLOC");
	return alloc.offset;
}

static void free_object(uint64_t offset)
{
	struct p2pmem_free arg = { .offset = offset };

	if (ioctl(bench.fd, P2PMEM_IOC_FREE, &arg))
		die("P2PMEM_IOC_FREE");
}

static struct mapping map(size_t size)
{
	struct mapping m = { .size = size };

	if (bench.keyed)
		m.offset = alloc_object(size);
	m.mem = map_file(bench.fd, size, m.offset);
	if (!m.mem)
		die("mmap");
	return m;
}

static void unmap(struct mapping m)
{
	munmap(m.mem, m.size);
	if (bench.keyed)
		free_object(m.offset);
}

static void touch(struct mapping m)
{
	size_t page = sysconf(_SC_PAGESIZE), i;

	for (i = 0; i < m.size; i += page)
		mmio_write64(m.mem + i, 1);
}

static long nr_faults(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return usage.ru_minflt;
}

static void map_touch_unmap(size_t size)
{
	long faults = nr_faults();
	struct mapping m;
	uint64_t t[4];

	t[0] = now(CLOCK_MONOTONIC);
	m = map(size);
	t[1] = now(CLOCK_MONOTONIC);
	touch(m);
	t[2] = now(CLOCK_MONOTONIC);
	unmap(m);
	t[3] = now(CLOCK_MONOTONIC);
	if (bench.sole != NR_OPS)
		record(bench.sole, t[3] - t[0]);
	record(MAP, t[1] - t[0]);
	record(TOUCH, t[2] - t[1]);
	record(UNMAP, t[3] - t[2]);
	record(FAULTS, nr_faults() - faults);
}

static void map_unmap(size_t size)
{
	uint64_t start = now(CLOCK_MONOTONIC);

	unmap(map(size));
	record(MAP_UNMAP, now(CLOCK_MONOTONIC) - start);
}

static void alloc_free(size_t size)
{
	uint64_t start = now(CLOCK_MONOTONIC);

	if (!bench.keyed)
		return;
	free_object(alloc_object(size));
	record(ALLOC_FREE, now(CLOCK_MONOTONIC) - start);
}

/* The times of gup_test are in microseconds. */
static void pin(struct mapping m)
{
	struct gup_test gup = {
		.addr = (uintptr_t)m.mem,
		.size = m.size,
		.nr_pages_per_call = m.size / sysconf(_SC_PAGESIZE),
		.gup_flags = FOLL_WRITE | FOLL_PCI_P2PDMA,
	};

	if (bench.gup < 0)
		return;
	if (ioctl(bench.gup, PIN_FAST_BENCHMARK, &gup) || gup.size != m.size)
		die("PIN_FAST_BENCHMARK");
	record(PIN, gup.get_delta_usec * 1000);
	record(UNPIN, gup.put_delta_usec * 1000);
}

static void fork_once(void)
{
	uint64_t start = now(CLOCK_MONOTONIC);
	pid_t child = fork();

	if (!child)
		_exit(0);
	if (child < 0)
		die("fork");
	record(FORK, now(CLOCK_MONOTONIC) - start);
	waitpid(child, NULL, 0);
}

static void direct_read(struct mapping m, size_t size)
{
	uint64_t start = now(CLOCK_THREAD_CPUTIME_ID);

	if (pread(bench.disk, m.mem, size, 0) != (ssize_t)size)
		die("pread");
	record(DIRECT_READ, now(CLOCK_THREAD_CPUTIME_ID) - start);
}

static void print(size_t size)
{
	int op;

	for (op = 0; op < NR_OPS; op++) {
		if (bench.least[op] != UINT64_MAX)
			printf("%s %zu %llu\n", names[op], size,
			       (unsigned long long)bench.least[op]);
	}
}

/* The bytes in a line of /proc/meminfo. */
static int64_t meminfo(const char *name)
{
	long long kib = 0;
	char line[128];
	FILE *f;

	/* Fold the per-CPU counters into the global ones. */
	if (file_write("/proc/sys/vm/stat_refresh", "1"))
		die("stat_refresh");
	f = fopen("/proc/meminfo", "re");

	while (f && fgets(line, sizeof(line), f)) {
		if (strncmp(line, name, strlen(name)) || line[strlen(name)] != ':')
			continue;
		kib = atoll(line + strlen(name) + 1);
		break;
	}
	if (f)
		fclose(f);
	return kib * 1024;
}

/* How much memory is free if the caches are empty, with the lists of each processor. */
static int64_t free_bytes(void)
{
	long long pages, listed = 0;
	char line[128];
	FILE *f;

	if (file_write("/proc/sys/vm/drop_caches", "3"))
		die("drop_caches");
	usleep(100 * 1000);
	f = fopen("/proc/zoneinfo", "re");
	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, " count: %lld", &pages) == 1)
			listed += pages;
	if (f)
		fclose(f);
	return meminfo("MemFree") + listed * sysconf(_SC_PAGESIZE);
}

/* The size of all memory of the node, or of the pool. */
static uint64_t memory_size(const struct pci_fn *fn)
{
	struct p2pmem_info info;
	uint64_t size, sum = 0;
	int type;

	if (!pci_fn_read_u64(fn, "p2pmem/size", &size))
		return size;
	for (type = 0; !node_info(bench.file, type, &info); type++)
		sum += info.size;
	if (!sum)
		die("P2PMEM_IOC_INFO");
	return sum;
}

static void bench_memory(const char *function)
{
	uint64_t size, giga = 1 << 30, end;
	char driver[64];
	struct pci_fn fn;
	int64_t before, used;

	memset(bench.least, 0xff, sizeof(bench.least));
	errno = -(pci_fn_init(&fn, function) ?: pci_fn_driver(&fn, driver, sizeof(driver)));
	if (errno)
		die(function);
	size = memory_size(&fn);
	errno = -pci_fn_unbind(&fn);
	if (errno)
		die(function);
	before = free_bytes();
	errno = -pci_fn_bind(&fn, driver, driver);
	if (errno)
		die(driver);
	end = now_ms() + 10000;
	while (access(bench.file, F_OK) && now_ms() < end)
		usleep(1000);
	used = before - free_bytes();
	if (used > 0)
		record(MEMORY, (double)used * giga / size);
	print(giga);
}

static void bench_many(void)
{
	static struct mapping m[MANY + MANY_MORE];
	int64_t slab = 0;
	struct pci_fn fn;
	uint64_t start;
	int i;

	memset(bench.least, 0xff, sizeof(bench.least));
	for (i = 0; i < MANY + MANY_MORE; i++) {
		if (i == MANY)
			slab = meminfo("Slab");
		m[i] = map(MANY_SIZE);
		touch(m[i]);
	}
	slab = meminfo("Slab") - slab;
	if (slab > 0)
		record(SLAB, slab / MANY_MORE);
	for (i = MANY; i < MANY + MANY_MORE; i++)
		unmap(m[i]);
	if (bench.function) {
		start = now(CLOCK_MONOTONIC);
		errno = -(pci_fn_init(&fn, bench.function) ?: pci_fn_unbind(&fn));
		if (errno)
			die(bench.function);
		record(UNBIND, now(CLOCK_MONOTONIC) - start);
	}
	print(MANY_SIZE);
}

/* Buffers are parts of mappings with room for huge pages. */
static size_t read_mapping(size_t size)
{
	return size > SZ_2M ? size : SZ_2M;
}

static void rounds(size_t size)
{
	struct mapping m;
	int round;

	if (bench.disk < 0) {
		for (round = 0; round < bench.rounds; round++)
			map_touch_unmap(size);
		return;
	}
	m = map(read_mapping(size));
	for (round = 0; round < bench.rounds; round++) {
		nr_faults();
		direct_read(m, size);
		nr_faults();
	}
	unmap(m);
}

static int open_file(void)
{
	int fd = open(bench.file, O_RDWR | O_CLOEXEC);

	if (fd < 0)
		die("open");
	return fd;
}

/* Let another open file use the memory before. */
static void bench_others(size_t size)
{
	int fd = bench.fd, other;
	struct mapping m;
	enum op op;

	for (op = FIRST; op <= CLOSED; op++) {
		other = open_file();
		bench.fd = other;
		m = map(size);
		touch(m);
		unmap(m);
		if (op == CLOSED) {
			close(other);
			/* The kernel clears the memory meanwhile. */
			usleep(200000 + size / 500);
		}
		bench.fd = open_file();
		bench.sole = op;
		map_touch_unmap(size);
		bench.sole = NR_OPS;
		close(bench.fd);
		if (op == FIRST)
			close(other);
	}
	bench.fd = fd;
}

static void bench_size(size_t size, bool read)
{
	struct mapping m;
	int round;

	memset(bench.least, 0xff, sizeof(bench.least));
	if (bench.rounds) {
		rounds(size);
		return;
	}
	for (round = 0; round < ROUNDS; round++) {
		if (!read) {
			map_touch_unmap(size);
			map_unmap(size);
			alloc_free(size);
		}
		m = map(read ? read_mapping(size) : size);
		touch(m);
		if (read)
			direct_read(m, size);
		else
			pin(m);
		unmap(m);
		/* The first round does not count. */
		if (!round)
			memset(bench.least, 0xff, sizeof(bench.least));
	}
	/* Not above: after fork(), writes to the program's own memory fault. */
	for (round = 0; round < ROUNDS && !read; round++) {
		m = map(size);
		touch(m);
		fork_once();
		unmap(m);
	}
	if (!read)
		bench_others(size);
	print(size);
}

int main(int argc, char **argv)
{
	const char *memory = NULL;
	int opt;

	while ((opt = getopt(argc, argv, "knd:m:u:r:")) != -1) {
		switch (opt) {
		case 'k':
			bench.keyed = true;
			break;
		case 'n':
			if (prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0))
				die("PR_SET_THP_DISABLE");
			break;
		case 'd':
			bench.disk = open(optarg, O_RDONLY | O_DIRECT | O_CLOEXEC);
			if (bench.disk < 0)
				die(optarg);
			break;
		case 'm':
			memory = optarg;
			break;
		case 'u':
			bench.function = optarg;
			break;
		case 'r':
			bench.rounds = atoi(optarg);
			if (bench.rounds < 1)
				return 2;
			break;
		default:
			return 2;
		}
	}
	if (argc - optind < 2) {
		fprintf(stderr, "usage: %s [-kn] [-d DISK] [-m|-u FN] [-r ROUNDS] FILE SIZE...\n",
			argv[0]);
		return 2;
	}
	bench.file = argv[optind++];
	if (memory)
		bench_memory(memory);
	bench.fd = open_file();
	bench.gup = open("/sys/kernel/debug/gup_test", O_RDWR | O_CLOEXEC);

	for (; optind < argc; optind++)
		bench_size(strtoull(argv[optind], NULL, 0), false);
	if (bench.disk >= 0 && !bench.rounds) {
		bench_size(SZ_1M, true);
		bench_size(SZ_16M, true);
	}
	if (!bench.rounds)
		bench_many();
	return 0;
}
