// SPDX-License-Identifier: GPL-2.0
/*
 * Tests of what system calls and files of procfs do to a mapping, to the whole of it and
 * to one page of a huge page: each succeeds or fails with a known error, and neither
 * data nor counters change. See testbed.h for the environment variables.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <linux/futex.h>
#include <linux/mempolicy.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "mmap_fixture.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE		25
#endif
#ifndef MADV_SOFT_OFFLINE
#define MADV_SOFT_OFFLINE	101
#endif
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL	102
#endif

/* In place of an errno: a call could not be tried. */
#define NOT_TRIED		1000

#define PAGEMAP_PRESENT		0x8000000000000000ull

/* The offset for calls on a single page: inside a huge page. */
#define PLACE			(SZ_2M + 7 * SZ_4K)

/* The arguments of a call. */
struct on {
	void *mem;
	size_t len;
	long arg;
};

struct call {
	const char *name;
	int (*call)(struct on on);	/* 0 or a negative errno */
	long arg;
	int err;			/* the expected errno, 0 for success */
};

static int result(long ret)
{
	return ret < 0 ? -errno : 0;
}

static int call_madvise(struct on on)
{
	return result(madvise(on.mem, on.len, on.arg));
}

static int call_mprotect(struct on on)
{
	uint64_t val;
	int bad;

	if (mprotect(on.mem, on.len, on.arg))
		return -errno;
	bad = (on.arg ? 0 : SIGSEGV) != try_read64(on.mem, &val) ||
		try_write64(on.mem, 1) != SIGSEGV;
	if (mprotect(on.mem, on.len, PROT_READ | PROT_WRITE))
		return -errno;
	return bad ? -EFAULT : 0;
}

static int call_mlock(struct on on)
{
	if (mlock2(on.mem, on.len, on.arg))
		return -errno;
	return result(munlock(on.mem, on.len));
}

static int call_msync(struct on on)
{
	return result(msync(on.mem, on.len, on.arg));
}

static int call_mincore(struct on on)
{
	unsigned char vec[SZ_4M / SZ_4K];

	return result(mincore(on.mem, on.len, vec));
}

/* Move the range away, and back. */
static int call_mremap(struct on on)
{
	size_t room = on.len + SZ_2M;
	void *ram = ram_map(room), *away = ram + on.arg;
	int ret = 0;

	if (!ram)
		return -ENOMEM;
	if (mremap(on.mem, on.len, on.len, MREMAP_MAYMOVE | MREMAP_FIXED, away) == MAP_FAILED ||
	    mremap(away, on.len, on.len, MREMAP_MAYMOVE | MREMAP_FIXED, on.mem) == MAP_FAILED)
		ret = -errno;
	munmap(ram, room);
	return ret;
}

static int call_mbind(struct on on)
{
	unsigned long nodes = 1;

	return result(syscall(SYS_mbind, on.mem, on.len, MPOL_BIND, &nodes, 8 * sizeof(nodes),
			      on.arg));
}

/* What happens to the first page is the result. */
static int call_move_pages(struct on on)
{
	int node = 0, status = -EIO;

	if (syscall(SYS_move_pages, 0, 1ul, &on.mem, on.arg ? &node : NULL, &status,
		    MPOL_MF_MOVE) < 0)
		return -errno;
	return status < 0 ? status : 0;
}

static int call_process_vm(struct on on)
{
	char buf[64] = {};
	struct iovec local = { buf, sizeof(buf) }, remote = { on.mem, sizeof(buf) };

	return result(syscall(on.arg ? SYS_process_vm_writev : SYS_process_vm_readv, getpid(),
			      &local, 1ul, &remote, 1ul, 0ul));
}

/* The expected value differs from the word, so this never sleeps. */
static int call_futex(struct on on)
{
	return result(syscall(SYS_futex, on.mem, FUTEX_WAIT, mmio_read32(on.mem) + 1, NULL, NULL,
			      0));
}

static int call_userfaultfd(struct on on)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = { .range = { (uintptr_t)on.mem, on.len }, .mode = on.arg };
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC), ret;

	if (fd < 0)
		return -errno;
	ret = result(ioctl(fd, UFFDIO_API, &api)) ?: result(ioctl(fd, UFFDIO_REGISTER, &reg));
	close(fd);
	return ret;
}

/* Send a page through a pipe: vmsplice() takes references, write() copies. */
static int call_pipe(struct on on)
{
	struct iovec iov = { on.mem, SZ_4K };
	char buf[SZ_4K];
	int fds[2], ret;

	if (pipe2(fds, O_CLOEXEC | O_NONBLOCK))
		return -errno;
	ret = result(on.arg ? vmsplice(fds[1], &iov, 1, 0) : write(fds[1], on.mem, SZ_4K));
	if (!ret)
		ret = result(read(fds[0], buf, SZ_4K));
	if (!ret && memcmp(buf, on.mem, 8))
		ret = -EBADMSG;
	close(fds[0]);
	close(fds[1]);
	return ret;
}

/* Read the 8-byte entries of the pages: pagemap by address, kpage* by PFN. */
static int call_entries(struct on on)
{
	static const char * const files[] = {
		"/proc/self/pagemap", "/proc/kpageflags", "/proc/kpagecount",
	};
	uint64_t first = (on.arg ? phys_addr(on.mem) : (uintptr_t)on.mem) / SZ_4K, val;
	int fd = open(files[on.arg], O_RDONLY | O_CLOEXEC), ret = 0;
	ssize_t n;
	size_t i;

	if (fd < 0)
		return -errno;
	for (i = 0; i < on.len / SZ_4K && !ret; i++) {
		n = pread(fd, &val, sizeof(val), (first + i) * sizeof(val));
		/* kpage* have no entries for PFNs above all RAM. */
		if (n < 0)
			ret = -errno;
		else if (!on.arg && (n != sizeof(val) || !(val & PAGEMAP_PRESENT)))
			ret = -ENODATA;
	}
	close(fd);
	return ret;
}

static int call_read_all(struct on on)
{
	int fd = open(on.arg ? "/proc/self/numa_maps" : "/proc/self/smaps", O_RDONLY | O_CLOEXEC);
	char buf[4096];
	ssize_t n;

	if (fd < 0)
		return errno == ENOENT ? -NOT_TRIED : -errno;
	do
		n = read(fd, buf, sizeof(buf));
	while (n > 0);
	close(fd);
	return result(n);
}

static int call_clear_refs(struct on on)
{
	char val[2] = { '0' + on.arg };

	return file_write("/proc/self/clear_refs", val);
}

static int call_proc_mem(struct on on)
{
	int fd = open("/proc/self/mem", O_RDWR | O_CLOEXEC), ret;
	uint64_t val = 0;

	if (fd < 0)
		return -errno;
	ret = result(on.arg ? pwrite(fd, &val, sizeof(val), (uintptr_t)on.mem) :
		     pread(fd, &val, sizeof(val), (uintptr_t)on.mem));
	close(fd);
	return ret;
}

/* A child lets this process read its memory. */
static int call_ptrace(struct on on)
{
	pid_t pid = fork_child();
	int ret = 0, status;

	if (!pid) {
		if (ptrace(PTRACE_TRACEME, 0, NULL, NULL))
			_exit(errno);
		raise(SIGSTOP);
		_exit(0);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return -errno;
	if (WIFEXITED(status))
		return -WEXITSTATUS(status);
	errno = 0;
	if (ptrace(PTRACE_PEEKDATA, pid, on.mem, NULL) == -1 && errno)
		ret = -errno;
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	return ret;
}

static void remove_files(const char *path)
{
	DIR *dir = opendir(path);
	struct dirent *entry;

	while (dir && (entry = readdir(dir)))
		unlinkat(dirfd(dir), entry->d_name, 0);
	if (dir)
		closedir(dir);
	rmdir(path);
}

/* A child dumps core, and asks for all kinds of memory in the dump. */
static int call_core(struct on on)
{
	struct rlimit limit = { RLIM_INFINITY, RLIM_INFINITY };
	char pattern[128], dir[] = "/tmp/mmap_calls.XXXXXX";
	int status, ret;
	pid_t pid;

	(void)on;
	ret = file_read("/proc/sys/kernel/core_pattern", pattern, sizeof(pattern));
	if (ret)
		return ret;
	/* core_pattern sends the dump elsewhere, so it cannot be tested here. */
	if (strchr("|/@", pattern[0]))
		return -NOT_TRIED;
	if (!mkdtemp(dir))
		return -errno;
	pid = fork_child();
	if (!pid) {
		ret = file_write("/proc/self/coredump_filter", "0x1ff");
		if (ret || chdir(dir) || setrlimit(RLIMIT_CORE, &limit))
			_exit(ret ? -ret : errno);
		abort();
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		ret = -errno;
	else if (WIFEXITED(status))
		ret = -WEXITSTATUS(status);
	else
		ret = WCOREDUMP(status) ? 0 : -ENOEXEC;
	remove_files(dir);
	return ret;
}

static const struct call calls[] = {
	{ "MADV_NORMAL", call_madvise, MADV_NORMAL, 0 },
	{ "MADV_RANDOM", call_madvise, MADV_RANDOM, 0 },
	{ "MADV_SEQUENTIAL", call_madvise, MADV_SEQUENTIAL, 0 },
	{ "MADV_WILLNEED", call_madvise, MADV_WILLNEED, 0 },
	{ "MADV_DONTNEED", call_madvise, MADV_DONTNEED, 0 },
	{ "MADV_FREE", call_madvise, MADV_FREE, EINVAL },
	{ "MADV_REMOVE", call_madvise, MADV_REMOVE, ENODEV },
	{ "MADV_DONTFORK", call_madvise, MADV_DONTFORK, 0 },
	{ "MADV_DOFORK", call_madvise, MADV_DOFORK, EINVAL },
	{ "MADV_MERGEABLE", call_madvise, MADV_MERGEABLE, EINVAL },
	{ "MADV_UNMERGEABLE", call_madvise, MADV_UNMERGEABLE, EINVAL },
	{ "MADV_NOHUGEPAGE", call_madvise, MADV_NOHUGEPAGE, 0 },
	{ "MADV_HUGEPAGE", call_madvise, MADV_HUGEPAGE, 0 },
	{ "MADV_COLLAPSE", call_madvise, MADV_COLLAPSE, EINVAL },
	{ "MADV_DODUMP", call_madvise, MADV_DODUMP, EINVAL },
	{ "MADV_DONTDUMP", call_madvise, MADV_DONTDUMP, 0 },
	{ "MADV_WIPEONFORK", call_madvise, MADV_WIPEONFORK, EINVAL },
	{ "MADV_COLD", call_madvise, MADV_COLD, 0 },
	{ "MADV_PAGEOUT", call_madvise, MADV_PAGEOUT, 0 },
	{ "MADV_POPULATE_READ", call_madvise, MADV_POPULATE_READ, 0 },
	{ "MADV_POPULATE_WRITE", call_madvise, MADV_POPULATE_WRITE, 0 },
	{ "MADV_SOFT_OFFLINE", call_madvise, MADV_SOFT_OFFLINE, EINVAL },
	{ "MADV_GUARD_INSTALL", call_madvise, MADV_GUARD_INSTALL, EINVAL },
	{ "mprotect PROT_READ", call_mprotect, PROT_READ, 0 },
	{ "mprotect PROT_NONE", call_mprotect, PROT_NONE, 0 },
	{ "mlock", call_mlock, 0, 0 },
	{ "mlock MLOCK_ONFAULT", call_mlock, MLOCK_ONFAULT, 0 },
	{ "msync MS_SYNC", call_msync, MS_SYNC, EINVAL },
	{ "msync MS_ASYNC", call_msync, MS_ASYNC, 0 },
	{ "msync MS_INVALIDATE", call_msync, MS_INVALIDATE, 0 },
	{ "mincore", call_mincore, 0, 0 },
	{ "mremap", call_mremap, 0, 0 },
	{ "mremap to an odd address", call_mremap, SZ_4K, 0 },
	{ "mbind", call_mbind, 0, 0 },
	{ "mbind MPOL_MF_MOVE", call_mbind, MPOL_MF_MOVE, 0 },
	{ "move_pages", call_move_pages, 1, ENOENT },
	{ "move_pages without nodes", call_move_pages, 0, ENOENT },
	{ "process_vm_readv", call_process_vm, 0, EFAULT },
	{ "process_vm_writev", call_process_vm, 1, EFAULT },
	{ "futex", call_futex, 0, EREMOTEIO },
	{ "userfaultfd missing", call_userfaultfd, UFFDIO_REGISTER_MODE_MISSING, EINVAL },
	{ "userfaultfd write-protect", call_userfaultfd, UFFDIO_REGISTER_MODE_WP, EINVAL },
	{ "write to a pipe", call_pipe, 0, 0 },
	{ "vmsplice to a pipe", call_pipe, 1, EREMOTEIO },
	{ "pagemap", call_entries, 0, 0 },
	{ "kpageflags", call_entries, 1, 0 },
	{ "kpagecount", call_entries, 2, 0 },
	{ "smaps", call_read_all, 0, 0 },
	{ "numa_maps", call_read_all, 1, 0 },
	{ "clear_refs of all", call_clear_refs, 1, 0 },
	{ "clear_refs of files", call_clear_refs, 3, 0 },
	{ "clear_refs of soft-dirty", call_clear_refs, 4, 0 },
	{ "clear_refs of the peak RSS", call_clear_refs, 5, 0 },
	{ "/proc/self/mem, read", call_proc_mem, 0, EIO },
	{ "/proc/self/mem, write", call_proc_mem, 1, EIO },
	{ "ptrace", call_ptrace, 0, EIO },
	{ "core dump", call_core, 0, 0 },
};

/* How many bytes of a mapping, which may be several VMAs, count as resident. */
static size_t resident(const void *mem, size_t len)
{
	uintptr_t start = (uintptr_t)mem, from = 0, to = 0, first, end;
	FILE *f = fopen("/proc/self/smaps", "re");
	size_t sum = 0, kib;
	char line[512];

	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx ", &first, &end) == 2) {
			from = first;
			to = end;
		}
		if (from >= start && to <= start + len && sscanf(line, "Rss: %zu", &kib) == 1)
			sum += kib * 1024;
	}
	if (f)
		fclose(f);
	return sum;
}

static int expected(const struct call *call, bool sysfs)
{
	/* p2pmem/allocate has the file operations of kernfs. */
	if (sysfs && call->call == call_msync)
		return 0;
	if (call->call != call_madvise)
		return call->err;
	switch (call->arg) {
	case MADV_REMOVE:
		return sysfs ? EOPNOTSUPP : call->err;
	/* KSM ignores mappings that it cannot merge. */
	case MADV_MERGEABLE:
	case MADV_UNMERGEABLE:
		return access("/sys/kernel/mm/ksm", F_OK) ? call->err : 0;
	case MADV_SOFT_OFFLINE:
		return access("/sys/devices/system/memory/soft_offline_page", F_OK) ? call->err :
			EREMOTEIO;
	}
	return call->err;
}

/* All pages at once, or one in the middle of a huge page. */
static void test_calls(struct __test_metadata *_metadata, struct _test_data_mmap *self,
		       const struct _fixture_variant_mmap *variant, size_t offset, size_t len)
{
	const struct call *call;
	long seed = 0;
	void *mem;
	int ret, err;

	for (call = calls; call < calls + ARRAY_SIZE(calls); call++) {
		mem = MAP(self->fd, SZ_4M);
		page_mark(mem, SZ_4M, ++seed);
		ret = call->call((struct on){ mem + offset, len, call->arg });
		err = expected(call, variant->sysfs);
		if (ret == -NOT_TRIED || !strcmp(strerrorname_np(-ret) ?: "", "ENOSYS")) {
			TH_LOG("%s: not in this kernel, or it cannot be tried here", call->name);
			ret = -err;
		}
		EXPECT_EQ(-err, ret) {
			TH_LOG("%s: %s instead of %s", call->name, strerrorname_np(-ret),
			       strerrorname_np(err));
		}
		EXPECT_EQ(-1, page_check(mem, SZ_4M, seed)) {
			TH_LOG("%s", call->name);
		}
		/* Now all pages are mapped, whatever the call did. */
		EXPECT_EQ(SZ_4M, resident(mem, SZ_4M)) {
			TH_LOG("%s", call->name);
		}
		/* Into two huge pages, and the page that calls_on_one_page is about. */
		ret = dma_in(self->peer.disk, mem + SZ_2M - SZ_1M / 8, SZ_1M / 4);
		EXPECT_EQ(self->peer.dma, ret) {
			TH_LOG("%s", call->name);
		}
		ASSERT_EQ(0, munmap(mem, SZ_4M));
		EXPECT_TRUE(drained(self)) {
			TH_LOG("%s", call->name);
		}
	}
}

TEST_F_TIMEOUT(mmap, calls_on_all, 240)
{
	test_calls(_metadata, self, variant, 0, SZ_4M);
}

TEST_F_TIMEOUT(mmap, calls_on_one_page, 240)
{
	test_calls(_metadata, self, variant, PLACE, SZ_4K);
}

/* The file has neither a size nor contents. */
TEST_F_TIMEOUT(mmap, calls_on_file, 90)
{
	void *mem = MAP(self->fd, SZ_4M);
	char buf[8] = {};
	int fds[2];

	page_mark(mem, SZ_4M, 1);
	EXPECT_EQ(-1, read(self->fd, buf, sizeof(buf)));
	EXPECT_EQ(-1, write(self->fd, buf, sizeof(buf)));
	/* Files in sysfs can be truncated, which changes nothing. */
	EXPECT_EQ(variant->sysfs ? 0 : -1, ftruncate(self->fd, 0));
	EXPECT_EQ(-1, fallocate(self->fd, 0, 0, SZ_4M));
	EXPECT_EQ(-1, fallocate(self->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, SZ_4M));
	ASSERT_EQ(0, pipe2(fds, O_CLOEXEC | O_NONBLOCK));
	EXPECT_EQ(-1, splice(self->fd, NULL, fds[1], NULL, SZ_4K, 0));
	posix_fadvise(self->fd, 0, 0, POSIX_FADV_DONTNEED);
	EXPECT_EQ(-1, page_check(mem, SZ_4M, 1));
	EXPECT_EQ(SZ_4M, resident(mem, SZ_4M));
}

TEST_HARNESS_MAIN
