/* SPDX-License-Identifier: GPL-2.0 */
/* DMA between a disk and memory, by O_DIRECT. */
#ifndef SELFTESTS_P2PDMA_DMA_H
#define SELFTESTS_P2PDMA_DMA_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* The tests write to the disk from this offset on, in bytes. */
#define DISK_OFFSET	0x200000ul

/* Transfer exactly @len bytes; return 0 or a negative errno. */
int pread_all(int fd, void *buf, size_t len, uint64_t offset);
int pwrite_all(int fd, const void *buf, size_t len, uint64_t offset);

/*
 * Write new data to the disk and let its controller write them to @mem, or
 * write new data to @mem and let the controller read them from there. Return 0,
 * -EBADMSG if other data arrive, or another negative errno.
 */
int dma_in(int disk, void *mem, size_t len);
int dma_out(int disk, void *mem, size_t len);

/*
 * fork_child() of a process that lets a disk write to @mem until the memory is gone: the
 * process exits with 0 when that fails with EFAULT or EIO, and with 1 after 60 s. Until
 * then each attempt must return @ret, an error if the disk cannot reach the memory. The
 * function returns after the second such attempt, or -1 if there is none in 10 s.
 */
pid_t dma_until_gone(int disk, void *mem, size_t len, int ret);

#endif
