// SPDX-License-Identifier: GPL-2.0
// error: E0277
//! An allocator that gets pages back in interrupts has to be Sync.

use kernel::{memremap::PageAllocator, mm::block_map::Block, prelude::*};

struct Pages(core::cell::Cell<usize>);

impl PageAllocator for Pages {
    fn alloc(&self, _: u32) -> Option<Block> {
        None
    }

    fn free(&self, _: Block) {
        self.0.set(self.0.get() + 1);
    }
}
