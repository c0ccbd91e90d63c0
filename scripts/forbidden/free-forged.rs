// SPDX-License-Identifier: GPL-2.0
// error: E0451
//! A driver cannot make a folio without references by itself.

include!("frame/allocator.rs");

fn folio_free(folio: FreeFolio) {
    let again = FreeFolio {
        block: folio.block(),
        base: core::ptr::NonNull::dangling(),
    };

    drop(again);
}
