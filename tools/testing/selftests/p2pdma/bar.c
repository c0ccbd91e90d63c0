// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "bar.h"
#include "pages.h"

/* Of include/linux/ioport.h. */
#define IORESOURCE_PREFETCH	0x2000

int pci_fn_bar(const struct pci_fn *fn, int bar, struct pci_bar *res)
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
	res->start = first;
	res->len = last ? last - first + 1 : 0;
	res->prefetchable = flags & IORESOURCE_PREFETCH;
	ret = 0;
out:
	fclose(f);
	return ret;
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

int find_iomem(const struct pci_bar *res, const char *name)
{
	unsigned long long first, last;
	int ret = -ENOENT, at;
	char line[256];
	FILE *f;

	f = fopen("/proc/iomem", "re");
	if (!f)
		return -errno;
	while (ret && fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = '\0';
		if (sscanf(line, "%llx-%llx : %n", &first, &last, &at) == 2 &&
		    first == res->start && last == res->start + res->len - 1 &&
		    !strcmp(line + at, name))
			ret = 0;
	}
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
	mem = map_file(fd, len, 0);
	close(fd);
	return mem;
}
