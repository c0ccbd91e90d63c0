// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../kselftest.h"
#include "faults.h"

static int write_setting(const char *fault, const char *file, const char *val)
{
	char path[128];

	snprintf(path, sizeof(path), "/sys/kernel/debug/%s/%s", fault, file);
	return file_write(path, val);
}

bool faults_ready(void)
{
	return !write_setting("failslab", "ignore-gfp-wait", "0") &&
	       !write_setting("failslab", "verbose", "0") &&
	       !write_setting("fail_page_alloc", "ignore-gfp-wait", "0") &&
	       !write_setting("fail_page_alloc", "min-order", "0") &&
	       !write_setting("fail_page_alloc", "verbose", "0") &&
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
	/* The file holds 0 once the allocation has failed. */
	memset(buf, 0, sizeof(buf));
	if (pread(fd, buf, sizeof(buf) - 1, 0) > 0 && atoi(buf) && !ret)
		ret = -ERANGE;
	pwrite(fd, "0", 1, 0);
	close(fd);
	return ret;
}

/* The addresses of a kernel function and of the symbol that follows it. */
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

bool faults_exempt(const char *function, const char *tail)
{
	static const char * const names[] = { "failslab", "fail_page_alloc" };
	uint64_t start = 0, end = 0, tail_start, tail_end;
	char from[32], to[32];
	size_t i;

	if (function && function_range(function, &start, &end))
		return false;
	/* Fault injection has one range: it has to cover both functions. */
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
	for (i = 0; i < ARRAY_SIZE(names); i++) {
		if (write_setting(names[i], "stacktrace-depth", "32") ||
		    write_setting(names[i], "reject-start", from) ||
		    write_setting(names[i], "reject-end", to))
			return false;
	}
	return true;
}
