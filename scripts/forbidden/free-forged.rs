// SPDX-License-Identifier: GPL-2.0
// error: E0451
//! Nobody makes up a folio that has no references.

use kernel::{
    memremap::{FreeFolio, PagemapOps},
    prelude::*,
};

struct Pages;

impl PagemapOps for Pages {
    fn folio_free(&self, folio: FreeFolio) {
        let again = FreeFolio {
            block: folio.block(),
            base: core::ptr::NonNull::dangling(),
        };

        drop(again);
    }
}
