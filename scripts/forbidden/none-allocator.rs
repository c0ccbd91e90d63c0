// SPDX-License-Identifier: GPL-2.0
// error: none
//! The files that include this frame fail for their own code alone: this one compiles.

include!("frame/allocator.rs");

include!("frame/module.rs");

fn folio_free(folio: FreeFolio) {
    folio.defer();
}
