// SPDX-License-Identifier: GPL-2.0
// error: lifetime
//! A driver cannot keep memory of a pool for longer than the device is bound.

use kernel::{pci::p2pdma, prelude::*};

fn keep(pool: p2pdma::Pool<'_>) -> Result<p2pdma::Mem<'static>> {
    pool.alloc(4096)
}
