// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "testbed.h"

const char *testbed_lacks(const char *env)
{
	static char text[64];

	if (!getenv(env) || !getenv("P2PDMA_PEER")) {
		snprintf(text, sizeof(text), "%s is not set", getenv(env) ? "P2PDMA_PEER" : env);
		return text;
	}
	if (geteuid())
		return "the tests need root";
	if (sysconf(_SC_PAGESIZE) != 4096)
		return "the tests need pages of 4 KiB";
	return NULL;
}

int peer_open(struct peer *peer)
{
	const char *expect = getenv("P2PDMA_EXPECT");
	char path[64];
	int ret;

	ret = pci_fn_init(&peer->fn, getenv("P2PDMA_PEER"));
	if (!ret)
		ret = nvme_disk(&peer->fn, path, sizeof(path));
	if (ret)
		return ret;
	peer->disk = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
	peer->dma = expect && !strcmp(expect, "not-supported") ? -EINVAL : 0;
	return peer->disk < 0 ? -errno : 0;
}

bool peer_can_throttle(void)
{
	return getenv("P2PDMA_SLOW") && getenv("P2PDMA_FAST");
}

int peer_throttle(struct peer *peer)
{
	peer->slow = true;
	return system(getenv("P2PDMA_SLOW"));
}

int peer_unthrottle(struct peer *peer)
{
	int ret = system(getenv("P2PDMA_FAST"));

	peer->slow = ret != 0;
	return ret;
}

uint64_t number_from_env(const char *env, uint64_t def)
{
	const char *val = getenv(env);

	return val ? strtoull(val, NULL, 0) : def;
}
