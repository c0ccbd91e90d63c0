// SPDX-License-Identifier: GPL-2.0
// An allocator without pages. The including file has `folio_free()`.

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
        folio_free(folio);
    }
}
