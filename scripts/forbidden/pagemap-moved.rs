// SPDX-License-Identifier: GPL-2.0
// error: E0507
//! A pagemap belongs to the device: a driver can neither take nor forget it.

use kernel::{memremap::Pagemap, prelude::*};

fn forget(pagemap: &Pagemap) {
    core::mem::forget(*pagemap);
}
