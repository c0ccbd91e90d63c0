// SPDX-License-Identifier: GPL-2.0
// error: E0507
//! A pagemap belongs to the device, and can neither be taken nor forgotten.

use kernel::{
    memremap::{Pagemap, PagemapOps},
    prelude::*,
};

fn forget<T: PagemapOps>(pagemap: &Pagemap<T>) {
    core::mem::forget(*pagemap);
}
