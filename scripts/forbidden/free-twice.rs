// SPDX-License-Identifier: GPL-2.0
// error: E0382
//! A driver cannot give a folio back twice.

use kernel::{
    memremap::{FreeFolio, PageAllocator},
    mm::block_map::Block,
    prelude::*,
};

struct Pages;

impl PageAllocator for Pages {
    fn alloc(&self, _: u32) -> Option<Block> {
        None
    }

    fn free(&self, _: Block) {}

    fn folio_free(&self, folio: FreeFolio) {
        folio.defer();
        drop(folio);
    }
}
