// SPDX-License-Identifier: GPL-2.0
// error: E0599
//! A driver adds memory while the device is being probed, and not later.

use kernel::{
    device::Bound,
    memremap::{CacheMode, Pagemap},
    pci,
    prelude::*,
};

fn late(pdev: &pci::Device<Bound>) -> Result<&Pagemap> {
    pdev.p2pdma_pagemap(2, 0..0x20_0000, CacheMode::Uncached)
}
