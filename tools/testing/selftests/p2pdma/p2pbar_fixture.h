/* SPDX-License-Identifier: GPL-2.0 */
/* The fixture of the tests of p2pbar: the driver is bound to P2PDMA_OTHER. */
#ifndef SELFTESTS_P2PDMA_P2PBAR_FIXTURE_H
#define SELFTESTS_P2PDMA_P2PBAR_FIXTURE_H

#include <errno.h>
#include <fcntl.h>
#include <linux/p2pbar.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../kselftest_harness.h"
#include "dma.h"
#include "mmio.h"
#include "node.h"
#include "pages.h"
#include "process.h"
#include "testbed.h"

#define RW	(PROT_READ | PROT_WRITE)

#define NR_TYPES	3

static inline const char *type_name(uint32_t type)
{
	static const char * const names[NR_TYPES] = { "mem", "uar-nc", "uar-wc" };

	return names[type];
}

/* The teardown runs in another process, which shares this structure. */
FIXTURE(p2pbar)
{
	struct pci_fn fn;
	struct peer peer;
	char driver[64];	/* the function's driver before the test */
	char node[64];		/* of p2pbar in /dev */
	struct p2pmem_info info[NR_TYPES];	/* what P2PMEM_IOC_INFO told before the test */
	int fd;			/* of the node */
};

/* The ioctls. They return 0 or a negative errno. */
static inline int get_info(int fd, uint32_t type, struct p2pmem_info *info)
{
	memset(info, 0, sizeof(*info));
	info->type = type;
	return ioctl(fd, P2PMEM_IOC_INFO, info) ? -errno : 0;
}

/* Allocate an object. Its offset for mmap(), @key, names it in the ioctls. */
static inline int alloc_object(int fd, uint32_t type, uint64_t size, uint64_t *key)
{
	struct p2pmem_alloc alloc = { .type = type, .size = size };
	int ret;

	ret = ioctl(fd, P2PMEM_IOC_ALLOC, &alloc) ? -errno : 0;
	*key = alloc.offset;
	return ret;
}

static inline int free_object(int fd, uint64_t key)
{
	struct p2pmem_free arg = { .offset = key };

	return ioctl(fd, P2PMEM_IOC_FREE, &arg) ? -errno : 0;
}

static inline int set_limit(int fd, uint64_t size)
{
	struct p2pmem_limit limit = { .size = size };

	return ioctl(fd, P2PMEM_IOC_LIMIT, &limit) ? -errno : 0;
}

/* Ask about the PCI function @name. */
static inline int ask_peer(int fd, const char *name, struct p2pbar_peer *peer)
{
	unsigned int domain, bus, dev, func;

	if (sscanf(name, "%x:%x:%x.%x", &domain, &bus, &dev, &func) != 4)
		return -EINVAL;
	memset(peer, 0, sizeof(*peer));
	peer->domain = domain;
	peer->bus = bus;
	peer->devfn = dev << 3 | func;
	return ioctl(fd, P2PBAR_IOC_PEER, peer) ? -errno : 0;
}

/* Allocate an object and map it; NULL with errno set on error. */
static inline void *map_object(int fd, uint32_t type, size_t len, uint64_t *key)
{
	int ret;

	ret = alloc_object(fd, type, len, key);
	if (!ret)
		return map_file(fd, len, *key);
	errno = -ret;
	return NULL;
}

#define MAP_OBJECT(fd, type, len, key) ({			\
	void *__mem = map_object(fd, type, len, key);		\
	ASSERT_NE(NULL, __mem);					\
	__mem;							\
})

/* The errno that mmap() fails with, or 0. */
static inline int map_errno(int fd, size_t len, uint64_t offset)
{
	void *mem = map_file(fd, len, offset);

	if (!mem)
		return errno;
	munmap(mem, len);
	return 0;
}

static inline bool type_is_drained(const struct _test_data_p2pbar *self, uint32_t type)
{
	struct p2pmem_info info;

	return !node_info(self->node, type, &info) &&
	       info.used == self->info[type].used;
}

/*
 * Whether, of each type, as much memory is in use as before the test. A
 * workqueue may free it: wait for that.
 */
static inline bool drained(const struct _test_data_p2pbar *self)
{
	uint32_t type;

	for (type = 0; type < NR_TYPES; type++) {
		if (!WAIT_FOR(type_is_drained(self, type), 2000))
			return false;
	}
	return true;
}

/* Whether this open file has @size bytes allocated, be it after a moment. */
static inline bool has_allocated(int fd, uint64_t size)
{
	struct p2pmem_info info;

	return WAIT_FOR(!get_info(fd, P2PBAR_MEM, &info) && info.allocated == size, 2000);
}

/* Bind the driver and open its node: 0 or a negative errno. */
static inline int attach(struct _test_data_p2pbar *self)
{
	int ret;

	ret = pci_fn_rebind(&self->fn, "p2pbar");
	if (!ret)
		ret = misc_node(&self->fn, self->node, sizeof(self->node));
	if (ret)
		return ret;
	self->fd = open(self->node, O_RDWR | O_CLOEXEC);
	return self->fd < 0 ? -errno : 0;
}

/* The value of a module parameter, or @def. */
static inline uint64_t parameter(const char *name, uint64_t def)
{
	char path[64], buf[32];

	snprintf(path, sizeof(path), "/sys/module/p2pbar/parameters/%s", name);
	return file_read(path, buf, sizeof(buf)) ? def : strtoull(buf, NULL, 0);
}

FIXTURE_SETUP(p2pbar)
{
	const char *lacks = testbed_lacks("P2PDMA_OTHER");
	uint32_t type;
	int ret;

	if (lacks)
		SKIP(return, "%s", lacks);
	ASSERT_EQ(0, pci_fn_init(&self->fn, getenv("P2PDMA_OTHER")));
	ASSERT_EQ(0, peer_open(&self->peer));

	/* Loading the module may bind the driver: remember what was bound before. */
	ASSERT_EQ(0, pci_fn_driver(&self->fn, self->driver, sizeof(self->driver)));
	if (load_driver("p2pbar"))
		SKIP(return, "no module p2pbar");
	ret = attach(self);
	for (type = 0; !ret && type < NR_TYPES; type++)
		ret = get_info(self->fd, type, &self->info[type]);
	/* The harness does not run the teardown if the setup fails. */
	if (ret)
		pci_fn_rebind(&self->fn, self->driver);
	ASSERT_EQ(0, ret);
}

FIXTURE_TEARDOWN_PARENT(p2pbar)
{
	if (self->peer.slow)
		EXPECT_EQ(0, peer_unthrottle(&self->peer));
	/* The test's process has exited, so that all its memory has to be free. */
	if (!access(self->node, F_OK))
		EXPECT_TRUE(drained(self));
	EXPECT_EQ(0, pci_fn_rebind(&self->fn, self->driver));
}

#endif
