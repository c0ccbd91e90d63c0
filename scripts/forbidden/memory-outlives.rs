// SPDX-License-Identifier: GPL-2.0
// error: lifetime
//! Memory of a pool cannot be kept for longer than the device is bound.

use kernel::{pci::p2pdma, prelude::*};

fn keep(pool: p2pdma::Pool<'_>) -> Result<p2pdma::Mem<'static>> {
    pool.alloc(4096)
}
