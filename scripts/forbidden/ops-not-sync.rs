// SPDX-License-Identifier: GPL-2.0
// error: E0277
//! What is told about folios in interrupts has to be Sync.

use kernel::{
    memremap::{FreeFolio, PagemapOps},
    prelude::*,
};

struct Pages(core::cell::Cell<usize>);

impl PagemapOps for Pages {
    fn folio_free(&self, _: FreeFolio) {
        self.0.set(self.0.get() + 1);
    }
}
