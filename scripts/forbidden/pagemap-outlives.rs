// SPDX-License-Identifier: GPL-2.0
// error: lifetime
//! A driver cannot use a pagemap for longer than the device is bound.

use kernel::{
    device::Core,
    memremap::{CacheMode, Pagemap},
    pci,
    prelude::*,
};

fn keep(pdev: &pci::Device<Core<'_>>) -> Result<&'static Pagemap> {
    pdev.p2pdma_pagemap(2, 0..0x20_0000, CacheMode::Uncached)
}
