// SPDX-License-Identifier: GPL-2.0
// error: E0382
//! A driver cannot give a folio back twice.

include!("frame/allocator.rs");

fn folio_free(folio: FreeFolio) {
    folio.defer();
    drop(folio);
}
