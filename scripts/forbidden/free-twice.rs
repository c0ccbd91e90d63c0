// SPDX-License-Identifier: GPL-2.0
// error: E0382
//! A folio can be given back only once.

use kernel::{
    memremap::{FreeFolio, PagemapOps},
    prelude::*,
};

struct Pages;

impl PagemapOps for Pages {
    fn folio_free(&self, folio: FreeFolio) {
        folio.defer();
        drop(folio);
    }
}
