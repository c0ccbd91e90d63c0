// SPDX-License-Identifier: GPL-2.0
// error: E0599
//! Memory is added while the device is being probed, and not later.

use kernel::{
    device::Bound,
    memremap::{CacheMode, Pagemap, PagemapOps},
    pci,
    prelude::*,
};

fn late<T: PagemapOps>(pdev: &pci::Device<Bound>, pages: T) -> Result<&Pagemap<T>> {
    pdev.p2pdma_add_pagemap(2, 0..0x20_0000, CacheMode::Uncached, Ok::<_, Error>(pages))
}
