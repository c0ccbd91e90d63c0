// SPDX-License-Identifier: GPL-2.0
/*
 * Tests of memory that several processes, threads and open files use at the same
 * time or in turn. See testbed.h for the environment variables.
 */
#define _GNU_SOURCE
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "mmap_fixture.h"

/* A child does not get a range that is MADV_DONTFORK. */
TEST_F_TIMEOUT(mmap, dontfork, 90)
{
	uint64_t val;
	void *mem;

	mem = MAP(self->fd, 3 * SZ_4K);
	page_mark(mem, 3 * SZ_4K, 1);
	ASSERT_EQ(0, madvise(mem + SZ_4K, SZ_4K, MADV_DONTFORK));
	EXPECT_IN_CHILD(!try_read64(mem, &val) && try_read64(mem + SZ_4K, &val) == SIGSEGV);
	EXPECT_EQ(-1, page_check(mem, 3 * SZ_4K, 1));
}

/* Parent and child see the same memory. */
TEST_F_TIMEOUT(mmap, fork_shares, 90)
{
	int pipefd[2];
	pid_t child;
	void *mem;
	char byte;

	/* The parent accesses only one half before fork(). */
	mem = MAP(self->fd, SZ_2M);
	page_mark(mem, SZ_1M, 1);
	EXPECT_IN_CHILD(page_check(mem, SZ_1M, 1) == -1 &&
			(page_mark(mem, SZ_2M, 2), true));
	EXPECT_EQ(-1, page_check(mem, SZ_2M, 2));

	/* The memory stays allocated until the last process has unmapped it. */
	ASSERT_EQ(0, pipe(pipefd));
	child = fork_child();
	ASSERT_LE(0, child);
	if (!child) {
		if (read(pipefd[0], &byte, 1) != 1)
			_exit(1);
		_exit(page_check(mem, SZ_2M, 2) != -1 ||
		      dma_in(self->peer.disk, mem, SZ_1M) != self->peer.dma);
	}
	ASSERT_EQ(0, munmap(mem, SZ_2M));
	EXPECT_EQ(self->available - SZ_2M, memory_left(self));
	ASSERT_EQ(1, write(pipefd[1], "", 1));
	EXPECT_EQ(0, wait_child(child, 10000));
	EXPECT_TRUE(drained(self));
}

union fd_message {
	char buf[CMSG_SPACE(sizeof(int))];
	struct cmsghdr align;
};

/* Send an open file through a socket: 0 or a negative errno. */
static int send_fd(int sock, int fd)
{
	struct iovec iov = { .iov_base = "", .iov_len = 1 };
	union fd_message message = {};
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1,
		.msg_control = &message, .msg_controllen = sizeof(message.buf),
	};
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);

	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(sizeof(fd));
	memcpy(CMSG_DATA(cmsg), &fd, sizeof(fd));
	return sendmsg(sock, &msg, 0) == 1 ? 0 : -errno;
}

/* Receive an open file, or a negative errno. */
static int recv_fd(int sock)
{
	struct pollfd pollfd = { .fd = sock, .events = POLLIN };
	union fd_message message = {};
	char byte;
	struct iovec iov = { .iov_base = &byte, .iov_len = 1 };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1,
		.msg_control = &message, .msg_controllen = sizeof(message.buf),
	};
	struct cmsghdr *cmsg;
	int fd;

	if (poll(&pollfd, 1, 10 * 1000) != 1)
		return -ETIMEDOUT;
	if (recvmsg(sock, &msg, MSG_CMSG_CLOEXEC) < 0)
		return -errno;
	cmsg = CMSG_FIRSTHDR(&msg);
	if (!cmsg || cmsg->cmsg_type != SCM_RIGHTS)
		return -EBADMSG;
	memcpy(&fd, CMSG_DATA(cmsg), sizeof(fd));
	return fd;
}

/* A process can map a file that another process, which has exited, has opened. */
TEST_F_TIMEOUT(mmap, passed_fd, 90)
{
	int sock[2], fd;
	pid_t child;
	void *mem;

	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, sock));
	child = fork_child();
	ASSERT_LE(0, child);
	if (!child) {
		fd = open(self->node, O_RDWR | O_CLOEXEC);
		_exit(fd < 0 || send_fd(sock[0], fd));
	}
	fd = recv_fd(sock[1]);
	ASSERT_LE(0, fd);
	EXPECT_EQ(0, wait_child(child, 5000));
	mem = MAP(fd, SZ_1M);
	EXPECT_EQ(self->peer.dma, dma_in(self->peer.disk, mem, SZ_1M));
	EXPECT_EQ(self->peer.dma, dma_out(self->peer.disk, mem, SZ_1M));
	EXPECT_EQ(self->available - SZ_1M, memory_left(self));
	close(fd);
	EXPECT_EQ(0, try_write64(mem, 1));
	ASSERT_EQ(0, munmap(mem, SZ_1M));
	EXPECT_TRUE(drained(self));
}

/* The memory of processes that are killed under DMA is freed. */
TEST_F_TIMEOUT(mmap, killed, 90)
{
	struct loop *loops = ram_map_shared(SZ_4K);
	int round, status;
	pid_t pids[3];
	size_t i;

	ASSERT_NE(NULL, loops);
	for (round = 0; round < rounds(5); round++) {
		for (i = 0; i < ARRAY_SIZE(pids); i++) {
			pids[i] = start_loop(self, &loops[i]);
			ASSERT_LT(0, pids[i]);
		}
		EXPECT_EQ(self->available - ARRAY_SIZE(pids) * SZ_1M, memory_left(self));
		for (i = 0; i < ARRAY_SIZE(pids); i++)
			kill(pids[i], SIGKILL);
		for (i = 0; i < ARRAY_SIZE(pids); i++) {
			status = wait_child(pids[i], 10000);
			EXPECT_LE(0, status);
			EXPECT_TRUE(WIFSIGNALED(status));
		}
		EXPECT_TRUE(drained(self));
	}
}

struct toucher {
	pthread_t thread;
	pthread_barrier_t *barrier;
	void *mem;
	size_t word;		/* which word of each page this thread writes */
};

static void *touch_pages(void *arg)
{
	struct toucher *t = arg;
	size_t i;

	pthread_barrier_wait(t->barrier);
	for (i = 0; i < SZ_4M; i += SZ_4K)
		mmio_write64(t->mem + i + t->word * sizeof(uint64_t), i + t->word);
	return NULL;
}

/* Threads whose faults on a page race with each other get the same page. */
TEST_F_TIMEOUT(mmap, threads_fault, 120)
{
	struct toucher touchers[4];
	pthread_barrier_t barrier;
	size_t i, word, wrong = 0;
	int round;
	void *mem;

	ASSERT_EQ(0, pthread_barrier_init(&barrier, NULL, ARRAY_SIZE(touchers)));
	for (round = 0; round < rounds(5); round++) {
		mem = MAP(self->fd, SZ_4M);
		/* mmap() may have mapped the pages. */
		ASSERT_EQ(0, madvise(mem, SZ_4M, MADV_DONTNEED));
		for (i = 0; i < ARRAY_SIZE(touchers); i++) {
			touchers[i].barrier = &barrier;
			touchers[i].mem = mem;
			touchers[i].word = i + round;
			ASSERT_EQ(0, pthread_create(&touchers[i].thread, NULL, touch_pages,
						    &touchers[i]));
		}
		for (i = 0; i < ARRAY_SIZE(touchers); i++)
			ASSERT_EQ(0, pthread_join(touchers[i].thread, NULL));
		for (i = 0; i < SZ_4M; i += SZ_4K) {
			for (word = round; word < round + ARRAY_SIZE(touchers); word++)
				wrong += mmio_read64(mem + i + word * sizeof(uint64_t)) != i + word;
		}
		EXPECT_EQ(0, wrong);
		ASSERT_EQ(0, munmap(mem, SZ_4M));
	}
}

/* What two processes share that map memory at the same time */
struct race {
	pthread_barrier_t barrier;
	bool mapped[2];
};

/* Map @len bytes in each round, and count the rounds in which both succeed or none. */
static int race(struct race *race, int who, const char *node, size_t len)
{
	int round, wrong = 0, fd = open(node, O_RDWR | O_CLOEXEC);
	void *mem;

	for (round = 0; round < rounds(100); round++) {
		pthread_barrier_wait(&race->barrier);
		mem = map_file(fd, len, 0);
		race->mapped[who] = mem;
		pthread_barrier_wait(&race->barrier);
		wrong += race->mapped[0] == race->mapped[1];
		pthread_barrier_wait(&race->barrier);
		if (mem)
			munmap(mem, len);
		pthread_barrier_wait(&race->barrier);
	}
	close(fd);
	return wrong;
}

/* There is enough memory for one of two mappings: one of them succeeds. */
TEST_F_TIMEOUT(mmap, one_of_two, 180)
{
	const size_t len = self->available / SZ_4K * 5 / 8 * SZ_4K;
	struct race *shared = ram_map_shared(sizeof(*shared));
	pthread_barrierattr_t attr;
	pid_t child;

	if (!variant->sysfs)
		SKIP(return, "only p2pmem/allocate promises this");
	ASSERT_NE(NULL, shared);
	ASSERT_EQ(0, pthread_barrierattr_init(&attr));
	ASSERT_EQ(0, pthread_barrierattr_setpshared(&attr, PTHREAD_PROCESS_SHARED));
	ASSERT_EQ(0, pthread_barrier_init(&shared->barrier, &attr, 2));
	child = fork_child();
	ASSERT_LE(0, child);
	if (!child) {
		race(shared, 1, self->node, len);
		_exit(0);
	}
	EXPECT_EQ(0, race(shared, 0, self->node, len));
	EXPECT_EQ(0, wait_child(child, 10000));
	EXPECT_TRUE(drained(self));
}

/* Memory that a test has mapped until there was no more. */
struct taken {
	void *mem;
	size_t len;
};

/*
 * Map up to @len bytes, or as many as there are in one piece: halve the length
 * until mmap() succeeds. Return false if no page is left.
 */
static bool take(int fd, struct taken *taken, size_t len)
{
	for (; len >= SZ_4K; len /= 2) {
		taken->mem = map_file(fd, len, 0);
		taken->len = len;
		if (taken->mem)
			return true;
		if (errno != ENOMEM)
			break;
	}
	return false;
}

/* Count which of the @n pages at @phys are in a mapping, and its words that are not 0. */
static size_t find_pages(const struct taken *taken, const uint64_t *phys, size_t n, size_t *dirty)
{
	size_t offset, i, found = 0;
	uint64_t addr;

	for (offset = 0; offset < taken->len; offset += SZ_4K) {
		*dirty += !!mmio_read64(taken->mem + offset);
		addr = phys_addr(taken->mem + offset);
		for (i = 0; i < n && phys[i] != addr; i++)
			;
		if (i == n)
			continue;
		found++;
		*dirty += mmio_count_nonzero(taken->mem + offset, SZ_4K);
	}
	return found;
}

/* No open file sees, by the CPU or by DMA, what another one has written. */
TEST_F_TIMEOUT(mmap, cleared_between_openers, 180)
{
	uint64_t phys[SZ_2M / SZ_4K];
	struct taken taken[1024];
	size_t i, n, found, dirty;
	int round, fd, other;
	void *mem, *ram;

	if (variant->sysfs)
		SKIP(return, "p2pmem/allocate does not clear memory");
	ram = ram_map(SZ_4K);
	ASSERT_NE(NULL, ram);
	for (round = 0; round < 3; round++) {
		fd = open(self->node, O_RDWR | O_CLOEXEC);
		ASSERT_LE(0, fd);
		mem = MAP(fd, SZ_2M);
		mmio_fill(mem, SZ_2M, round);
		for (i = 0; i < ARRAY_SIZE(phys); i++) {
			phys[i] = phys_addr(mem + i * SZ_4K);
			ASSERT_NE(0, phys[i]);
		}
		/* Close the file before munmap(), after munmap(), or at the end. */
		if (round == 0)
			close(fd);
		ASSERT_EQ(0, munmap(mem, SZ_2M));
		if (round == 1)
			close(fd);
		ASSERT_TRUE(drained(self));

		other = open(self->node, O_RDWR | O_CLOEXEC);
		ASSERT_LE(0, other);
		found = 0;
		dirty = 0;
		for (n = 0; n < ARRAY_SIZE(taken) && found < ARRAY_SIZE(phys); n++) {
			if (!take(other, &taken[n], SZ_2M))
				break;
			/* The first access to the first page is one by DMA. */
			if (!n && !self->peer.dma) {
				mem = taken[n].mem;
				ASSERT_EQ(0, pwrite_all(self->peer.disk, mem, SZ_4K, DISK_OFFSET));
				ASSERT_EQ(0, pread_all(self->peer.disk, ram, SZ_4K, DISK_OFFSET));
				EXPECT_EQ(0, mmio_count_nonzero(ram, SZ_4K));
			}
			found += find_pages(&taken[n], phys, ARRAY_SIZE(phys), &dirty);
		}
		EXPECT_EQ(ARRAY_SIZE(phys), found);
		EXPECT_EQ(0, dirty) {
			TH_LOG("round %d", round);
		}
		for (i = 0; i < n; i++)
			ASSERT_EQ(0, munmap(taken[i].mem, taken[i].len));
		close(other);
		if (round == 2)
			close(fd);
	}
}

/* All memory can be mapped, and none more. */
TEST_F_TIMEOUT(mmap, full_device, 240)
{
	struct taken taken[1024];
	uint64_t total = 0;
	size_t i, n;
	void *mem;

	for (n = 0; n < ARRAY_SIZE(taken); n++) {
		if (!take(self->fd, &taken[n], SZ_16M))
			break;
		total += taken[n].len;
		mmio_write64(taken[n].mem, n);
		mmio_write64(taken[n].mem + taken[n].len - SZ_4K, n);
	}
	EXPECT_EQ(ENOMEM, errno);
	EXPECT_EQ(self->available, total);
	EXPECT_EQ(0, memory_left(self));
	/* No two mappings are of the same memory. */
	for (i = 0; i < n; i++) {
		EXPECT_EQ(i, mmio_read64(taken[i].mem));
		EXPECT_EQ(i, mmio_read64(taken[i].mem + taken[i].len - SZ_4K));
		ASSERT_EQ(0, munmap(taken[i].mem, taken[i].len));
	}
	EXPECT_TRUE(drained(self));

	/* Map all memory by one mapping. */
	mem = MAP(self->fd, self->available);
	EXPECT_EQ(0, memory_left(self));
	EXPECT_EQ(NULL, map_file(self->fd, SZ_4K, 0));
	EXPECT_EQ(ENOMEM, errno);
	EXPECT_EQ(self->peer.dma, dma_in(self->peer.disk, mem + self->available - SZ_4K, SZ_4K));
	ASSERT_EQ(0, munmap(mem, self->available));
	EXPECT_TRUE(drained(self));
}

TEST_HARNESS_MAIN
