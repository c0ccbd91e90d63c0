// SPDX-License-Identifier: GPL-2.0
// error: lifetime
//! A driver cannot use the pool of the parent for longer than its own device is bound.

use kernel::{auxiliary, device::Core, pci::p2pdma::mmap::Source, prelude::*};

fn keep(adev: &auxiliary::Device<Core<'_>>) -> Result<Source<'static>> {
    adev.p2pdma_pool(c"memory")
}
