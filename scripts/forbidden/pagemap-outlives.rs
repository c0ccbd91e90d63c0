// SPDX-License-Identifier: GPL-2.0
// error: lifetime
//! A pagemap cannot be used for longer than the device is bound.

use kernel::{
    device::Core,
    memremap::{CacheMode, Pagemap, PagemapOps},
    pci,
    prelude::*,
};

fn keep<T: PagemapOps>(pdev: &pci::Device<Core<'_>>, pages: T) -> Result<&'static Pagemap<T>> {
    pdev.p2pdma_add_pagemap(2, 0..0x20_0000, CacheMode::Uncached, Ok::<_, Error>(pages))
}
