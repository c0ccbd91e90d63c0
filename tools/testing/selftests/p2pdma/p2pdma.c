// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
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
	ssize_t n;
	int fd;

	fd = open(pci_fn_path(fn, attr), O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	n = read(fd, buf, len - 1);
	close(fd);
	if (n < 0)
		return -errno;
	buf[n] = '\0';
	buf[strcspn(buf, "\n")] = '\0';
	return 0;
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
