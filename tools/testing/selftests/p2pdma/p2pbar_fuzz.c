// SPDX-License-Identifier: GPL-2.0
/*
 * Fuzzers of p2pbar: processes that call at random what programs can call, each
 * with open files, objects and a range of addresses of its own. See testbed.h
 * for the environment variables.
 */
#define _GNU_SOURCE
#include "aio.h"
#include "p2pbar_fixture.h"

#define ARENA		(16 * SZ_1M)
#define NR_FDS		4
#define NR_KEYS		16
#define NR_IOCBS	8

struct fuzz {
	const struct _test_data_p2pbar *self;
	uint64_t rng;
	void *arena;
	int fds[NR_FDS];
	struct {
		uint64_t key;
		uint64_t size;
	} keys[NR_KEYS];
	aio_context_t aio;
	int in_flight;
};

/* A random number from 0 up to, not including, @n (xorshift64). */
static uint64_t below(struct fuzz *f, uint64_t n)
{
	f->rng ^= f->rng << 13;
	f->rng ^= f->rng >> 7;
	f->rng ^= f->rng << 17;
	return (f->rng >> 11) % n;
}

static bool one_in(struct fuzz *f, uint64_t n)
{
	return !below(f, n);
}

/* A size or an offset: mostly whole pages, sometimes one that has to be refused. */
static uint64_t any_number(struct fuzz *f)
{
	static const uint64_t edges[] = {
		0, 1, SZ_4K - 1, SZ_4K + 1, SZ_2M, 1ull << 32, 1ull << 62, 1ull << 63,
		~(SZ_4K - 1), ~0ull,
	};

	return one_in(f, 8) ? edges[below(f, ARRAY_SIZE(edges))] : (1 + below(f, 64)) * SZ_4K;
}

/* A part of the arena: mostly whole pages. */
static void *any_range(struct fuzz *f, size_t *len)
{
	size_t start = below(f, ARENA / SZ_4K) * SZ_4K;

	*len = (1 + below(f, one_in(f, 8) ? 1024 : 32)) * SZ_4K;
	if (*len > ARENA - start)
		*len = ARENA - start;
	if (one_in(f, 32))
		start += 8 * below(f, 512);
	return f->arena + start;
}

/*
 * Fill a hole in the arena with a reservation. In a hole, the C library or the
 * kernel could place a mapping of theirs, which the fuzzer would then destroy.
 */
static void plug(void *mem, size_t len)
{
	mem = (void *)((uintptr_t)mem & ~(SZ_4K - 1));
	mmap(mem, len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
}

static void fuzz_ioctl(struct fuzz *f, int fd)
{
	union {
		struct p2pmem_alloc alloc;
		struct p2pmem_free free;
		struct p2pmem_limit limit;
		struct p2pbar_peer peer;
		struct p2pmem_info info;
		char room[48];
	} arg = {};
	size_t i = below(f, NR_KEYS), len;
	void *ptr = one_in(f, 32) ? any_range(f, &len) : &arg;
	uint32_t reserved = one_in(f, 16);

	switch (below(f, 8)) {
	case 0 ... 2:
		arg.alloc.size = one_in(f, 2) ? SZ_4K : any_number(f);
		arg.alloc.type = below(f, NR_TYPES + 1);
		arg.alloc.reserved = reserved;
		if (!ioctl(fd, P2PMEM_IOC_ALLOC, ptr) && ptr == &arg) {
			f->keys[i].key = arg.alloc.offset;
			f->keys[i].size = arg.alloc.size;
		}
		break;
	case 3 ... 4:
		arg.free.offset = one_in(f, 8) ? any_number(f) : f->keys[i].key;
		arg.free.reserved = reserved;
		ioctl(fd, P2PMEM_IOC_FREE, ptr);
		break;
	case 5:
		arg.limit.size = SZ_16M + any_number(f);
		arg.limit.reserved = reserved;
		if (one_in(f, 16))
			ioctl(fd, P2PMEM_IOC_LIMIT, ptr);
		break;
	case 6:
		arg.peer.bus = below(f, 16);
		arg.peer.devfn = one_in(f, 2) ? 0 : below(f, 256);
		arg.peer.reserved = reserved;
		ioctl(fd, P2PBAR_IOC_PEER, ptr);
		break;
	case 7:
		arg.info.type = below(f, NR_TYPES + 1);
		arg.info.reserved = reserved;
		ioctl(fd, one_in(f, 8) ? _IOC(below(f, 4), P2PMEM_IOC_MAGIC, below(f, 8),
					      below(f, 48)) : P2PMEM_IOC_INFO, ptr);
		break;
	}
}

static void fuzz_mmap(struct fuzz *f, int fd)
{
	static const int flags[] = { MAP_SHARED, MAP_SHARED_VALIDATE, MAP_PRIVATE };
	static const int more[] = { MAP_POPULATE, MAP_LOCKED, MAP_NORESERVE, MAP_NONBLOCK };
	size_t i = below(f, NR_KEYS), len;
	void *mem = any_range(f, &len);
	int flag = flags[one_in(f, 8) ? below(f, 3) : 0] | MAP_FIXED, prot = RW;
	uint64_t offset = 0;

	if (one_in(f, 4))
		flag |= more[below(f, ARRAY_SIZE(more))];
	if (one_in(f, 4))
		prot = below(f, 8);
	if (one_in(f, 2)) {
		offset = f->keys[i].key;
		/* MAP_FIXED past the end of the arena would replace other mappings. */
		if (!one_in(f, 8) && f->keys[i].size <= (size_t)(f->arena + ARENA - mem))
			len = f->keys[i].size;
		if (one_in(f, 8))
			offset += any_number(f) - SZ_4K;
	}
	if (mmap(mem, len, prot, flag, fd, offset) == MAP_FAILED)
		plug(mem, len);
	/* A mapping of any size, at an address that the kernel chooses. */
	len = any_number(f);
	mem = one_in(f, 4) ? mmap(NULL, len, prot, flags[0], fd, 0) : MAP_FAILED;
	if (mem != MAP_FAILED)
		munmap(mem, len);
}

static void fuzz_range(struct fuzz *f)
{
	static const int hints[] = {
		MADV_NORMAL, MADV_RANDOM, MADV_SEQUENTIAL, MADV_WILLNEED, MADV_DONTNEED,
		MADV_DONTNEED, MADV_FREE, MADV_REMOVE, MADV_DONTFORK, MADV_DOFORK, MADV_HUGEPAGE,
		MADV_NOHUGEPAGE, MADV_DONTDUMP, MADV_DODUMP, MADV_COLD, MADV_PAGEOUT,
		MADV_POPULATE_READ, MADV_POPULATE_WRITE,
	};
	size_t len, new_len;
	void *mem = any_range(f, &len), *to;

	switch (below(f, 6)) {
	case 0:
		plug(mem, len);
		break;
	case 1:
		/* Ordinary memory between the mappings of the device. */
		mmap(mem, len, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
		break;
	case 2:
		mprotect(mem, len, one_in(f, 2) ? RW : below(f, 8));
		break;
	case 3 ... 4:
		madvise(mem, len, hints[below(f, ARRAY_SIZE(hints))]);
		break;
	case 5:
		to = any_range(f, &new_len);
		if (one_in(f, 2) && len <= (size_t)(f->arena + ARENA - to))
			new_len = len;
		/* A failed mremap() may have unmapped both ranges. */
		if (mremap(mem, len, new_len, MREMAP_MAYMOVE | MREMAP_FIXED, to) == MAP_FAILED)
			plug(to, new_len);
		plug(mem, len);
		break;
	}
}

static void fuzz_reap(struct fuzz *f, bool all)
{
	struct io_event events[NR_IOCBS];
	int n;

	do {
		n = aio_wait(f->aio, all && f->in_flight, NR_IOCBS, events, all ? 10 : 0);
		if (n > 0)
			f->in_flight -= n;
	} while (all && n > 0 && f->in_flight > 0);
}

static void fuzz_access(struct fuzz *f)
{
	uint64_t offset = DISK_OFFSET + below(f, 256) * SZ_4K, val;
	size_t len;
	void *mem = any_range(f, &len);
	int i;

	switch (below(f, 8)) {
	case 0:
		pread(f->self->peer.disk, mem, len, offset);
		break;
	case 1:
		pwrite(f->self->peer.disk, mem, len, offset);
		break;
	case 2 ... 3:
		i = one_in(f, 2) ? IOCB_CMD_PREAD : IOCB_CMD_PWRITE;
		if (!aio_submit(f->aio, i, f->self->peer.disk, mem, len, offset))
			f->in_flight++;
		break;
	case 4:
		fuzz_reap(f, false);
		break;
	default:
		for (i = 0; i < 16; i++) {
			mem = f->arena + below(f, ARENA / 8) * 8;
			if (one_in(f, 2))
				try_read64(mem, &val);
			else
				try_write64(mem, below(f, ~0ull));
		}
	}
}

static void fuzz_op(struct fuzz *f)
{
	int i = below(f, NR_FDS), *fd = &f->fds[i];

	switch (below(f, 16)) {
	case 0 ... 3:
		fuzz_ioctl(f, *fd);
		break;
	case 4 ... 7:
		fuzz_mmap(f, *fd);
		break;
	case 8 ... 10:
		fuzz_range(f);
		break;
	case 11 ... 14:
		fuzz_access(f);
		break;
	case 15:
		if (*fd >= 0 && !one_in(f, 4))
			break;
		close(*fd);
		*fd = one_in(f, 2) ? dup(f->fds[below(f, NR_FDS)]) :
				     open(f->self->node, O_RDWR | O_CLOEXEC);
		break;
	}
}

/* Run a process of the fuzzer until @end; return its exit status. */
static int fuzz_process(const struct _test_data_p2pbar *self, uint64_t seed, uint64_t end)
{
	struct fuzz f = { .self = self, .rng = seed, .fds = { -1, -1, -1, -1 } };
	pid_t child;
	int i;

	f.arena = mmap(NULL, ARENA + SZ_2M, PROT_NONE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (f.arena == MAP_FAILED || aio_setup(NR_IOCBS, &f.aio))
		return 1;
	f.arena = (void *)(((uintptr_t)f.arena + SZ_2M - 1) & ~(SZ_2M - 1));
	while (now_ms() < end) {
		for (i = 0; i < 256; i++)
			fuzz_op(&f);
		child = fork_child();
		if (!child) {
			for (i = 0; i < 64; i++)
				fuzz_op(&f);
			_exit(0);
		}
		/* Go on while the child runs, as a rule. */
		for (i = below(&f, 64); i; i--)
			fuzz_op(&f);
		if (child < 0 || wait_child(child, 30000))
			return 2;
	}
	fuzz_reap(&f, true);
	return f.in_flight ? 3 : 0;
}

/* Run two processes; with @unbind, unbind and bind the driver meanwhile. */
static void run_fuzz(struct __test_metadata *_metadata, struct _test_data_p2pbar *self, bool unbind)
{
	uint64_t seconds = number_from_env("P2PDMA_FUZZ_SECONDS", 20);
	uint64_t seed = number_from_env("P2PDMA_SEED", now_ms());
	pid_t pids[2];
	uint64_t end;
	size_t i;

	if (seconds > 3600)
		seconds = 3600;
	end = now_ms() + 1000 * seconds;
	TH_LOG("P2PDMA_SEED=%llu", (unsigned long long)seed);
	for (i = 0; i < ARRAY_SIZE(pids); i++) {
		pids[i] = fork_child();
		ASSERT_LE(0, pids[i]);
		/* Seeds must not be 0, nor be alike. */
		if (!pids[i])
			_exit(fuzz_process(self, (seed + i) * 0x9e3779b97f4a7c15ull | 1, end));
	}
	while (unbind && now_ms() < end) {
		usleep(500 * 1000);
		close(self->fd);
		EXPECT_EQ(0, attach(self));
	}
	for (i = 0; i < ARRAY_SIZE(pids); i++)
		EXPECT_EQ(0, wait_child(pids[i], 1000 * seconds + 60000));
	EXPECT_TRUE(drained(self));
	EXPECT_EQ(self->peer.dma, dma_in(self->peer.disk, map_file(self->fd, SZ_1M, 0), SZ_1M));
}

TEST_F_TIMEOUT(p2pbar, fuzz, 3700)
{
	run_fuzz(_metadata, self, false);
}

TEST_F_TIMEOUT(p2pbar, fuzz_unbind, 3700)
{
	run_fuzz(_metadata, self, true);
}

TEST_HARNESS_MAIN
