/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The machine that the tests run on.
 *
 * The tests unbind the drivers of PCI functions and overwrite the start of a
 * disk. They do this only to the functions that the environment names:
 *
 *   P2PDMA_CMB=0000:01:00.0   an NVMe controller with a Controller Memory
 *                             Buffer (CMB), which nvme_cmb can drive
 *   P2PDMA_OTHER=0000:03:00.0 a PCI function with a memory BAR, which p2pbar
 *                             can drive; it is no NVMe controller
 *   P2PDMA_PEER=0000:02:00.0  an NVMe controller without a CMB, whose disk the
 *                             tests overwrite
 *   P2PDMA_CLIENT=0000:04:00.0
 *                             QEMU's educational device, which rust_driver_edu can drive.
 *                             QEMU must have been started with the option
 *                             dma_mask=0xffffffffffffffff of the device: otherwise its
 *                             DMA overwrites other memory
 *
 * These variables are optional. A test that needs one which is not set is
 * skipped.
 *
 *   P2PDMA_EXPECT=bus-address|host-bridge|not-supported
 *                             how the peer's DMA reaches the memory
 *   P2PDMA_SLOW, P2PDMA_FAST  shell commands that throttle the peer's disk, and
 *                             that end this
 *   P2PDMA_UNPLUG, P2PDMA_PLUG
 *                             shell commands that ask for P2PDMA_OTHER to be
 *                             removed from its slot, and that put it back
 *   P2PDMA_SURPRISE           a shell command that turns off the power of the slot of
 *                             a function, whose name is added as an argument
 *   P2PDMA_UNPLUG_CMB, P2PDMA_SURPRISE_CMB, P2PDMA_PLUG_CMB
 *                             the three for P2PDMA_CMB
 *   P2PDMA_ROUNDS=20          how often tests repeat what they repeat
 *   P2PDMA_SEED=1             the first random number of the fuzzers
 *   P2PDMA_FUZZ_SECONDS=20    how long each fuzzer runs, at most one hour
 */
#ifndef SELFTESTS_P2PDMA_TESTBED_H
#define SELFTESTS_P2PDMA_TESTBED_H

#include <stdbool.h>
#include <unistd.h>

#include "p2pdma.h"

/* Whether a condition is true, or becomes true within @ms milliseconds. */
#define WAIT_FOR(cond, ms) ({					\
	uint64_t __end = now_ms() + (ms);			\
	bool __true;						\
								\
	while (!(__true = (cond)) && now_ms() < __end)		\
		usleep(1000);					\
	__true;							\
})

/* The other end of the DMA: an NVMe controller and its disk. */
struct peer {
	struct pci_fn fn;	/* the NVMe controller P2PDMA_PEER */
	int disk;		/* its disk, open with O_DIRECT */
	int dma;		/* the result of DMA by the controller: 0, or -EINVAL
				 * if it cannot reach the memory
				 */
	bool slow;		/* whether the disk is throttled */
};

/*
 * Return why the tests cannot run here, or NULL. @env is the variable that has to
 * name the function with the memory.
 */
const char *testbed_lacks(const char *env);
/* Open the peer's disk, waiting for it to show up: 0 or a negative errno. */
int peer_open(struct peer *peer);
/* Whether peer_throttle() and peer_unthrottle() can be called. */
bool peer_can_throttle(void);
/* Run the shell commands: 0, or what system() returns. */
int peer_throttle(struct peer *peer);
int peer_unthrottle(struct peer *peer);

/* The number in an environment variable, or @def if it is not set. */
uint64_t number_from_env(const char *env, uint64_t def);

#endif
