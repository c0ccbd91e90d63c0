// SPDX-License-Identifier: GPL-2.0
// error: E0277
//! A driver cannot define a kind of files by itself.

use kernel::{bindings, mm::virt::MmapFile, prelude::*};

struct Forged;

impl MmapFile for Forged {
    type Data<'a> = &'a ();

    unsafe fn data<'a>(_: *const bindings::file) -> Option<&'a ()> {
        None
    }
}
