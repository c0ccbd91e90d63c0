// SPDX-License-Identifier: GPL-2.0
// error: E0599
//! A driver adds memory of the parent while its own device is being probed, and not later.

use kernel::{
    auxiliary,
    device::Bound,
    memremap::{CacheMode, Pagemap},
    prelude::*,
};

fn late(adev: &auxiliary::Device<Bound>) -> Result<&Pagemap> {
    adev.p2pdma_pagemap(2, 0..0x20_0000, CacheMode::Uncached)
}
