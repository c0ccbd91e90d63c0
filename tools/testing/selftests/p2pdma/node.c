// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <libgen.h>
#include <linux/p2pbar.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "node.h"
#include "testbed.h"

int load_driver(const char *driver)
{
	char command[64];

	snprintf(command, sizeof(command), "modprobe -q %s", driver);
	return system(command) ? -ENOENT : 0;
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

int child_name(const struct pci_fn *fn, char *buf, size_t len)
{
	glob_t found;
	int ret;

	/* <module>.<name>.<id> */
	if (glob(pci_fn_path(fn, "[a-z]*.*.*[0-9]"), 0, NULL, &found))
		return -ENODEV;
	ret = found.gl_pathc == 1 ? 0 : -EEXIST;
	snprintf(buf, len, "%s", basename(found.gl_pathv[0]));
	globfree(&found);
	return ret;
}

int child_path(const struct pci_fn *fn, const char *attr, char *buf, size_t len)
{
	char name[64], below[128];
	int ret;

	ret = child_name(fn, name, sizeof(name));
	if (ret)
		return ret;
	snprintf(below, sizeof(below), "%s/%s", name, attr);
	snprintf(buf, len, "%s", pci_fn_path(fn, below));
	return 0;
}

int child_unbind(const struct pci_fn *fn)
{
	char name[64], path[256];
	int ret;

	ret = child_name(fn, name, sizeof(name)) ?:
		child_path(fn, "driver/unbind", path, sizeof(path));
	if (ret)
		return ret;
	ret = file_write(path, name);
	return ret == -ENOENT ? 0 : ret;
}

int child_bind(const struct pci_fn *fn, const char *driver)
{
	char name[64], path[256];
	int ret;

	ret = child_name(fn, name, sizeof(name));
	if (ret)
		return ret;
	snprintf(path, sizeof(path), "/sys/bus/auxiliary/drivers/%s.%s/bind", driver, driver);
	return file_write(path, name);
}

/* Find a node among the entries of the folder "misc" of a function in sysfs. */
static bool find_node(const char *path, char *buf, size_t len)
{
	bool found = false;
	struct dirent *d;
	DIR *dir;

	dir = opendir(path);
	if (!dir)
		return false;
	while (!found && (d = readdir(dir))) {
		snprintf(buf, len, "/dev/%s", d->d_name);
		found = d->d_name[0] != '.' && !access(buf, R_OK | W_OK);
	}
	closedir(dir);
	return found;
}

int misc_node(const struct pci_fn *fn, char *buf, size_t len)
{
	uint64_t end = now_ms() + 2000;
	char path[256];
	bool found;

	do {
		snprintf(path, sizeof(path), "%s", pci_fn_path(fn, "misc"));
		found = find_node(path, buf, len) ||
			(!child_path(fn, "misc", path, sizeof(path)) && find_node(path, buf, len));
	} while (!found && now_ms() < end && !usleep(1000));
	return found ? 0 : -ENODEV;
}

int misc_open(const struct pci_fn *fn, char *buf, size_t len)
{
	int fd, ret = misc_node(fn, buf, len);

	if (ret)
		return ret;
	fd = open(buf, O_RDWR | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

FILE *node_debugfs(const char *node, const char *file)
{
	const char *slash = strrchr(node, '/');
	char path[128];

	snprintf(path, sizeof(path), "/sys/kernel/debug/p2pdma/%s/%s", slash ? slash + 1 : node,
		 file);
	return fopen(path, "re");
}

int node_memory(const char *node, const char *name, struct memory_use *use)
{
	char found[16];
	int ret = -ENOENT;
	FILE *f;

	f = node_debugfs(node, "memory");
	if (!f)
		return -errno;
	while (ret && fscanf(f, "%15s size %llu used %llu objects %llu mappings %llu\n", found,
			     &use->size, &use->used, &use->objects, &use->mappings) == 5) {
		if (!strcmp(found, name))
			ret = 0;
	}
	fclose(f);
	return ret;
}

int node_info(const char *node, uint32_t type, struct p2pmem_info *info)
{
	int fd, ret;

	fd = open(node, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	memset(info, 0, sizeof(*info));
	info->type = type;
	ret = ioctl(fd, P2PMEM_IOC_INFO, info) ? -errno : 0;
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
