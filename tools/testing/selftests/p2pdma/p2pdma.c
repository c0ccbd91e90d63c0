// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <linux/p2pbar.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "p2pdma.h"

#define PCI_DEVICES	"/sys/bus/pci/devices"
#define PCI_DRIVERS	"/sys/bus/pci/drivers"

int file_write(const char *path, const char *val)
{
	int fd, ret = 0;

	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (write(fd, val, strlen(val)) < 0)
		ret = -errno;
	close(fd);
	return ret;
}

int file_read(const char *path, char *buf, size_t len)
{
	ssize_t n;
	int fd;

	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	n = read(fd, buf, len - 1);
	close(fd);
	if (n < 0)
		return -errno;
	buf[n] = '\0';
	return 0;
}

int pci_fn_init(struct pci_fn *fn, const char *name)
{
	if (strlen(name) >= sizeof(fn->name))
		return -EINVAL;
	strcpy(fn->name, name);
	return access(pci_fn_path(fn, "class"), R_OK) ? -ENODEV : 0;
}

const char *pci_fn_path(const struct pci_fn *fn, const char *attr)
{
	static char path[256];

	snprintf(path, sizeof(path), PCI_DEVICES "/%s/%s", fn->name, attr);
	return path;
}

int pci_fn_read(const struct pci_fn *fn, const char *attr, char *buf, size_t len)
{
	int ret = file_read(pci_fn_path(fn, attr), buf, len);

	if (!ret)
		buf[strcspn(buf, "\n")] = '\0';
	return ret;
}

int pci_fn_read_u64(const struct pci_fn *fn, const char *attr, uint64_t *val)
{
	char buf[64];
	int ret;

	ret = pci_fn_read(fn, attr, buf, sizeof(buf));
	if (!ret)
		*val = strtoull(buf, NULL, 0);
	return ret;
}

int pci_fn_write(const struct pci_fn *fn, const char *attr, const char *val)
{
	return file_write(pci_fn_path(fn, attr), val);
}

int pci_fn_driver(const struct pci_fn *fn, char *buf, size_t len)
{
	char link[256];
	ssize_t n;

	buf[0] = '\0';
	n = readlink(pci_fn_path(fn, "driver"), link, sizeof(link) - 1);
	if (n < 0)
		return errno == ENOENT ? 0 : -errno;
	link[n] = '\0';
	snprintf(buf, len, "%s", basename(link));
	return 0;
}

int pci_fn_unbind(const struct pci_fn *fn)
{
	int ret = pci_fn_write(fn, "driver/unbind", fn->name);

	return ret == -ENOENT ? 0 : ret;
}

int pci_fn_bind(const struct pci_fn *fn, const char *driver, const char *override)
{
	char path[256];
	int ret;

	ret = pci_fn_write(fn, "driver_override", override[0] ? override : "\n");
	if (ret)
		return ret;
	snprintf(path, sizeof(path), PCI_DRIVERS "/%s/bind", driver);
	return file_write(path, fn->name);
}

int pci_fn_rebind(const struct pci_fn *fn, const char *driver)
{
	int ret;

	ret = pci_fn_unbind(fn);
	if (ret)
		return ret;
	if (!driver[0])
		return pci_fn_write(fn, "driver_override", "\n");
	ret = pci_fn_bind(fn, driver, "");
	return ret == -ENODEV ? pci_fn_bind(fn, driver, driver) : ret;
}

int pci_fn_bar_bus_address(const struct pci_fn *fn, int bar, uint64_t *addr)
{
	uint32_t reg[2];
	int fd, ret = 0;

	fd = open(pci_fn_path(fn, "config"), O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (pread(fd, reg, sizeof(reg), 0x10 + 4 * bar) != sizeof(reg))
		ret = -EIO;
	close(fd);
	*addr = reg[0] & ~0xfu;
	if ((reg[0] & 6) == 4)
		*addr |= (uint64_t)reg[1] << 32;
	return ret;
}

int pci_fn_resource(const struct pci_fn *fn, int bar, uint64_t *start, uint64_t *len)
{
	unsigned long long first, last, flags;
	int ret = -EINVAL;
	FILE *f;

	f = fopen(pci_fn_path(fn, "resource"), "re");
	if (!f)
		return -errno;
	for (; bar >= 0; bar--) {
		if (fscanf(f, "%llx %llx %llx", &first, &last, &flags) != 3)
			goto out;
	}
	*start = first;
	*len = last ? last - first + 1 : 0;
	ret = 0;
out:
	fclose(f);
	return ret;
}

void *pci_fn_map_bar(const struct pci_fn *fn, int bar, size_t len)
{
	char attr[16];
	void *mem;
	int fd;

	snprintf(attr, sizeof(attr), "resource%d", bar);
	fd = open(pci_fn_path(fn, attr), O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return NULL;
	mem = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	return mem == MAP_FAILED ? NULL : mem;
}

/* Find "nvme<N>n<M>" among the entries of @path. */
static bool find_namespace(const char *path, char *buf, size_t len)
{
	int ctrl, path_id, ns, end;
	struct dirent *d;
	bool found = false;
	DIR *dir;

	dir = opendir(path);
	if (!dir)
		return false;
	while (!found && (d = readdir(dir))) {
		end = 0;
		/* With native multipath the head is nvme0n1, and nvme0c0n1 a path. */
		if (sscanf(d->d_name, "nvme%dn%d%n", &ctrl, &ns, &end) == 2 && !d->d_name[end]) {
			snprintf(buf, len, "/dev/%s", d->d_name);
			found = true;
		} else if (sscanf(d->d_name, "nvme%dc%dn%d%n", &ctrl, &path_id, &ns, &end) == 3 &&
			   !d->d_name[end]) {
			snprintf(buf, len, "/dev/nvme%dn%d", ctrl, ns);
			found = true;
		}
	}
	closedir(dir);
	return found;
}

int nvme_disk(const struct pci_fn *fn, char *buf, size_t len)
{
	char path[512];
	struct dirent *d;
	int tries;
	DIR *dir;

	for (tries = 0; tries < 100; tries++) {
		dir = opendir(pci_fn_path(fn, "nvme"));
		while (dir && (d = readdir(dir))) {
			if (d->d_name[0] == '.')
				continue;
			snprintf(path, sizeof(path), "%s/%s", pci_fn_path(fn, "nvme"), d->d_name);
			if (find_namespace(path, buf, len) && !access(buf, R_OK | W_OK)) {
				closedir(dir);
				return 0;
			}
		}
		if (dir)
			closedir(dir);
		usleep(100 * 1000);
	}
	return -ENODEV;
}

int misc_node(const struct pci_fn *fn, char *buf, size_t len)
{
	struct dirent *d;
	int tries;
	DIR *dir;

	for (tries = 0; tries < 100; tries++) {
		dir = opendir(pci_fn_path(fn, "misc"));
		while (dir && (d = readdir(dir))) {
			if (d->d_name[0] == '.')
				continue;
			snprintf(buf, len, "/dev/%s", d->d_name);
			if (!access(buf, R_OK | W_OK)) {
				closedir(dir);
				return 0;
			}
		}
		if (dir)
			closedir(dir);
		usleep(10 * 1000);
	}
	return -ENODEV;
}

int p2pbar_node_info(const char *node, uint32_t type, struct p2pbar_info *info)
{
	int fd, ret = 0;

	fd = open(node, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	memset(info, 0, sizeof(*info));
	info->type = type;
	if (ioctl(fd, P2PBAR_IOC_INFO, info))
		ret = -errno;
	close(fd);
	return ret;
}

int fdinfo_read(int fd, const char *name, uint64_t *val)
{
	size_t n = strlen(name);
	char line[256], *end;
	int ret = -ENOENT;
	FILE *f;

	snprintf(line, sizeof(line), "/proc/self/fdinfo/%d", fd);
	f = fopen(line, "re");
	if (!f)
		return -errno;
	while (ret == -ENOENT && fgets(line, sizeof(line), f)) {
		if (strncmp(line, name, n) || line[n] != ':')
			continue;
		*val = strtoull(line + n + 2, &end, 10);
		ret = line[n + 1] == '\t' && end > line + n + 2 && *end == '\n' ? 0 : -EINVAL;
	}
	fclose(f);
	return ret;
}

/* What belongs at @offset: no word is like another (SplitMix64). */
static uint64_t pattern(uint64_t seed, size_t offset)
{
	uint64_t z = seed + (offset / sizeof(z) + 1) * 0x9e3779b97f4a7c15ull;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

void mmio_fill(void *mem, size_t len, uint64_t seed)
{
	size_t i;

	for (i = 0; i < len; i += sizeof(uint64_t))
		mmio_write64(mem + i, pattern(seed, i));
}

long mmio_check_part(const void *mem, size_t from, size_t to, uint64_t seed)
{
	size_t i;

	for (i = from; i < to; i += sizeof(uint64_t)) {
		if (mmio_read64(mem + i) != pattern(seed, i))
			return i;
	}
	return -1;
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

int pread_all(int fd, void *buf, size_t len, uint64_t offset)
{
	ssize_t n;

	for (; len; len -= n, buf += n, offset += n) {
		n = pread(fd, buf, len, offset);
		if (n <= 0)
			return n ? -errno : -ENODATA;
	}
	return 0;
}

int pwrite_all(int fd, const void *buf, size_t len, uint64_t offset)
{
	ssize_t n;

	for (; len; len -= n, buf += n, offset += n) {
		n = pwrite(fd, buf, len, offset);
		if (n <= 0)
			return n ? -errno : -ENOSPC;
	}
	return 0;
}

int aio_submit(aio_context_t ctx, int opcode, int fd, void *buf, size_t len, uint64_t offset)
{
	struct iocb iocb = {
		.aio_lio_opcode = opcode,
		.aio_fildes = fd,
		.aio_buf = (uintptr_t)buf,
		.aio_nbytes = len,
		.aio_offset = offset,
	}, *list = &iocb;

	return syscall(SYS_io_submit, ctx, 1, &list) == 1 ? 0 : -errno;
}

void *map_file(int fd, size_t len, uint64_t offset)
{
	void *mem;

	mem = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, offset);
	return mem == MAP_FAILED ? NULL : mem;
}

void *ram_map(size_t len)
{
	void *mem;

	mem = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return mem == MAP_FAILED ? NULL : mem;
}

void *ram_map_shared(size_t len)
{
	void *mem;

	mem = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	return mem == MAP_FAILED ? NULL : mem;
}

void page_mark(void *mem, size_t len, uint64_t seed)
{
	size_t page = sysconf(_SC_PAGESIZE), i;

	for (i = 0; i < len; i += page)
		mmio_write64(mem + i, pattern(seed, i));
}

long page_check(const void *mem, size_t len, uint64_t seed)
{
	size_t page = sysconf(_SC_PAGESIZE), i;

	for (i = 0; i < len; i += page) {
		if (mmio_read64(mem + i) != pattern(seed, i))
			return i;
	}
	return -1;
}

static __thread sigjmp_buf fault_env;
static __thread bool fault_expected;

static void on_fault(int sig)
{
	if (__atomic_load_n(&fault_expected, __ATOMIC_SEQ_CST))
		siglongjmp(fault_env, sig);
	/* It happens again, and then it kills. */
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

/* Data that neither the memory nor the disk can have from before. */
static uint64_t new_seed(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return ts.tv_sec * 1000000000ull + ts.tv_nsec;
}

int dma_in(int disk, void *mem, size_t len)
{
	uint64_t seed = new_seed();
	void *ram = ram_map(len);
	int ret;

	if (!ram)
		return -ENOMEM;
	mmio_fill(ram, len, seed);
	ret = pwrite_all(disk, ram, len, DISK_OFFSET);
	if (!ret)
		ret = pread_all(disk, mem, len, DISK_OFFSET);
	if (!ret && mmio_check(mem, len, seed) >= 0)
		ret = -EBADMSG;
	munmap(ram, len);
	return ret;
}

int dma_out(int disk, void *mem, size_t len)
{
	uint64_t seed = new_seed();
	void *ram = ram_map(len);
	int ret;

	if (!ram)
		return -ENOMEM;
	mmio_fill(mem, len, seed);
	/* Nothing may be left in a write-combining buffer. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	ret = pwrite_all(disk, mem, len, DISK_OFFSET);
	if (!ret)
		ret = pread_all(disk, ram, len, DISK_OFFSET);
	if (!ret && mmio_check(ram, len, seed) >= 0)
		ret = -EBADMSG;
	munmap(ram, len);
	return ret;
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
	/* Bit 63: the page is present; bits 54 to 0: its frame number. */
	if (!(entry >> 63))
		return 0;
	return (entry & ((1ull << 55) - 1)) * page + (uintptr_t)mem % page;
}

int vma_flags(const void *mem, char *buf, size_t len)
{
	unsigned long start, end;
	bool found = false;
	int ret = -ENOENT;
	FILE *f;

	f = fopen("/proc/self/smaps", "re");
	if (!f)
		return -errno;
	while (ret && fgets(buf, len, f)) {
		if (sscanf(buf, "%lx-%lx ", &start, &end) == 2)
			found = start == (uintptr_t)mem;
		else if (found && !strncmp(buf, "VmFlags:", 8))
			ret = 0;
	}
	fclose(f);
	buf[strcspn(buf, "\n")] = '\0';
	return ret;
}

int page_table_line(const void *mem, char *buf, size_t len)
{
	unsigned long start, end;
	int ret = -ENOENT;
	FILE *f;

	/* There is a table for user mode only where it is isolated from the kernel's. */
	f = fopen("/sys/kernel/debug/page_tables/current_user", "re");
	if (!f)
		f = fopen("/sys/kernel/debug/page_tables/current_kernel", "re");
	if (!f)
		return -errno;
	while (ret && fgets(buf, len, f)) {
		if (sscanf(buf, "0x%lx-0x%lx ", &start, &end) == 2 &&
		    start <= (uintptr_t)mem && (uintptr_t)mem < end)
			ret = 0;
	}
	fclose(f);
	return ret;
}

uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000ull + ts.tv_nsec / 1000000;
}

pid_t fork_child(void)
{
	pid_t parent = getpid(), pid;

	pid = fork();
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(1);
	}
	return pid;
}

int wait_child(pid_t pid, int ms)
{
	uint64_t end = now_ms() + ms;
	bool killed = false;
	int status;
	pid_t ret;

	while (!(ret = waitpid(pid, &status, WNOHANG))) {
		if (now_ms() >= end) {
			if (killed)
				return -ETIMEDOUT;
			kill(pid, SIGKILL);
			killed = true;
			end = now_ms() + 1000;
		}
		usleep(1000);
	}
	if (ret < 0)
		return -errno;
	return killed ? -ETIMEDOUT : status;
}

union fd_message {
	char buf[CMSG_SPACE(sizeof(int))];
	struct cmsghdr align;
};

int send_fd(int sock, int fd)
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

int recv_fd(int sock)
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

/* It lies beside this program. */
int module_load(void)
{
	char path[512];
	ssize_t n;
	int fd, ret = 0;

	n = readlink("/proc/self/exe", path, sizeof(path) - 1);
	if (n < 0)
		return -errno;
	path[n] = '\0';
	dirname(path);
	strncat(path, "/test_modules/" TEST_MODULE ".ko", sizeof(path) - strlen(path) - 1);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (syscall(SYS_finit_module, fd, "", 0) && errno != EEXIST)
		ret = -errno;
	close(fd);
	return ret;
}

int module_run(const char *fmt, ...)
{
	char command[128];
	va_list args;

	va_start(args, fmt);
	vsnprintf(command, sizeof(command), fmt, args);
	va_end(args);
	return file_write(MODULE_RUN, command);
}

int module_hits(void)
{
	char buf[32];
	int ret;

	ret = file_read("/sys/kernel/debug/" TEST_MODULE "/hits", buf, sizeof(buf));
	return ret ?: atoi(buf);
}

#define FAULT(name, file)	"/sys/kernel/debug/" name "/" file

bool faults_ready(void)
{
	return !file_write(FAULT("failslab", "ignore-gfp-wait"), "0") &&
	       !file_write(FAULT("failslab", "verbose"), "0") &&
	       !file_write(FAULT("fail_page_alloc", "ignore-gfp-wait"), "0") &&
	       !file_write(FAULT("fail_page_alloc", "min-order"), "0") &&
	       !file_write(FAULT("fail_page_alloc", "verbose"), "0") &&
	       !access("/proc/thread-self/fail-nth", W_OK);
}

int with_fault(int nth, int (*op)(void *arg), void *arg)
{
	char buf[16];
	int fd, ret;

	fd = open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	snprintf(buf, sizeof(buf), "%d", nth);
	if (write(fd, buf, strlen(buf)) < 0) {
		close(fd);
		return -EINVAL;
	}
	ret = op(arg);
	memset(buf, 0, sizeof(buf));
	if (pread(fd, buf, sizeof(buf) - 1, 0) > 0 && atoi(buf) && !ret)
		ret = -ERANGE;
	pwrite(fd, "0", 1, 0);
	close(fd);
	return ret;
}

/* Where a function of the kernel begins, and where the next one does. */
static int function_range(const char *name, uint64_t *start, uint64_t *end)
{
	unsigned long long addr;
	char line[256], sym[256];
	FILE *f;
	int pass;

	*start = 0;
	*end = UINT64_MAX;
	f = fopen("/proc/kallsyms", "re");
	if (!f)
		return -errno;
	for (pass = 0; pass < 2; pass++) {
		rewind(f);
		while (fgets(line, sizeof(line), f)) {
			if (sscanf(line, "%llx %*c %255s", &addr, sym) != 2)
				continue;
			if (!pass && !strcmp(sym, name))
				*start = addr;
			else if (pass && addr > *start && addr < *end)
				*end = addr;
		}
	}
	fclose(f);
	return *start ? 0 : -ENOENT;
}

bool faults_not_in(const char *function, const char *tail)
{
	static const char * const names[] = { "failslab", "fail_page_alloc", NULL };
	uint64_t start = 0, end = 0, tail_start, tail_end;
	char path[128], from[32], to[32];
	int i;

	if (function && function_range(function, &start, &end))
		return false;
	/* There is one range only. */
	if (tail && !function_range(tail, &tail_start, &tail_end)) {
		if (tail_start < start)
			start = tail_start;
		if (tail_end > end)
			end = tail_end;
		if (end - start > 0x10000)
			return false;
	}
	snprintf(from, sizeof(from), "0x%llx", (unsigned long long)start);
	snprintf(to, sizeof(to), "0x%llx", (unsigned long long)end);
	for (i = 0; names[i]; i++) {
		snprintf(path, sizeof(path), "/sys/kernel/debug/%s/stacktrace-depth", names[i]);
		if (file_write(path, "32"))
			return false;
		snprintf(path, sizeof(path), "/sys/kernel/debug/%s/reject-start", names[i]);
		if (file_write(path, from))
			return false;
		snprintf(path, sizeof(path), "/sys/kernel/debug/%s/reject-end", names[i]);
		if (file_write(path, to))
			return false;
	}
	return true;
}
