/* SPDX-License-Identifier: GPL-2.0 */
/* Asynchronous DMA between a disk and memory, without a library. */
#ifndef SELFTESTS_P2PDMA_AIO_H
#define SELFTESTS_P2PDMA_AIO_H

#include <errno.h>
#include <linux/aio_abi.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Allocate a context for @nr requests in flight: 0 or a negative errno. */
static inline int aio_setup(int nr, aio_context_t *ctx)
{
	*ctx = 0;
	return syscall(SYS_io_setup, nr, ctx) ? -errno : 0;
}

/* Submit a request, IOCB_CMD_PREAD or IOCB_CMD_PWRITE: 0 or a negative errno. */
static inline int aio_submit(aio_context_t ctx, int opcode, int fd, void *buf, size_t len,
			     uint64_t offset)
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

/*
 * Wait @seconds for at least @min and at most @max requests to complete. Return
 * how many did, or a negative errno.
 */
static inline int aio_wait(aio_context_t ctx, int min, int max, struct io_event *events,
			   int seconds)
{
	struct timespec limit = { .tv_sec = seconds };
	int n = syscall(SYS_io_getevents, ctx, min, max, events, &limit);

	return n < 0 ? -errno : n;
}

#endif
