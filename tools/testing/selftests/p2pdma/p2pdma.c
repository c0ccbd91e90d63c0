// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
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

bool on_command_line(const char *word)
{
	char buf[4096];

	return !file_read("/proc/cmdline", buf, sizeof(buf)) && strstr(buf, word);
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

bool pci_fn_is_present(const struct pci_fn *fn)
{
	return !access(pci_fn_path(fn, "class"), F_OK);
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

/* It lies beside this program. */
int module_load_named(const char *name)
{
	char path[512];
	size_t len;
	ssize_t n;
	int fd, ret = 0;

	n = readlink("/proc/self/exe", path, sizeof(path) - 1);
	if (n < 0)
		return -errno;
	path[n] = '\0';
	dirname(path);
	len = strlen(path);
	snprintf(path + len, sizeof(path) - len, "/test_modules/%s.ko", name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (syscall(SYS_finit_module, fd, "", 0) && errno != EEXIST)
		ret = -errno;
	close(fd);
	return ret;
}

int module_load(void)
{
	return module_load_named(TEST_MODULE);
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
