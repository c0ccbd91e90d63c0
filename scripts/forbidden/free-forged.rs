// SPDX-License-Identifier: GPL-2.0
// error: E0451
//! A driver cannot make a folio without references by itself.

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
        let again = FreeFolio {
            block: folio.block(),
            base: core::ptr::NonNull::dangling(),
        };

        drop(again);
    }
}
